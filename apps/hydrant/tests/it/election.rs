//! Leaders that are killed and stopped: with real processes, at every moment at most one epoch's
//! writes are accepted.
//!
//! The seed decides which faults there are, their order and their length; the machine decides the
//! rest. `HYDRANT_SEED=N` runs a schedule again, `HYDRANT_SOAK=1` the long one of 200 faults.

mod candidate;
pub mod checker;
pub mod contest;
mod faults;
pub mod history;
pub mod writer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use checker::{Numbering, Rule};
use contest::{Contest, Ground};
use faults::{Fault, schedule};
use history::{History, Manner, Outcome};
use hydrant_sdk::{Config, Hydrant, Leader, Observation};
use rustix::process::Signal;

use crate::harness::{Node, Setup, is_soak, kill, seed};
use crate::load::Load;

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";

#[test]
fn at_most_one_epoch_is_accepted_through_kills_and_stops() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let faults = schedule(is_soak(), &mut random);
    println!("{} faults", faults.len());
    let mut contest = Contest::start(Ground::alone(), random);
    for (number, fault) in faults.iter().enumerate() {
        contest.label = format!("fault {number}, {fault:?}, HYDRANT_SEED={seed}");
        contest.suffer(*fault);
    }
    let (history, figures) = contest.finish();
    report(&history);
    figures.print();
    assert_is_good(&history, Numbering::OneForAll, seed);
    assert_was_tried(&history, &faults);
    figures.assert_soon("SIGKILL", Duration::from_secs(2));
    figures.assert_soon("SIGSTOP", Duration::from_secs(15));
}

#[test]
fn a_stopped_leader_is_refused_on_several_servers() {
    let Some(ground) = Ground::several() else {
        return;
    };
    let seed = seed();
    let mut contest = Contest::start(ground, fastrand::Rng::with_seed(seed));
    for round in 0..if is_soak() { 10 } else { 1 } {
        for fault in [Fault::Stop, Fault::ResumeIntoGap] {
            contest.label = format!("round {round}, {fault:?}, HYDRANT_SEED={seed}");
            contest.suffer(fault);
        }
    }
    let (history, figures) = contest.finish();
    report(&history);
    figures.print();
    assert_is_good(&history, Numbering::PerKey, seed);
    assert!(
        refused(&history, Manner::Rogue) > 0,
        "stale writes were tried"
    );
}

fn report(history: &History) {
    let count = |outcome: fn(&Outcome) -> bool| {
        let writes = history.writes.iter();
        writes.filter(|write| outcome(&write.outcome)).count()
    };
    println!(
        "{} elections, {} writes: {} accepted, {} refused, {} withheld, {} unanswered; {} reads",
        history.elections.len(),
        history.writes.len(),
        count(|outcome| matches!(outcome, Outcome::Accepted { .. })),
        count(|outcome| *outcome == Outcome::Refused),
        count(|outcome| *outcome == Outcome::Withheld),
        count(|outcome| matches!(outcome, Outcome::Unknown { .. })),
        history.reads.len(),
    );
    println!("an observer saw {} leaders", history.observed.len());
}

fn assert_is_good(history: &History, numbering: Numbering, seed: u64) {
    let wrong = checker::check(history, numbering);
    let mut by_rule: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for violation in &wrong {
        let of_rule = by_rule.entry(violation.rule).or_default();
        of_rule.push(violation.to_string());
    }
    for (rule, violations) in &by_rule {
        println!("{} violations of {rule:?}, as:", violations.len());
        println!("{}", violations[..violations.len().min(5)].join("\n"));
    }
    let count = wrong.len();
    assert!(count == 0, "{count} violations with HYDRANT_SEED={seed}");
}

/// A history without a stale write shows nothing.
fn assert_was_tried(history: &History, faults: &[Fault]) {
    assert!(history.elections.len() > faults.len());
    assert!(history.observed.len() > faults.len() / 2);
    assert!(
        refused(history, Manner::Raw) > 0,
        "a stopped leader wrote what it had in hand"
    );
    let rogue = refused(history, Manner::Rogue);
    assert!(rogue > 0, "it went on afterwards");
    let gaps = before_the_first_write(history);
    println!("{gaps} stale writes refused before the new leader's first one");
    assert!(
        gaps > 0,
        "one was stopped between Campaign's answer and its first write"
    );
}

/// How many writes of this kind were refused.
fn refused(history: &History, manner: Manner) -> usize {
    let writes = history.writes.iter();
    let of_manner = writes.filter(|write| write.manner == manner);
    of_manner
        .filter(|write| write.outcome == Outcome::Refused)
        .count()
}

/// How many writes were refused between an election and the first write of who was elected.
fn before_the_first_write(history: &History) -> usize {
    let first_write = |epoch: u64| {
        let writes = history.writes.iter();
        let own = writes.filter(|write| write.epoch == epoch);
        own.map(|write| write.sent).min().unwrap_or(u64::MAX)
    };
    let gaps = history.elections.iter();
    let gaps = gaps.map(|election| (election.epoch, election.at..first_write(election.epoch)));
    gaps.map(|(epoch, gap)| {
        let writes = history.writes.iter();
        writes
            .filter(|write| write.epoch < epoch && write.outcome == Outcome::Refused)
            .filter(|write| gap.contains(&write.sent) && write.answered < Some(gap.end))
            .count()
    })
    .sum()
}

#[test]
fn killing_the_process_that_polls_moves_its_part_within_two_seconds() {
    let node = Setup::up().start();
    let runtime = hydrant_harness::runtime();
    let _inside = runtime.enter();
    let mut observation = observe(&node, "service/mobile", "sources");
    let load = Load::start(node.public(), INIT, 8, Duration::from_millis(10));
    let mut leader = runtime.block_on(leader_above(&mut observation, 0));
    let mut dead = Vec::new();
    for _ in 0..if is_soak() { 20 } else { 3 } {
        let pid = node.wait("leader and stand-by are ready", |node| {
            pid_beside_another(node, &leader, &dead)
        });
        let killed = Instant::now();
        kill(pid, Signal::KILL);
        dead.push(leader.name.clone());
        leader = runtime.block_on(leader_above(&mut observation, leader.epoch));
        let took = killed.elapsed();
        println!(
            "{} leads {} ms after the kill",
            leader.name,
            took.as_millis()
        );
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let outcome = runtime.block_on(load.finish());
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(outcome.good > 0);
}

fn observe(node: &Node, service: &str, election: &str) -> Observation {
    let token = node.json(&["token", service])["token"].clone();
    let url = format!("http://{}", node.local());
    let config = Config::new(&url, token.as_str()).unwrap();
    Hydrant::new(config).unwrap().observe(election)
}

async fn leader_above(observation: &mut Observation, epoch: u64) -> Leader {
    let next = async {
        loop {
            match observation.next().await.unwrap() {
                Some(leader) if leader.epoch > epoch => return leader,
                _ => {}
            }
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(30), next).await;
    next.expect("somebody leads")
}

/// The process that leads, once it and another one are ready. One that was killed just now may
/// still be listed.
fn pid_beside_another(node: &Node, leader: &Leader, dead: &[String]) -> Option<u32> {
    let mut ready = node.instances("service/mobile");
    ready.retain(|one| one["state"] == "ready");
    ready.retain(|one| dead.iter().all(|name| one["instance"] != name.as_str()));
    let own = ready
        .iter()
        .find(|one| one["instance"] == leader.name.as_str())?;
    let pid = own["pid"].as_u64()?.try_into().ok()?;
    (ready.len() == 2).then_some(pid)
}
