//! The leader's duty to publish: what the tables have, the shared state gets.

use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Code, Duty, Error, State, Term};
use tokio::time::Instant;

use crate::bundle::{Bundle, KEY};
use crate::content;
use crate::service::Desk;
use crate::service::lead::is_lost;

/// How often the tables are looked at when nobody has told of a new revision.
const LOOK: Duration = Duration::from_millis(500);
/// How often the leader looks whether what it wrote is there still: a fail-over of the state may
/// have lost it.
const LOOK_AT_STATE: Duration = Duration::from_secs(2);
/// How long an answer of the state is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// For how long a leader that can't see the state goes on to lead: it may be that another server can.
const BLIND: Duration = Duration::from_secs(10);
/// Why such a leader gives up.
const CUT_OFF: &str = "cut_off";

/// Publishes while it leads.
pub(crate) struct Publisher {
    pub(crate) desk: Desk,
}

impl Duty for Publisher {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(self.publish_again_and_again(&term.state))
    }
}

/// What a leader has published, and what troubles it has told of.
struct Board {
    /// `None` before this leader has compared what is published with the tables.
    revision: Option<u64>,
    packed: Vec<u8>,
    looked: Instant,
    /// Since when the state does not answer.
    blind: Option<Instant>,
    trouble: String,
}

impl Publisher {
    async fn publish_again_and_again(&self, state: &State) -> Error {
        let mut board = match carry_over(state).await {
            Ok(board) => board,
            Err(error) => return error,
        };
        let mut wishes = self.desk.published().wishes();
        loop {
            wishes.mark_unchanged();
            match self.publish(&mut board, state).await {
                Ok(()) => board.is_well(),
                Err(error) if is_lost(&error) || error.reason == CUT_OFF => return error,
                Err(error) => board.is_troubled(&error),
            }
            tokio::select! {
                _ = wishes.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn publish(&self, board: &mut Board, state: &State) -> Result<(), Error> {
        board.look(state).await?;
        if !self.desk.has_tables() {
            return board.begin_with_nothing(state).await;
        }
        match self.desk.begun().await? {
            0 => board.begin_with_nothing(state).await,
            head if board.revision == Some(head) => Ok(()),
            _ => board.write(&self.desk.newest().await?, state).await,
        }
    }
}

/// Begins with what the last leader published.
async fn carry_over(state: &State) -> Result<Board, Error> {
    let packed = state.get(KEY).await?.map(|entry| entry.value);
    Ok(Board {
        // Written again by the first look at the tables: this version of the program may pack it
        // otherwise.
        revision: None,
        packed: packed.unwrap_or_default(),
        looked: Instant::now(),
        blind: None,
        trouble: String::new(),
    })
}

impl Board {
    /// Writes a revision, unless it stands there already.
    async fn write(&mut self, bundle: &Bundle, state: &State) -> Result<(), Error> {
        let packed = content::published(bundle).pack();
        if packed != self.packed {
            state.put(KEY, packed.clone()).await?;
            tracing::info!(
                revision = bundle.revision,
                bytes = packed.len(),
                "published"
            );
        }
        (self.revision, self.packed) = (Some(bundle.revision), packed);
        Ok(())
    }

    /// Nothing has been changed ever: apps are answered from an empty revision. Over one that is
    /// published it is not written: then these are not the tables that it was made of.
    async fn begin_with_nothing(&mut self, state: &State) -> Result<(), Error> {
        match self.packed.is_empty() {
            true => self.write(&Bundle::default(), state).await,
            false => Ok(()),
        }
    }

    /// Looks whether what was published is there still. While the state is away, that is not known; who
    /// does not see it for long leaves the lead to others.
    async fn look(&mut self, state: &State) -> Result<(), Error> {
        if self.packed.is_empty() || self.looked.elapsed() < LOOK_AT_STATE {
            return Ok(());
        }
        self.looked = Instant::now();
        let Ok(Ok(found)) = tokio::time::timeout(ANSWER, state.get(KEY)).await else {
            let since = self.blind.get_or_insert_with(Instant::now);
            return match since.elapsed() < BLIND {
                true => Ok(()),
                false => Err(cut_off()),
            };
        };
        self.blind = None;
        if found.is_some_and(|entry| entry.value == self.packed) {
            return Ok(());
        }
        tracing::warn!("the state has lost the published revision; writing it again");
        state.put(KEY, self.packed.clone()).await?;
        Ok(())
    }

    fn is_well(&mut self) {
        if !std::mem::take(&mut self.trouble).is_empty() {
            tracing::info!("publishing again");
        }
    }

    /// Tells of a trouble once.
    fn is_troubled(&mut self, error: &Error) {
        let text = error.to_string();
        if self.trouble != text {
            tracing::warn!(%error, "cannot publish; trying again");
            self.trouble = text;
        }
    }
}

fn cut_off() -> Error {
    let message = format!("the state has not answered for {} s", BLIND.as_secs());
    Error::new(Code::Unavailable, CUT_OFF, message)
}
