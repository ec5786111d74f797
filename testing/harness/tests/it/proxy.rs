//! The proxy's faults do what they say.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hydrant_harness::{Proxy, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Gives back what it is sent, on any number of connections.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut to = stream.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut &stream, &mut to);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

fn ask(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, bytes);
    Ok(())
}

#[test]
fn everything_passes_and_ends_pass_too() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy);
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(reading.join().unwrap().unwrap(), sent);
    assert!(wait_until(PATIENCE, || proxy.connections() == 0));
}

#[test]
fn a_cut_resets_and_refuses_until_it_is_restored() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy);
    ask(&mut stream, b"before").unwrap();
    for _ in 0..3 {
        proxy.cut();
        let refused = TcpStream::connect(proxy.address());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let reset = stream.read(&mut [0; 1]);
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
        proxy.restore();
        stream = connect(&proxy);
        ask(&mut stream, b"after").unwrap();
    }
}

#[test]
fn held_connections_stay_silent_and_then_go_on() {
    let proxy = Proxy::start(echo());
    let mut old = connect(&proxy);
    ask(&mut old, b"before").unwrap();
    proxy.hold();
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"held").unwrap();
        let short = Duration::from_millis(200);
        stream.set_read_timeout(Some(short)).unwrap();
        let silent = stream.read(&mut [0; 4]).unwrap_err().kind();
        assert!(matches!(
            silent,
            ErrorKind::WouldBlock | ErrorKind::TimedOut
        ));
    }
    proxy.restore();
    for stream in [&mut old, &mut new] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
    }
}

#[test]
fn delay_and_throttle_take_their_time() {
    let proxy = Proxy::start(echo());
    let mut stream = connect(&proxy);
    let time = |stream: &mut TcpStream, bytes: &[u8]| {
        let begun = Instant::now();
        ask(stream, bytes).unwrap();
        begun.elapsed()
    };
    ask(&mut stream, b"once").unwrap();
    proxy.delay(Duration::from_millis(100));
    assert!(
        time(&mut stream, b"late") >= Duration::from_millis(200),
        "both ways"
    );
    proxy.restore();
    proxy.throttle(20_000);
    assert!(time(&mut stream, &[7; 10_000]) >= Duration::from_millis(450));
}

#[test]
fn resets_end_all_connections_and_new_ones_pass() {
    let proxy = Proxy::start(echo());
    let mut streams = [connect(&proxy), connect(&proxy)];
    for stream in &mut streams {
        ask(stream, b"before").unwrap();
    }
    proxy.reset_all();
    for stream in &mut streams {
        let reset = stream.read(&mut [0; 1]);
        assert_eq!(reset.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    ask(&mut connect(&proxy), b"after").unwrap();
}

#[test]
fn a_dropped_proxy_refuses() {
    let proxy = Proxy::start(echo());
    let address = proxy.address();
    drop(proxy);
    let refused = TcpStream::connect(address);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
