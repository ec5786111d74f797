//! Sessions over cut and half-open connections, and while the servers are away.

use std::time::{Duration, Instant};

use futures::FutureExt;
use hydrant_ports::Coordination;
use hydrant_ports::coordination::SessionState::{Connected, Lost, Suspended};

use crate::support::{
    ENSEMBLE, SINGLE, chroot, key, next, open, prefix, put_in, seat, told, until, within,
};

/// The time to live of the tests' sessions.
const TTL: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn suspended_is_not_lost() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let other = shared.engine(&chroot).await;
    let session = open(&engine, "one").await;
    put_in(&*session, "i/a", "1").await;
    let held = within("a seat", session.take_seat(&seat("s/a"), "me"))
        .await
        .unwrap();
    let mut watch = other.watch(&prefix("i/")).await.unwrap();
    assert_eq!(next(&mut watch).await, "all 1");
    for _ in 0..3 {
        proxies[0].cut();
        until(&*session, Suspended).await;
        tokio::time::sleep(TTL / 10).await;
        proxies[0].restore();
        until(&*session, Connected).await;
        tokio::time::sleep(TTL / 5).await;
    }
    assert_eq!(
        told(&mut watch, TTL * 2).await,
        [""; 0],
        "an instance flapped"
    );
    assert!(held.lost().now_or_never().is_none(), "the seat was lost");
    put_in(&*session, "i/a", "2").await;
    assert_eq!(next(&mut watch).await, "i/a=2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_is_lost_and_leaves_nothing() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let other = shared.engine(&chroot).await;
    let session = open(&engine, "one").await;
    put_in(&*session, "i/a", "1").await;
    let mut watch = other.watch(&prefix("i/")).await.unwrap();
    assert_eq!(next(&mut watch).await, "all 1");
    let since = Instant::now();
    // Half-open: nothing is closed, nothing moves.
    proxies[0].hold();
    until(&*session, Suspended).await;
    let suspended = since.elapsed();
    assert_eq!(next(&mut watch).await, "-i/a");
    let gone = since.elapsed();
    proxies[0].restore();
    until(&*session, Lost).await;
    println!(
        "half-open: suspended after {suspended:?}, its keys gone after {gone:?}, lost after {:?}",
        since.elapsed()
    );
    assert_eq!(other.get(&key("i/a")).await.unwrap(), None);
    // The same engine opens another.
    let session = open(&engine, "one").await;
    put_in(&*session, "i/a", "2").await;
    assert_eq!(next(&mut watch).await, "i/a=2");
    assert_eq!(told(&mut watch, TTL * 2).await, [""; 0]);
}

/// The client gives a session up while the servers are away. They still hold its keys when they are
/// back: the next session of the owner takes them over, and no watcher sees them absent.
#[tokio::test(flavor = "multi_thread")]
async fn keys_outlive_an_absence_of_the_servers() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let alone = shared.alone().await;
    let chroot = chroot();
    let (engine, other) = (shared.engine(&chroot).await, shared.engine(&chroot).await);
    let session = open(&engine, "one").await;
    for index in 0..20 {
        put_in(&*session, &format!("i/{index}"), "x").await;
    }
    let mut watch = other.watch(&prefix("i/")).await.unwrap();
    assert_eq!(next(&mut watch).await, "all 20");
    tokio::task::block_in_place(|| shared.servers.kill_all());
    until(&*session, Lost).await;
    tokio::task::block_in_place(|| shared.servers.restart_all());
    let since = Instant::now();
    let again = loop {
        match engine.open_session("one", TTL).await {
            Ok(session) => break session,
            Err(error) => println!("{error}"),
        }
    };
    for index in 0..20 {
        put_in(&*again, &format!("i/{index}"), "x").await;
    }
    println!(
        "taken over {:?} after the servers were back",
        since.elapsed()
    );
    // Longer than the earlier session lives on the servers.
    let told = told(&mut watch, TTL * 3).await;
    assert_eq!(told.len(), 20, "{told:?}");
    assert!(told.iter().all(|change| change.ends_with("=x")), "{told:?}");
    drop((alone, session));
}

/// Whoever loses a seat by silence knows it before another has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_seat_is_lost_before_another_has_it() {
    for shared in [SINGLE.as_ref(), ENSEMBLE.as_ref()] {
        let Some(shared) = shared else { return };
        let (_at_work, chroot) = (shared.at_work().await, chroot());
        let (engine, proxies) = shared.behind_proxies(&chroot).await;
        let other = shared.engine(&chroot).await;
        let (one, two) = (open(&engine, "one").await, open(&other, "two").await);
        let name = seat("s/a");
        let held = within("a seat", one.take_seat(&name, "one")).await.unwrap();
        let since = Instant::now();
        for proxy in &proxies {
            proxy.hold();
        }
        let waits = async {
            let taken = within("the next", two.take_seat(&name, "two"))
                .await
                .unwrap();
            let knows = held.lost().now_or_never();
            (taken.epoch(), knows, since.elapsed())
        };
        let lost = async {
            within("the loss", held.lost()).await;
            since.elapsed()
        };
        let ((epoch, knows, taken), lost) = tokio::join!(waits, lost);
        println!("lost after {lost:?}, taken by another after {taken:?}");
        assert!(knows.is_some(), "two believe to hold the seat");
        assert!(epoch > held.epoch());
    }
}

/// Whoever leaves the line leaves it also when the answer was not there yet, and when the
/// connection breaks meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_line_early_leaves_nothing() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let other = shared.engine(&chroot).await;
    let (one, two) = (open(&engine, "one").await, open(&other, "two").await);
    let name = seat("s/a");
    drop(within("a seat", two.take_seat(&name, "two")).await.unwrap());
    for cut in [false, true] {
        proxies[0].delay(Duration::from_millis(100));
        for wait in [20, 120, 180, 260, 330] {
            let take = one.take_seat(&name, "one");
            let take = tokio::time::timeout(Duration::from_millis(wait), take).await;
            if cut {
                proxies[0].reset_all();
            }
            drop(take);
        }
        proxies[0].restore();
        let since = Instant::now();
        let held = within("a free seat", two.take_seat(&name, "two"))
            .await
            .unwrap();
        println!("the line was free after {:?}", since.elapsed());
        assert_ne!(
            *one.state().borrow(),
            Lost,
            "the end of the session freed it"
        );
        drop(held);
    }
}

/// Waiting in line outlives cut connections, and the servers' absence.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_in_line_outlives_a_cut_connection() {
    let Some(shared) = ENSEMBLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let other = shared.engine(&chroot).await;
    let (one, two) = (open(&engine, "one").await, open(&other, "two").await);
    let name = seat("s/a");
    let held = within("a seat", two.take_seat(&name, "two")).await.unwrap();
    let mut holder = engine.holder(&name).await.unwrap();
    let waits = one.take_seat(&name, "one");
    let cuts = async {
        for proxy in proxies.iter().cycle().take(6) {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.reset_all();
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (epoch, ()) = (held.epoch(), held.give_up().await);
        epoch
    };
    let (taken, before) = within("the seat", async { tokio::join!(waits, cuts) }).await;
    let taken = taken.unwrap();
    assert!(taken.epoch() > before);
    let seen = holder.wait_for(|holder| holder.as_ref().is_some_and(|holder| holder.name == "one"));
    within("the holder is seen", seen).await.unwrap();
}
