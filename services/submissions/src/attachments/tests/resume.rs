//! Cuts, repeats and restarts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::attachments::rows::State;
use crate::receipt::sha256_of;

/// What a client, or the world, does next.
#[derive(Clone, Debug)]
enum Step {
    /// Sends so many bytes from where the upload is.
    Send {
        bytes: usize,
        is_cut: bool,
    },
    /// With a checksum, right or wrong.
    Checked {
        bytes: usize,
        is_cut: bool,
        is_right: bool,
    },
    /// From elsewhere.
    Astray {
        by: usize,
    },
    /// Twice at the same time.
    Twice {
        bytes: usize,
        less: usize,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || 0..1500usize;
    prop_oneof![
        3 => (bytes(), any::<bool>()).prop_map(|(bytes, is_cut)| Step::Send { bytes, is_cut }),
        2 => (bytes(), any::<bool>(), any::<bool>()).prop_map(|(bytes, is_cut, is_right)| {
            Step::Checked { bytes, is_cut, is_right }
        }),
        1 => (1..2000usize).prop_map(|by| Step::Astray { by }),
        1 => (bytes(), bytes()).prop_map(|(bytes, less)| Step::Twice { bytes, less }),
        1 => Just(Step::Restart),
    ]
}

fn checksum(bytes: &[u8]) -> String {
    format!("sha256 {}", STANDARD.encode(Sha256::digest(bytes)))
}

/// How many bytes count after the step.
async fn take(
    bench: &Bench,
    desk: &Attachments,
    id: &str,
    all: &[u8],
    at: usize,
    step: &Step,
) -> usize {
    let rest = &all[at..];
    let part = |bytes: usize| &rest[..bytes.min(rest.len())];
    match step {
        Step::Restart => at,
        Step::Send { bytes, is_cut } => {
            let how = How {
                is_cut: *is_cut,
                checksum: None,
            };
            let sent = bench.send(desk, id, at, part(*bytes), how).await;
            assert_eq!(sent.is_err(), *is_cut, "a line that was cut is said to be");
            at + part(*bytes).len()
        }
        Step::Checked {
            bytes,
            is_cut,
            is_right,
        } => {
            let text = checksum(if *is_right { part(*bytes) } else { b"other" });
            let how = How {
                is_cut: *is_cut,
                checksum: Some(text),
            };
            let sent = bench.send(desk, id, at, part(*bytes), how).await;
            match (*is_cut, *is_right) {
                (false, true) => at + usize::from(sent.is_ok()) * part(*bytes).len(),
                (false, false) => {
                    assert_eq!(status(&sent.err().unwrap()), 460);
                    at
                }
                _ => at,
            }
        }
        Step::Astray { by } => {
            let refused = bench.send(desk, id, at + by, rest, How::default()).await;
            assert_eq!(status(&refused.err().unwrap()), 409);
            at
        }
        Step::Twice { bytes, less } => {
            let other = bench.process();
            let (one, two) = tokio::join!(
                bench.send(desk, id, at, part(*bytes), How::default()),
                bench.send(&other, id, at, part(*less), How::default()),
            );
            assert!(
                one.is_ok() || two.is_ok() || rest.is_empty(),
                "the newest gets through"
            );
            bench.look(id).await.received as usize
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if hydrant_harness::is_soak() { 2000 } else { 48 }, ..ProptestConfig::default() })]
    #[test]
    fn any_cuts_repeats_and_restarts_give_the_same_bytes_and_hash(
        length in 0..6000usize,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bench, all) = (Bench::new().await, bytes(length, seed));
            let mut desk = bench.process();
            let id = bench.begin(&desk, length).await.id;
            let mut at = 0;
            for step in &steps {
                if matches!(step, Step::Restart) {
                    desk = bench.process();
                }
                at = take(&bench, &desk, &id, &all, at, step).await;
                assert_eq!(bench.look(&id).await.received as usize, at, "{step:?}");
            }
            bench.send(&desk, &id, at, &all[at..], How::default()).await.unwrap();
            let whole = bench.look(&id).await;
            assert_eq!(whole.state, State::Whole);
            assert_eq!(whole.sha256.clone().unwrap(), sha256_of(&all));
            assert!(bench.fetch(&whole, 0).await.unwrap() == all);
            let from = length / 3;
            assert!(bench.fetch(&whole, from as u64).await.unwrap() == all[from..]);
        });
    }
}

/// A body that comes when the test sends it.
fn held_line() -> (
    tokio::sync::mpsc::Sender<Result<Bytes, &'static str>>,
    impl futures::Stream<Item = Result<Bytes, &'static str>> + Send,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (sender, body)
}

#[tokio::test]
async fn what_an_older_request_still_has_counts_and_the_newer_one_goes_on_behind_it() {
    let bench = Bench::new().await;
    let (id, all) = (bench.begin(&bench.process(), 2000).await.id, bytes(2000, 7));
    let begin = || {
        let (line, body) = held_line();
        let (desk, submission, upload) = (bench.process(), bench.id.clone(), id.clone());
        let sent = Sent {
            offset: 0,
            length: None,
            announced: None,
            checksum: None,
        };
        let work = async move { desk.receive(&submission, &upload, sent, body).await };
        (line, tokio::spawn(work))
    };
    let send = async |line: &tokio::sync::mpsc::Sender<_>, from: usize, to: usize| {
        // It has begun when it takes the third.
        for part in [
            &all[from..from + 1],
            &all[from + 1..from + 2],
            &all[from + 2..to],
        ] {
            line.send(Ok(Bytes::copy_from_slice(part))).await.unwrap();
        }
    };
    let (old_line, old) = begin();
    send(&old_line, 0, 300).await;
    let (new_line, new) = begin();
    send(&new_line, 0, 450).await;
    old_line.send(Err("cut")).await.unwrap();
    let ended = old.await.unwrap().err().unwrap();
    assert_eq!(ended.error.reason, "taken_over");
    assert_eq!(bench.look(&id).await.received, 300);
    new_line.send(Err("cut")).await.unwrap();
    assert_eq!(new.await.unwrap().err().unwrap().error.reason, "broken_off");
    assert_eq!(bench.look(&id).await.received, 450);
    bench
        .send(&bench.process(), &id, 450, &all[450..], How::default())
        .await
        .unwrap();
    let whole = bench.look(&id).await;
    assert_eq!(whole.sha256.clone().unwrap(), sha256_of(&all));
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}

#[tokio::test]
async fn a_newer_request_takes_over_and_the_older_one_ends() {
    let bench = Bench::new().await;
    let (old, new) = (bench.process(), bench.process());
    let (id, all) = (bench.begin(&old, 2000).await.id, bytes(2000, 7));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, &str>>(1);
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let sent = Sent {
        offset: 0,
        length: None,
        announced: None,
        checksum: None,
    };
    let (bench_id, upload) = (bench.id.clone(), id.clone());
    let older = tokio::spawn(async move { old.receive(&bench_id, &upload, sent, body).await });
    sender
        .send(Ok(Bytes::copy_from_slice(&all[..100])))
        .await
        .unwrap();
    // It has its epoch when it takes the second.
    sender
        .send(Ok(Bytes::copy_from_slice(&all[100..150])))
        .await
        .unwrap();
    sender
        .send(Ok(Bytes::copy_from_slice(&all[150..160])))
        .await
        .unwrap();
    bench
        .send(&new, &id, 0, &all[..1500], How::default())
        .await
        .unwrap();
    drop(sender);
    let refused = older.await.unwrap().err().unwrap();
    assert_eq!(refused.error.reason, "taken_over");
    assert_eq!(bench.look(&id).await.received, 1500);
    bench
        .send(&new, &id, 1500, &all[1500..], How::default())
        .await
        .unwrap();
    let whole = bench.look(&id).await;
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}

#[tokio::test]
async fn what_came_counts_when_the_service_stops_or_the_line_is_slow() {
    for is_stopped in [true, false] {
        let mut bench = Bench::new().await;
        let desk = bench.process_with(Limits {
            piece: PIECE,
            linger: Duration::from_millis(50),
            silence: Duration::from_millis(500),
            ..Limits::default()
        });
        let (id, all) = (bench.begin(&desk, 2000).await.id, bytes(2000, 7));
        let first = stream::iter([Ok::<_, &str>(Bytes::copy_from_slice(&all[..700]))]);
        let body = first.chain(stream::pending());
        let sent = Sent {
            offset: 0,
            length: None,
            announced: None,
            checksum: None,
        };
        let (submission, upload) = (bench.id.clone(), id.clone());
        let work =
            tokio::spawn(async move { desk.receive(&submission, &upload, sent, body).await });
        while bench.look(&id).await.received < 512 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if is_stopped {
            bench.stop = watch::channel(()).0;
        }
        let reason = work.await.unwrap().err().unwrap().error.reason;
        assert_eq!(reason, if is_stopped { "stopping" } else { "too_slow" });
        assert_eq!(bench.look(&id).await.received, 700);
    }
}
