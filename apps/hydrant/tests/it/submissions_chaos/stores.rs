//! Stores that send until it is answered, as the documentation tells them to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How long an answer may take before the client sends again.
const PATIENCE: Duration = Duration::from_secs(8);
/// How large a file is at most, in bytes.
const MAX_FILE: usize = 400_000;

/// How many stores send at the same time.
pub const STORES: u64 = 8;

/// How often something was answered.
pub type Refused = BTreeMap<String, usize>;

pub struct Stores {
    /// The servers, which are asked in turn.
    public: Vec<SocketAddr>,
    turn: AtomicUsize,
    /// How many are still to be sent.
    left: AtomicUsize,
    /// How often something was answered that was not asked for, by status and reason.
    refused: Mutex<Refused>,
}

/// A submission that was acknowledged.
pub struct Sent {
    pub id: String,
    pub name: String,
    /// What `submit` told at once.
    pub reference: Option<Value>,
    /// How long it took from the first request until it was accepted, and from the first `submit` until that was
    /// answered.
    pub accepted_in: Duration,
    pub submitted_in: Duration,
    /// How many requests it took.
    pub attempts: usize,
    /// The SHA-256 of each attachment, in hex, in order.
    pub files: Vec<String>,
}

/// Stores that send in the background.
pub struct Sending {
    stores: Arc<Stores>,
    tasks: Vec<JoinHandle<Vec<Sent>>>,
}

impl Sending {
    /// Whether all was sent.
    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all was sent; gives it, and what was answered instead of what was asked for.
    pub fn wait(self, runtime: &Runtime) -> (Vec<Sent>, Refused) {
        let sent = runtime.block_on(async {
            let mut all = Vec::new();
            for task in self.tasks {
                all.extend(task.await.expect("a store does not panic"));
            }
            all
        });
        let refused = self.stores.refused.lock().unwrap().clone();
        (sent, refused)
    }
}

impl Stores {
    /// Lets several stores send so many submissions in all.
    pub fn start(runtime: &Runtime, public: Vec<SocketAddr>, wanted: usize, seed: u64) -> Sending {
        let stores = Arc::new(Self {
            public,
            turn: AtomicUsize::new(0),
            left: AtomicUsize::new(wanted),
            refused: Mutex::default(),
        });
        let send = |number| {
            let stores = Arc::clone(&stores);
            runtime.spawn(async move { stores.send_again_and_again(number, seed).await })
        };
        let tasks = (0..STORES).map(send).collect();
        Sending { stores, tasks }
    }

    /// The server whose turn it is.
    fn public(&self) -> SocketAddr {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.public[turn % self.public.len()]
    }

    fn submissions(&self) -> String {
        format!("http://{}/api/submissions/v1/submissions", self.public())
    }

    fn count(&self, what: String) {
        *self.refused.lock().unwrap().entry(what).or_default() += 1;
    }

    /// One store, until nothing is left.
    async fn send_again_and_again(&self, number: u64, seed: u64) -> Vec<Sent> {
        let mut random = fastrand::Rng::with_seed(seed ^ (number << 32));
        let mut sent = Vec::new();
        let count = |left: usize| left.checked_sub(1);
        while self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .is_ok()
        {
            let one = Sent {
                id: uuid::Uuid::from_u128(random.u128(..)).to_string(),
                name: format!("Ada {number} \u{1f34e} {}", sent.len()),
                reference: None,
                accepted_in: Duration::ZERO,
                submitted_in: Duration::ZERO,
                attempts: 0,
                files: Vec::new(),
            };
            let store = format!("store-{number}");
            sent.push(self.send(one, &store, &mut random).await);
            tokio::time::sleep(Duration::from_millis(random.u64(0..100))).await;
        }
        sent
    }

    async fn send(&self, mut one: Sent, store: &str, random: &mut fastrand::Rng) -> Sent {
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        let body = json!({ "form": "demo", "fields": { "name": one.name } });
        let post = || {
            let post = client.post(self.submissions());
            let post = post.header("correlation-id", &one.id);
            post.header("x-store-id", store).json(&body).send()
        };
        let begun = Instant::now();
        // Sometimes a client sends twice at once.
        if random.u8(..) < 40 {
            let (first, second) = tokio::join!(post(), post());
            one.attempts += 2;
            let replays = [&first, &second].into_iter().flatten().filter(|answer| {
                answer.status() == StatusCode::CREATED
                    && !answer.headers().contains_key("idempotency-replayed")
            });
            assert!(replays.count() < 2, "two were the first");
        }
        let mut bodies = Vec::new();
        loop {
            one.attempts += 1;
            if let Some(answer) = self.good(post().await).await {
                assert_eq!(answer["id"], one.id.as_str());
                if bodies.is_empty() {
                    one.accepted_in = begun.elapsed();
                }
                bodies.push(answer);
                // A client that does not trust it asks once more: it is the same answer.
                if bodies.len() == 2 || random.bool() {
                    break;
                }
            }
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
        for number in 0..random.usize(..3) {
            let file = file(random);
            one.files.push(sha256_of(&file));
            let name = format!("photo {number}.png");
            one.attempts += self.upload(&client, &one.id, &name, &file, random).await;
        }
        let begun = Instant::now();
        loop {
            one.attempts += 1;
            let submit = format!("{}/{}/submit", self.submissions(), one.id);
            if let Some(answer) = self.good(client.post(&submit).send().await).await {
                one.reference = answer.get("reference").cloned();
                one.submitted_in = begun.elapsed();
                return one;
            }
        }
    }

    /// Uploads a file as tus has it; tells how many requests that took. Sometimes the client breaks off.
    async fn upload(
        &self,
        client: &Client,
        id: &str,
        name: &str,
        file: &[u8],
        random: &mut fastrand::Rng,
    ) -> usize {
        let key = uuid::Uuid::from_u128(random.u128(..)).to_string();
        let metadata = format!("filename {},filetype {}", base64(name), base64("image/png"));
        let mut requests = 0;
        let place = loop {
            requests += 1;
            let attachments = format!("{}/{id}/attachments", self.submissions());
            let create = client.post(&attachments).header("tus-resumable", "1.0.0");
            let create = create
                .header("upload-length", file.len())
                .header("upload-metadata", &metadata)
                .header("idempotency-key", &key);
            let Some(answer) = self.header(create.send().await, "location").await else {
                continue;
            };
            break answer;
        };
        let place = || format!("http://{}{place}", self.public());
        loop {
            requests += 1;
            let head = client.head(place()).header("tus-resumable", "1.0.0");
            let offset = self.header(head.send().await, "upload-offset").await;
            let Some(offset) = offset.and_then(|offset| offset.parse::<usize>().ok()) else {
                continue;
            };
            if offset == file.len() {
                return requests;
            }
            requests += 1;
            let end = random.usize(offset + 1..=file.len());
            let patch = client
                .patch(place())
                .header("tus-resumable", "1.0.0")
                .header("upload-offset", offset)
                .header("content-type", "application/offset+octet-stream");
            let sent = patch.body(file[offset..end].to_vec()).send();
            // What came of a request that was broken off is asked for.
            let patience = Duration::from_millis(if random.bool() { 8000 } else { 5 });
            if let Ok(answer) = tokio::time::timeout(patience, sent).await {
                self.header(answer, "upload-offset").await;
            }
        }
    }

    /// A header of an answer, when it is one.
    async fn header(&self, answer: reqwest::Result<Response>, name: &str) -> Option<String> {
        let header = answer.as_ref().ok().and_then(|answer| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        });
        // HEAD and PATCH have no body, and are judged by their status as the others.
        let status = answer.as_ref().map(Response::status);
        match status {
            Ok(status) if status.is_success() => header,
            _ => {
                self.good(answer).await;
                None
            }
        }
    }

    /// The answer, when it is one. What may pass is tried again.
    async fn good(&self, answer: reqwest::Result<Response>) -> Option<Value> {
        let again = Duration::from_millis(100);
        let Ok(answer) = answer else {
            self.count("no answer".into());
            tokio::time::sleep(again).await;
            return None;
        };
        let status = answer.status();
        let may_pass = status.is_server_error() || [408, 409, 429].contains(&status.as_u16());
        let body = answer.text().await;
        if status.is_success() {
            return body.ok().and_then(|body| serde_json::from_str(&body).ok());
        }
        assert!(may_pass, "{status}: {body:?}");
        let problem: Option<Value> = body.ok().and_then(|body| serde_json::from_str(&body).ok());
        let reason = problem.and_then(|problem| Some(problem["reason"].as_str()?.to_owned()));
        self.count(format!(
            "{} {}",
            status.as_u16(),
            reason.unwrap_or_default()
        ));
        tokio::time::sleep(again).await;
        None
    }
}

fn file(random: &mut fastrand::Rng) -> Vec<u8> {
    let length = random.usize(1..MAX_FILE);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

pub fn sha256_of(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
