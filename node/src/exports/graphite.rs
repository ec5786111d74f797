use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::ServerName;
use hydrant_runtime::Backoff;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outbox::{Item, Outbox};

/// How many bytes may wait: hours of a usual node.
pub(super) const MOST_WAITING: usize = 4 << 20;
/// How much is written at once.
const MOST_AT_ONCE: usize = 256 * 1024;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long a path may be: a file system's names end at 255.
const LONGEST_PART: usize = 80;

/// How metrics are named.
pub(super) struct Paths {
    prefix: String,
    server: String,
}

impl Paths {
    pub(super) fn new(prefix: &str, server: &ServerName) -> Self {
        Self {
            prefix: prefix.to_owned(),
            server: part(&server.to_string()),
        }
    }

    /// What stands in Prometheus' text as lines of Graphite, and how many: `hydrant_leases 3` becomes
    /// `PREFIX.SERVER.leases 3 TIME`, and labels become parts of the path behind the name. Instances and
    /// versions are summed up: their names change with each start, and a path stays for ever. Buckets are
    /// left out.
    pub(super) fn lines(&self, text: &str, time: i64) -> (String, u64) {
        let mut sums = BTreeMap::new();
        for (path, value) in text.lines().filter_map(sample) {
            *sums.entry(path).or_insert(0.0) += value;
        }
        let mut lines = String::new();
        for (path, value) in &sums {
            // Writing to a string can't fail.
            let _ = writeln!(
                lines,
                "{}.{}.{path} {value} {time}",
                self.prefix, self.server
            );
        }
        (lines, sums.len() as u64)
    }
}

/// The path and the value of a line such as `hydrant_leases{tier="api"} 3`.
fn sample(line: &str) -> Option<(String, f64)> {
    let (name, value) = line.rsplit_once(' ')?;
    let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    if name.starts_with('#') || name.ends_with("_bucket") || name.ends_with("_info") {
        return None;
    }
    let mut path = name.strip_prefix("hydrant_").unwrap_or(name).to_owned();
    let labels = labels.trim_end_matches('}').split("\",");
    for (label, value) in labels.filter_map(|label| label.split_once("=\"")) {
        if !["instance", "version", "server"].contains(&label) {
            path = path + "." + &part(value.trim_end_matches('"'));
        }
    }
    Some((path, value))
}

/// A part of a path: a dot would begin another one.
fn part(text: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let good = text.chars().map(|c| if is_good(c) { c } else { '_' });
    good.take(LONGEST_PART).collect()
}

/// Writes what is in the box, over one connection after the other.
pub(super) async fn send(address: String, outbox: Arc<Outbox>) {
    let mut waits = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut connection = None;
    while let Some(items) = outbox.take(MOST_AT_ONCE).await {
        // Of what was written to a connection that broke nobody knows how much was read. The same value at
        // the same time may come twice.
        while let Err(error) = write(&mut connection, &address, &items).await {
            connection = None;
            outbox.fails(format!("{address}: {error}"));
            tokio::time::sleep(waits.next_wait()).await;
        }
        waits.reset();
        outbox.taken(&items);
    }
}

async fn write(
    connection: &mut Option<TcpStream>,
    address: &str,
    items: &[Item],
) -> io::Result<()> {
    if connection.as_ref().is_some_and(is_closed) {
        *connection = None;
    }
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(in_time(CONNECT_WITHIN, TcpStream::connect(address)).await?),
    };
    for item in items {
        in_time(WRITE_WITHIN, stream.write_all(item.text.as_bytes())).await?;
    }
    Ok(())
}

/// The receiver says nothing, ever: what can be read is the end.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes nothing");
    timeout(limit, work).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_paths() {
        let paths = Paths::new("hydrant", &"shop-1".parse().unwrap());
        let text = "# HELP hydrant_leases Held.\n# TYPE hydrant_leases gauge\nhydrant_leases 3\n\
                    hydrant_node_info{server=\"a\",version=\"1\"} 1\n\
                    hydrant_instance_requests_total{tier=\"api\",service=\"shop\",instance=\"shop-1\",version=\"1.0.0\"} 2\n\
                    hydrant_instance_requests_total{tier=\"api\",service=\"shop\",instance=\"shop-2\",version=\"1.0.1\"} 5\n\
                    hydrant_engine_up{port=\"state\",engine=\"e.f g\"} 1\n\
                    hydrant_x_bucket{le=\"0.1\"} 1\nhydrant_node_uptime_seconds 1.5\n";
        let (lines, count) = paths.lines(text, 17);
        assert_eq!(
            lines,
            "hydrant.shop-1.engine_up.state.e_f_g 1 17\n\
             hydrant.shop-1.instance_requests_total.api.shop 7 17\n\
             hydrant.shop-1.leases 3 17\n\
             hydrant.shop-1.node_uptime_seconds 1.5 17\n"
        );
        assert_eq!(count, 4);
    }
}
