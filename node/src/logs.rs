//! What the processes of this server print: read from the files that they write to, brought into
//! one format, and kept in bounded files.
//!
//! A process writes straight to its own file, so it needs no node to print, and what it prints
//! while there is none is read by the next one. How far a file was read is noted after the lines
//! were stored, and every stored line tells where in the file it ended: a line is neither lost nor
//! doubled when the node dies.

mod line;
mod raw;
mod store;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::{InstanceId, Pattern, ServiceId};
use hydrant_runtime::Clock;
use tokio::sync::{broadcast, oneshot};

pub use line::{LogLine, Stream};
pub use store::LogsConfig;

use raw::RawFile;
use store::{Ends, Store};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// How many lines a follower may lag behind before it misses some.
const FOLLOWER_LAG: usize = 4096;
/// How many may wake the reading thread at once.
const WAKES: usize = 16;
/// The most lines that a tail returns.
pub const MAX_TAIL: usize = 10_000;

/// The logs of this server. Cheap to clone; the last clone ends the reading.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

struct Shared {
    raw: PathBuf,
    clock: Clock,
    store: Mutex<Store>,
    lines: broadcast::Sender<LogLine>,
    /// The instances that have ended, whose files can go when they were read.
    ended: Mutex<BTreeSet<InstanceId>>,
    wake: SyncSender<Wake>,
}

/// Wakes the reading thread.
enum Wake {
    /// There is something to do.
    Look,
    /// Somebody waits until all was read that is there now.
    Settle(oneshot::Sender<()>),
    /// As `Settle`, and nothing is read afterwards.
    End(oneshot::Sender<()>),
}

/// The files that a process is to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFiles {
    /// For its standard output.
    pub stdout: PathBuf,
    /// For its standard error.
    pub stderr: PathBuf,
}

/// The lines that match, from the moment of [`Logs::follow`].
pub struct Follower {
    pattern: Pattern,
    lines: broadcast::Receiver<LogLine>,
}

/// What a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// The next line.
    Line(Box<LogLine>),
    /// So many lines, of any service, came faster than they were taken, and are left out here.
    Missed(u64),
}

impl Logs {
    /// The logs in `data`/logs, and a thread that reads what processes print.
    pub fn open(data: &Path, config: LogsConfig, clock: Clock) -> io::Result<Self> {
        let folder = data.join("logs");
        let raw = folder.join("raw");
        let store = Store::open(folder, config)?;
        std::fs::create_dir_all(&raw)?;
        let ends = store.ends()?;
        let (wake, woken) = sync_channel(WAKES);
        let shared = Arc::new(Shared {
            raw,
            clock,
            store: Mutex::new(store),
            lines: broadcast::channel(FOLLOWER_LAG).0,
            ended: Mutex::default(),
            wake,
        });
        let reader = Reader {
            shared: Arc::downgrade(&shared),
            files: BTreeMap::new(),
            ends,
        };
        std::thread::Builder::new()
            .name("logs".into())
            .spawn(move || reader.run(woken))?;
        Ok(Self(shared))
    }

    /// The files that a process of this instance is to write to.
    pub fn raw_files(&self, service: &ServiceId, instance: &InstanceId) -> RawFiles {
        let path = |stream| RawFile::path(&self.0.raw, service, instance, stream);
        RawFiles {
            stdout: path(Stream::Stdout),
            stderr: path(Stream::Stderr),
        }
    }

    /// Tells that no process of this instance writes any more: its files are read to their end
    /// and removed.
    pub fn ended(&self, instance: &InstanceId) {
        lock(&self.0.ended).insert(instance.clone());
        // Full: it will wake anyway.
        let _ = self.0.wake.try_send(Wake::Look);
    }

    /// Returns when what was printed until now is stored.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.0.wake.try_send(Wake::Settle(done)).is_ok() {
            // The thread has ended: there is nothing more to come.
            let _ = settled.await;
        }
    }

    /// Stores what was printed until now, and leaves what comes to another node.
    pub async fn end(&self) {
        let (done, ended) = oneshot::channel();
        let mut wake = Wake::End(done);
        while let Err(TrySendError::Full(full)) = self.0.wake.try_send(wake) {
            wake = full;
            tokio::time::sleep(INTERVAL / 10).await;
        }
        let _ = ended.await;
    }

    /// Tells that only these instances may still write: the files of all others are of processes
    /// that ended while no node was there to tell.
    pub fn only_these_live(&self, living: &BTreeSet<InstanceId>) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.0.raw)? {
            if let Some(file) = RawFile::open(entry?.path())
                && !living.contains(&file.instance)
            {
                self.ended(&file.instance);
            }
        }
        Ok(())
    }

    /// Takes a line that did not come from a file, as one of the node's own.
    pub fn append(
        &self,
        service: &ServiceId,
        instance: &InstanceId,
        stream: Stream,
        text: &[u8],
    ) -> io::Result<()> {
        let text = &text[..text.len().min(line::MAX_LINE)];
        let line = LogLine::read(service, instance, stream, text, self.0.clock.unix_ms());
        self.0.take(service, vec![(line, 0)])
    }

    /// The last `count` lines, at most [`MAX_TAIL`], of what the pattern means, sorted by time.
    /// Reads files: not for an event loop's own thread.
    pub fn tail(&self, pattern: &Pattern, count: usize) -> io::Result<Vec<LogLine>> {
        lock(&self.0.store).tail(pattern, count.min(MAX_TAIL))
    }

    /// The lines that come from now.
    pub fn follow(&self, pattern: Pattern) -> Follower {
        Follower {
            pattern,
            lines: self.0.lines.subscribe(),
        }
    }

    /// A tail and what comes after it, with no line missed or doubled in between. Reads files.
    pub fn tail_and_follow(
        &self,
        pattern: Pattern,
        count: usize,
    ) -> io::Result<(Vec<LogLine>, Follower)> {
        // Lines are stored and sent under this lock.
        let store = lock(&self.0.store);
        let tail = store.tail(&pattern, count.min(MAX_TAIL))?;
        Ok((tail, self.follow(pattern)))
    }
}

impl Follower {
    /// The next line; `None` when the logs are closed. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            match self.lines.recv().await {
                Ok(line) if self.pattern.matches(&line.service, line.instance.as_str()) => {
                    return Some(Followed::Line(Box::new(line)));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some(Followed::Missed(missed));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Shared {
    /// Stores lines of one service, then tells the followers.
    fn take(&self, service: &ServiceId, lines: Vec<(LogLine, u64)>) -> io::Result<()> {
        let mut store = lock(&self.store);
        store.append(service, &lines)?;
        for (line, _) in lines {
            // Nobody may be following.
            let _ = self.lines.send(line);
        }
        Ok(())
    }
}

/// The thread that reads the files of the processes.
struct Reader {
    shared: std::sync::Weak<Shared>,
    files: BTreeMap<PathBuf, RawFile>,
    ends: Ends,
}

impl Reader {
    fn run(mut self, woken: Receiver<Wake>) {
        loop {
            let wake = match woken.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Disconnected) => return,
                wake => wake.ok(),
            };
            let Some(shared) = self.shared.upgrade() else {
                return;
            };
            self.look(&shared);
            // Whoever asked may not wait any more.
            match wake {
                Some(Wake::Settle(done)) => {
                    let _ = done.send(());
                }
                Some(Wake::End(done)) => {
                    let _ = done.send(());
                    return;
                }
                Some(Wake::Look) | None => {}
            }
        }
    }

    fn look(&mut self, shared: &Shared) {
        let ended = std::mem::take(&mut *lock(&shared.ended));
        self.discover(shared);
        self.files.retain(|path, file| {
            let has_ended = ended.contains(&file.instance);
            let gone = read_on(shared, file, has_ended).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "cannot keep a log");
                if has_ended {
                    lock(&shared.ended).insert(file.instance.clone());
                }
                false
            });
            !gone
        });
    }

    fn discover(&mut self, shared: &Shared) {
        let Ok(entries) = std::fs::read_dir(&shared.raw) else {
            return;
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if self.files.contains_key(&path) {
                continue;
            }
            if let Some(mut file) = RawFile::open(path.clone()) {
                let known = self.ends.remove(&(file.instance.clone(), file.stream));
                file.already_stored(known.unwrap_or(0));
                self.files.insert(path, file);
            }
        }
    }
}

/// Stores what came since; tells whether the file is gone, as its process is.
fn read_on(shared: &Shared, file: &mut RawFile, ended: bool) -> io::Result<bool> {
    while let Some(batch) = file.read(ended)? {
        let now = shared.clock.unix_ms();
        let lines = batch.lines.iter().map(|raw| {
            let (service, instance) = (&file.service, &file.instance);
            let mut line = LogLine::read(service, instance, file.stream, &raw.text, now);
            if raw.cut {
                line.message.push_str(line::CUT);
            }
            (line, raw.end)
        });
        let lines = lines.collect();
        shared.take(&file.service, lines)?;
        file.stored(&batch)?;
    }
    if ended {
        file.remove();
    }
    Ok(ended)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
