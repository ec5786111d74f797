//! Candidacies and locks: a place in line for a seat, and the seat, for as long as the stream and
//! the lease live.

use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Code, Error, Identity};
use hydrant_ports::coordination::{Seat, SeatName};
use hydrant_ports::{EngineError, ErrorKind, Key, State};
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::leases::{Lease, Leases};
use crate::session::{Presence, lost};

/// How long the holder of a seat may be silent when it does not ask for another time.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(3);

/// What somebody in line for a seat is told.
pub(crate) enum Told {
    /// It stands in line.
    Joined { lease_id: String, ttl_ms: u32 },
    /// It has the seat, and the state refuses every lower epoch.
    Held { epoch: u64 },
    /// The seat, or the place in line, is gone. Nothing follows.
    Lost { reason: String },
}

pub(crate) type Events = mpsc::Receiver<Result<Told, Error>>;

/// A wish for a seat.
pub(crate) struct Wish {
    /// The seat, which is also the mark of its epoch in the state.
    pub(crate) seat: Key,
    /// Who wants it, for people.
    pub(crate) holder: String,
    pub(crate) ttl: Duration,
    /// How long it waits for the seat; `None` as long as the stream lives.
    pub(crate) wait: Option<Duration>,
}

/// A seat whose mark is raised.
struct Won {
    seat: Box<dyn Seat>,
    /// Changes when the state may have forgotten the mark.
    failovers: watch::Receiver<u64>,
}

/// Gives seats to the callers of the local API.
pub(crate) struct Seats {
    pub(crate) presence: Arc<Presence>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) leases: Leases,
    pub(crate) shutdown: Shutdown,
}

impl Seats {
    /// Stands in line for a seat, and holds it, for as long as the answer is listened to and the
    /// lease is kept alive.
    pub(crate) fn compete(self: &Arc<Self>, owner: &Identity, wish: Wish) -> Result<Events, Error> {
        let lease = self.leases.grant(owner, wish.ttl)?;
        let (events, told) = mpsc::channel(8);
        let seats = self.clone();
        self.shutdown
            .spawn(async move { seats.hold(&wish, &lease, &events).await });
        Ok(told)
    }

    /// Leaving this function, however it happens, drops the seat and so gives it up.
    async fn hold(&self, wish: &Wish, lease: &Lease, events: &mpsc::Sender<Result<Told, Error>>) {
        let joined = Told::Joined {
            lease_id: lease.id.clone(),
            ttl_ms: lease.ttl_ms(),
        };
        let _ = events.send(Ok(joined)).await;
        let last = tokio::select! {
            () = events.closed() => return,
            () = self.shutdown.begun() => Ok(told_lost("the node stops")),
            () = lease.silent() => Ok(told_lost(lease.silence())),
            last = self.win_and_lose(wish, lease, events) => last,
        };
        let _ = events.try_send(last);
    }

    async fn win_and_lose(
        &self,
        wish: &Wish,
        lease: &Lease,
        events: &mpsc::Sender<Result<Told, Error>>,
    ) -> Result<Told, Error> {
        let until = wish.wait.map(|wait| Instant::now() + wait);
        let won = self.win(wish, lease);
        let won = match until {
            None => won.await?,
            Some(until) => tokio::time::timeout_at(until, won)
                .await
                .map_err(|_| too_late(wish))??,
        };
        let Won { seat, failovers } = won;
        let epoch = seat.epoch();
        let _ = events.send(Ok(Told::Held { epoch })).await;
        tokio::select! {
            () = seat.lost() => Ok(told_lost("the seat was taken away")),
            () = self.superseded(wish, epoch, failovers) => {
                Ok(told_lost("the state knows a later holder of the seat"))
            }
        }
    }

    /// Raises the mark of a seat that is held again, as often as the state may have forgotten it.
    /// Resolves when the state knows a higher one.
    async fn superseded(&self, wish: &Wish, epoch: u64, mut failovers: watch::Receiver<u64>) {
        // Without a sender nothing is ever forgotten.
        while failovers.changed().await.is_ok() {
            let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
            while let Err(error) = self.state.raise(&wish.seat, epoch).await {
                if matches!(error.kind, ErrorKind::Superseded { .. }) {
                    return;
                }
                tracing::warn!(seat = %wish.seat, %error, "cannot raise a mark after a fail-over; trying again");
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
        std::future::pending().await
    }

    /// Tries until there is a seat whose epoch the state knows as the highest.
    async fn win(&self, wish: &Wish, lease: &Lease) -> Result<Won, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            match self.take(wish, lease).await {
                Ok(won) => return Ok(won),
                // Coordination counts from below what the state knows, as after it was rebuilt.
                // Every try counts one up.
                Err(error) if matches!(error.kind, ErrorKind::Superseded { .. }) => {
                    tracing::warn!(seat = %wish.seat, %error, "the epoch is too low; trying again");
                }
                Err(error) if is_final(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(seat = %wish.seat, %error, "cannot take a seat; trying again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Takes the seat when its turn comes, and raises its mark before anybody hears that it is
    /// held: from then on an earlier holder is refused on every key.
    async fn take(&self, wish: &Wish, lease: &Lease) -> Result<Won, EngineError> {
        let mut seat = self.wait_in_line(wish).await?;
        // One that may be frozen leaves its turn to the next, and comes back when it is heard:
        // else nobody would hold the seat until its lease ends.
        while lease.is_overdue() {
            seat.give_up().await;
            lease.heard_lately().await;
            seat = self.wait_in_line(wish).await?;
        }
        // Before the mark is raised, so that no fail-over after it is missed.
        let failovers = self.state.failovers();
        match self.state.raise(&wish.seat, seat.epoch()).await {
            Ok(()) => Ok(Won { seat, failovers }),
            Err(error) => {
                seat.give_up().await;
                Err(error)
            }
        }
    }

    async fn wait_in_line(&self, wish: &Wish) -> Result<Box<dyn Seat>, EngineError> {
        let session = self.presence.session()?;
        let name = SeatName(wish.seat.clone());
        tokio::select! {
            seat = session.take_seat(&name, &wish.holder) => seat,
            () = lost(&*session) => {
                Err(EngineError::new(ErrorKind::Closed, "the session is lost"))
            }
        }
    }
}

fn is_final(error: &EngineError) -> bool {
    matches!(error.kind, ErrorKind::TooLarge | ErrorKind::Corrupt)
}

fn told_lost(reason: impl Into<String>) -> Told {
    Told::Lost {
        reason: reason.into(),
    }
}

fn too_late(wish: &Wish) -> Error {
    let waited = wish.wait.unwrap_or_default().as_millis();
    Error::new(
        Code::DeadlineExceeded,
        "deadline_exceeded",
        format!("{} was not free within {waited} ms", wish.seat),
    )
}
