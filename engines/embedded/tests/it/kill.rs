//! A process that writes is killed by SIGKILL at any moment; whatever it had acknowledged must be
//! there afterwards. The writer is this test binary itself, run for one test alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use hydrant_embedded::EmbeddedStore;
use hydrant_ports::coordination::SeatName;
use hydrant_ports::state::{Put, Under};
use hydrant_ports::{Expect, Key};

/// Names the store to the writer.
const STORE: &str = "HYDRANT_TEST_KILLED_STORE";

const WRITERS: u64 = 8;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// What the writer has said: the last number acknowledged by each of its tasks.
#[derive(Default, Debug)]
struct Acknowledged(BTreeMap<String, u64>);

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        if words.next() == Some("ack")
            && let (Some(what), Some(number)) = (words.next(), words.next())
            && let Ok(number) = number.parse()
        {
            self.0.insert(what.to_owned(), number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_sigkill() {
    let rounds = match std::env::var_os("HYDRANT_SOAK") {
        Some(_) => 200,
        None => 10,
    };
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut known = Acknowledged::default();
    let mut total = 0;
    for round in 0..rounds {
        let before: u64 = known.0.values().sum();
        let moment = Duration::from_micros(random.u64(0..150_000));
        run_and_kill(&path, moment, &mut known);
        total += known.0.values().sum::<u64>() - before;
        check(&path, &known, round).await;
    }
    assert!(total > 0, "the writer has never acknowledged anything");
    println!("{rounds} kills, {total} acknowledged writes, all there");
}

/// Starts the writer, kills it at `moment` behind its first acknowledgement, and reads all that
/// it has said until its end.
fn run_and_kill(path: &Path, moment: Duration, known: &mut Acknowledged) {
    let mut child = writer(path);
    let lines = lines_of(&mut child);
    let patience = Instant::now() + Duration::from_secs(60);
    let mut kill_at = None;
    loop {
        let now = Instant::now();
        let until = kill_at.unwrap_or(patience);
        match lines.recv_timeout(until.saturating_duration_since(now)) {
            Ok(line) => {
                if line.starts_with("ack") {
                    kill_at.get_or_insert(Instant::now() + moment);
                }
                known.note(&line);
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => panic!("the writer has ended by itself"),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(kill_at.is_some(), "the writer has acknowledged nothing");
    for line in lines {
        known.note(&line);
    }
}

fn writer(path: &Path) -> Child {
    let this = std::env::current_exe().unwrap();
    Command::new(this)
        .args(["--exact", "kill::writer_that_is_killed", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whole lines only: one that the kill has cut was not said.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if !line.ends_with('\n') || sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

async fn check(path: &Path, known: &Acknowledged, round: u32) {
    let store = EmbeddedStore::open(path).unwrap();
    let (coordination, state) = (store.coordination(), store.state());
    for (what, number) in &known.0 {
        let found = match what.split('/').next().unwrap() {
            "kept" => {
                let found = coordination.get(&key(what)).await.unwrap();
                found.map_or(0, |found| parse(&found.value))
            }
            "state" => {
                let found = state.get(&key(what)).await.unwrap();
                found.map_or(0, |found| parse(&found.entry.value))
            }
            "marks" => state.mark(&key(what)).await.unwrap(),
            // What is granted next tells what was granted before.
            "seats" => {
                let session = coordination
                    .open_session("one", Duration::from_secs(5))
                    .await;
                let seat = session.unwrap();
                let seat = seat.take_seat(&SeatName(key(what)), "check").await.unwrap();
                seat.epoch() - 1
            }
            other => panic!("what is {other}?"),
        };
        assert!(
            found >= *number,
            "round {round}: {what} is {found}, and {number} was acknowledged"
        );
    }
    store.close().await;
}

fn parse(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn acknowledge(what: &str, number: u64) {
    let line = format!("ack {what} {number}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The writer: counts up in keys of every kind, without end. Without a store to write to, it is
/// the test of nothing, and passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_that_is_killed() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = EmbeddedStore::open(Path::new(&path)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        tasks.spawn(count_kept(store.coordination(), writer));
        tasks.spawn(count_state(store.state(), writer));
        tasks.spawn(count_epochs(store.coordination(), writer));
    }
    tasks.join_all().await;
}

async fn count_kept(engine: std::sync::Arc<dyn hydrant_ports::Coordination>, writer: u64) {
    let name = format!("kept/{writer}");
    let found = engine.get(&key(&name)).await.unwrap();
    let mut number = found.map_or(0, |found| parse(&found.value));
    loop {
        number += 1;
        let value = number.to_string().into();
        engine.put(&key(&name), value, Expect::Any).await.unwrap();
        acknowledge(&name, number);
    }
}

/// Counts under a mark, which rises with it.
async fn count_state(engine: std::sync::Arc<dyn hydrant_ports::State>, writer: u64) {
    let (name, mark) = (format!("state/{writer}"), format!("marks/{writer}"));
    let mut number = engine.mark(&key(&mark)).await.unwrap();
    loop {
        number += 1;
        let options = Put {
            under: Some(Under {
                mark: key(&mark),
                epoch: number,
            }),
            ..Put::default()
        };
        let value = number.to_string().into();
        engine.put(&key(&name), value, options).await.unwrap();
        acknowledge(&name, number);
        acknowledge(&mark, number);
    }
}

async fn count_epochs(engine: std::sync::Arc<dyn hydrant_ports::Coordination>, writer: u64) {
    let name = format!("seats/{}", writer % 2);
    let session = engine
        .open_session("one", Duration::from_secs(5))
        .await
        .unwrap();
    loop {
        let seat = session.take_seat(&SeatName(key(&name)), "writer").await;
        let seat = seat.unwrap();
        // While it is held nobody else says anything of it.
        acknowledge(&name, seat.epoch());
        seat.give_up().await;
    }
}
