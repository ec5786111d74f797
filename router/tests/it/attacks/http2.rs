//! Clients of HTTP/2 that send floods of frames, or take nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::victim::{Cost, Victim};
use crate::raw::{Backend, PATIENCE, ok, pause};

const LONG: Duration = Duration::from_secs(60);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// A field as it is written without any table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        assert!(text.len() < 127);
        [&[text.len() as u8], text.as_bytes()].concat()
    };
    [vec![0], string(name), string(value)].concat()
}

fn fields(path: &str) -> Vec<u8> {
    [
        literal(":method", "GET"),
        literal(":scheme", "http"),
        literal(":authority", "test"),
        literal(":path", path),
    ]
    .concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(path))
}

/// A connection on which the preface was sent.
fn connect(victim: &Victim, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(victim.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let preface = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &frame(SETTINGS, 0, 0, settings)[..],
    ];
    stream.write_all(&preface.concat()).unwrap();
    stream
}

fn backend() -> Backend {
    Backend::start(|mut wire, seen| {
        while let Some(request) = wire.message(false) {
            seen.note(&request);
            if !request.head.contains(" /endless ") {
                if request.head.contains(" /slow ") {
                    pause(Duration::from_millis(200));
                }
                if wire.try_send(ok(b"good")).is_err() {
                    return;
                }
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
            // The router is to end it, and not this side's own patience.
            wire.stream().set_write_timeout(Some(4 * PATIENCE)).unwrap();
            while wire.try_send([b'x'; 65_536]).is_ok() {}
        }
    })
}

/// Sends frames again and again, without reading what is answered, until the router ends the
/// connection, takes nothing more, or has taken `most` of them. Tells how many it took.
fn flood(stream: &mut TcpStream, most: usize, batch: impl Fn(usize) -> Vec<u8>) -> usize {
    const AT_ONCE: usize = 100;
    for sent in (0..most).step_by(AT_ONCE) {
        let bytes: Vec<u8> = (sent..sent + AT_ONCE).flat_map(&batch).collect();
        if stream.write_all(&bytes).is_err() {
            return sent;
        }
    }
    most
}

/// Waits until the router has read all that was sent to it, or has ended the connection.
fn settle(stream: &mut TcpStream) {
    const LAST: &[u8] = b"the last";
    let (mut seen, mut buffer) = (Vec::new(), [0; 65_536]);
    if stream.write_all(&frame(PING, 0, 0, LAST)).is_err() {
        return;
    }
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        if seen.windows(LAST.len()).any(|window| window == LAST) {
            return;
        }
        seen.drain(..seen.len().saturating_sub(LAST.len()));
    }
}

/// Whether the router has ended the connection, or ends it now.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn floods_of_frames_cost_their_sender_more_than_the_router() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let setting = [0, 3, 0, 0, 0, 100];
    let weight = [0, 0, 0, 0, 1];
    let more = 1_u32.to_be_bytes();
    let floods: [(&str, Vec<u8>); 6] = [
        ("pings", frame(PING, 0, 0, b"12345678")),
        ("settings", frame(SETTINGS, 0, 0, &setting)),
        ("empty settings", frame(SETTINGS, 0, 0, b"")),
        ("priorities", frame(PRIORITY, 0, 1, &weight)),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &more)),
        ("unknown frames", frame(0xee, 0, 0, b"")),
    ];
    for (name, bytes) in floods {
        let cost = Cost::of(&victim);
        let mut stream = connect(&victim, b"");
        let taken = flood(&mut stream, 200_000, |_| bytes.clone());
        settle(&mut stream);
        let figures = cost.told(&format!("{taken} {name}"));
        assert!(figures.megabytes < 20, "{name}: {figures}");
        assert!(figures.cpu < Duration::from_secs(20), "{name}: {figures}");
    }
}

#[test]
fn a_stream_of_nothing_is_no_work() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let cost = Cost::of(&victim);
    let mut stream = connect(&victim, b"");
    let head = [
        literal(":method", "POST"),
        fields("/api/t/good")[literal(":method", "GET").len()..].to_vec(),
    ];
    stream
        .write_all(&frame(HEADERS, END_HEADERS, 1, &head.concat()))
        .unwrap();
    let taken = flood(&mut stream, 200_000, |_| frame(DATA, 0, 1, b""));
    settle(&mut stream);
    let figures = cost.told(&format!("{taken} empty frames of a body"));
    assert!(figures.megabytes < 20, "{figures}");
}

#[test]
fn continuations_without_an_end_are_ended() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let cost = Cost::of(&victim);
    let mut stream = connect(&victim, b"");
    let begin = frame(HEADERS, END_STREAM, 1, &fields("/api/t/good"));
    stream.write_all(&begin).unwrap();
    let more = literal("a", &"b".repeat(100)).repeat(100);
    let taken = flood(&mut stream, 20_000, |_| frame(CONTINUATION, 0, 1, &more));
    let figures = cost.told(&format!("{taken} continuations of 10 KB"));
    assert!(taken < 20_000, "all were taken");
    assert!(is_ended(&mut stream));
    assert!(figures.megabytes < 20, "{figures}");
    let mut stream = connect(&victim, b"");
    stream.write_all(&begin).unwrap();
    let cost = Cost::of(&victim);
    let taken = flood(&mut stream, 200_000, |_| frame(CONTINUATION, 0, 1, b""));
    let figures = cost.told(&format!("{taken} empty continuations"));
    assert!(is_ended(&mut stream));
    assert!(figures.megabytes < 20, "{figures}");
}

/// One field of 4 KB in the table, and thousands of references to it, of a byte each.
#[test]
fn a_small_head_that_unfolds_to_megabytes_is_refused() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let cost = Cost::of(&victim);
    let mut stream = connect(&victim, b"");
    let value = "x".repeat(4_000);
    // With indexing: a name of one byte, and a value whose length is a number of seven bits and more.
    let rest = value.len() - 127;
    let length = [0x7f, 0x80 | (rest & 0x7f) as u8, (rest >> 7) as u8];
    let entry = [&[0x40, 1, b'a'][..], &length, value.as_bytes()].concat();
    let first = [fields("/api/t/good"), entry].concat();
    stream
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &first))
        .unwrap();
    // Index 62 is the newest entry of the table.
    let bomb = [fields("/api/t/bomb"), vec![0x80 | 62; 16_000]].concat();
    let taken = flood(&mut stream, 1_000, |at| {
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * at as u32 + 3, &bomb)
    });
    let figures = cost.told(&format!("{taken} heads of 16 KB that unfold to 64 MB each"));
    let seen = backend.seen.lock().unwrap();
    assert!(
        !seen.iter().any(|request| request.head.contains("bomb")),
        "an instance saw one"
    );
    assert!(figures.megabytes < 100, "{figures}");
    assert!(figures.slowest < Duration::from_secs(5), "{figures}");
}

#[test]
fn streams_that_are_reset_at_once_do_not_multiply_work() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    for path in ["/api/t/slow", "/api/none/x"] {
        let before = backend.requests();
        let cost = Cost::of(&victim);
        let mut stream = connect(&victim, b"");
        let taken = flood(&mut stream, 50_000, |at| {
            let number = 2 * at as u32 + 1;
            let reset = frame(RST_STREAM, 0, number, &8_u32.to_be_bytes());
            [get(number, path), reset].concat()
        });
        let served = {
            let figures = cost.told(&format!("{taken} streams of {path}, reset at once"));
            assert!(figures.megabytes < 50, "{figures}");
            figures.served
        };
        let seen = backend.requests() - before - served;
        println!("the instance saw {seen} of them");
        assert!(taken < 50_000, "all were taken");
        assert!(is_ended(&mut stream));
    }
}

/// The client waits until the instance has a request before it resets it: what counts resets of streams
/// that nobody has looked at sees nothing in that.
#[test]
fn streams_that_are_reset_when_they_are_under_way_do_not_multiply_work() {
    const EACH: usize = 10;
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let slow = || {
        let seen = backend.seen.lock().unwrap();
        seen.iter()
            .filter(|request| request.head.contains(" /slow "))
            .count()
    };
    let cost = Cost::of(&victim);
    let mut stream = connect(&victim, b"");
    let mut taken = 0;
    while taken < 5_000 {
        let batch = (taken..taken + EACH).map(|at| 2 * at as u32 + 1);
        let asked: Vec<u8> = batch
            .clone()
            .flat_map(|number| get(number, "/api/t/slow"))
            .collect();
        if stream.write_all(&asked).is_err() {
            break;
        }
        let began = Instant::now();
        while slow() < taken + EACH && began.elapsed() < Duration::from_secs(3) {
            pause(Duration::from_millis(1));
        }
        if slow() < taken + EACH {
            break;
        }
        let cancel = 8_u32.to_be_bytes();
        let reset = batch.flat_map(|number| frame(RST_STREAM, 0, number, &cancel));
        if stream.write_all(&reset.collect::<Vec<_>>()).is_err() {
            break;
        }
        taken += EACH;
    }
    let figures = cost.told(&format!("{taken} streams, reset while they are under way"));
    assert!(taken < 1_000, "{taken} were taken");
    assert!(is_ended(&mut stream));
    assert!(figures.megabytes < 50, "{figures}");
}

/// A client of HTTP/2 that gives up now and then is no attacker.
#[test]
fn a_client_that_resets_few_of_many_streams_is_served_on() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let mut stream = connect(&victim, b"");
    let more = 0x7000_0000_u32.to_be_bytes();
    stream
        .write_all(&frame(WINDOW_UPDATE, 0, 0, &more))
        .unwrap();
    for at in (0..3_000).step_by(3) {
        let cancel = 8_u32.to_be_bytes();
        let numbers = [2 * at + 1, 2 * at + 3, 2 * at + 5];
        let asked = numbers.map(|number| get(number, "/api/none/x")).concat();
        let reset = frame(RST_STREAM, 0, numbers[2], &cancel);
        stream.write_all(&[asked, reset].concat()).unwrap();
        settle(&mut stream);
    }
    stream.write_all(&frame(PING, 0, 0, b"are you?")).unwrap();
    settle(&mut stream);
    assert!(!is_ended(&mut stream), "it was shut out");
}

#[test]
fn a_client_that_takes_nothing_of_many_answers_holds_little_and_is_left() {
    let backend = backend();
    let limit = Duration::from_secs(3);
    let victim = Victim::start(backend.address, false, limit);
    let cost = Cost::of(&victim);
    // The largest window, so that only the connection's own holds anything back.
    let window = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(&victim, &window)).collect();
    for stream in &mut streams {
        let more = frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
        let asked = (0..100).flat_map(|at| get(2 * at + 1, "/api/t/endless"));
        stream.write_all(&[more, asked.collect()].concat()).unwrap();
    }
    let began = Instant::now();
    let most = (0..20).map(|_| {
        pause(Duration::from_millis(50));
        victim.memory()
    });
    println!("at most {} MB in all", most.max().unwrap_or(0) / 1_000_000);
    while backend.open() > 10 {
        assert!(
            // A client that answered pings would not even be left after the 50 s that these take.
            began.elapsed() < 2 * PATIENCE,
            "{} are still served",
            backend.open()
        );
        pause(Duration::from_millis(20));
    }
    let figures = cost.told("4 clients that take nothing of 100 large answers each");
    assert!(figures.megabytes < 200, "{figures}");
}
