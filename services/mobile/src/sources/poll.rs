use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hydrant_runtime::Clock;
use hydrant_sdk::{Duty, Error, Leadership, State, Term, turns};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::alarms::Alarms;
use crate::service::Desk;
use crate::service::lead::is_lost;
use crate::sources::board::{Board, POLLS, Polls};
use crate::sources::keep::{self, Goods};
use crate::sources::snapshot::{Declared, Outcome, SOURCE, Validator};
use crate::sources::{Fetcher, Order, Source, Sources};

/// How long to wait before a failed write is tried again.
const REWRITE: Duration = Duration::from_millis(500);
/// How often the leader looks whether what it wrote is there still, and tells how its sources do.
const LOOK: Duration = Duration::from_secs(2);
/// So often must a source fail before somebody is called.
const FAILURES: u32 = 2;

/// Polls the sources while it leads.
pub(crate) struct Poller {
    pub(crate) fetcher: Fetcher,
    pub(crate) sources: Sources,
    pub(crate) clock: Clock,
    pub(crate) alarms: Alarms,
    /// The way to the tables, where the last good values are kept.
    pub(crate) desk: Desk,
    /// How this process names itself.
    pub(crate) instance: String,
}

/// A source that has been asked.
struct Polled<'a> {
    source: &'a Source,
    started: Instant,
    outcome: Outcome,
}

impl Duty for Poller {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        let handing_over = HandingOver(&self.alarms);
        Box::pin(async move {
            let _handing_over = handing_over;
            let (newest, goods) = watch::channel(Goods::new());
            tokio::select! {
                error = self.lead(&term.leadership, &term.state, newest) => error,
                () = keep::keep(&self.desk, goods) => std::future::pending().await,
            }
        })
    }
}

/// Whoever leads next tells of the sources; this one does not any more, however its term ends.
struct HandingOver<'a>(&'a Alarms);

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.hand_over(SOURCE);
    }
}

impl Poller {
    /// Polls and writes until that can't go on.
    async fn lead(
        &self,
        leadership: &Leadership,
        state: &State,
        newest: watch::Sender<Goods>,
    ) -> Error {
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
        let mut watch = state.watch(SOURCE.trim_end_matches('/'));
        let mut told = Polls::default();
        let mut kept = Box::pin(self.kept());
        let mut is_kept_taken = false;
        let mut look = turns(LOOK);
        loop {
            tokio::select! {
                Some(polled) = polls.next() => {
                    let (source, started) = (polled.source, polled.started);
                    let wait = self.count(&mut board, polled);
                    tell_keeper(&newest, source, &board);
                    let validator = board.validator(source);
                    polls.push(self.poll(leadership, source, started + wait, validator));
                }
                change = watch.next() => match change {
                    Ok(change) => board.heard(&change),
                    Err(error) => return error,
                },
                goods = &mut kept, if !is_kept_taken => {
                    is_kept_taken = true;
                    board.take_kept(goods);
                }
                () = tokio::time::sleep(REWRITE), if !board.is_written() => {}
                _ = look.tick(), if board.is_written() => {
                    board.suspect_the_list();
                    self.tell(&board, state, &mut told).await;
                }
            }
            if board.is_written() && board.has_suspects() {
                board.look(state).await;
            }
            if let Err(error) = board.write(state).await {
                if is_lost(&error) {
                    return error;
                }
                tracing::warn!(%error, "cannot write what the sources said; trying again");
            }
        }
    }

    /// Begins with what the last leader knew.
    async fn carry_over(&self, leadership: &Leadership, state: &State) -> Result<Board, Error> {
        let left = state.list(SOURCE).await?;
        let sources = self.sources.list();
        let declared = Declared {
            epoch: leadership.epoch(),
            names: sources.iter().map(|source| source.name.clone()).collect(),
            orders: sources.iter().filter_map(Order::of).collect(),
        };
        Ok(Board::carry_over(declared, &left, self.clock.unix_ms()))
    }

    /// What the tables have, as soon as they answer.
    async fn kept(&self) -> Goods {
        loop {
            match keep::load(&self.desk).await {
                Ok(goods) => return goods,
                Err(error) => {
                    tracing::debug!(%error, "what is kept of the sources can't be read yet");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
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

    /// Takes in how a poll ended; tells how long after its start the next one is due.
    fn count(&self, board: &mut Board, polled: Polled<'_>) -> Duration {
        let wait = board.count(polled.source, polled.outcome, self.clock.unix_ms());
        self.alarm(board, polled.source);
        wait
    }

    /// One answer that fails is no reason to call somebody.
    fn alarm(&self, board: &Board, source: &Source) {
        let name = format!("{SOURCE}{}", source.name);
        let Some(found) = board.found(&source.name) else {
            return;
        };
        match &found.stale {
            None => self.alarms.clear(&name),
            Some(_) if board.failures(&source.name) < FAILURES => {}
            Some(stale) => {
                let served = match found.good {
                    Some(_) => "apps get its last good value",
                    None => "apps get null for it, since it never had a value",
                };
                let message = format!(
                    "the source `{}` fails: {}; {served}",
                    source.name, stale.reason
                );
                self.alarms
                    .raise_since(&name, stale.since, &message, &stale.mend);
            }
        }
    }

    /// Tells operators how the sources do; a write that fails is made up for at the next look.
    async fn tell(&self, board: &Board, state: &State, told: &mut Polls) {
        let polls = board.polls(&self.instance);
        if polls == *told {
            return;
        }
        let text = serde_json::to_vec(&polls).unwrap_or_default();
        if state.put(POLLS, text).await.is_ok() {
            *told = polls;
        }
    }
}

fn tell_keeper(newest: &watch::Sender<Goods>, source: &Source, board: &Board) {
    let good = board
        .found(&source.name)
        .and_then(|found| found.good.as_ref());
    if let Some(good) = good {
        newest.send_if_modified(|goods| {
            let is_new = goods
                .get(&source.name)
                .is_none_or(|known| known.as_of != good.as_of);
            if is_new {
                goods.insert(source.name.clone(), good.clone());
            }
            is_new
        });
    }
}
