//! The same where the primary is a cluster, and each data centre has a server of ours: the data centre of the primary is
//! cut off from the other one and from ZooKeeper, and then its cluster is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hydrant_harness::Proxy;
use hydrant_harness::mariadb::{DATABASE, MariaDb};
use hydrant_runtime::Clock;

use super::{LONG, Sending, Value, json};
use crate::fleet::engines;
use crate::harness::{Node, pause};
use crate::submissions_chaos::record;
use crate::submissions_chaos::stores::Sent;
use crate::submissions_fleet::{Parts, SESSION, publics};

/// Both data centres with their servers.
struct Centres {
    parts: Parts,
    nodes: Vec<Node>,
    /// The way of the first one to ZooKeeper, and those of the second one to the cluster of the first.
    ways: Vec<Proxy>,
}

impl Centres {
    fn start() -> Option<Self> {
        let parts = Parts::start()?;
        let zookeeper = parts.engines.zookeeper.addresses();
        let to_zookeeper = Proxy::start(zookeeper[0].parse().expect("an address"));
        let to_cluster = [0, 1].map(|server| Proxy::start(parts.galera.node(server).address()));
        let through = vec![to_zookeeper.address().to_string()];
        let servers = [(0, through), (1, zookeeper)].map(|(centre, zookeeper)| {
            let tables = engines::coordination(&zookeeper, SESSION)
                + &engines::state(&parts.engines.redis.addresses())
                + &databases(&parts, centre, &to_cluster);
            parts.server_with(centre, &tables)
        });
        let nodes = parts.nodes_of(servers);
        let ways = [to_zookeeper].into_iter().chain(to_cluster).collect();
        let centres = Self { parts, nodes, ways };
        centres.declare();
        Some(centres)
    }

    /// Nothing goes between the data centres, nor from the first one to the third, where ZooKeeper is.
    fn cut(&self) {
        let stopped = self.parts.secondary.sql("STOP SLAVE IO_THREAD");
        stopped.expect("b answers");
        self.ways.iter().for_each(Proxy::cut);
    }

    /// Ends that.
    fn join(&self) {
        self.ways.iter().for_each(Proxy::restore);
    }

    /// The second data centre gets the primary.
    fn failover(&self) {
        let words = "submissions failover --to b --apply -m cut-off";
        let words: Vec<_> = words.split(' ').collect();
        let output = self.nodes[1].run(&words);
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            self.nodes[1].errors()
        );
    }

    /// The cluster is the primary, confirmed for as long as it is when nothing else is said.
    fn declare(&self) {
        let declare = ["submissions", "primary", "--set", "a", "-m", "first"];
        self.nodes[1].wait("the first primary is declared", |node| {
            node.run(&declare).status.success().then_some(())
        });
        let followed = self.parts.galera.node(1);
        assert!(self.parts.secondary.catches_up_with(followed), "b follows");
    }

    /// Brings over what was not passed on. The one that was cut off may be asked, and has to hear first which database
    /// is the primary.
    fn reconcile(&self) -> Value {
        let mut done = None;
        hydrant_harness::wait_until(LONG, || {
            let output = self.nodes[1].run(&["--json", "submissions", "reconcile", "--apply"]);
            done = serde_json::from_slice(&output.stdout).ok();
            done.is_some()
        });
        done.expect("it is reconciled")
    }

    /// Each is delivered once, with the number that the shop gave; the record of it is whole.
    fn check(&self, sent: &BTreeMap<String, String>) {
        let sent: Vec<Sent> = sent.iter().map(of_no_files).collect();
        let public = self.nodes[1].public();
        record::until_drained(public, &sent);
        let received = self.parts.shop.received();
        for one in &sent {
            assert!(
                received.contains_key(&one.id),
                "{} is not at the shop",
                one.id
            );
        }
        let order_of = |one: &Sent| hydrant_harness::WireMock::order_of(&one.id).into();
        record::check_references(public, &sent, order_of);
        record::check_folder(&self.parts.sshd.files(), &sent);
        record::whole_audit(&self.nodes[1]);
    }
}

/// `[records]` and `[records.far]` of a data centre; the second one reaches the cluster of the first `through` proxies.
fn databases(parts: &Parts, centre: usize, through: &[Proxy]) -> String {
    let cluster = &parts.galera;
    let mut url = cluster.url(0);
    if centre == 1 {
        for (server, proxy) in through.iter().enumerate() {
            let own = cluster.node(server).address().to_string();
            url = url.replace(&own, &proxy.address().to_string());
        }
    }
    let of_a = (url, cluster.node(0).password_file());
    let of_b = (
        parts.secondary.url(DATABASE),
        parts.secondary.password_file(),
    );
    let mut sites = [("a", of_a), ("b", of_b)];
    sites.rotate_left(centre);
    let heads = ["records", "records.far"];
    let tables = heads
        .iter()
        .zip(sites)
        .map(|(head, (name, (url, password)))| {
            format!("[{head}]\nname = {name:?}\nurl = {url:?}\npassword_file = {password:?}\n")
        });
    tables.collect()
}

fn of_no_files((id, name): (&String, &String)) -> Sent {
    Sent {
        id: id.clone(),
        name: name.clone(),
        reference: None,
        accepted_in: Duration::ZERO,
        submitted_in: Duration::ZERO,
        attempts: 0,
        files: Vec::new(),
    }
}

/// Sends a new submission, whatever comes of it.
fn post(public: SocketAddr) {
    hydrant_harness::runtime().block_on(async {
        let url = format!("http://{public}/api/submissions/v1/submissions");
        let post = reqwest::Client::new().post(url);
        let post = post.header("correlation-id", uuid::Uuid::new_v4().to_string());
        let post = post.json(&json!({ "form": "demo", "fields": { "name": "Ada" } }));
        let _ = post.send().await;
    });
}

fn taken_in_since(database: &MariaDb, unix_ms: i64) -> i64 {
    let count = "SELECT COUNT(*) FROM hydrant.submissions WHERE accepted_ms >";
    number(database, &format!("{count} {unix_ms}"))
}

fn taken_in_last(database: &MariaDb) -> i64 {
    number(database, "SELECT MAX(accepted_ms) FROM hydrant.submissions")
}

fn number(database: &MariaDb, ask: &str) -> i64 {
    let told = database.sql(ask).expect("an answer");
    told.trim().parse().expect("a number")
}

#[test]
fn a_data_centre_that_is_cut_off_stops_before_another_database_is_the_primary_and_then_its_own_is_lost()
 {
    let Some(centres) = Centres::start() else {
        return;
    };
    let (one, two) = (&centres.nodes[0], &centres.nodes[1]);
    let sending = Sending::begin(publics(&centres.nodes));
    sending.wait_for(10);
    centres.cut();
    let (cut, begun) = (Clock::system().unix_ms(), Instant::now());
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| centres.failover());
        // Stores send to both all the time, and this one to the first, until a while after it should have stopped.
        let mut later = Instant::now();
        while later.elapsed() < Duration::from_secs(2) {
            post(one.public());
            pause(Duration::from_millis(200));
            if !moving.is_finished() {
                later = Instant::now();
            }
        }
        moving.join().expect("b is the primary");
    });
    let took = begun.elapsed() - Duration::from_secs(2);
    let primary = two.json(&["submissions", "primary"])["primary"].clone();
    let since = primary["sinceUnixMs"].as_i64().expect("a time");
    sending.wait_for(5);
    centres.parts.galera.kill_all();
    centres.join();
    sending.wait_for(5);
    let (sent, refused) = sending.end();
    centres.parts.galera.bootstrap(0);
    two.wait("the primary of old is fenced", |_| {
        let row = "SELECT epoch, site FROM hydrant.hydrant_fence";
        (centres.parts.galera.node(0).sql(row)? == "2\tb\n").then_some(())
    });
    let of_a = centres.parts.galera.node(0);
    let (went_on, last) = (taken_in_since(of_a, cut), taken_in_last(of_a));
    assert!(went_on > 0, "it goes on for as long as it was confirmed");
    assert!(last < since, "two primaries: {last}, {primary}");
    let done = centres.reconcile();
    assert!(done["counts"]["missing"].as_u64() > Some(0), "{done}");
    let nothing = centres.reconcile();
    assert_eq!(nothing["differences"], json!([]), "{nothing}");
    centres.check(&sent);
    println!(
        "{} acknowledged; who was cut off took in {went_on} more and stopped after {} ms, b was the primary after {} ms \
         ({took:.1?} until the command said so); nothing was acknowledged for {refused:.1?} at most; {} compared, \
         reconciled: {}",
        sent.len(),
        last - cut,
        since - cut,
        done["compared"],
        done["counts"]
    );
}
