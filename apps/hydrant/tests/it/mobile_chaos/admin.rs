//! Somebody who changes documents all the time, and remembers what each revision has to be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::oracle::{EXPERIMENT, FLAGS, Model, World};

/// The worlds of all revisions that are known, by their numbers.
pub type Worlds = Arc<Mutex<BTreeMap<u64, Arc<World>>>>;

/// A change.
#[derive(Clone, Debug)]
enum Edit {
    Flag(&'static str, Model),
    Weights([u64; 3]),
    Count(u64),
    Revert(u64),
}

pub struct Admin {
    http: reqwest::Client,
    /// The local listeners of the nodes, with the operator's tokens.
    nodes: Vec<(String, String)>,
    random: fastrand::Rng,
    edits: Vec<Edit>,
    worlds: Worlds,
    head: u64,
    pub acknowledged: BTreeMap<u64, String>,
    pub refused: u64,
    /// How long changes took until they were acknowledged.
    pub took: Vec<Duration>,
}

impl Admin {
    pub fn new(nodes: Vec<(String, String)>, worlds: Worlds, seed: u64) -> Self {
        Self {
            http: reqwest::Client::new(),
            nodes,
            random: fastrand::Rng::with_seed(seed),
            edits: Vec::new(),
            worlds,
            head: 0,
            acknowledged: BTreeMap::new(),
            refused: 0,
            took: Vec::new(),
        }
    }

    /// The first documents, with a key that nothing limits.
    pub async fn begin(&mut self, key_hash: &str) {
        let world = World::first();
        let key = json!({ "sha256": key_hash, "role": "server" }).to_string();
        let mut changes = self.removals().await;
        changes.extend([
            change("flags", "chaos", &world.flags_document()),
            change("experiment", EXPERIMENT, &world.experiment_document()),
            change("config", "base", &world.config_document()),
            change("key", "chaos", &key),
        ]);
        let request = json!({ "author": "chaos", "reason": "begin", "changes": changes });
        let answer = self
            .ask("Apply", &request)
            .await
            .expect("the first change is taken");
        self.head = number(&answer["revision"]);
        let runs = self.runs(self.head).await.expect("a table");
        self.know(self.head, World { runs, ..world });
    }

    /// The demo's configuration has a schema, which knows nothing of a count.
    async fn removals(&self) -> Vec<Value> {
        let mut removals = Vec::new();
        for kind in ["config", "config-schema", "cohort"] {
            let list = self
                .ask("List", &json!({ "kind": kind }))
                .await
                .expect("a list");
            let documents = list["documents"].as_array().cloned().unwrap_or_default();
            removals.extend(documents.iter().map(|one| json!({ "id": one["id"] })));
        }
        // What is put stays out of what is removed.
        removals.retain(|one| one["id"] != json!({ "kind": "config", "name": "base" }));
        removals
    }

    /// One change; whatever became of it is known afterwards.
    pub async fn change(&mut self) {
        let edit = self.draw();
        let reason = format!("chaos {}", self.edits.len());
        self.edits.push(edit.clone());
        let began = Instant::now();
        match self.send(&edit, &reason).await {
            Ok(revision) => {
                self.took.push(began.elapsed());
                self.acknowledged.entry(revision).or_insert(reason);
            }
            Err(_) => self.refused += 1,
        }
        self.catch_up().await;
    }

    fn draw(&mut self) -> Edit {
        let random = &mut self.random;
        match random.u8(..10) {
            0..5 => Edit::Flag(FLAGS[random.usize(..FLAGS.len())], Model::random(random)),
            5..7 => {
                let (b, c) = (random.u64(..=40), random.u64(..=40));
                Edit::Weights([100 - b - c, b, c])
            }
            7..9 => Edit::Count(self.edits.len() as u64),
            _ => {
                let worlds = self.worlds.lock().unwrap();
                let numbers: Vec<u64> = worlds.keys().rev().take(20).copied().collect();
                Edit::Revert(numbers[random.usize(..numbers.len())])
            }
        }
    }

    async fn send(&mut self, edit: &Edit, reason: &str) -> Result<u64, String> {
        let mut world = (*self.newest()).clone();
        let (method, mut request) = match edit {
            Edit::Revert(to) => ("Revert", json!({ "revision": to.to_string() })),
            edit => {
                edit.make(&mut world);
                let change = match edit {
                    Edit::Flag(..) => change("flags", "chaos", &world.flags_document()),
                    Edit::Weights(_) => {
                        change("experiment", EXPERIMENT, &world.experiment_document())
                    }
                    _ => change("config", "base", &world.config_document()),
                };
                ("Apply", json!({ "changes": [change] }))
            }
        };
        request["author"] = "chaos".into();
        request["reason"] = reason.into();
        let before = self.head;
        let answer = self.ask(method, &request).await?;
        match number(&answer["revision"]) {
            // Nothing differed.
            same if same <= before => Err("nothing new".into()),
            revision => Ok(revision),
        }
    }

    /// Learns what revisions there are that are not known yet: also those whose answer was lost.
    async fn catch_up(&mut self) {
        loop {
            match self.try_to_catch_up().await {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn try_to_catch_up(&mut self) -> Result<(), String> {
        let history = self.ask("History", &json!({ "limit": 20 })).await?;
        let mut revisions: Vec<(u64, String)> = history["revisions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                (
                    number(&one["number"]),
                    one["reason"].as_str().unwrap_or_default().into(),
                )
            })
            .filter(|(number, _)| *number > self.head)
            .collect();
        revisions.sort();
        for (revision, reason) in revisions {
            assert_eq!(revision, self.head + 1, "revisions have no gaps: {history}");
            let at = reason
                .strip_prefix("chaos ")
                .and_then(|at| at.parse::<usize>().ok());
            let edit = self.edits[at.expect("nobody else changes anything")].clone();
            let mut world = match edit {
                Edit::Revert(to) => (*self.worlds.lock().unwrap()[&to]).clone(),
                _ => (*self.newest()).clone(),
            };
            edit.make(&mut world);
            world.runs = self.runs(revision).await?;
            if !matches!(edit, Edit::Revert(_)) {
                let checked = world.check_table(&self.newest());
                checked.unwrap_or_else(|wrong| panic!("revision {revision}: {wrong}"));
            }
            self.know(revision, world);
            self.head = revision;
        }
        Ok(())
    }

    /// The table of slots of a revision, as it is published.
    async fn runs(&self, revision: u64) -> Result<Vec<(String, u64)>, String> {
        let id = json!({ "kind": "allocation", "name": format!("experiment.{EXPERIMENT}") });
        let request = json!({ "id": id, "revision": revision.to_string() });
        let answer = self.ask("Get", &request).await?;
        let text = answer["document"]["body"].as_str().unwrap_or_default();
        let allocation: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let runs = allocation["table"]["runs"].clone();
        serde_json::from_value(runs).map_err(|error| error.to_string())
    }

    /// All revisions with their reasons, from the tables.
    pub async fn history(&self) -> BTreeMap<u64, String> {
        let mut all = BTreeMap::new();
        let mut before = Value::Null;
        loop {
            let mut request = json!({ "limit": 500 });
            if !before.is_null() {
                request["before"] = before.clone();
            }
            let page = self.ask("History", &request).await.expect("the history");
            for one in page["revisions"].as_array().into_iter().flatten() {
                let reason = one["reason"].as_str().unwrap_or_default().to_owned();
                all.insert(number(&one["number"]), reason);
            }
            let Some((oldest, _)) = all.first_key_value() else {
                return all;
            };
            before = oldest.to_string().into();
            if page["more"] != true {
                return all;
            }
        }
    }

    /// The documents as the tables have them now.
    pub async fn documents(&self) -> [String; 3] {
        let mut texts = [const { String::new() }; 3];
        let ids = [
            ("flags", "chaos"),
            ("experiment", EXPERIMENT),
            ("config", "base"),
        ];
        for (text, (kind, name)) in texts.iter_mut().zip(ids) {
            let request = json!({ "id": { "kind": kind, "name": name } });
            let answer = self.ask("Get", &request).await.expect("a document");
            *text = answer["document"]["body"]
                .as_str()
                .unwrap_or_default()
                .into();
        }
        texts
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn newest(&self) -> Arc<World> {
        Arc::clone(&self.worlds.lock().unwrap()[&self.head])
    }

    fn know(&self, revision: u64, world: World) {
        self.worlds
            .lock()
            .unwrap()
            .insert(revision, Arc::new(world));
    }

    async fn ask(&self, method: &str, request: &Value) -> Result<Value, String> {
        let at = fastrand::usize(..self.nodes.len());
        let (local, token) = &self.nodes[at];
        let url = format!("http://{local}/service/mobile/hydrant.mobile.v1.Documents/{method}");
        let answer = self.http.post(url).header("hydrant-token", token);
        let answer = answer.timeout(Duration::from_secs(15)).json(request).send();
        let answer = answer.await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        match status.as_u16() {
            200 => serde_json::from_str(&text).map_err(|error| error.to_string()),
            status @ 400..500 if status != 409 && status != 429 && status != 499 => {
                panic!("{method} is refused: {status} {text}")
            }
            status => Err(format!("{status} {text}")),
        }
    }
}

impl Edit {
    fn make(&self, world: &mut World) {
        match self {
            Self::Flag(flag, model) => {
                world.flags.insert(flag, model.clone());
            }
            Self::Weights(weights) => world.weights = *weights,
            Self::Count(count) => world.count = *count,
            Self::Revert(_) => {}
        }
    }
}

fn change(kind: &str, name: &str, body: &str) -> Value {
    json!({ "id": { "kind": kind, "name": name }, "body": body })
}

/// 64 bits are texts in the JSON of Protobuf.
pub fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(0),
        value => value.as_u64().unwrap_or(0),
    }
}
