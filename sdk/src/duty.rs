//! What only one process of a service does at a time: the leader.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hydrant_contracts::Error;
use tokio::time::{Interval, MissedTickBehavior};

use crate::client::Hydrant;
use crate::election::Leadership;
use crate::state::State;

/// How long to wait before standing again, when a duty could not be done.
const PAUSE: Duration = Duration::from_millis(500);

/// One term of leadership.
pub struct Term {
    /// The seat, with its epoch.
    pub leadership: Leadership,
    /// The state of the service, written under the leadership.
    pub state: State,
}

impl Term {
    /// Waits for the next turn of what is done from time to time. A process that was stopped has none
    /// where another one leads by now.
    pub async fn turn(&self, turns: &mut Interval) {
        turns.tick().await;
        if self.leadership.is_lost() {
            std::future::pending::<()>().await;
        }
    }
}

/// Turns so far apart; who missed some makes up for none.
pub fn turns(apart: Duration) -> Interval {
    let mut turns = tokio::time::interval(apart);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// Something that the leader does for as long as it leads.
pub trait Duty: Send + Sync {
    /// Does it until it can't go on: it tries again by itself what may pass, and returns when
    /// another process leads. It is dropped when the term is over.
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error>;
}

impl Hydrant {
    /// Stands for election again and again, and carries out the duties while this process leads. Work to
    /// do [alongside](crate::Service::alongside) a service.
    ///
    /// # Errors
    ///
    /// As [`Hydrant::campaign`].
    pub async fn lead_again_and_again(
        self,
        election: &str,
        duties: Vec<Arc<dyn Duty>>,
    ) -> Result<(), Error> {
        loop {
            let leadership = self.campaign(election).await?;
            let term = Term {
                state: self.state().under(&leadership),
                leadership,
            };
            let epoch = term.leadership.epoch();
            tracing::info!(election, epoch, "leads");
            tokio::select! {
                () = term.leadership.lost() => {}
                error = carry_out(&duties, &term) => {
                    tracing::warn!(election, %error, "cannot lead; standing again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tracing::info!(election, epoch, "does not lead any more");
        }
    }
}

/// Resolves when the first of the duties can't go on.
async fn carry_out(duties: &[Arc<dyn Duty>], term: &Term) -> Error {
    let mut under_way: FuturesUnordered<_> =
        duties.iter().map(|duty| duty.carry_out(term)).collect();
    match under_way.next().await {
        Some(error) => error,
        None => std::future::pending().await,
    }
}
