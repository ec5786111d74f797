//! A collector of events over HTTP, which can stall.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::harness::pause;

/// How long it stalls before it looks whether it still does.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Value>>,
    tokens: Mutex<Vec<String>>,
    stalls: AtomicBool,
}

/// Takes events until the test ends.
pub struct Collector {
    heard: Arc<Heard>,
    address: SocketAddr,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Heard::default());
        let shared = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = shared.clone();
                std::thread::spawn(move || while serve(&stream, &heard).is_some() {});
            }
        });
        Self { heard, address }
    }

    /// Takes connections and requests, and answers nothing.
    pub fn stall(&self, stalls: bool) {
        self.heard.stalls.store(stalls, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn events(&self) -> Vec<Value> {
        self.heard.events.lock().unwrap().clone()
    }

    /// The values of `authorization` that came.
    pub fn tokens(&self) -> Vec<String> {
        self.heard.tokens.lock().unwrap().clone()
    }
}

/// One request; `None` at the end of the connection.
fn serve(mut stream: &TcpStream, heard: &Heard) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            match line.trim_end() {
                "" => break,
                begin => {
                    assert_eq!(begin, "POST /services/collector/event HTTP/1.1");
                    continue;
                }
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => token = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while heard.stalls.load(Ordering::SeqCst) {
        pause(LOOK);
    }
    let events = serde_json::Deserializer::from_slice(&body).into_iter::<Value>();
    let events: Vec<_> = events
        .map(|event| event.expect("events are JSON"))
        .collect();
    heard.events.lock().unwrap().extend(events);
    heard.tokens.lock().unwrap().push(token);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{\"text\":\"Success\",\"code\":0}";
    stream.write_all(answer.as_bytes()).ok()
}
