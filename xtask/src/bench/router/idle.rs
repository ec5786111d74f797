//! Connections that do nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::Result;

/// How many of them memory is measured with.
pub(super) const COUNTS: [usize; 2] = [1000, 10_000];

/// Opens some, and asks once on each.
pub(super) fn open(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    (0..count).map(|_| asked(port)).collect()
}

fn asked(port: u16) -> Result<TcpStream> {
    let wrong = |error: std::io::Error| format!("an idle connection to port {port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(wrong)?;
    ask(&mut stream).map_err(wrong)?;
    Ok(stream)
}

/// One small GET on a kept connection, until its answer is there.
pub(super) fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET /api/bench/small HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&part[..count]),
        }
    }
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other("the answer is not 200")),
    }
}

/// The head and the 200 bytes behind it.
fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    end.is_some_and(|end| answer.len() >= end + 4 + super::peers::SMALL)
}
