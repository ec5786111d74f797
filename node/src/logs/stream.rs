use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hydrant_contracts::{Pattern, proto};

use super::{Followed, Follower, Logs};

impl Logs {
    /// The last `tail` lines that the pattern means, then, with `follow`, those that come, as the
    /// local API sends them. A line of the level `warn` without a service tells of lines missed,
    /// or of a log that can't be read.
    pub fn stream(
        &self,
        pattern: Pattern,
        tail: usize,
        follow: bool,
    ) -> BoxStream<'static, proto::LogLine> {
        let logs = self.clone();
        let begin = async move {
            let read = tokio::task::spawn_blocking(move || logs.tail_and_follow(pattern, tail));
            match read.await.unwrap_or_else(|error| Err(error.into())) {
                Ok((lines, follower)) => (
                    lines.iter().map(proto::LogLine::from).collect(),
                    follow.then_some(follower),
                ),
                Err(error) => (vec![note(format!("cannot read the logs: {error}"))], None),
            }
        };
        let parts = stream::once(begin).flat_map(|(lines, follower): (Vec<_>, _)| {
            let coming = stream::iter(follower).flat_map(following);
            stream::iter(lines).chain(coming)
        });
        parts.boxed()
    }
}

fn following(follower: Follower) -> impl futures::Stream<Item = proto::LogLine> {
    stream::unfold(follower, |mut follower| async move {
        let line = match follower.next().await? {
            Followed::Line(line) => proto::LogLine::from(&*line),
            Followed::Missed(count) => {
                note(format!("{count} lines came too fast and are left out"))
            }
        };
        Some((line, follower))
    })
}

fn note(message: String) -> proto::LogLine {
    proto::LogLine {
        level: "warn".into(),
        message,
        ..Default::default()
    }
}
