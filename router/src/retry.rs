//! What is tried again at another instance, and how often: as a rule says, or as it is without one.

use std::time::Duration;

use hydrant_contracts::rules::{Retry, RetryOn};

use crate::balance::{self, Chooser, Tried};
use crate::clock::Moment;
use crate::decide::Route;
use crate::instance::ErrorKind;
use crate::priority::Priority;
use crate::worker::Worker;

/// How failures of a request are met. What an instance may have seen is repeated only when that is safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How often it is tried at most.
    pub(crate) tries: usize,
    connect: bool,
    reset: bool,
    /// How long a try may wait for the head of an answer.
    pub(crate) per_try: Option<Duration>,
}

impl Plan {
    /// Where no rule says anything.
    const DEFAULT: Self = Self {
        tries: Tried::MOST,
        connect: true,
        reset: true,
        per_try: None,
    };

    pub(crate) fn of(route: &Route<'_>) -> Self {
        route.retry().map_or(Self::DEFAULT, |retry| Self {
            tries: usize::from(retry.attempts).min(Tried::MOST),
            connect: retry.on.contains(&RetryOn::Connect),
            reset: retry.on.contains(&RetryOn::Reset),
            per_try: retry.per_try_timeout.map(|span| span.duration()),
        })
    }

    /// Whether it is tried again after such a failure; `gave_up` says that the try alone ran out of time.
    pub(crate) fn covers(&self, kind: ErrorKind, gave_up: bool) -> bool {
        match kind {
            ErrorKind::Timeout => gave_up,
            ErrorKind::Connect | ErrorKind::Local | ErrorKind::Peer => self.connect,
            _ => self.reset,
        }
    }

    /// Whether there is a try left.
    pub(crate) fn has_more(&self, tried: &Tried) -> bool {
        tried.len() < self.tries
    }
}

impl<'s> Route<'s> {
    /// What a rule says of trying again.
    pub(crate) fn retry(&self) -> Option<&'s Retry> {
        self.ruled?.compiled.retry()
    }
}

/// A request, and the instances that it was sent to, the present one among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries<'a> {
    pub(crate) route: &'a Route<'a>,
    pub(crate) tried: &'a Tried,
}

impl Tries<'_> {
    /// Whether another instance is asked after an answer with this status.
    pub(crate) fn cover_status(&self, status: u16) -> bool {
        let retry = self.route.retry();
        retry.is_some_and(|retry| retry.covers_status(status))
    }

    /// Takes one more try out of the budget, if there is one and an instance for it: asked before an answer is thrown
    /// away, so that the client gets that one when there can't be a better.
    pub(crate) fn take_another(&self, worker: &Worker, priority: Priority) -> bool {
        let now = Moment::now();
        let chooser = Chooser {
            worker: worker.index,
            now,
            priority,
        };
        let budget = self.route.service.live.budget(worker.index);
        Plan::of(self.route).has_more(self.tried)
            && balance::is_left(self.route, self.tried, chooser)
            && budget.take_retry(now)
    }
}
