//! How long answers take at a fixed rate, which does not wait for them.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Result, idle};

/// Requests a second.
pub(super) const RATE: u32 = 2000;
/// They come in turn on so many connections.
const CONNECTIONS: u32 = 16;

/// In microseconds.
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Asks a port for some seconds.
pub(super) fn run(port: u16, seconds: u32) -> Result<Latency> {
    let begin = Instant::now() + Duration::from_millis(20);
    let threads =
        (0..CONNECTIONS).map(|at| std::thread::spawn(move || one(port, begin, at, seconds)));
    let threads: Vec<_> = threads.collect();
    let mut all = Vec::new();
    for thread in threads {
        let times = thread
            .join()
            .map_err(|_| "a connection's thread has panicked")?;
        all.extend(times.map_err(|error| format!("port {port}: {error}"))?);
    }
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    Ok(Latency {
        p50: at(0.5),
        p99: at(0.99),
    })
}

/// One connection's requests. A request that the one before holds up has begun when it was due; what
/// this thread itself oversleeps does not count.
fn one(port: u16, begin: Instant, at: u32, seconds: u32) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let gap = Duration::from_secs(1) / RATE;
    let turns = RATE * seconds / CONNECTIONS;
    (0..turns)
        .map(|turn| {
            let due = begin + gap * (turn * CONNECTIONS + at);
            let is_late = Instant::now() >= due;
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            let begun = if is_late { due } else { Instant::now() };
            idle::ask(&mut stream)?;
            Ok(begun.elapsed())
        })
        .collect()
}
