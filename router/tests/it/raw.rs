//! Clients and instances that speak bytes, so that tests decide about each of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hydrant_contracts::{Instance, InstanceState, PathPrefix, RepeatablePath, TokenKey};
use hydrant_router::{Config, Limits, Router, Table};

/// Longer than anything here takes, short enough for a hanging test to end.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const SECRET: [u8; 32] = [3; 32];

/// A message as it came: the head as text, the body without its framing.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Message {
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One side of a connection.
pub struct Wire {
    pub reader: BufReader<TcpStream>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream().write_all(bytes.as_ref())
    }

    pub fn end(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Up to and without the empty line; `None` at the end of the connection.
    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let mut line = Vec::new();
            let count = self.reader.read_until(b'\n', &mut line).ok()?;
            if count == 0 {
                return None;
            }
            if line == b"\r\n" {
                return Some(head);
            }
            head.push_str(&String::from_utf8_lossy(&line));
        }
    }

    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        Some(line)
    }

    /// A whole message; `None` when the connection ends before its end. `bodiless` for what
    /// answers HEAD.
    pub fn message(&mut self, bodiless: bool) -> Option<Message> {
        let head = self.head()?;
        let mut message = Message {
            head,
            ..Message::default()
        };
        let is_answer = message.head.starts_with("HTTP/");
        let no_body = bodiless || matches!(message.status(), 100..200 | 204 | 304) && is_answer;
        let chunked = message.header("transfer-encoding").is_some();
        let length = message
            .header("content-length")
            .map(|length| length.parse().unwrap());
        match length {
            _ if no_body => {}
            _ if chunked => self.chunks(&mut message)?,
            Some(length) => message.body = self.exactly(length)?,
            None if is_answer => {
                self.reader.read_to_end(&mut message.body).ok()?;
            }
            None => {}
        }
        Some(message)
    }

    fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let line = self.line()?;
            let size = line.trim_end().split(';').next()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                break;
            }
            message.body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
        loop {
            let line = self.line()?;
            if line == "\r\n" {
                return Some(());
            }
            message.trailers.push_str(&line);
        }
    }

    pub fn answer(&mut self) -> Message {
        self.message(false).expect("an answer")
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.answer()
    }

    /// Whether the other side has closed, and sends nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// An instance: each connection is served by `serve` on a thread of its own.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// What was read by [`Backend::note`].
    pub seen: Arc<Mutex<Vec<Message>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
}

/// What a connection's thread knows.
#[derive(Clone)]
pub struct Seen(Arc<Mutex<Vec<Message>>>);

impl Seen {
    pub fn note(&self, message: &Message) {
        self.0.lock().unwrap().push(message.clone());
    }
}

impl Backend {
    pub fn start(serve: impl Fn(Wire, Seen) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            ended: Arc::default(),
            seen: Arc::default(),
            open: Arc::default(),
            stopped: Arc::default(),
        };
        let (serve, seen) = (Arc::new(serve), Seen(Arc::clone(&backend.seen)));
        let (count, open) = (Arc::clone(&backend.connections), Arc::clone(&backend.open));
        let stopped = Arc::clone(&backend.stopped);
        let ended = Arc::clone(&backend.ended);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let (serve, seen) = (Arc::clone(&serve), seen.clone());
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || {
                    // The connection must end with its thread, though a clone is kept.
                    let ending = stream.try_clone().unwrap();
                    serve(Wire::new(stream), seen);
                    let _ = ending.shutdown(Shutdown::Both);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        backend
    }

    /// Answers every request with `answer`, and closes when that is asked for.
    pub fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |mut wire, seen| {
            while let Some(request) = wire.message(false) {
                seen.note(&request);
                if wire.try_send(answer(&request)).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers with 200 and the request's body, or with its head when it has none.
    pub fn echo() -> Self {
        Self::answering(|request| {
            if request.body.is_empty() {
                ok(request.head.as_bytes())
            } else {
                ok(&request.body)
            }
        })
    }

    /// Connections whose threads have not ended.
    pub fn open(&self) -> usize {
        self.connections.load(Ordering::SeqCst) - self.ended.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Dies as a killed process does: no connection is accepted, those that are open break.
    pub fn kill(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// An answer of 200 with a length.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Lets time pass, on a thread that serves nothing else.
#[expect(clippy::disallowed_methods, reason = "no event loop runs here")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// An address that refuses connections.
pub fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// An instance of `api/t` that answers below `/api/t/`, of which `/api/t` is cut off. Below
/// `/api/t/safe/` a repeat is safe.
pub fn instance(id: &str, address: SocketAddr) -> Instance {
    let service = "api/t".parse().unwrap();
    Instance {
        id: id.parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        server: "test".into(),
        address,
        http2: false,
        methods: Vec::new(),
        prefixes: vec![PathPrefix::new(&service, "/api/t/", true).unwrap()],
        state: InstanceState::Ready,
        detail: String::new(),
        since_unix_ms: 0,
        pid: 0,
        repeatable_paths: vec![RepeatablePath::new(&service, "/api/t/safe/").unwrap()],
        service,
    }
}

pub fn router_with(limits: Limits, workers: usize, addresses: &[SocketAddr]) -> Router {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let router = Router::start(Config {
        public: any,
        secure: None,
        local: any,
        peer: None,
        workers,
        key: TokenKey::new(&SECRET),
        limits,
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    })
    .unwrap();
    let instances = addresses.iter().enumerate();
    let instances: Vec<_> = instances
        .map(|(at, to)| instance(&format!("t-{at}"), *to))
        .collect();
    router.publish(&Table::of_one_server(&instances));
    router
}

/// One worker, so that all connections share its pools.
pub fn router(addresses: &[SocketAddr]) -> Router {
    router_with(Limits::default(), 1, addresses)
}

pub fn client(router: &Router) -> Wire {
    Wire::connect(router.public_addr())
}
