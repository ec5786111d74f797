//! Streams of changes on their way through the router.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::harness::is_soak;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_stream_goes_through_the_router_for_minutes_and_ends_when_its_instance_stops() {
    let stage = Stage::start();
    let mut stream = Stream::open(&stage, None);
    let first = stream.block();
    let id = field(&first, "id").expect("an id").to_owned();
    // Longer than an answer may take to begin, and than an idle connection is kept.
    let quiet = Duration::from_secs(if is_soak() { 200 } else { 17 });
    let began = Instant::now();
    let mut beats = 0;
    while began.elapsed() < quiet {
        assert_eq!(stream.block(), ":\n", "a comment, and nothing else");
        beats += 1;
    }
    println!("{beats} beats in {:?}", began.elapsed());
    assert!(beats >= 1);
    let began = Instant::now();
    stage.flags("Good day");
    let event = stream.block();
    println!("told after {:?}: {event}", began.elapsed());
    assert!(event.contains("refetchEvaluation"), "{event}");
    let began = Instant::now();
    let scaled = stage.node.json(&["scale", "api/mobile", "0"]);
    println!("{scaled}");
    stream.end();
    println!(
        "the stream ended {:?} after its service was stopped",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "a stream does not hold a stop: the node would wait for it for 30 s"
    );
    stage.node.json(&["scale", "api/mobile", "2"]);
    stage.node.wait("it answers again", |_| {
        let answer = stage.post("/ofrep/v1/evaluate/flags", &[]);
        (answer.status == 200).then_some(())
    });
    let mut again = Stream::open(&stage, Some(&id));
    let first = again.block();
    assert!(
        first.contains("refetchEvaluation"),
        "what it missed: {first}"
    );
}

#[test]
fn the_demo_answers_something_real_and_304_comes_from_any_instance() {
    let stage = Stage::start();
    let path = "/ofrep/v1/evaluate/flags";
    let first = stage.post(path, &[]);
    assert_eq!(first.status, 200);
    assert!(
        first.body["flags"]
            .as_array()
            .is_some_and(|flags| !flags.is_empty())
    );
    for _ in 0..10 {
        let again = stage.post(path, &[("if-none-match", &first.etag)]);
        assert_eq!(again.status, 304, "the same tag from every instance");
    }
    let wrong = stage.post(path, &[("authorization", "Bearer hyk_wrong")]);
    assert_eq!(wrong.status, 401);
    let slow = [("x-api-key", stage.slow.as_str())];
    let refused = (0..20)
        .map(|_| stage.post(path, &slow))
        .find(|answer| answer.status == 429);
    let wait = refused.expect("a limit").retry_after.expect("a time");
    assert!(
        (1..=2).contains(&wait.parse::<u64>().expect("seconds")),
        "{wait}"
    );
}

/// A stream over a socket of its own, read block by block.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(stage: &Stage, last: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(stage.node.public()).expect("the router answers");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let last = last.map(|id| format!("last-event-id: {id}\r\n"));
        let head = format!(
            "GET /api/mobile/ofrep/v1/events HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
            last.unwrap_or_default()
        );
        socket.write_all(head.as_bytes()).expect("the router reads");
        let mut stream = Self(BufReader::new(socket));
        let head = stream.until_empty("\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        stream
    }

    /// The next chunk, which has one block.
    fn block(&mut self) -> String {
        let size = self.line();
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        assert_ne!(size, 0, "the stream goes on");
        let text = self.until_empty("\n");
        assert_eq!(self.line(), "\r\n");
        text
    }

    /// Reads on until it ends.
    fn end(&mut self) {
        loop {
            let line = self.line();
            if line.is_empty() || line == "0\r\n" {
                return;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line
    }

    fn until_empty(&mut self, empty: &str) -> String {
        let mut text = String::new();
        loop {
            let line = self.line();
            if line == empty || line.is_empty() {
                return text;
            }
            text += &line;
        }
    }
}

fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = block.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
