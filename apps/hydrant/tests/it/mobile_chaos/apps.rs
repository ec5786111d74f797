//! Apps that ask all the time, and what they were told: checked against the revision that each
//! answer names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::admin::Worlds;
use super::oracle::{EXPERIMENT, FLAGS, PLATFORMS, Person, TESTED};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an app is told whose report can't be kept in time.
const LATER: [&str; 3] = ["not_kept", "not_in_time", "too_many_reports"];
/// The most that is told of what went wrong.
const TOLD: usize = 20;

/// What an app was told.
#[derive(Debug)]
struct Answer {
    revision: u64,
    person: Person,
    told: Told,
}

#[derive(Debug)]
enum Told {
    /// Flags, each with its variant and its value.
    Flags(Vec<(String, Option<String>, Value)>),
    /// The number in the configuration, and flags. None when the answer says that its deadline came
    /// before the configuration.
    Init(Option<u64>, Vec<(String, Option<String>, Value)>),
}

/// What all apps together have seen.
#[derive(Default)]
pub struct Seen {
    pub answers: u64,
    /// Reports that could not be kept in time.
    pub later: u64,
    pub wrong: Vec<String>,
    pub failed: Vec<String>,
    /// The slowest answer.
    pub slowest: Duration,
    /// How many answers named which revision.
    pub revisions: BTreeMap<u64, u64>,
    waiting: Vec<Answer>,
}

impl Seen {
    fn fail(&mut self, what: String) {
        if self.failed.len() < TOLD {
            self.failed.push(what);
        }
    }

    /// Compares what was told with the worlds that are known by now; the rest waits.
    pub fn check(&mut self, worlds: &Worlds) {
        let worlds = worlds.lock().unwrap().clone();
        let mut later = Vec::new();
        for answer in std::mem::take(&mut self.waiting) {
            match worlds.get(&answer.revision) {
                None => later.push(answer),
                Some(world) => {
                    *self.revisions.entry(answer.revision).or_default() += 1;
                    if let Some(wrong) = answer.is_wrong(world)
                        && self.wrong.len() < TOLD
                    {
                        self.wrong.push(wrong);
                    }
                }
            }
        }
        self.waiting = later;
    }

    /// How many answers name a revision that nobody knows.
    pub fn unknown(&self) -> usize {
        self.waiting.len()
    }
}

impl Answer {
    fn is_wrong(&self, world: &super::oracle::World) -> Option<String> {
        let flags = match &self.told {
            Told::Flags(flags) => flags,
            Told::Init(count, flags) => {
                if count.is_some_and(|count| count != world.count) {
                    return Some(format!("{self:?}: the configuration has {}", world.count));
                }
                flags
            }
        };
        for (flag, variant, value) in flags {
            let expected = world.variant(flag, &self.person);
            let value_of = expected.map(|variant| json!(format!("{flag}-{variant}")));
            let is_right = variant.as_deref() == expected && value_of.unwrap_or_default() == *value;
            if !is_right {
                return Some(format!("{flag} has to be {expected:?}: {self:?}"));
            }
        }
        None
    }
}

/// Asks until it is stopped.
pub struct Apps {
    pub public: Vec<SocketAddr>,
    pub key: String,
    pub stop: Arc<AtomicBool>,
    pub seen: Arc<Mutex<Seen>>,
}

impl Apps {
    pub async fn ask_again_and_again(&self, seed: u64, pause: Duration) {
        let mut random = fastrand::Rng::with_seed(seed);
        let http = Client::builder().timeout(PATIENCE).build().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let person = Person {
                key: format!("person-{}", random.u32(..2000)),
                platform: PLATFORMS[random.usize(..3)],
            };
            let public = self.public[random.usize(..self.public.len())];
            let began = Instant::now();
            let asked = match random.u8(..16) {
                0 => self.init(&http, public, person, Method::GET).await,
                1 => self.init(&http, public, person, Method::POST).await,
                2 => self.bulk(&http, public, person).await,
                3 => self.expose(&http, public, person).await,
                _ => {
                    let all = FLAGS.len() + 1;
                    let flag = FLAGS.get(random.usize(..all)).unwrap_or(&TESTED);
                    self.single(&http, public, person, flag).await
                }
            };
            self.count(asked, began.elapsed());
            tokio::time::sleep(pause).await;
        }
    }

    fn count(&self, asked: Result<Answer, String>, took: Duration) {
        let mut seen = self.seen.lock().unwrap();
        seen.slowest = seen.slowest.max(took);
        match asked {
            Ok(answer) => {
                seen.answers += 1;
                seen.waiting.push(answer);
            }
            Err(error) => seen.fail(error),
        }
    }

    async fn single(
        &self,
        http: &Client,
        public: SocketAddr,
        person: Person,
        flag: &str,
    ) -> Result<Answer, String> {
        let path = format!("/api/mobile/ofrep/v1/evaluate/flags/{flag}");
        let (revision, body) = self.evaluate(http, public, &path, &person).await?;
        let told = Told::Flags(vec![flag_of(&body)]);
        Ok(Answer {
            revision,
            person,
            told,
        })
    }

    async fn bulk(
        &self,
        http: &Client,
        public: SocketAddr,
        person: Person,
    ) -> Result<Answer, String> {
        let path = "/api/mobile/ofrep/v1/evaluate/flags";
        let (revision, body) = self.evaluate(http, public, path, &person).await?;
        let told = Told::Flags(flags_of(&body));
        Ok(Answer {
            revision,
            person,
            told,
        })
    }

    /// Sees its arm, and reports that.
    async fn expose(
        &self,
        http: &Client,
        public: SocketAddr,
        person: Person,
    ) -> Result<Answer, String> {
        let seen = self.single(http, public, person, TESTED).await?;
        let Told::Flags(flags) = &seen.told else {
            unreachable!("a flag was asked for");
        };
        let exposure =
            json!({ "experiment": EXPERIMENT, "subject": seen.person.key, "arm": flags[0].1 });
        let metric = json!({
            "id": fastrand::u64(..).to_string(), "metric": "seen", "subject": seen.person.key, "value": 1,
        });
        let reports = [
            ("exposures", json!({ "exposures": [exposure] })),
            ("metrics", json!({ "metrics": [metric] })),
        ];
        for (kind, body) in reports {
            let url = format!("http://{public}/api/mobile/v1/{kind}");
            let sent = http.post(url).bearer_auth(&self.key).json(&body).send();
            match read(sent.await).await {
                // The service or its tables were away for long: the app is to send it later.
                Err(told) if LATER.iter().any(|reason| told.contains(reason)) => {
                    self.seen.lock().unwrap().later += 1;
                }
                answered => drop(answered?),
            }
        }
        Ok(seen)
    }

    async fn evaluate(
        &self,
        http: &Client,
        public: SocketAddr,
        path: &str,
        person: &Person,
    ) -> Result<(u64, Value), String> {
        let context = json!({ "targetingKey": person.key, "platform": person.platform });
        let request = http.post(format!("http://{public}{path}"));
        let request = request
            .bearer_auth(&self.key)
            .json(&json!({ "context": context }));
        answered(request.send().await).await
    }

    async fn init(
        &self,
        http: &Client,
        public: SocketAddr,
        person: Person,
        method: Method,
    ) -> Result<Answer, String> {
        let context = json!({ "platform": person.platform, "version": "7.2.1", "locale": "en-US" });
        let url = format!("http://{public}/api/mobile/v1/init");
        let request = match method {
            Method::GET => {
                let platform = person.platform;
                http.get(format!(
                    "{url}?platform={platform}&version=7.2.1&locale=en-US"
                ))
            }
            _ => http.post(url).json(&json!({ "context": context })),
        };
        let (revision, body) = answered(request.bearer_auth(&self.key).send().await).await?;
        let is_late = body["parts"]["config"]["error"] == "deadline";
        let count = match is_late && body["config"].is_null() {
            true => None,
            false => Some(body["config"]["count"].as_u64().unwrap_or(u64::MAX)),
        };
        // The call has a name of its own for who asks; the flags here are checked by evaluation.
        let told = Told::Init(count, Vec::new());
        Ok(Answer {
            revision,
            person,
            told,
        })
    }
}

/// The body of an answer, and the revision that it was made from.
async fn answered(answer: reqwest::Result<reqwest::Response>) -> Result<(u64, Value), String> {
    let (revision, body) = read(answer).await?;
    Ok((revision.ok_or("no revision is named")?, body))
}

async fn read(answer: reqwest::Result<reqwest::Response>) -> Result<(Option<u64>, Value), String> {
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let (status, url) = (answer.status(), answer.url().clone());
    let revision = answer.headers().get("hydrant-revision");
    let revision = revision.and_then(|value| value.to_str().ok()?.parse().ok());
    let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status != 200 {
        return Err(format!("{url}: {status}: {text}"));
    }
    let body = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok((revision, body))
}

fn flag_of(one: &Value) -> (String, Option<String>, Value) {
    let text = |name: &str| one[name].as_str().map(str::to_owned);
    (
        text("key").unwrap_or_default(),
        text("variant"),
        one["value"].clone(),
    )
}

/// Those of the demo are not ours.
fn flags_of(body: &Value) -> Vec<(String, Option<String>, Value)> {
    let all = body["flags"].as_array().into_iter().flatten().map(flag_of);
    all.filter(|(key, ..)| FLAGS.contains(&key.as_str()) || key == TESTED)
        .collect()
}

#[test]
fn an_answer_that_mixes_two_revisions_is_noticed() {
    use super::oracle::{Model, World};
    let mut second = World::first();
    second.flags.insert("plain", Model::Fixed("b"));
    second.runs = vec![("a".into(), 10_000)];
    second.count = 1;
    let worlds = Worlds::default();
    let all = [(1, World::first()), (2, second)].map(|(at, world)| (at, Arc::new(world)));
    worlds.lock().unwrap().extend(all);
    let flag = |variant: &str| {
        let value = json!(format!("plain-{variant}"));
        ("plain".to_owned(), Some(variant.to_owned()), value)
    };
    let wrong = |revision, told| {
        let person = Person {
            key: "one".into(),
            platform: "ios",
        };
        let mut seen = Seen::default();
        seen.waiting.push(Answer {
            revision,
            person,
            told,
        });
        seen.check(&worlds);
        (seen.wrong.len(), seen.unknown())
    };
    assert_eq!(wrong(1, Told::Flags(vec![flag("a")])), (0, 0));
    assert_eq!(wrong(2, Told::Flags(vec![flag("b")])), (0, 0));
    assert_eq!(
        wrong(1, Told::Flags(vec![flag("b")])),
        (1, 0),
        "newer flags"
    );
    assert_eq!(
        wrong(2, Told::Flags(vec![flag("a")])),
        (1, 0),
        "older flags"
    );
    assert_eq!(
        wrong(2, Told::Init(Some(0), vec![flag("b")])),
        (1, 0),
        "older configuration"
    );
    assert_eq!(
        wrong(3, Told::Init(Some(0), Vec::new())),
        (0, 1),
        "nobody made it"
    );
}
