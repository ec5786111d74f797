//! Processes of one service that share a state in memory, and a handler that counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post as on_post};
use futures::future::BoxFuture;
use http::StatusCode;
use hydrant_contracts::{Code, Error};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_service::Service as _;

use crate::clock::SteadyClock;
use crate::idempotency::shelf::Shelf;
use crate::idempotency::{Attempt, Idempotency};
use crate::state::Entry;

pub(super) const KEY: &str = "3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50";

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn post(key: &str, body: &str) -> Request {
    let request = Request::post("/orders").header("idempotency-key", key);
    request.body(body.to_owned().into()).unwrap()
}

/// The state of a service.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    revision: u64,
    entries: HashMap<String, (Entry, Instant)>,
    fail: u32,
    works_all_the_same: bool,
}

impl Memory {
    /// The next operations fail; with `works` they are done all the same, and only their answers are lost.
    pub(super) fn fail_next(&self, count: u32, works: bool) {
        let mut inside = self.0.lock().unwrap();
        (inside.fail, inside.works_all_the_same) = (count, works);
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let mut inside = self.0.lock().unwrap();
        let entry = inside.standing(key);
        inside.answer(entry)
    }

    fn swap(&self, ttl: Duration, key: &str, at: u64, value: Vec<u8>) -> Result<u64, Error> {
        let mut inside = self.0.lock().unwrap();
        if inside.fail > 0 && !inside.works_all_the_same {
            return inside.answer(0);
        }
        let now = inside.standing(key).map_or(0, |entry| entry.revision);
        if now != at {
            return Err(Error::new(Code::Aborted, "conflict", "at another revision"));
        }
        inside.revision += 1;
        let entry = Entry {
            key: key.into(),
            value,
            revision: inside.revision,
            ttl: None,
        };
        let end = Instant::now() + ttl;
        inside.entries.insert(key.into(), (entry, end));
        let revision = inside.revision;
        inside.answer(revision)
    }
}

impl Inside {
    fn standing(&self, key: &str) -> Option<Entry> {
        let (entry, end) = self.entries.get(key)?;
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| Entry {
            ttl: Some(left),
            ..entry.clone()
        })
    }

    fn answer<T>(&mut self, answer: T) -> Result<T, Error> {
        if self.fail == 0 {
            return Ok(answer);
        }
        self.fail -= 1;
        Err(Error::new(Code::Unavailable, "away", "no answer"))
    }
}

/// What a process can do: everything, nothing yet, or nothing any more.
#[derive(Clone)]
struct Gated(Memory, watch::Receiver<bool>);

impl Gated {
    async fn pass(&self) {
        let mut open = self.1.clone();
        if open.wait_for(|open| *open).await.is_err() {
            std::future::pending::<()>().await;
        }
        // As over a network: others run in between.
        tokio::task::yield_now().await;
    }
}

impl Shelf for Gated {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Error>> {
        Box::pin(async move {
            self.pass().await;
            let answer = self.0.get(key);
            self.pass().await;
            answer
        })
    }

    fn swap<'a>(
        &'a self,
        ttl: Duration,
        key: &'a str,
        revision: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async move {
            self.pass().await;
            let answer = self.0.swap(ttl, key, revision, value);
            self.pass().await;
            answer
        })
    }
}

/// What the handlers of all processes have in common.
#[derive(Clone)]
pub(super) struct Shop {
    pub(super) memory: Memory,
    told: Arc<Mutex<Told>>,
}

struct Told {
    takes: Duration,
    answers: StatusCode,
    runs: Vec<Option<Attempt>>,
    lost: Vec<bool>,
}

impl Shop {
    pub(super) fn new() -> Self {
        Self {
            memory: Memory::default(),
            told: Arc::new(Mutex::new(Told {
                takes: Duration::ZERO,
                answers: StatusCode::CREATED,
                runs: Vec::new(),
                lost: Vec::new(),
            })),
        }
    }

    pub(super) fn with_one() -> (Self, Process) {
        let shop = Self::new();
        let process = shop.process();
        (shop, process)
    }

    pub(super) fn takes(&self, time: Duration) {
        self.told().takes = time;
    }

    pub(super) fn answers(&self, status: StatusCode) {
        self.told().answers = status;
    }

    pub(super) fn runs(&self) -> usize {
        self.told().runs.len()
    }

    pub(super) fn epochs(&self) -> Vec<u64> {
        let told = self.told();
        let attempts = told.runs.iter().flatten();
        attempts.map(Attempt::epoch).collect()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let told = self.told();
        let attempts = told.runs.iter().flatten();
        attempts.map(|attempt| attempt.key().to_owned()).collect()
    }

    /// Whether each attempt had lost its key when its handler ended.
    pub(super) fn lost(&self) -> Vec<bool> {
        self.told().lost.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub(super) fn process(&self) -> Process {
        self.process_with(self.once())
    }

    pub(super) fn once(&self) -> Idempotency {
        let (_, shut) = watch::channel(true);
        let shelf = Arc::new(Gated(self.memory.clone(), shut));
        Idempotency::on(shelf, SteadyClock::from_fn(now))
    }

    pub(super) fn process_with(&self, mut once: Idempotency) -> Process {
        let (gate, is_open) = watch::channel(true);
        once.shelf = Arc::new(Gated(self.memory.clone(), is_open.clone()));
        let shop = self.clone();
        let handler = move |body: String| shop.clone().handle(body, is_open.clone());
        let routes = Router::new()
            .route("/orders", get(|| async { "none" }).post(handler.clone()))
            .route("/other", on_post(handler))
            .layer(once);
        Process { routes, gate }
    }

    async fn handle(self, body: String, mut is_open: watch::Receiver<bool>) -> Response {
        let attempt = Attempt::current();
        let (takes, status, run) = {
            let mut told = self.told();
            told.runs.push(attempt.clone());
            (told.takes, told.answers, told.runs.len())
        };
        assert!(body != "panic", "as it was told");
        tokio::time::sleep(takes).await;
        let _ = is_open.wait_for(|open| *open).await;
        let is_lost = attempt.is_some_and(|attempt| attempt.is_lost());
        self.told().lost.push(is_lost);
        let location = format!("/orders/{run}");
        (
            status,
            [("location", location)],
            format!("run {run} of {body}"),
        )
            .into_response()
    }
}

/// Time since the test began, which is paused.
fn now() -> Duration {
    thread_local!(static START: Instant = Instant::now());
    START.with(|start| start.elapsed())
}

/// One process of the service.
pub(super) struct Process {
    routes: Router,
    gate: watch::Sender<bool>,
}

impl Process {
    pub(super) fn pause(&self) {
        self.gate.send_replace(false);
    }

    pub(super) fn resume(&self) {
        self.gate.send_replace(true);
    }

    /// Nothing that it does reaches anybody any more.
    pub(super) fn die(self) {
        self.pause();
        // Its tasks still wait for a gate that nobody opens.
        std::mem::forget(self);
    }

    pub(super) async fn send(&self, request: Request) -> Answer {
        answer(self.routes.clone(), request).await
    }

    pub(super) fn begin(&self, request: Request) -> JoinHandle<Answer> {
        tokio::spawn(answer(self.routes.clone(), request))
    }
}

async fn answer(mut routes: Router, request: Request) -> Answer {
    let answer = routes.call(request).await.unwrap_or_default();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        (name.as_str().to_owned(), value.to_owned())
    });
    Answer {
        status: head.status.as_u16(),
        headers: headers.collect(),
        text: String::from_utf8(body.into()).unwrap(),
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn reason(&self) -> &str {
        let at = self.text.split_once("\"reason\":\"");
        at.and_then(|(_, rest)| rest.split('"').next())
            .unwrap_or("")
    }
}
