//! Stores that send until it is answered, as the documentation tells them to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

/// How long an answer may take before the client sends again.
const PATIENCE: Duration = Duration::from_secs(8);

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
        let submit = format!("{submissions}/{}/submit", one.id);
        loop {
            one.attempts += 1;
            if let Some(answer) = self.good(client.post(&submit).send().await).await {
                one.reference = answer.get("reference").cloned();
                return one;
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
