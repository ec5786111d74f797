//! What the local API asks of the supervisor.

use std::sync::OnceLock;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hydrant_contracts::{Code, Error, Pattern, ServiceId, proto};

use crate::logs::{Followed, Follower, LogLine, Logs};
use crate::supervisor::Supervisor;

/// The supervised services of this server, and what they print.
#[async_trait]
pub trait Supervision: Send + Sync + 'static {
    /// Each supervised service with its processes.
    fn services(&self) -> Vec<proto::SupervisedService>;

    /// Changes the number of processes of a service; returns how many there should have been
    /// before.
    async fn scale(&self, service: &ServiceId, instances: u32) -> Result<u32, Error>;

    /// The last `tail` lines that the pattern means, then, with `follow`, those that come.
    fn logs(
        &self,
        pattern: Pattern,
        tail: usize,
        follow: bool,
    ) -> BoxStream<'static, Result<proto::LogLine, Error>>;
}

/// A supervisor that is started after the local API: its services need the API at once.
pub(crate) struct Supervised {
    pub(crate) logs: Logs,
    pub(crate) supervisor: OnceLock<Supervisor>,
}

#[async_trait]
impl Supervision for Supervised {
    fn services(&self) -> Vec<proto::SupervisedService> {
        let supervisor = self.supervisor.get();
        let status = supervisor.map(Supervisor::status).unwrap_or_default();
        status.iter().map(Into::into).collect()
    }

    async fn scale(&self, service: &ServiceId, instances: u32) -> Result<u32, Error> {
        let supervisor = self.supervisor.get().ok_or_else(starting)?;
        supervisor.scale(service, instances).await
    }

    fn logs(
        &self,
        pattern: Pattern,
        tail: usize,
        follow: bool,
    ) -> BoxStream<'static, Result<proto::LogLine, Error>> {
        let logs = self.logs.clone();
        let read = move || match follow {
            true => logs
                .tail_and_follow(pattern, tail)
                .map(|(lines, follower)| (lines, Some(follower))),
            false => logs.tail(&pattern, tail).map(|lines| (lines, None)),
        };
        // Reading files must not hold up an event loop.
        let read = async { tokio::task::spawn_blocking(read).await? };
        stream::once(read)
            .flat_map(|read| match read {
                Ok((lines, follower)) => past_and_future(lines, follower),
                Err(error) => stream::iter([Err(unreadable(&error))]).boxed(),
            })
            .boxed()
    }
}

fn past_and_future(
    lines: Vec<LogLine>,
    follower: Option<Follower>,
) -> BoxStream<'static, Result<proto::LogLine, Error>> {
    let past = stream::iter(lines).map(|line| Ok((&line).into()));
    let future = stream::unfold(follower, |follower| async {
        let mut follower = follower?;
        let line = match follower.next().await? {
            Followed::Line(line) => (&*line).into(),
            Followed::Missed(count) => missed(count),
        };
        Some((Ok(line), Some(follower)))
    });
    past.chain(future).boxed()
}

fn missed(count: u64) -> proto::LogLine {
    proto::LogLine {
        level: "warn".into(),
        message: format!("{count} lines came too fast and are left out here"),
        ..Default::default()
    }
}

fn starting() -> Error {
    let message = "the node is starting and supervises nothing yet";
    Error::new(Code::Unavailable, "starting", message)
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::new(
        Code::Internal,
        "logs_unreadable",
        format!("cannot read the logs: {error}"),
    )
}
