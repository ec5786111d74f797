use std::sync::Arc;
use std::time::Duration;

use buffa::Message;
use buffa::view::MessageView;
use connectrpc::{HasMessageView, JsonDeserialize, JsonSerialize, Spec};
use futures::StreamExt as _;
use hydrant_contracts::{Code, Error, proto};
use hydrant_runtime::Backoff;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Events, Hydrant, is_refusal};
use crate::lease::{Lease, Validity, millis_or, within};
use crate::registration::stream_ended;

/// How long the holder of a seat may be silent.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How long to wait until the node takes a claim.
const ANSWER: Duration = Duration::from_secs(5);

/// What one process holds at a time: the leadership of an election, or a lock. Dropping it gives
/// it up.
pub(crate) struct Seat {
    stamp: Stamp,
    _task: AbortOnDropHandle<()>,
}

/// Under what a write is made.
#[derive(Clone)]
pub(crate) struct Stamp {
    mark: Mark,
    epoch: u64,
    validity: Arc<Validity>,
}

/// The name of a seat, in the caller's namespace.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    Election(String),
    Lock(String),
}

/// What the node tells somebody who claims a seat.
pub(crate) enum SeatEvent {
    Joined { lease_id: String, ttl_ms: u32 },
    Taken { epoch: u64 },
    Lost { reason: String },
}

/// What a stream on which a seat is claimed tells.
pub(crate) trait Contest {
    /// `None` for what this version does not know.
    fn into_seat_event(self) -> Option<SeatEvent>;
}

/// How a seat is claimed.
pub(crate) struct Claim<Req> {
    pub(crate) mark: Mark,
    pub(crate) spec: Spec,
    pub(crate) keep_alive: Spec,
    pub(crate) request: Req,
}

impl<Req: Message + JsonSerialize + Clone> Claim<Req> {
    /// Waits until the seat is ours, through every break of the way to the node.
    pub(crate) async fn wait<Event>(&self, hydrant: &Hydrant) -> Result<Seat, Error>
    where
        Event: Message + HasMessageView + JsonDeserialize + Contest + Send + 'static,
        Event::View<'static>: MessageView<'static, Owned = Event> + Send,
    {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let error = match self.attempt::<Event>(hydrant).await {
                Ok(seat) => return Ok(seat),
                Err(error) => error,
            };
            if is_refusal(&error) || error.code == Code::DeadlineExceeded {
                return Err(error);
            }
            tracing::debug!(%error, seat = ?self.mark, "the claim broke; claiming again");
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn attempt<Event>(&self, hydrant: &Hydrant) -> Result<Seat, Error>
    where
        Event: Message + HasMessageView + JsonDeserialize + Contest + Send + 'static,
        Event::View<'static>: MessageView<'static, Owned = Event> + Send,
    {
        let asked = hydrant.clock().now();
        let opening = hydrant.node_stream(self.spec, self.request.clone());
        let mut events: Events<Event> = within(ANSWER, opening).await?;
        let (id, ttl) = within(ANSWER, joined(&mut events)).await?;
        let validity = Validity::new(hydrant.clock(), asked, ttl);
        let lease = Lease {
            id,
            ttl,
            keep_alive: self.keep_alive,
            validity: Arc::clone(&validity),
        };
        let (tell, taken) = oneshot::channel();
        let mark = self.mark.clone();
        let task = tokio::spawn(hold(hydrant.clone(), lease, events, mark, tell));
        let task = AbortOnDropHandle::new(task);
        let epoch = taken.await.unwrap_or_else(|_| Err(stream_ended()))?;
        let stamp = Stamp {
            mark: self.mark.clone(),
            epoch,
            validity,
        };
        stamp.check()?;
        Ok(Seat { stamp, _task: task })
    }
}

async fn joined<Event: Contest>(events: &mut Events<Event>) -> Result<(String, Duration), Error> {
    let first = events.next().await.unwrap_or_else(|| Err(stream_ended()))?;
    match first.into_seat_event() {
        Some(SeatEvent::Joined { lease_id, ttl_ms }) => Ok((lease_id, millis_or(ttl_ms, TTL))),
        _ => Err(stream_ended()),
    }
}

/// Keeps the claim alive, and then the seat, until it is over.
async fn hold<Event: Contest>(
    hydrant: Hydrant,
    lease: Lease,
    mut events: Events<Event>,
    mark: Mark,
    tell: oneshot::Sender<Result<u64, Error>>,
) {
    let mut tell = Some(tell);
    let error = tokio::select! {
        error = lease.keep(&hydrant) => error,
        error = listen(&mut events, &mut tell) => error,
    };
    lease.validity.end();
    match tell {
        Some(tell) => drop(tell.send(Err(error))),
        None => tracing::warn!(%error, seat = ?mark, "lost what it held"),
    }
}

async fn listen<Event: Contest>(
    events: &mut Events<Event>,
    tell: &mut Option<oneshot::Sender<Result<u64, Error>>>,
) -> Error {
    while let Some(event) = events.next().await {
        match event.map(Event::into_seat_event) {
            Ok(Some(SeatEvent::Taken { epoch })) => {
                if let Some(tell) = tell.take() {
                    let _ = tell.send(Ok(epoch));
                }
            }
            Ok(Some(SeatEvent::Lost { reason })) => {
                return Error::new(Code::Aborted, "seat_lost", reason);
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    stream_ended()
}

impl Seat {
    pub(crate) fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stamp.validity.end();
    }
}

impl Stamp {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn is_over(&self) -> bool {
        self.validity.is_over()
    }

    pub(crate) async fn over(&self) {
        self.validity.over().await;
    }

    /// Fails when this process does not hold the seat any more, by its own clock.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_over() {
            return Ok(());
        }
        let message = match &self.mark {
            Mark::Election(name) => format!("this process does not lead `{name}` any more"),
            Mark::Lock(name) => format!("this process does not hold the lock `{name}` any more"),
        };
        Err(Error::new(Code::Aborted, "seat_lost", message))
    }
}

impl From<&Stamp> for proto::Under {
    fn from(stamp: &Stamp) -> Self {
        let holder = match &stamp.mark {
            Mark::Election(name) => proto::under::Holder::Election(name.clone()),
            Mark::Lock(name) => proto::under::Holder::Lock(name.clone()),
        };
        proto::Under {
            holder: Some(holder),
            epoch: stamp.epoch,
            ..Default::default()
        }
    }
}
