//! What must not cost memory: bodies, however long, and connections that wait.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Node, Setup};

const MB: u64 = 1 << 20;
/// How much goes each way.
const TOTAL: u64 = 1024 * MB;

#[test]
fn a_gigabyte_each_way_leaves_the_memory_where_it_was() {
    let node = Setup::node("").start();
    let _backend = Backend::start(&node);
    for (what, transfer) in [
        ("down, by its length", download as fn(&Node, &str) -> u64),
        ("down, in chunks", download),
        ("up, by its length", upload),
        ("up, in chunks", upload),
    ] {
        let begun = Instant::now();
        let target = match what.ends_with("chunks") {
            true => "/api/big/chunked",
            false => "/api/big/length",
        };
        assert_eq!(transfer(&node, target), TOTAL, "{what}");
        println!(
            "{what}: {:.1?}, peak {} MB",
            begun.elapsed(),
            peak(&node) / MB
        );
    }
    assert!(peak(&node) < 64 * MB, "peak: {} MB", peak(&node) / MB);
}

#[test]
fn ten_thousand_idle_connections_are_cheap() {
    if !raise_open_files(11_000) {
        println!("SKIPPED: the system allows less than 11,000 open files");
        return;
    }
    let node = Setup::up().start();
    let before = resident(&node);
    let mut connections: Vec<TcpStream> = (0..10_000)
        .map(|_| TcpStream::connect(node.public()).expect("a connection"))
        .collect();
    // Each has served a request, so that what a connection keeps after it counts as well.
    for connection in &mut connections {
        assert_eq!(
            get(connection, "/api/demo-upstream/v1/count").expect("an answer"),
            200
        );
    }
    let after = resident(&node);
    println!(
        "10,000 idle connections: {} MB, {} MB before",
        after / MB,
        before / MB
    );
    assert!(after < 150 * MB, "{} MB", after / MB);
    for connection in connections.iter_mut().step_by(100) {
        assert_eq!(
            get(connection, "/api/demo-upstream/v1/count").expect("an answer"),
            200
        );
    }
}

/// A server of large bodies that this test runs itself, behind the host as api/big.
struct Backend(Child);

impl Backend {
    fn start(node: &Node) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port");
        let port = address.port().to_string();
        let arguments = [
            "run",
            "--service",
            "big",
            "--version",
            "1.0.0",
            "--port",
            &port,
        ];
        let child = node
            .command(&[&arguments[..], &["--", "sleep", "600"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let backend = Self(child);
        let is = |state: &'static str| {
            move |node: &Node| {
                let found = node
                    .instances("big")
                    .iter()
                    .any(|one| one["state"] == state);
                found.then_some(())
            }
        };
        // The port has to be free until the command is started that is said to listen on it.
        node.wait("it is starting", is("starting"));
        let listener = TcpListener::bind(address).expect("the port is still free");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        node.wait("it is ready", is("ready"));
        backend
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves one connection: a GET is answered with a large body, a POST with the size of its body.
fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    let mut writer = stream;
    while let Some(head) = read_head(&mut reader)? {
        if head.starts_with("GET ") {
            let chunked = head.contains("/chunked");
            let framing = framing(chunked);
            write!(writer, "HTTP/1.1 200 OK\r\n{framing}\r\n")?;
            send_body(&mut writer, chunked)?;
        } else {
            let size = read_body(&mut reader, &head)?.to_string();
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{size}",
                size.len()
            )?;
        }
    }
    Ok(())
}

fn download(node: &Node, target: &str) -> u64 {
    let mut stream = TcpStream::connect(node.public()).expect("a connection");
    let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let head = read_head(&mut reader)
        .expect("an answer")
        .expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    read_body(&mut reader, &head).expect("a whole body")
}

fn upload(node: &Node, target: &str) -> u64 {
    let mut stream = TcpStream::connect(node.public()).expect("a connection");
    let chunked = target.ends_with("chunked");
    let framing = framing(chunked);
    let head = format!("POST {target} HTTP/1.1\r\nhost: test\r\n{framing}\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    send_body(&mut stream, chunked).expect("sent");
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)
        .expect("an answer")
        .expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut size = vec![0; length(&head).expect("a length") as usize];
    reader.read_exact(&mut size).expect("a whole body");
    String::from_utf8_lossy(&size).parse().expect("a number")
}

fn framing(chunked: bool) -> String {
    match chunked {
        true => "transfer-encoding: chunked\r\n".into(),
        false => format!("content-length: {}\r\n", TOTAL),
    }
}

fn send_body(writer: &mut TcpStream, chunked: bool) -> io::Result<()> {
    let piece = vec![b'x'; MB as usize];
    for _ in 0..TOTAL / MB {
        if chunked {
            write!(writer, "{:x}\r\n", piece.len())?;
        }
        writer.write_all(&piece)?;
        if chunked {
            writer.write_all(b"\r\n")?;
        }
    }
    if chunked {
        writer.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// The head of a message, in lower case; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head.replace("Content-Length", "content-length")))
}

/// Reads a body and tells its size without its framing.
fn read_body(reader: &mut impl BufRead, head: &str) -> io::Result<u64> {
    if let Some(length) = length(head) {
        return io::copy(&mut reader.take(length), &mut io::sink());
    }
    let mut size = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let chunk = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        size += io::copy(&mut reader.take(chunk), &mut io::sink())?;
        reader.read_line(&mut line)?;
        if chunk == 0 {
            return Ok(size);
        }
    }
}

fn length(head: &str) -> Option<u64> {
    head.lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
}

/// Sends a GET over an open connection and gives the status of the answer.
fn get(stream: &mut TcpStream, target: &str) -> io::Result<u16> {
    let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    read_body(&mut reader, &head)?;
    head.get(9..12)
        .and_then(|code| code.parse().ok())
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// The most memory that the node ever had, in bytes.
fn peak(node: &Node) -> u64 {
    memory(node, "VmHWM:")
}

/// The memory that the node has, in bytes.
fn resident(node: &Node) -> u64 {
    memory(node, "VmRSS:")
}

fn memory(node: &Node, field: &str) -> u64 {
    let path = format!("/proc/{}/status", node.pid());
    let status = std::fs::read_to_string(path).expect("the node runs");
    let kb = status.lines().find_map(|line| {
        line.strip_prefix(field)?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kb.expect("the system tells it") * 1024
}

/// Raises the limit of this process, as far as the system allows.
fn raise_open_files(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile)
        .current
        .is_none_or(|current| current >= wanted)
}
