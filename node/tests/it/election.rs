use std::time::{Duration, Instant};

use hydrant_contracts::proto::__buffa::oneof::acquire_event::Event as Locked;
use hydrant_contracts::proto::__buffa::oneof::campaign_event::Event;
use hydrant_contracts::proto::__buffa::oneof::under::Holder;
use hydrant_contracts::{Code, proto};

use crate::support::{Client, SOON, Server, code, error, next};

fn campaign(candidate: &str, ttl_ms: u32) -> proto::CampaignRequest {
    proto::CampaignRequest {
        election: "leader".into(),
        candidate: candidate.into(),
        ttl_ms,
        ..Default::default()
    }
}

fn acquire(wait_ms: u32) -> proto::AcquireRequest {
    proto::AcquireRequest {
        name: "l".into(),
        holder: "h".into(),
        ttl_ms: 60_000,
        wait_ms,
        ..Default::default()
    }
}

fn put(key: &str, holder: Holder, epoch: u64) -> proto::PutRequest {
    let under = proto::Under {
        epoch,
        holder: Some(holder),
        ..Default::default()
    };
    proto::PutRequest {
        key: key.into(),
        value: key.into(),
        under: under.into(),
        ..Default::default()
    }
}

fn leads() -> Holder {
    Holder::Election("leader".into())
}

macro_rules! elected {
    ($stream:expr) => {
        match next!($stream).unwrap() {
            Some(Event::Elected(elected)) => elected.epoch,
            other => panic!("{other:?}"),
        }
    };
}

macro_rules! joined {
    ($stream:expr) => {
        match next!($stream).unwrap() {
            Some(Event::Joined(joined)) => joined.lease_id,
            other => panic!("{other:?}"),
        }
    };
}

macro_rules! acquired {
    ($stream:expr) => {
        match (next!($stream).unwrap(), next!($stream).unwrap()) {
            (Some(Locked::Joined(_)), Some(Locked::Acquired(acquired))) => acquired.fence,
            other => panic!("{other:?}"),
        }
    };
}

async fn observed(client: &Client, election: &str) -> (String, u64) {
    let request = proto::ObserveRequest {
        election: election.into(),
        ..Default::default()
    };
    let mut stream = client.election.observe(request).await.unwrap();
    let event = stream.message().await.unwrap().unwrap().to_owned_message();
    (event.leader, event.epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_passes_on_with_a_higher_epoch_and_the_old_leader_writes_nothing() {
    let server = Server::start().await;
    let (one, two) = (server.client("service/a"), server.client("service/a"));
    let mut first = one
        .election
        .campaign(campaign("one", 60_000))
        .await
        .unwrap();
    joined!(first);
    let old = elected!(first);
    one.state.put(put("kept", leads(), old)).await.unwrap();
    let mut second = two
        .election
        .campaign(campaign("two", 60_000))
        .await
        .unwrap();
    joined!(second);
    assert_eq!(observed(&two, "leader").await, ("one".into(), old));

    drop(first);
    let new = elected!(second);
    assert!(new > old, "{new} after {old}");
    assert_eq!(
        observed(&server.client("operator"), "service/a/leader").await,
        ("two".into(), new)
    );
    // The successor has written nothing yet, on no key.
    for key in ["kept", "never-touched"] {
        let refused = error(one.state.put(put(key, leads(), old)).await);
        assert_eq!(
            (&*refused.reason, refused.code),
            ("superseded", Code::FailedPrecondition)
        );
    }
    let deleted = one.state.delete(proto::DeleteRequest {
        key: "kept".into(),
        under: put("", leads(), old).under,
        ..Default::default()
    });
    assert_eq!(error(deleted.await).reason, "superseded");
    two.state.put(put("kept", leads(), new)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_loses_its_seat_though_its_connection_is_open() {
    let server = Server::start().await;
    let (one, two) = (server.client("service/a"), server.client("service/a"));
    let mut frozen = one.election.campaign(campaign("one", 800)).await.unwrap();
    let lease_id = joined!(frozen);
    let old = elected!(frozen);
    let mut next_one = two
        .election
        .campaign(campaign("two", 60_000))
        .await
        .unwrap();
    joined!(next_one);

    // As long as it is heard it leads.
    let keep = || {
        one.election.keep_alive(proto::KeepAliveRequest {
            lease_id: lease_id.clone(),
            ..Default::default()
        })
    };
    for _ in 0..15 {
        keep().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(observed(&two, "leader").await, ("one".into(), old));

    let silent_since = Instant::now();
    let new = elected!(next_one);
    assert!(silent_since.elapsed() >= Duration::from_millis(500));
    assert!(new > old);
    assert!(matches!(next!(frozen).unwrap(), Some(Event::Lost(_))));
    assert!(next!(frozen).unwrap().is_none(), "nothing follows");
    assert_eq!(code(keep().await), Some(Code::NotFound));
    let refused = error(one.state.put(put("x", leads(), old)).await);
    assert_eq!(refused.reason, "superseded");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_in_line_leaves_its_turn_to_the_next() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let campaign = |candidate, ttl_ms| client.election.campaign(campaign(candidate, ttl_ms));
    let mut first = campaign("one", 60_000).await.unwrap();
    joined!(first);
    elected!(first);
    let mut silent = campaign("two", 10_000).await.unwrap();
    let lease_id = joined!(silent);
    let mut third = campaign("three", 60_000).await.unwrap();
    joined!(third);

    tokio::time::sleep(Duration::from_millis(5500)).await;
    drop(first);
    elected!(third);
    // It had the next place in line, and its lease still lives.
    let alive = proto::KeepAliveRequest {
        lease_id,
        ..Default::default()
    };
    client.election.keep_alive(alive).await.unwrap();
    drop(third);
    elected!(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_the_state_knows_to_be_old_is_not_given_out() {
    let server = Server::start().await;
    let mark = "elections/service/a/leader".parse().unwrap();
    server.engines.state.raise(&mark, 5).await.unwrap();
    let client = server.client("service/a");
    let mut stream = client
        .election
        .campaign(campaign("one", 60_000))
        .await
        .unwrap();
    joined!(stream);
    let epoch = elected!(stream);
    assert!(epoch >= 5, "{epoch}");
    assert_eq!(server.engines.state.mark(&mark).await.unwrap(), epoch);
    client.state.put(put("k", leads(), epoch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_sees_the_seat_empty_and_taken() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let mut watch = client
        .election
        .observe(proto::ObserveRequest {
            election: "leader".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let mut seen = async || {
        let event = tokio::time::timeout(SOON, watch.message()).await.unwrap();
        event.unwrap().unwrap().to_owned_message().leader
    };
    assert_eq!(seen().await, "");
    let stream = server
        .client("service/a")
        .election
        .campaign(campaign("one", 60_000))
        .await;
    assert_eq!(seen().await, "one");
    drop(stream);
    assert_eq!(seen().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn elections_of_one_name_in_two_services_are_two() {
    let server = Server::start().await;
    let (a, b) = (server.client("service/a"), server.client("service/b"));
    let mut of_a = a.election.campaign(campaign("a", 60_000)).await.unwrap();
    joined!(of_a);
    elected!(of_a);
    let mut of_b = b.election.campaign(campaign("b", 60_000)).await.unwrap();
    joined!(of_b);
    elected!(of_b);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_by_one_and_its_fence_grows() {
    let server = Server::start().await;
    let (one, two) = (server.client("service/a"), server.client("service/a"));
    let mut held = one.lock.acquire(acquire(0)).await.unwrap();
    let old = acquired!(held);

    let mut waiting = two.lock.acquire(acquire(200)).await.unwrap();
    assert!(matches!(next!(waiting).unwrap(), Some(Locked::Joined(_))));
    assert_eq!(code(next!(waiting)), Some(Code::DeadlineExceeded));

    drop(held);
    let mut held = two.lock.acquire(acquire(60_000)).await.unwrap();
    let new = acquired!(held);
    assert!(new > old);
    let lock = || Holder::Lock("l".into());
    let refused = error(one.state.put(put("untouched", lock(), old)).await);
    assert_eq!(refused.reason, "superseded");
    two.state.put(put("untouched", lock(), new)).await.unwrap();
}
