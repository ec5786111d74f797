//! Stores that send until it is answered, as the documentation tells them to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

/// How long an answer may take before the client sends again.
const PATIENCE: Duration = Duration::from_secs(8);
/// How large a file is at most, in bytes.
const MAX_FILE: usize = 400_000;

pub struct Stores {
    pub public: SocketAddr,
    /// How many are still to be sent.
    pub left: AtomicUsize,
}

/// A submission that was acknowledged.
pub struct Sent {
    pub id: String,
    pub name: String,
    /// What `submit` told at once.
    pub reference: Option<Value>,
    /// How many requests it took.
    pub attempts: usize,
    /// The SHA-256 of each attachment, in hex, in order.
    pub files: Vec<String>,
}

impl Stores {
    /// One store, until nothing is left.
    pub async fn send_again_and_again(&self, number: u64, seed: u64) -> Vec<Sent> {
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
                attempts: 0,
                files: Vec::new(),
            };
            sent.push(self.send(one, &mut random).await);
            tokio::time::sleep(Duration::from_millis(random.u64(0..100))).await;
        }
        sent
    }

    async fn send(&self, mut one: Sent, random: &mut fastrand::Rng) -> Sent {
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        let submissions = format!("http://{}/api/submissions/v1/submissions", self.public);
        let body = json!({ "form": "demo", "fields": { "name": one.name } });
        let post = || {
            let post = client.post(&submissions).header("correlation-id", &one.id);
            post.header("x-store-id", "4711").json(&body).send()
        };
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
        let submit = format!("{submissions}/{}/submit", one.id);
        loop {
            one.attempts += 1;
            if let Some(answer) = self.good(client.post(&submit).send().await).await {
                one.reference = answer.get("reference").cloned();
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
        let attachments = format!(
            "http://{}/api/submissions/v1/submissions/{id}/attachments",
            self.public
        );
        let key = uuid::Uuid::from_u128(random.u128(..)).to_string();
        let metadata = format!("filename {},filetype {}", base64(name), base64("image/png"));
        let mut requests = 0;
        let place = loop {
            requests += 1;
            let create = client.post(&attachments).header("tus-resumable", "1.0.0");
            let create = create
                .header("upload-length", file.len())
                .header("upload-metadata", &metadata)
                .header("idempotency-key", &key);
            let Some(answer) = self.header(create.send().await, "location").await else {
                continue;
            };
            break format!("http://{}{answer}", self.public);
        };
        loop {
            requests += 1;
            let head = client.head(&place).header("tus-resumable", "1.0.0");
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
                .patch(&place)
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
