//! Who holds a seat, and who waits in line for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hydrant_ports::EngineError;
use hydrant_ports::coordination::{Holder, SeatName};
use tokio::sync::watch;

use crate::coordination::EmbeddedSeat;
use crate::error::{session_closed, too_large};
use crate::image::SessionId;
use crate::queue::Reply;

/// A candidate in line.
pub(crate) struct Waiter {
    pub(crate) ticket: u64,
    pub(crate) session: SessionId,
    pub(crate) name: String,
    pub(crate) reply: Reply<EmbeddedSeat>,
}

struct Held {
    ticket: u64,
    session: SessionId,
    lost: watch::Sender<bool>,
}

#[derive(Default)]
struct Line {
    held: Option<Held>,
    waiting: VecDeque<Waiter>,
}

/// The lines of all seats; the writer's own.
#[derive(Default)]
pub(crate) struct Lines {
    lines: HashMap<SeatName, Line>,
    /// Those whose head may have to be seated.
    changed: BTreeSet<SeatName>,
}

impl Lines {
    /// Puts a candidate at the end of the line.
    pub(crate) fn enter(&mut self, seat: &SeatName, waiter: Waiter, most: usize) {
        let line = self.lines.entry(seat.clone()).or_default();
        if line.waiting.len() >= most {
            line.waiting.retain(|waiter| !waiter.reply.is_closed());
        }
        if line.waiting.len() >= most {
            let full: EngineError = too_large(format!("{most} wait for {} already", seat.0));
            let _ = waiter.reply.send(Err(full));
            return;
        }
        line.waiting.push_back(waiter);
        self.changed.insert(seat.clone());
    }

    /// Frees the seat if it is held under `ticket`; tells whether it was.
    pub(crate) fn give_up(&mut self, seat: &SeatName, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(seat) else {
            return false;
        };
        if line.held.as_ref().is_none_or(|held| held.ticket != ticket) {
            return false;
        }
        line.free();
        self.changed.insert(seat.clone());
        true
    }

    /// Gives up all of a session, and returns the seats that it held.
    pub(crate) fn end_session(&mut self, session: SessionId) -> Vec<SeatName> {
        let mut freed = Vec::new();
        for (seat, line) in &mut self.lines {
            line.dismiss(session);
            if line
                .held
                .as_ref()
                .is_some_and(|held| held.session == session)
            {
                line.free();
                freed.push(seat.clone());
            }
        }
        self.changed.extend(freed.iter().cloned());
        freed
    }

    /// The seats that are free and waited for, each with the first of its line who still waits.
    pub(crate) fn next(&mut self) -> Vec<(SeatName, Waiter)> {
        let mut next = Vec::new();
        for seat in std::mem::take(&mut self.changed) {
            let Some(line) = self.lines.get_mut(&seat) else {
                continue;
            };
            if line.held.is_some() {
                continue;
            }
            match line.first() {
                Some(waiter) => next.push((seat, waiter)),
                None => {
                    self.lines.remove(&seat);
                }
            }
        }
        next
    }

    /// Whether a seat may have to be given.
    pub(crate) fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Seats a candidate; the receiver tells when the seat is lost.
    pub(crate) fn seat(&mut self, seat: &SeatName, waiter: &Waiter) -> watch::Receiver<bool> {
        let (lost, receiver) = watch::channel(false);
        self.lines.entry(seat.clone()).or_default().held = Some(Held {
            ticket: waiter.ticket,
            session: waiter.session,
            lost,
        });
        receiver
    }

    /// The seat of `seat` could not be given: the next in line has its turn.
    pub(crate) fn skip(&mut self, seat: SeatName) {
        self.changed.insert(seat);
    }
}

impl Line {
    fn free(&mut self) {
        if let Some(held) = self.held.take() {
            held.lost.send_replace(true);
        }
    }

    fn dismiss(&mut self, session: SessionId) {
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.session == session {
                let _ = waiter.reply.send(Err(session_closed()));
            } else {
                self.waiting.push_back(waiter);
            }
        }
    }

    fn first(&mut self) -> Option<Waiter> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|waiter| !waiter.reply.is_closed())
    }
}

/// Who holds each seat, for those who observe.
#[derive(Default)]
pub(crate) struct Holders(Mutex<Observed>);

#[derive(Default)]
struct Observed {
    seats: HashMap<SeatName, watch::Sender<Option<Holder>>>,
    /// At this many, those of no use are dropped.
    sweep_at: usize,
}

impl Holders {
    pub(crate) fn observe(&self, seat: &SeatName) -> watch::Receiver<Option<Holder>> {
        self.lock().sender(seat).subscribe()
    }

    pub(crate) fn publish(&self, seat: &SeatName, holder: Option<Holder>) {
        self.lock().sender(seat).send_replace(holder);
    }

    /// The engine is closed: nobody holds anything.
    pub(crate) fn clear(&self) {
        for (_, sender) in self.lock().seats.drain() {
            sender.send_replace(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observed {
    fn sender(&mut self, seat: &SeatName) -> &watch::Sender<Option<Holder>> {
        if self.seats.len() >= self.sweep_at {
            self.seats
                .retain(|_, sender| sender.receiver_count() > 0 || sender.borrow().is_some());
            self.sweep_at = (self.seats.len() * 2).max(1024);
        }
        self.seats
            .entry(seat.clone())
            .or_insert_with(|| watch::Sender::new(None))
    }
}
