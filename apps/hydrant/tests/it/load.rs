//! Steady load over keep-alive connections, which counts every answer that is not what it should
//! be. Written by hand, so that no client library repeats a request behind the test's back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests that were answered with 200.
    pub good: u64,
    /// Descriptions of the others, the first 20.
    pub failures: Vec<String>,
}

/// GETs of one path over many connections, until it is stopped.
pub struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    good: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts `connections` loops of GET `path`, each with a pause of `pause` between requests.
    pub fn start(address: SocketAddr, path: &str, connections: usize, pause: Duration) -> Self {
        Self::start_with("", address, path, connections, pause)
    }

    /// As [`start`](Self::start), with a new connection for each request.
    pub fn fresh(address: SocketAddr, path: &str, connections: usize, pause: Duration) -> Self {
        Self::start_with("connection: close\r\n", address, path, connections, pause)
    }

    fn start_with(
        field: &str,
        address: SocketAddr,
        path: &str,
        connections: usize,
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let good = Arc::new(AtomicU64::new(0));
        let request: Arc<str> =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{field}\r\n").into();
        let tasks = (0..connections)
            .map(|_| {
                let (stop, good, request) = (stop.clone(), good.clone(), request.clone());
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(failure) =
                            connection(address, &request, pause, &stop, &good).await
                        {
                            failures.push(failure);
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { stop, good, tasks }
    }

    /// How many requests were answered well so far.
    pub fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }

    /// Stops and tells what was seen.
    pub async fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.expect("a load task does not panic"));
        }
        failures.truncate(20);
        Outcome {
            good: self.good.load(Ordering::Relaxed),
            failures,
        }
    }
}

/// Sends requests over one connection until the load stops, or the answer says that it was the last; an answer that is not a 200 within 10
/// seconds, or a connection that breaks, is a failure.
async fn connection(
    address: SocketAddr,
    request: &str,
    pause: Duration,
    stop: &std::sync::atomic::AtomicBool,
    good: &AtomicU64,
) -> Result<(), String> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|e| format!("connect: {e}"))?;
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|e| format!("write: {e}"))?;
        let (status, is_last) =
            tokio::time::timeout(Duration::from_secs(10), answer(&mut stream, &mut buffer))
                .await
                .map_err(|_| "no answer within 10 s".to_owned())?
                .map_err(|e| format!("after {:?}: {e}", begun.elapsed()))?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&buffer)));
        }
        good.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Reads one answer framed by its length into `buffer` and returns its status, and whether it is the last.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, bool), String> {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let status = head
                .get(9..12)
                .and_then(|code| code.parse().ok())
                .ok_or("no status")?;
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0usize);
            if buffer.len() >= end + 4 + length {
                return Ok((status, head.contains("\r\nconnection: close")));
            }
        }
        let read = stream
            .read_buf(buffer)
            .await
            .map_err(|e| format!("read: {e}"))?;
        if read == 0 {
            return Err(format!("closed after {} bytes", buffer.len()));
        }
    }
}
