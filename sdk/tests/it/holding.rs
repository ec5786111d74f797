use std::time::Duration;

use hydrant_contracts::proto::under::Holder;
use hydrant_sdk::{Code, StateChange};

use crate::fake_node::FakeNode;
use crate::{soon, until};

#[tokio::test]
async fn a_leader_writes_under_its_epoch_until_it_is_deposed() {
    let node = FakeNode::start();
    let hydrant = node.hydrant();
    let leadership = soon(hydrant.campaign("sources")).await.unwrap();
    assert_eq!((leadership.epoch(), leadership.is_lost()), (1, false));
    let state = hydrant.state().under(&leadership);
    state.put("a", "1").await.unwrap();
    assert_eq!(node.seen.now().puts[0].under.as_option().unwrap().epoch, 1);
    node.seen.depose();
    soon(leadership.lost()).await;
    let error = state.put("a", "2").await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (Code::Aborted, "seat_lost"));
    assert_eq!(node.seen.now().puts.len(), 1, "it was not even sent");
    let next = soon(hydrant.campaign("sources")).await.unwrap();
    assert_eq!(next.epoch(), 2);
}

#[tokio::test]
async fn a_leader_steps_down_when_the_node_does_not_answer() {
    let node = FakeNode::start();
    node.seen.now().ttl_ms = 600;
    let leadership = soon(node.hydrant().campaign("sources")).await.unwrap();
    until(|| node.seen.now().beats > 4).await;
    assert!(!leadership.is_lost(), "it is kept alive");
    node.seen.now().silent = true;
    soon(leadership.lost()).await;
    assert!(leadership.is_lost());
}

#[tokio::test]
async fn a_leader_steps_down_when_the_node_dies() {
    let node = FakeNode::start();
    let leadership = soon(node.hydrant().campaign("sources")).await.unwrap();
    drop(node);
    soon(leadership.lost()).await;
}

#[tokio::test]
async fn a_lock_has_a_fence_and_does_not_wait_for_ever() {
    let node = FakeNode::start();
    let hydrant = node.hydrant();
    let lock = soon(hydrant.lock("invoice-7")).await.unwrap();
    assert_eq!((lock.fence(), lock.is_lost()), (7, false));
    hydrant.state().under(&lock).put("a", "1").await.unwrap();
    let under = node.seen.now().puts[0].under.clone().into_option().unwrap();
    assert_eq!(under.epoch, 7);
    assert_eq!(under.holder, Some(Holder::Lock("invoice-7".into())));
    let wait = std::time::Duration::from_millis(50);
    let refused = soon(hydrant.lock_within("taken", wait)).await;
    assert_eq!(refused.err().unwrap().code, Code::DeadlineExceeded);
    drop(node);
    soon(lock.lost()).await;
}

#[tokio::test]
async fn who_leads_can_be_observed() {
    let node = FakeNode::start();
    let mut observation = node.hydrant().observe("sources");
    assert_eq!(soon(observation.next()).await, Ok(None));
    let leader = soon(observation.next()).await.unwrap().unwrap();
    assert_eq!(leader.name, "test-1");
}

#[tokio::test]
async fn state_is_read_and_watched_through_a_break() {
    let node = FakeNode::start();
    let state = node.hydrant().state();
    for key in ["a", "b", "c", "d", "e"] {
        state.put(key, key).await.unwrap();
    }
    assert_eq!(state.get("a").await.unwrap().unwrap().value, b"a");
    assert_eq!(state.get("x").await.unwrap(), None);
    let aged = state
        .get_within("a", Duration::from_millis(1500))
        .await
        .unwrap();
    assert_eq!(aged.entry.unwrap().value, b"a");
    assert_eq!(aged.age, Duration::from_millis(1500));
    let keys: Vec<String> = state
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.key)
        .collect();
    assert_eq!(keys, ["a", "b", "c", "d", "e"], "over three pages");
    let error = state.compare_and_put("a", 7, "z").await.unwrap_err();
    assert_eq!(error.code, Code::Aborted);

    let mut watch = state.watch("");
    let count = |change| match change {
        StateChange::All(entries) => entries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(soon(watch.next()).await.unwrap()), 5);
    state.put("f", "f").await.unwrap();
    node.seen.break_watches();
    assert_eq!(count(soon(watch.next()).await.unwrap()), 6);
}
