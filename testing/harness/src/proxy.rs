//! A TCP proxy that fails as networks do.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use crate::port::Port;

/// How many bytes are moved at once, when they are not throttled.
const PIECE: usize = 16 * 1024;

/// How often a throttled way moves its share.
const SLICE: Duration = Duration::from_millis(20);

/// Stands between clients and one server. Dropped, its address refuses, and its connections are
/// closed.
pub struct Proxy {
    shared: Arc<Shared>,
    port: Port,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    mode: Mode,
    /// Of every piece of bytes, in each direction.
    delay: Duration,
    /// In each direction of each connection; no limit when none.
    bytes_per_second: Option<u64>,
    /// A client that sends so many bytes at once makes everything held.
    trap: Option<usize>,
    /// After so many bytes of clients the connection of the last one is reset.
    fuse: Option<u64>,
    /// How many bytes of clients have passed since.
    passed: u64,
    /// How many connections were reset.
    blown: u64,
    /// Both ends of each connection.
    connections: HashMap<u64, Vec<TcpStream>>,
    /// The listener's thread is to end.
    closed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Passing,
    /// Connections are refused.
    Cut,
    /// Connections stay open, new ones are accepted, and nothing moves.
    Held,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// A client has sent so much at once.
    fn spring_trap(&self, read: usize) {
        let mut state = self.state();
        if state.trap.is_some_and(|bytes| read >= bytes) {
            state.mode = Mode::Held;
        }
    }

    /// A client has sent more: too much for the line?
    fn blow_fuse(&self, sent: u64) -> io::Result<()> {
        let mut state = self.state();
        state.passed += sent;
        if state.fuse.is_none_or(|most| state.passed < most) {
            return Ok(());
        }
        state.passed = 0;
        state.blown += 1;
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Waits while nothing may move; then tells how it may.
    fn wait_passing(&self) -> (Duration, Option<u64>) {
        let mut state = self.state();
        while state.mode == Mode::Held && !state.closed {
            state = wait(&self.changed, state);
        }
        (state.delay, state.bytes_per_second)
    }
}

fn wait<'a>(changed: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    changed.wait(state).unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Passes everything on to `target`, from a free port of the loopback.
    pub fn start(target: SocketAddr) -> Self {
        let port = Port::take();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
            next: AtomicU64::new(0),
        });
        let proxy = Self { shared, port };
        proxy.listen();
        proxy
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    /// Resets all connections, and refuses new ones.
    pub fn cut(&self) {
        let was = std::mem::replace(&mut self.shared.state().mode, Mode::Cut);
        if was != Mode::Cut {
            self.wake_listener();
        }
        self.reset_all();
    }

    /// Ends every fault: everything passes again. What was held goes on; what was cut is gone.
    pub fn restore(&self) {
        let mut was = Mode::Passing;
        self.shared.change(|state| {
            was = std::mem::take(&mut state.mode);
            state.trap = None;
            state.fuse = None;
            state.delay = Duration::ZERO;
            state.bytes_per_second = None;
        });
        if was == Mode::Cut {
            self.listen();
        }
    }

    /// Half-open: connections stay and new ones are accepted, but nothing moves and nothing is
    /// closed, as when a host is gone without a word.
    pub fn hold(&self) {
        let was = std::mem::replace(&mut self.shared.state().mode, Mode::Held);
        if was == Mode::Cut {
            self.listen();
        }
    }

    /// Holds everything as soon as a client sends so many bytes at once, at most 16 KB: the bytes
    /// themselves too.
    pub fn hold_at(&self, bytes: usize) {
        self.shared
            .change(|state| state.trap = Some(bytes.min(PIECE)));
    }

    /// Resets a connection each time that clients have sent so many bytes in all, as a bad line would.
    pub fn reset_after(&self, bytes: u64) {
        self.shared.change(|state| {
            state.fuse = Some(bytes);
            state.passed = 0;
        });
    }

    /// How many connections were reset so.
    pub fn resets(&self) -> u64 {
        self.shared.state().blown
    }

    /// Whether nothing moves.
    pub fn is_holding(&self) -> bool {
        self.shared.state().mode == Mode::Held
    }

    /// Delays every piece of bytes by `time`, in each direction.
    pub fn delay(&self, time: Duration) {
        self.shared.change(|state| state.delay = time);
    }

    /// Limits each direction of each connection.
    pub fn throttle(&self, bytes_per_second: u64) {
        let bytes_per_second = bytes_per_second.max(1);
        self.shared
            .change(|state| state.bytes_per_second = Some(bytes_per_second));
    }

    /// Resets all connections; new ones pass.
    pub fn reset_all(&self) {
        let connections = std::mem::take(&mut self.shared.state().connections);
        for stream in connections.into_values().flatten() {
            reset(&stream);
        }
    }

    /// How many connections pass through.
    pub fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// How many connections have come in, also those that the server did not take.
    pub fn accepted(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    fn listen(&self) {
        let listener = TcpListener::bind(self.address()).expect("the proxy's port is its own");
        let shared = self.shared.clone();
        thread::spawn(move || accept(&listener, &shared));
    }

    /// The listener sees the mode when somebody connects.
    fn wake_listener(&self) {
        let _ = TcpStream::connect(self.address());
        // Refused: the listener's thread has closed it.
        while TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).is_ok() {
            crate::pause(Duration::from_millis(1));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut listens = false;
        self.shared.change(|state| {
            listens = state.mode != Mode::Cut;
            state.closed = true;
        });
        if listens {
            self.wake_listener();
        }
        self.reset_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        {
            let state = shared.state();
            if state.closed || state.mode == Mode::Cut {
                return;
            }
        }
        let Ok(client) = stream else { continue };
        let shared = shared.clone();
        thread::spawn(move || {
            let _ = connection(client, &shared);
        });
    }
}

fn connection(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    let kept = client.try_clone()?;
    shared.change(|state| {
        state.connections.insert(number, vec![kept]);
    });
    shared.wait_passing();
    let outcome = join(&client, number, shared);
    shared.change(|state| {
        state.connections.remove(&number);
    });
    if outcome.is_err() {
        reset(&client);
    }
    outcome
}

fn join(client: &TcpStream, number: u64, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(shared.target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let kept = server.try_clone()?;
        let mut state = shared.state();
        // Reset in the meantime.
        let Some(both) = state.connections.get_mut(&number) else {
            return Err(io::ErrorKind::ConnectionReset.into());
        };
        both.push(kept);
    }
    thread::scope(|scope| {
        let up = scope.spawn(|| pump(client, &server, shared, true));
        let down = pump(&server, client, shared, false);
        up.join().expect("a pump does not panic").and(down)
    })
}

/// Moves bytes one way, up to the server or down, until they end. An error resets both ends, so that the other way ends too.
fn pump(from: &TcpStream, to: &TcpStream, shared: &Shared, is_up: bool) -> io::Result<()> {
    let moved = move_all(from, to, shared, is_up);
    match &moved {
        Ok(()) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => [from, to].into_iter().for_each(reset),
    }
    moved
}

fn move_all(
    mut from: &TcpStream,
    mut to: &TcpStream,
    shared: &Shared,
    is_up: bool,
) -> io::Result<()> {
    let mut buffer = [0; PIECE];
    loop {
        shared.wait_passing();
        let read = from.read(&mut buffer)?;
        if is_up {
            shared.spring_trap(read);
            shared.blow_fuse(read as u64)?;
        }
        let (delay, limit) = shared.wait_passing();
        crate::pause(delay);
        // It may have been held while this waited.
        shared.wait_passing();
        if read == 0 {
            return Ok(());
        }
        let Some(limit) = limit else {
            to.write_all(&buffer[..read])?;
            continue;
        };
        let share = (limit * SLICE.as_millis() as u64 / 1000).clamp(1, PIECE as u64);
        for piece in buffer[..read].chunks(share as usize) {
            shared.wait_passing();
            to.write_all(piece)?;
            crate::pause(Duration::from_secs_f64(piece.len() as f64 / limit as f64));
        }
    }
}

/// Resets a connection at once, also while other threads wait on it.
fn reset(stream: &TcpStream) {
    if rustix::net::connect_unspec(stream).is_err() {
        // Some kernels forbid it while a thread reads: then the end comes before the reset.
        let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        let _ = stream.shutdown(Shutdown::Both);
    }
}
