//! Both ends of the WebSocket measurement. `echo serve PORT` sends each message back.
//! `echo load PORT CONNECTIONS SECONDS` sends one message after the other on each connection, and prints
//! how many came back.
//!
//! All messages are masked with zeros, so that both ends cost little: the mask is the client's own choice.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// The example of RFC 6455, whose answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Of one message; below 126, so that its length is in the second byte.
const MESSAGE: usize = 100;
/// A whole binary message.
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MAX_HEAD: usize = 8192;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => tasks.block_on(&runtime, serve(port.parse()?))?,
        ["load", port, connections, seconds] => {
            let (port, connections) = (port.parse()?, connections.parse()?);
            let time = Duration::from_secs(seconds.parse()?);
            let load = load(port, connections, time);
            println!("{}", tasks.block_on(&runtime, load)?);
        }
        _ => return Err("echo serve PORT, or echo load PORT CONNECTIONS SECONDS".into()),
    }
    Ok(())
}

async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    head(&mut stream).await?;
    let accepted = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(accepted.as_bytes()).await?;
    let mut frame = [0; 6 + MESSAGE];
    loop {
        stream.read_exact(&mut frame).await?;
        // Without the four bytes of the mask.
        frame[4] = BINARY;
        frame[5] = MESSAGE as u8;
        stream.write_all(&frame[4..]).await?;
    }
}

async fn load(port: u16, connections: u32, time: Duration) -> io::Result<u64> {
    let count = Rc::new(Cell::new(0));
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(upgraded(port).await?);
    }
    for stream in streams {
        tokio::task::spawn_local(send(stream, count.clone()));
    }
    tokio::time::sleep(time).await;
    Ok(count.get())
}

async fn upgraded(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /api/echo/ HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let head = head(&mut stream).await?;
    match head.starts_with(b"HTTP/1.1 101 ") {
        true => Ok(stream),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&head).into_owned(),
        )),
    }
}

async fn send(mut stream: TcpStream, count: Rc<Cell<u64>>) -> io::Result<()> {
    let mut frame = [0; 6 + MESSAGE];
    frame[0] = BINARY;
    frame[1] = MASKED | MESSAGE as u8;
    let mut back = [0; 2 + MESSAGE];
    loop {
        stream.write_all(&frame).await?;
        stream.read_exact(&mut back).await?;
        count.set(count.get() + 1);
    }
}

/// Up to the empty line.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}
