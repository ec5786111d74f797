//! The database of submissions in each of two data centres: the primary is lost with what it had not passed on, or is
//! moved while all is well. Stores send all the time.

mod cluster;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_harness::skipped;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::harness::{Node, Setup, pause};
use crate::submissions_chaos::record::{self, get};

/// How many stores send at the same time.
const STORES: usize = 4;
/// How long something may take that is waited for.
const LONG: Duration = Duration::from_secs(120);

/// Two databases, and a server beside the first.
struct Centres {
    node: Node,
    a: MariaDb,
    b: MariaDb,
}

impl Centres {
    fn start() -> Option<Self> {
        let started = MariaDb::start(Options::default().with_log(100))
            .and_then(|a| Ok((a.secondary(200)?, a)));
        let (b, a) = started.map_err(skipped).ok()?;
        let table = |head: &str, name: &str, database: &MariaDb| {
            format!(
                "[{head}]\nname = {name:?}\nurl = {:?}\npassword_file = {:?}\n",
                database.url(DATABASE),
                database.password_file()
            )
        };
        let text = table("records", "a", &a) + &table("records.far", "b", &b);
        let node = Setup::up().config(&text).start();
        let declare = [
            "submissions",
            "primary",
            "--set",
            "a",
            "--confirm",
            "3s",
            "-m",
            "first",
        ];
        node.wait("the first primary is declared", |node| {
            node.run(&declare).status.success().then_some(())
        });
        assert!(b.catches_up_with(&a), "the other one follows");
        Some(Self { node, a, b })
    }

    fn failover(&self, to: &str) -> Output {
        let arguments = [
            "submissions",
            "failover",
            "--to",
            to,
            "--apply",
            "-m",
            "a test",
        ];
        let output = self.node.run(&arguments);
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            self.node.errors()
        );
        output
    }

    fn primary(&self) -> Value {
        self.node.json(&["submissions", "primary"])["primary"].clone()
    }

    /// Whoever is asked may have to hear first which database is the primary.
    fn reconcile(&self, how: &str) -> Value {
        self.node.wait("both are compared", |node| {
            let output = node.run(&["--json", "submissions", "reconcile", how]);
            serde_json::from_slice(&output.stdout).ok()
        })
    }

    /// Each is delivered, and the consumer has it once; and the record of it is whole.
    fn check(&self, sent: &BTreeMap<String, String>) {
        let public = self.node.public();
        for id in sent.keys() {
            self.node.wait("all are delivered", |_| {
                let status = get(public, &format!("submissions/v1/submissions/{id}"))?;
                (status["state"] == "delivered").then_some(())
            });
        }
        let orders = get(public, "demo-consumer/v1/orders").expect("the consumer tells what came");
        let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
        for order in orders.as_array().expect("a list") {
            *keys
                .entry(order["key"].as_str().expect("a key"))
                .or_default() += 1;
        }
        for id in sent.keys() {
            assert_eq!(keys.get(id.as_str()), Some(&1), "{id}");
        }
        record::whole_audit(&self.node);
    }
}

/// Stores that send until they are told to stop.
struct Sending {
    runtime: Runtime,
    shared: Arc<Shared>,
    stores: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The servers, which the stores are given to in turn.
    public: Vec<SocketAddr>,
    stop: AtomicBool,
    submitted: AtomicUsize,
    /// What was acknowledged, and its name.
    sent: Mutex<BTreeMap<String, String>>,
    /// When something was acknowledged last, and the longest time without it.
    last: Mutex<(Instant, Duration)>,
}

impl Sending {
    fn begin(public: Vec<SocketAddr>) -> Self {
        let shared = Arc::new(Shared {
            public,
            stop: AtomicBool::new(false),
            submitted: AtomicUsize::new(0),
            sent: Mutex::default(),
            last: Mutex::new((Instant::now(), Duration::ZERO)),
        });
        let runtime = hydrant_harness::runtime();
        let stores = (0..STORES).map(|store| {
            let shared = Arc::clone(&shared);
            runtime.spawn(async move { shared.send_again_and_again(store).await })
        });
        let stores = stores.collect();
        Self {
            runtime,
            shared,
            stores,
        }
    }

    /// Waits until so many more were taken in and submitted.
    fn wait_for(&self, more: usize) {
        let before = self.shared.submitted.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.shared.submitted.load(Ordering::Relaxed) < before + more {
            assert!(begun.elapsed() < LONG, "nothing is taken in");
            pause(Duration::from_millis(50));
        }
    }

    /// What was acknowledged, and the longest time in which nothing was.
    fn end(self) -> (BTreeMap<String, String>, Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            for store in self.stores {
                store.await.expect("a store does not panic");
            }
        });
        let sent = std::mem::take(&mut *self.shared.sent.lock().unwrap());
        let longest = self.shared.last.lock().unwrap().1;
        (sent, longest)
    }
}

impl Shared {
    async fn send_again_and_again(&self, store: usize) {
        let public = self.public[store % self.public.len()];
        let client = reqwest::Client::builder();
        let client = client.timeout(Duration::from_secs(8)).build().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            self.send(&client, public).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As the guide says: whatever is not acknowledged is sent again, as it was.
    async fn send(&self, client: &reqwest::Client, public: SocketAddr) {
        let id = uuid::Uuid::from_u128(fastrand::u128(..)).to_string();
        let name = format!("Ada {id}");
        let submissions = format!("http://{public}/api/submissions/v1/submissions");
        let submit = format!("{submissions}/{id}/submit");
        loop {
            let post = client.post(&submissions).header("correlation-id", &id);
            let post = post.json(&json!({ "form": "demo", "fields": { "name": name } }));
            if !is_good(post.send().await) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            self.sent.lock().unwrap().insert(id.clone(), name.clone());
            self.acknowledged();
            let answer = client.post(&submit).send().await;
            if is_good(answer) {
                self.submitted.fetch_add(1, Ordering::Relaxed);
                return self.acknowledged();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn acknowledged(&self) {
        let mut last = self.last.lock().unwrap();
        let longest = last.1.max(last.0.elapsed());
        *last = (Instant::now(), longest);
    }
}

fn is_good(answer: reqwest::Result<reqwest::Response>) -> bool {
    let Ok(answer) = answer else { return false };
    let status = answer.status();
    let is_expected = status.is_success()
        || status.is_server_error()
        || status == StatusCode::NOT_FOUND
        || status == StatusCode::CONFLICT;
    assert!(is_expected, "{answer:?}");
    status.is_success()
}

#[test]
fn the_primary_is_lost_with_what_it_had_not_passed_on_and_nothing_that_was_acknowledged_is() {
    let Some(centres) = Centres::start() else {
        return;
    };
    let sending = Sending::begin(vec![centres.node.public()]);
    sending.wait_for(10);
    // From here on nothing comes over.
    centres.b.sql("STOP SLAVE IO_THREAD").expect("b answers");
    sending.wait_for(10);
    let exposed = centres.node.json(&["submissions", "exposure"])["submissions"].clone();
    assert!(exposed["count"].as_u64() >= Some(10), "{exposed}");
    assert!(exposed["oldestUnixMs"].is_number(), "{exposed}");
    centres.a.kill();
    let begun = Instant::now();
    centres.failover("b");
    let took = begun.elapsed();
    sending.wait_for(10);
    let now = centres.primary();
    assert_eq!((&now["site"], &now["epoch"]), (&json!("b"), &json!(2)));
    assert_eq!(now["unreconciled"], true);
    // The same once more changes nothing.
    centres.failover("b");
    assert_eq!(centres.primary()["epoch"], 2);
    let (sent, refused) = sending.end();
    centres.a.restart();
    centres.node.wait("the primary of old is fenced", |_| {
        let row = centres
            .a
            .sql("SELECT epoch, site FROM hydrant.hydrant_fence")?;
        (row == "2\tb\n").then_some(())
    });
    let plan = centres.reconcile("--plan");
    let missing = plan["counts"]["missing"].as_u64().unwrap_or_default();
    assert!(missing > 0, "{plan}");
    let done = centres.reconcile("--apply");
    assert_eq!(done["counts"]["missing"], missing, "{done}");
    let again = centres.reconcile("--apply");
    assert_eq!(again["differences"], json!([]), "{again}");
    assert_eq!(centres.primary()["unreconciled"], false);
    centres.check(&sent);
    println!(
        "{} acknowledged; nothing was for {refused:.1?}, of which the command took {took:.1?}; \
         {} compared, reconciled: {}",
        sent.len(),
        done["compared"],
        done["counts"]
    );
}

#[test]
fn the_primary_moves_there_and_back_while_all_is_well_and_nothing_has_to_be_reconciled() {
    let Some(centres) = Centres::start() else {
        return;
    };
    let sending = Sending::begin(vec![centres.node.public()]);
    sending.wait_for(10);
    // The other one is behind; it has to catch up before it takes over.
    centres.b.sql("STOP SLAVE SQL_THREAD").expect("b answers");
    sending.wait_for(5);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| centres.failover("b"));
        pause(Duration::from_secs(3));
        assert_eq!(centres.primary()["ready"], false, "it waits");
        centres.b.sql("START SLAVE SQL_THREAD").expect("b answers");
        moving.join().expect("it becomes the primary")
    });
    sending.wait_for(10);
    let now = centres.primary();
    assert_eq!(
        (&now["site"], &now["unreconciled"]),
        (&json!("b"), &json!(false))
    );
    // Each has what the other has; the new one has more.
    let plan = centres.reconcile("--plan");
    assert_eq!(plan["differences"], json!([]), "{plan}");
    // The old one takes its place behind the new one, and then in front again.
    centres.a.follow_as_former_primary(&centres.b);
    assert!(centres.a.catches_up_with(&centres.b));
    centres.failover("a");
    sending.wait_for(10);
    assert_eq!(centres.primary()["epoch"], 3);
    let (sent, refused) = sending.end();
    centres.check(&sent);
    println!(
        "{} acknowledged; nothing was for {refused:.1?} at most, 3 s of it told to",
        sent.len()
    );
}

#[test]
fn a_plan_says_what_is_in_the_way_and_nothing_is_taken_in_before_there_is_a_primary() {
    let Some(centres) = Centres::start() else {
        return;
    };
    let plan = |node: &Node| {
        let output = node.run(&["--json", "submissions", "failover", "--plan"]);
        let code = output.status.code();
        let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (code, plan)
    };
    let (code, told) = plan(&centres.node);
    assert_eq!((code, &told["blockers"]), (Some(0), &json!([])), "{told}");
    assert_eq!(told["to"], "b");
    centres
        .b
        .sql("STOP SLAVE; RESET SLAVE ALL")
        .expect("b answers");
    centres
        .b
        .sql("REVOKE hydrant_failover FROM hydrant@'%'")
        .expect("b answers");
    let (code, told) = plan(&centres.node);
    assert_eq!(code, Some(3));
    let blockers = told["blockers"].to_string();
    assert!(blockers.contains("READ_ONLY ADMIN"), "{blockers}");
    assert!(blockers.contains("follows nobody"), "{blockers}");
    let arguments = ["submissions", "failover", "--to", "b", "--apply", "-m", "x"];
    assert!(!centres.node.run(&arguments).status.success());
    assert_eq!(centres.primary()["epoch"], 1, "nothing has begun");
}
