use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hydrant_runtime::{Backoff, Clock};
use hydrant_sdk::{Error, Leadership, State};
use tokio::time::{Instant, MissedTickBehavior};

use crate::service::broken;
use crate::service::lead::{Duty, Term, is_lost};
use crate::sources::Fetcher;
use crate::sources::snapshot::{KEY, Outcome, Snapshot, Validator};
use crate::sources::{Source, Sources};

/// How long the first snapshot waits for slow sources.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before a failed write is tried again.
const REWRITE: Duration = Duration::from_millis(500);
/// How often the leader looks whether what it wrote is there still: a fail-over of the state may
/// have lost it.
const LOOK: Duration = Duration::from_secs(2);
/// How long an answer is waited for when it looks.
const ANSWER: Duration = Duration::from_secs(2);

/// Polls the sources while it leads.
pub(crate) struct Poller {
    pub(crate) fetcher: Fetcher,
    pub(crate) sources: Sources,
    pub(crate) clock: Clock,
}

/// A source that has been asked.
struct Polled<'a> {
    source: &'a Source,
    started: Instant,
    outcome: Outcome,
}

impl Duty for Poller {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(self.lead(&term.leadership, &term.state))
    }
}

impl Poller {
    /// Polls and writes until that can't go on.
    async fn lead(&self, leadership: &Leadership, state: &State) -> Error {
        let mut board = match self.carry_over(leadership, state).await {
            Ok(board) => board,
            Err(error) => return error,
        };
        let mut polls: FuturesUnordered<_> = self
            .sources
            .list()
            .iter()
            .map(|source| self.poll(leadership, source, Instant::now(), board.validator(source)))
            .collect();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(polled) = polls.next() => {
                    let wait = board.count(&polled, self.clock.unix_ms());
                    let validator = board.validator(polled.source);
                    let due = polled.started + wait;
                    polls.push(self.poll(leadership, polled.source, due, validator));
                }
                () = tokio::time::sleep(REWRITE), if board.dirty => {}
                _ = look.tick(), if !board.dirty => board.look(state).await,
            }
            if let Err(error) = board.write(state).await {
                if is_lost(&error) {
                    return error;
                }
                tracing::warn!(%error, "cannot write the snapshot; trying again");
            }
        }
    }

    /// Begins with what the last leader knew.
    async fn carry_over(&self, leadership: &Leadership, state: &State) -> Result<Board, Error> {
        let entry = state.get(KEY).await?;
        let known = entry.and_then(|entry| serde_json::from_slice::<Snapshot>(&entry.value).ok());
        let names = self
            .sources
            .list()
            .iter()
            .map(|source| source.name.as_str());
        let known = known.unwrap_or_default().restricted_to(names);
        Ok(Board {
            snapshot: Snapshot {
                epoch: leadership.epoch(),
                ..known
            },
            wanted: self.sources.list().len(),
            began: Instant::now(),
            began_unix_ms: self.clock.unix_ms(),
            last_good: Default::default(),
            backoffs: Default::default(),
            written: Vec::new(),
            dirty: true,
        })
    }

    /// Asks a source when it is due; never again when that is so only because this process was
    /// stopped, and another one leads by now.
    async fn poll<'a>(
        &self,
        leadership: &Leadership,
        source: &'a Source,
        due: Instant,
        known: Option<Validator>,
    ) -> Polled<'a> {
        tokio::time::sleep_until(due).await;
        if leadership.is_lost() {
            std::future::pending::<()>().await;
        }
        let started = Instant::now();
        let outcome = self.fetcher.fetch(source, known.as_ref()).await;
        Polled {
            source,
            started,
            outcome,
        }
    }
}

/// What a leader knows, and what of it is not written yet.
struct Board {
    snapshot: Snapshot,
    wanted: usize,
    began: Instant,
    began_unix_ms: i64,
    last_good: std::collections::HashMap<String, i64>,
    backoffs: std::collections::HashMap<String, Backoff>,
    /// What was written last.
    written: Vec<u8>,
    dirty: bool,
}

impl Board {
    /// What makes the next request conditional, when there is a value to keep.
    fn validator(&self, source: &Source) -> Option<Validator> {
        let found = self.snapshot.sources.get(&source.name)?;
        found.value.as_ref()?;
        Some(found.validator.clone())
    }

    /// Takes in how a poll ended; tells how long after its start the next one is due.
    fn count(&mut self, polled: &Polled<'_>, now: i64) -> Duration {
        let name = &polled.source.name;
        let last_good = self.last_good(name);
        let found = self.snapshot.sources.entry(name.clone()).or_default();
        self.dirty |= found.apply(polled.outcome.clone(), now, last_good);
        match &polled.outcome {
            Outcome::Failed(reason) => tracing::warn!(source = name, reason, "a source fails"),
            _ => {
                self.last_good.insert(name.clone(), now);
            }
        }
        self.next_wait(polled.source)
    }

    /// When a source was last good. One that the last leader left in good order was so until now.
    fn last_good(&self, name: &str) -> Option<i64> {
        let left_good = || {
            let found = self.snapshot.sources.get(name)?;
            (found.stale.is_none() && found.value.is_some()).then_some(self.began_unix_ms)
        };
        self.last_good.get(name).copied().or_else(left_good)
    }

    /// The interval, or less while a source has never answered: it may just be starting.
    fn next_wait(&mut self, source: &Source) -> Duration {
        let found = self.snapshot.sources.get(&source.name);
        if found.is_some_and(|found| found.value.is_some()) {
            return source.interval;
        }
        let first = Duration::from_millis(200).min(source.interval);
        self.backoffs
            .entry(source.name.clone())
            .or_insert_with(|| Backoff::new(first, source.interval))
            .next_wait()
    }

    /// Writes what is new, once the first round is over.
    async fn write(&mut self, state: &State) -> Result<(), Error> {
        let first_round = self.snapshot.sources.len() < self.wanted;
        if !self.dirty || (first_round && self.began.elapsed() < PATIENCE) {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.snapshot).map_err(|error| broken(&error))?;
        state.put(KEY, text.clone()).await?;
        self.written = text;
        self.dirty = false;
        Ok(())
    }

    /// Looks whether what was written is there still. While the state is away, that is not known.
    async fn look(&mut self, state: &State) {
        if let Ok(Ok(entry)) = tokio::time::timeout(ANSWER, state.get(KEY)).await {
            self.found(entry.as_ref().map(|entry| entry.value.as_ref()));
        }
    }

    /// Nobody else writes: what is not there any more was lost, and is written again.
    fn found(&mut self, stored: Option<&[u8]>) {
        if stored != Some(&self.written) {
            tracing::warn!("the state has lost the snapshot; writing it again");
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sources::Location;
    use crate::sources::snapshot::Found;

    fn board() -> Board {
        Board {
            snapshot: Snapshot::default(),
            wanted: 1,
            began: Instant::now(),
            began_unix_ms: 1000,
            last_good: Default::default(),
            backoffs: Default::default(),
            written: Vec::new(),
            dirty: false,
        }
    }

    fn source() -> Source {
        Source {
            name: "catalog".into(),
            location: Location::Url("http://one/".into()),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            max_size: 100,
        }
    }

    fn polled(source: &Source, outcome: Outcome) -> Polled<'_> {
        Polled {
            source,
            started: Instant::now(),
            outcome,
        }
    }

    #[tokio::test]
    async fn a_source_is_asked_sooner_only_until_its_first_answer() {
        let (mut board, source) = (board(), source());
        let failed = || Outcome::Failed("refused".into());
        assert!(board.count(&polled(&source, failed()), 1) < Duration::from_secs(1));
        assert!(board.validator(&source).is_none(), "no value to keep");
        let good = Outcome::Changed {
            value: json!(1),
            validator: Validator::default(),
        };
        assert_eq!(board.count(&polled(&source, good), 2), source.interval);
        assert!(board.validator(&source).is_some());
        assert_eq!(board.count(&polled(&source, failed()), 3), source.interval);
        assert_eq!(
            board.snapshot.sources["catalog"]
                .stale
                .as_ref()
                .unwrap()
                .since,
            2
        );
    }

    #[tokio::test]
    async fn what_the_state_has_lost_is_written_again() {
        let mut board = board();
        board.written = b"new".to_vec();
        board.found(Some(b"new"));
        assert!(!board.dirty);
        for lost in [Some(b"old".as_slice()), None] {
            board.dirty = false;
            board.found(lost);
            assert!(board.dirty, "{lost:?}");
        }
    }

    #[tokio::test]
    async fn a_new_leader_takes_the_old_ones_values_as_good_until_now() {
        let (mut board, source) = (board(), source());
        let carried = Found {
            value: Some(json!(1)),
            as_of: 5,
            ..Found::default()
        };
        board.snapshot.sources.insert("catalog".into(), carried);
        board.count(&polled(&source, Outcome::Failed("gone".into())), 1500);
        let found = &board.snapshot.sources["catalog"];
        assert_eq!(found.stale.as_ref().unwrap().since, 1000);
        assert_eq!(found.value, Some(json!(1)));
    }
}
