//! What is refused is put on record too, beside the way of what is accepted: of each store and minute a few by
//! themselves, the rest counted in one event. So a flood of bad requests does not fill the table.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::http::HeaderMap;
use hydrant_sdk::{Error, Transport};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::identity;
use super::refusal::Refusal;
use crate::proto::{self, Origin, RefuseRequest, SubmissionsClient};

/// How many wait to be put on record; more are only counted.
const WAITING: usize = 500;
/// How many of one store are put on record by themselves in a minute, and how many of all stores.
const OF_STORE: u32 = 10;
const OF_ALL: u32 = 100;
/// How many stores are told apart in a minute.
const STORES: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// How often the keeper is asked to put some on record, before they are dropped.
const TRIES: u32 = 5;

/// Where refusals are noted.
#[derive(Clone)]
pub(super) struct Refused(mpsc::Sender<Note>);

/// One request that was refused. It has no value of the request.
#[derive(Debug)]
struct Note {
    origin: Origin,
    submission: String,
    form: String,
    reason: String,
}

impl Refused {
    /// And the work that puts them on record.
    pub(super) fn new(
        keeper: SubmissionsClient<Transport>,
    ) -> (Self, impl Future<Output = Result<(), Error>> + Send) {
        let (notes, receive) = mpsc::channel(WAITING);
        (Self(notes), put_on_record(receive, keeper))
    }

    /// Notes it, when it is a refusal of what the client sent. Waits for nothing.
    pub(super) fn note(&self, refusal: &Refusal, headers: &HeaderMap, submission: &str) {
        let Some(reason) = refusal.reason() else {
            return;
        };
        let note = Note {
            origin: identity::origin(headers).unwrap_or_default(),
            submission: submission.into(),
            form: refusal.form().into(),
            reason: reason.into(),
        };
        if self.0.try_send(note).is_err() {
            tracing::debug!("too much is refused to put each on record");
        }
    }
}

async fn put_on_record(
    mut notes: mpsc::Receiver<Note>,
    keeper: SubmissionsClient<Transport>,
) -> Result<(), Error> {
    loop {
        let Some(first) = notes.recv().await else {
            return Ok(());
        };
        let mut minute = Minute::default();
        let end = Instant::now() + MINUTE;
        tell(&keeper, minute.take(first).into_iter().collect()).await;
        while let Ok(Some(note)) = timeout_at(end, notes.recv()).await {
            let mut told: Vec<_> = minute.take(note).into_iter().collect();
            while let Ok(note) = notes.try_recv() {
                told.extend(minute.take(note));
            }
            tell(&keeper, told).await;
        }
        tell(&keeper, minute.rest()).await;
    }
}

async fn tell(keeper: &SubmissionsClient<Transport>, refused: Vec<proto::Refused>) {
    if refused.is_empty() {
        return;
    }
    let request = RefuseRequest {
        refused,
        ..Default::default()
    };
    for again in 1..=TRIES {
        match keeper.refuse(request.clone()).await {
            Ok(_) => return,
            Err(error) if again == TRIES => {
                let count = request.refused.len();
                tracing::warn!(%error, count, "what was refused is not put on record");
            }
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// What was refused within a minute.
#[derive(Default)]
struct Minute {
    all: u32,
    by_store: HashMap<String, u32>,
    /// What is only counted: by store, where the stores are few, and by reason.
    rest: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Minute {
    /// The note, if there is room for it by itself.
    fn take(&mut self, note: Note) -> Option<proto::Refused> {
        let is_known = self.by_store.contains_key(&note.origin.store);
        let store = match is_known || self.by_store.len() < STORES {
            true => note.origin.store.clone(),
            false => String::new(),
        };
        let of_store = self.by_store.entry(store.clone()).or_default();
        if *of_store < OF_STORE && self.all < OF_ALL {
            *of_store += 1;
            self.all += 1;
            return Some(proto::Refused {
                submission: note.submission,
                form: note.form,
                origin: note.origin.into(),
                reasons: [(note.reason, 1)].into_iter().collect(),
                ..Default::default()
            });
        }
        let reasons = self.rest.entry(store).or_default();
        *reasons.entry(note.reason).or_default() += 1;
        None
    }

    /// One for each store of which more came.
    fn rest(self) -> Vec<proto::Refused> {
        let rest = self.rest.into_iter();
        rest.map(|(store, reasons)| proto::Refused {
            origin: Origin {
                store,
                ..Default::default()
            }
            .into(),
            reasons: reasons.into_iter().collect(),
            ..Default::default()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(store: &str, reason: &str) -> Note {
        Note {
            origin: Origin {
                store: store.into(),
                ..Default::default()
            },
            submission: String::new(),
            form: String::new(),
            reason: reason.into(),
        }
    }

    fn count(refused: &[proto::Refused]) -> u64 {
        refused.iter().flat_map(|one| one.reasons.values()).sum()
    }

    #[test]
    fn a_store_has_a_few_of_its_own_and_the_rest_counted() {
        let mut minute = Minute::default();
        let told = (0..1000).filter_map(|_| minute.take(note("4711", "fields_invalid")));
        assert_eq!(told.count(), OF_STORE as usize);
        assert!(minute.take(note("4712", "fields_invalid")).is_some());
        minute.take(note("4711", "key_reused"));
        let rest = minute.rest();
        assert_eq!((rest.len(), count(&rest)), (1, 991));
        assert_eq!(rest[0].reasons["fields_invalid"], 990);
    }

    #[test]
    fn a_flood_with_ever_new_names_of_stores_is_bounded_and_counted_whole() {
        let mut minute = Minute::default();
        let notes = (0..100_000).map(|at| note(&format!("store-{at}"), "too_large"));
        let told: Vec<_> = notes.filter_map(|note| minute.take(note)).collect();
        let rest = minute.rest();
        assert!(
            told.len() + rest.len() <= 201,
            "{} {}",
            told.len(),
            rest.len()
        );
        assert_eq!(count(&told) + count(&rest), 100_000);
    }
}
