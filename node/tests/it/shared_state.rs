//! State that two nodes share: reads that may be old, and marks that a fail-over forgets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_contracts::proto;
use hydrant_contracts::proto::__buffa::oneof::campaign_event::Event;
use hydrant_contracts::proto::__buffa::oneof::under::Holder;
use hydrant_node::{Engines, Quotas};
use hydrant_ports::Key;

use crate::shaky::Forgetful;
use crate::support::{Client, SOON, Server, Store, error, next};

const LONG: u32 = 600_000;

async fn put(client: &Client, value: &str) {
    let request = proto::PutRequest {
        key: "k".into(),
        value: value.into(),
        ..Default::default()
    };
    client.state.put(request).await.unwrap();
}

/// What is read, and how old it says to be.
async fn get(client: &Client, max_age_ms: u32) -> (Option<String>, u32) {
    let request = proto::GetRequest {
        key: "k".into(),
        max_age_ms,
        ..Default::default()
    };
    let read = client.state.get(request).await.unwrap().into_owned();
    let entry = read.entry.into_option();
    let value = entry.map(|entry| String::from_utf8(entry.value).unwrap());
    (value, read.age_ms)
}

fn is(value: &str) -> Option<String> {
    Some(value.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_may_be_as_old_as_it_allows_and_writers_read_their_own() {
    let store = Store::new();
    let (one, two) = (store.server("one").await, store.server("two").await);
    let (writes, reads) = (one.client("service/a"), two.client("service/a"));
    assert_eq!(get(&reads, LONG).await, (None, 0), "absence is an answer");
    put(&writes, "first").await;
    assert_eq!(get(&reads, LONG).await.0, None, "as it was");
    assert_eq!(get(&reads, 0).await, (is("first"), 0), "as it is");
    assert_eq!(
        get(&reads, LONG).await.0,
        is("first"),
        "never back behind it"
    );

    let begun = Instant::now();
    get(&reads, 0).await;
    put(&writes, "second").await;
    let until_new = loop {
        let (value, age) = get(&reads, 300).await;
        assert!(age <= 300, "{age}");
        if value == is("second") {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    println!("within 300 ms allowed, the new value came after {until_new:?}");

    put(&reads, "third").await;
    assert_eq!(get(&reads, LONG).await, (is("third"), 0), "its own write");
    let compared = reads.state.compare_and_put(proto::CompareAndPutRequest {
        key: "k".into(),
        expected_revision: 1,
        ..Default::default()
    });
    assert_eq!(error(compared.await).reason, "conflict");
    let deleted = reads.state.delete(proto::DeleteRequest {
        key: "k".into(),
        ..Default::default()
    });
    deleted.await.unwrap();
    assert_eq!(get(&reads, LONG).await, (None, 0), "its own deletion");
}

async fn forgetful() -> (Server, Arc<Forgetful>) {
    let mut forgetful = None;
    let server = Server::start_with(Quotas::default(), |engines| Engines {
        coordination: engines.coordination,
        state: forgetful.insert(Forgetful::new(engines.state)).clone(),
    });
    (server.await, forgetful.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_state_is_away_what_is_young_enough_is_read() {
    let (server, state) = forgetful().await;
    let client = server.client("service/a");
    put(&client, "kept").await;
    get(&client, LONG).await;
    state.mood.away();
    assert_eq!(get(&client, LONG).await.0, is("kept"));
    let fresh = client.state.get(proto::GetRequest {
        key: "k".into(),
        ..Default::default()
    });
    assert_eq!(error(fresh.await).reason, "engine_unavailable");
    // A fail-over may have lost what was read.
    state.fail_over();
    let start = Instant::now();
    loop {
        let read = client.state.get(proto::GetRequest {
            key: "k".into(),
            max_age_ms: LONG,
            ..Default::default()
        });
        if read.await.is_err() {
            return;
        }
        assert!(start.elapsed() < SOON, "a fail-over empties the memory");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn elected(client: &Client) -> (crate::support::Campaign, u64) {
    let campaign = client.election.campaign(proto::CampaignRequest {
        election: "leader".into(),
        candidate: "one".into(),
        ttl_ms: 60_000,
        ..Default::default()
    });
    let mut stream = campaign.await.unwrap();
    assert!(matches!(next!(stream).unwrap(), Some(Event::Joined(_))));
    let Some(Event::Elected(elected)) = next!(stream).unwrap() else {
        panic!("the only candidate leads");
    };
    (stream, elected.epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_a_failover_forgot_are_raised_again() {
    let (server, state) = forgetful().await;
    let client = server.client("service/a");
    let mark: Key = "elections/service/a/leader".parse().unwrap();
    let (stream, old) = elected(&client).await;
    drop(stream);
    let (mut leads, epoch) = elected(&client).await;
    assert!(epoch > old);
    assert_eq!(state.known(&mark), epoch);

    // The state is away at first when it has failed over.
    state.set_back(&mark, old);
    state.mood.away();
    state.fail_over();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state.known(&mark), old);
    let begun = Instant::now();
    state.mood.well();
    while state.known(&mark) != epoch {
        assert!(begun.elapsed() < SOON, "the mark is raised again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!(
        "the mark was raised again {:?} after the state was back",
        begun.elapsed()
    );
    let late = client.state.put(proto::PutRequest {
        key: "k".into(),
        under: proto::Under {
            holder: Some(Holder::Election("leader".into())),
            epoch: old,
            ..Default::default()
        }
        .into(),
        ..Default::default()
    });
    assert_eq!(error(late.await).reason, "superseded");
    let more = tokio::time::timeout(Duration::from_millis(50), leads.message()).await;
    assert!(more.is_err(), "it leads on: {more:?}");

    // Somebody else's mark is known: this seat is the past.
    state.set_back(&mark, epoch + 7);
    state.fail_over();
    assert!(matches!(next!(leads).unwrap(), Some(Event::Lost(_))));
}
