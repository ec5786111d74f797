//! Processes that pause and die, and a state whose answers are lost, at any moment.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::stage::{Answer, KEY, Process, Shop, post, seconds};
use crate::idempotency::key::idempotency_key;
use crate::idempotency::record::Record;

#[derive(Clone, Debug)]
enum Step {
    Send { process: usize },
    Pause { process: usize },
    Resume { process: usize },
    Replace { process: usize },
    Lose { count: u32, works: bool },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..3usize;
    prop_oneof![
        4 => process.clone().prop_map(|process| Step::Send { process }),
        3 => process.clone().prop_map(|process| Step::Pause { process }),
        2 => process.clone().prop_map(|process| Step::Resume { process }),
        1 => process.prop_map(|process| Step::Replace { process }),
        1 => (1..4u32, any::<bool>()).prop_map(|(count, works)| Step::Lose { count, works }),
        4 => (1..15_000u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

async fn play(steps: Vec<Step>, takes: u64) -> Result<(), TestCaseError> {
    let shop = Shop::new();
    shop.takes(Duration::from_millis(takes));
    let mut processes: Vec<Process> = (0..3).map(|_| shop.process()).collect();
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Step::Send { process } => sent.push(processes[process].begin(post(KEY, "one"))),
            Step::Pause { process } => processes[process].pause(),
            Step::Resume { process } => processes[process].resume(),
            Step::Replace { process } => {
                std::mem::replace(&mut processes[process], shop.process()).die();
            }
            Step::Lose { count, works } => shop.memory.fail_next(count, works),
            Step::Wait { ms } => sleep(Duration::from_millis(ms)).await,
        }
    }
    shop.memory.fail_next(0, false);
    processes.iter().for_each(Process::resume);
    let last = until_answered(&shop).await;
    let mut told = HashSet::from([last.text]);
    for request in sent {
        // Who asked a process that died waits for ever.
        if let Ok(answer) = timeout(seconds(100), request).await
            && let Ok(answer) = answer
            && answer.status == 201
        {
            told.insert(answer.text);
        }
    }
    prop_assert_eq!(told.len(), 1, "all are told the same: {:?}", told);
    let mut epochs = shop.epochs();
    let runs = epochs.len();
    epochs.dedup();
    prop_assert!(epochs.is_sorted() && epochs.len() == runs, "{:?}", epochs);
    Ok(())
}

async fn until_answered(shop: &Shop) -> Answer {
    let process = shop.process();
    for _ in 0..100 {
        let answer = process.send(post(KEY, "one")).await;
        if answer.status == 201 {
            return answer;
        }
        sleep(seconds(1)).await;
    }
    panic!("a retry is answered in the end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn whatever_happens_all_who_are_told_an_outcome_are_told_the_same(
        steps in prop::collection::vec(step(), 8..40),
        takes in 0..12_000u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(steps, takes))?;
    }

    #[test]
    fn any_bytes_are_read_as_a_record_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::from_bytes(&bytes);
    }

    #[test]
    fn any_header_is_read_as_a_key_or_refused(text in "[ -~]{0,60}") {
        let mut headers = http::HeaderMap::new();
        headers.insert("idempotency-key", text.parse().unwrap());
        if let Ok(key) = idempotency_key(&headers) {
            let key = key.unwrap();
            prop_assert!(key.len() == 36 && key == key.to_lowercase());
        }
    }
}
