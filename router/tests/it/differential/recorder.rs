//! A backend that keeps every byte it gets, by connection, and answers each request with what it
//! understood of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::reading::{Reading, Request, strict};

/// What came on one connection.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub bytes: Vec<u8>,
    /// The other side has closed it.
    pub closed: bool,
}

type Shared = Arc<Mutex<Record>>;

/// A backend that runs as long as the test.
pub struct Recorder {
    pub address: SocketAddr,
    records: Arc<Mutex<Vec<Shared>>>,
}

impl Recorder {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::<Mutex<Vec<Shared>>>::default();
        let shared = Arc::clone(&records);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let record = Shared::default();
                shared.lock().unwrap().push(Arc::clone(&record));
                std::thread::spawn(move || {
                    serve(stream, &record);
                    record.lock().unwrap().closed = true;
                });
            }
        });
        Self { address, records }
    }

    pub fn records(&self) -> Vec<Record> {
        let records = self.records.lock().unwrap();
        records
            .iter()
            .map(|each| each.lock().unwrap().clone())
            .collect()
    }
}

fn serve(mut stream: TcpStream, record: &Shared) {
    let (mut buffer, mut answered) = (vec![0; 64 * 1024], 0);
    let _ = stream.set_nodelay(true);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut answers = Vec::new();
        {
            let mut record = record.lock().unwrap();
            record.bytes.extend_from_slice(&buffer[..count]);
            while let Reading::Request(request) = strict(&record.bytes[answered..]) {
                answered += request.len;
                answers.extend_from_slice(&answer(&request));
            }
        }
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}

fn answer(request: &Request) -> Vec<u8> {
    let echo = echo(request);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", echo.len());
    match request.method.as_str() {
        "HEAD" => head.into_bytes(),
        _ => (head + &echo).into_bytes(),
    }
}

/// What tells a request from all others.
pub fn echo(request: &Request) -> String {
    let Request { method, body, .. } = request;
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{method} {} {} {hash:x}", request.path(), body.len())
}
