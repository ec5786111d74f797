//! What submissions stand on goes away for a whole run, and comes back: what is accepted, what is answered, what
//! waits, and how the queue drains.

use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_harness::{Galera, SeaweedFs, skipped};
use serde_json::{Value, json};

use crate::harness::{Node, Setup, pause, seed};
use crate::submissions_chaos::record::{self, get};
use crate::submissions_chaos::stores::{Sent, Stores};
use crate::submissions_fleet::{Parts, publics};
use crate::submissions_line::{self, Line};

/// How many submissions a scenario sends.
const COUNT: usize = 32;
/// How many workers the demo has.
const WORKERS: usize = 2;
/// Short waits, and one at a time, so that the order can be seen.
const FLOW: &str = "concurrency = 1\nlease = \"5s\"\nbackoff = { first = \"200ms\", most = \"1s\" }\n\
                    breaker = { failures = 3, first = \"200ms\", most = \"2s\" }\n";

#[test]
fn a_server_of_the_database_is_cut_off_and_joins_again_while_stores_send() {
    let galera = match Galera::pair() {
        Ok(galera) => galera,
        Err(missing) => return skipped(missing),
    };
    let node = Setup::up().config(&galera.table(0)).start();
    let runtime = hydrant_harness::runtime();
    let begun = Instant::now();
    let sending = Stores::start(&runtime, vec![node.public()], COUNT * 2, seed());
    pause(Duration::from_millis(500));
    galera.isolate(0, true);
    galera.wait_size(1, 2);
    let evicted = begun.elapsed();
    pause(Duration::from_secs(5));
    galera.isolate(0, false);
    galera.wait_size(1, 3);
    println!(
        "left by the others after {evicted:?}, back after {:?}",
        begun.elapsed()
    );
    let (sent, refused) = sending.wait(&runtime);
    let took = begun.elapsed();
    let drained = record::until_drained(node.public(), &sent);
    record::print(&sent, took, drained, &refused);
    check_up(&node, &sent);
    // Without any of them nothing is taken in, and that is said.
    (0..2).for_each(|server| galera.node(server).kill());
    let (status, problem) = post(&node);
    assert_eq!(
        (status, &problem["reason"]),
        (503, &json!("records_unavailable")),
        "{problem}"
    );
}

#[test]
fn the_near_object_store_is_away_for_a_whole_run_and_then_both() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (Some(near), Some(far)) = (SeaweedFs::start(target), SeaweedFs::start(target)) else {
        return;
    };
    near.process().kill();
    let (near_lines, far_lines) = (near.lines("a"), far.lines("b"));
    let text = format!("[objects]\n{near_lines}[objects.far]\n{far_lines}");
    let node = Setup::up().config(&text).start();
    let runtime = hydrant_harness::runtime();
    let begun = Instant::now();
    let sending = Stores::start(&runtime, vec![node.public()], COUNT, seed());
    let (sent, refused) = sending.wait(&runtime);
    let took = begun.elapsed();
    let drained = record::until_drained(node.public(), &sent);
    record::print(&sent, took, drained, &refused);
    check_up(&node, &sent);
    for one in &sent {
        let status = get(
            node.public(),
            &format!("submissions/v1/submissions/{}", one.id),
        )
        .unwrap();
        let attachments = status["attachments"].as_array().expect("a list");
        let stored = attachments.iter().map(|one| &one["stored"]);
        assert!(stored.eq(vec![&json!(["b"]); one.files.len()]), "{status}");
    }
    // With both away, what has no attachment is taken in and brought away as before.
    far.process().kill();
    let (status, accepted) = post(&node);
    assert_eq!(status, 201, "{accepted}");
    let (status, problem) = upload(&node, accepted["id"].as_str().expect("an id"));
    assert_eq!(
        (status, &problem["reason"]),
        (503, &json!("objects_unavailable")),
        "{problem}"
    );
    let (status, accepted) = post(&node);
    assert_eq!(status, 201, "{accepted}");
    let id = accepted["id"].as_str().expect("an id");
    let (status, submitted) = ask(&node, &format!("/{id}/submit"), &[], "");
    assert_eq!(status, 200, "{submitted}");
    node.wait("it is delivered", |node| {
        let status = get(node.public(), &format!("submissions/v1/submissions/{id}"))?;
        (status["state"] == "delivered").then_some(())
    });
}

#[test]
fn the_archive_is_away_for_a_whole_run_and_its_queue_drains_oldest_first_and_fairly() {
    let Some(line) = Line::start(FLOW) else {
        return;
    };
    line.sshd.stop_all();
    let before = line.to_archive.accepted();
    let begun = Instant::now();
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        large.push(line.send("large", &[b"png"]));
    }
    // They come last, and do not wait behind all of the other store.
    for number in 0..6 {
        small.push(line.send(&format!("small-{number}"), &[b"png"]));
    }
    let all: Vec<_> = large.iter().chain(&small).collect();
    assert!(
        all.iter().all(|one| one.status == 200),
        "the shop's number comes as before"
    );
    let slowest = all.iter().map(|one| one.took).max();
    line.node.wait("all wait for the archive", |_| {
        (line.backlog("archive") == all.len() as u64).then_some(())
    });
    pause(Duration::from_secs(6));
    let (away, attempts) = (begun.elapsed(), line.to_archive.accepted() - before);
    println!(
        "{} submissions had their number while the archive was away, the slowest after {slowest:?}; \
         {attempts} connections to it in {away:?}",
        all.len()
    );
    // Two workers, each with three attempts until it leaves the archive alone, and then ever fewer.
    assert!(attempts < 150, "a storm: {attempts}");
    line.sshd.restart();
    let back = Instant::now();
    all.iter().for_each(|one| line.wait_delivered(&one.id));
    let drained = back.elapsed();
    let connections = line.to_archive.accepted() - before - attempts;
    println!("drained in {drained:?} over {connections} connections");
    assert!(connections < all.len() as u64, "connections are used again");
    let at = |one: &&submissions_line::Sent| line.delivered_at(&one.id, 1);
    check_order(&all, at, &small);
}

#[test]
fn the_shop_is_away_for_a_whole_run_and_what_waits_for_it_goes_to_the_archive_after_it() {
    let Some(line) = Line::start(FLOW) else {
        return;
    };
    line.shop.process().kill();
    let before = line.to_shop.accepted();
    let begun = Instant::now();
    let all: Vec<_> = (0..6)
        .map(|number| line.send(&format!("{number}"), &[b"png"]))
        .collect();
    assert!(
        all.iter().all(|one| one.status == 202),
        "accepted, and no number yet"
    );
    let (away, attempts) = (begun.elapsed(), line.to_shop.accepted() - before);
    println!(
        "{} answers 202; {attempts} connections to the shop in {away:?}",
        all.len()
    );
    assert!(attempts < 200, "a storm: {attempts}");
    assert!(line.shop.received().is_empty());
    assert_eq!(
        std::fs::read_dir(line.sshd.files()).unwrap().count(),
        0,
        "no file before its number"
    );
    line.shop.restart();
    let back = Instant::now();
    all.iter().for_each(|one| line.wait_delivered(&one.id));
    println!("drained in {:?}", back.elapsed());
    let again = line
        .shop
        .received()
        .values()
        .filter(|times| times.len() > 1)
        .count();
    println!("{again} keys came more than once");
    assert_eq!(line.shop.received().len(), all.len());
    let first = |one: &submissions_line::Sent| line.delivered_at(&one.id, 0);
    let second = |one: &submissions_line::Sent| line.delivered_at(&one.id, 1);
    assert!(all.iter().all(|one| first(one) <= second(one)));
}

#[test]
fn stores_send_while_coordination_and_state_are_away() {
    let Some(parts) = Parts::start() else { return };
    let nodes = parts.nodes();
    parts.stop_engines();
    let runtime = hydrant_harness::runtime();
    let begun = Instant::now();
    let sending = Stores::start(&runtime, publics(&nodes), COUNT, seed());
    let (sent, refused) = sending.wait(&runtime);
    let took = begun.elapsed();
    let drained = record::until_drained(nodes[0].public(), &sent);
    println!("without ZooKeeper and Redis:");
    record::print(&sent, took, drained, &refused);
    record::check_folder(&parts.sshd.files(), &sent);
    parts.restart_engines();
    // Who seals is chosen by an election.
    record::check_audit(&nodes[0], &sent);
}

/// How far each was from its turn: of each store in turn its oldest, so those of small stores are among the first.
/// What a worker had tried in vain just before waits for a while by itself, which may be as long as all the
/// others take.
fn check_order(
    all: &[&submissions_line::Sent],
    at: impl Fn(&&submissions_line::Sent) -> i64,
    small: &[submissions_line::Sent],
) {
    let mut drained: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(number, one)| (at(one), number))
        .collect();
    drained.sort();
    let order: Vec<_> = drained.into_iter().map(|(_, number)| number).collect();
    println!("the order of arrival: {order:?}");
    let first_small = all.len() - small.len();
    let late = order[all.len() / 2..]
        .iter()
        .filter(|number| **number >= first_small);
    let late = late.count();
    println!("{late} of {} small stores came late", small.len());
    assert!(late <= WORKERS, "small stores wait behind a large one");
    let of_large = order.iter().filter(|number| **number < first_small);
    let mut moved: Vec<_> = of_large
        .enumerate()
        .map(|(place, number)| place.abs_diff(*number))
        .collect();
    moved.sort_unstable();
    println!("so far from its turn was each: {moved:?}");
    let most = moved[moved.len() - 1 - WORKERS];
    assert!(most < moved.len() / 2, "not the oldest first");
}

/// With the consumers of the demo.
fn check_up(node: &Node, sent: &[Sent]) {
    record::check_receipts(node.public(), sent, ["demo-consumer", "demo-folder"]);
    record::check_folder(&node.data().join("demo").join("delivered"), sent);
    record::check_audit(node, sent);
}

/// A new submission: the status and the answer.
fn post(node: &Node) -> (u16, Value) {
    let body = json!({"form": "demo", "fields": {"name": "Ada"}}).to_string();
    let id = uuid::Uuid::new_v4().to_string();
    ask(node, "", &[("correlation-id", &id)], &body)
}

/// Begins an attachment, which takes no bytes yet, and then sends them.
fn upload(node: &Node, id: &str) -> (u16, Value) {
    let (key, path) = (
        uuid::Uuid::new_v4().to_string(),
        format!("/{id}/attachments"),
    );
    let begin = [
        ("tus-resumable", "1.0.0"),
        ("upload-length", "3"),
        (
            "upload-metadata",
            "filename cGhvdG8ucG5n,filetype aW1hZ2UvcG5n",
        ),
        ("idempotency-key", &key),
    ];
    let (status, begun) = ask(node, &path, &begin, "");
    assert_eq!(status, 201, "{begun}");
    let bytes = [
        ("tus-resumable", "1.0.0"),
        ("upload-offset", "0"),
        ("content-type", "application/offset+octet-stream"),
        // What a client says that can't send PATCH.
        ("x-http-method-override", "PATCH"),
    ];
    ask(node, &format!("{path}/{key}"), &bytes, "png")
}

fn ask(node: &Node, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let url = format!(
        "http://{}/api/submissions/v1/submissions{path}",
        node.public()
    );
    let request = reqwest::Client::new().post(url).body(body.to_owned());
    let named = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, named);
    hydrant_harness::runtime().block_on(async {
        let answer = request.send().await.expect("an answer");
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or_default(),
        )
    })
}
