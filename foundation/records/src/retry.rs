use std::future::Future;
use std::ops::ControlFlow;

use hydrant_runtime::Backoff;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::connection::Purpose;
use crate::error::RecordsError;
use crate::pool::Records;
use crate::transaction::Transaction;

/// The waits between the attempts of one transaction.
const FIRST_WAIT: Duration = Duration::from_millis(4);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Does work in a transaction, as a whole or not at all: `transaction!(records, |tx| { … })`, where
/// the body is the inside of an async block that ends with a `Result`. Its error can be any that
/// is made from a [`RecordsError`](crate::RecordsError).
///
/// The body is run again when others were in its way, so it does nothing that it could not do
/// twice; an error that it returns takes everything back.
///
/// A macro, because a function that takes an async closure could not be used in a task: whether the
/// closure's future may go to another thread can't be said in its signature yet.
#[macro_export]
macro_rules! transaction {
    ($records:expr, |$tx:ident| $body:expr) => {
        $crate::attempt_again_and_again!($records.attempts_to_write(), |$tx| $body)
    };
}

/// Reads, written as [`transaction!`]: everything that the body sees is of one moment, and it
/// holds up nobody.
#[macro_export]
macro_rules! read {
    ($records:expr, |$tx:ident| $body:expr) => {
        $crate::attempt_again_and_again!($records.attempts_to_read(), |$tx| $body)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! attempt_again_and_again {
    ($attempts:expr, |$tx:ident| $body:expr) => {{
        let mut attempts = $attempts;
        loop {
            let mut transaction = match attempts.begin().await {
                Ok(transaction) => transaction,
                Err(error) => break Err(::core::convert::From::from(error)),
            };
            let work = async {
                let $tx = &mut transaction;
                $body
            };
            let done = attempts.run(work).await;
            if let ::core::ops::ControlFlow::Break(done) = attempts.end(transaction, done).await {
                break done;
            }
        }
    }};
}

/// The attempts of one transaction, until its time is over.
#[doc(hidden)]
pub struct Attempts<'r> {
    records: &'r Records,
    purpose: Purpose,
    deadline: Instant,
    waits: Backoff,
    turn: Option<OwnedMutexGuard<()>>,
    /// Why the attempt before this one could not begin.
    before: Option<RecordsError>,
}

impl Records {
    #[doc(hidden)]
    pub fn attempts_to_write(&self) -> Attempts<'_> {
        self.attempts(Purpose::Write)
    }

    #[doc(hidden)]
    pub fn attempts_to_read(&self) -> Attempts<'_> {
        self.attempts(Purpose::Read)
    }

    fn attempts(&self, purpose: Purpose) -> Attempts<'_> {
        Attempts {
            records: self,
            purpose,
            deadline: Instant::now() + self.deadline(),
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            turn: None,
            before: None,
        }
    }
}

impl Attempts<'_> {
    /// Begins a transaction, as often as it takes.
    pub async fn begin(&mut self) -> Result<Transaction, RecordsError> {
        loop {
            let error = match self.try_begin().await {
                Ok(begun) => return Ok(begun),
                Err(error) => error.or_before(self.before.take()),
            };
            if !error.is_passing() || !self.wait().await {
                return Err(error);
            }
            self.before = Some(error);
        }
    }

    async fn try_begin(&mut self) -> Result<Transaction, RecordsError> {
        if self.purpose == Purpose::Write && self.turn.is_none() {
            self.turn = self.records.turn(self.deadline).await?;
        }
        let fence = match self.purpose {
            Purpose::Write => self.records.own_fence(),
            Purpose::Read => None,
        };
        if let Some(fence) = fence {
            self.deadline = self.deadline.min(fence.until()?);
        }
        let mut begun = Transaction::begin(self.records, self.purpose, self.deadline).await?;
        if let Some(fence) = fence
            && let Err(error) = Box::pin(fence.check(&mut begun)).await
        {
            begun.roll_back(self.records, self.deadline).await;
            return Err(error);
        }
        Ok(begun)
    }

    /// Runs the work; none when its time is over before it is done.
    pub async fn run<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Option<Result<T, E>> {
        timeout_at(self.deadline, work).await.ok()
    }

    /// Commits, or takes back; `Continue` means once more.
    pub async fn end<T, E: From<RecordsError>>(
        &mut self,
        transaction: Transaction,
        done: Option<Result<T, E>>,
    ) -> ControlFlow<Result<T, E>> {
        // What is cut off leaves its connection in the middle of something: it is closed.
        let Some(done) = done else {
            if self.records.is_cluster() {
                self.records.forget_idle();
            }
            return ControlFlow::Break(Err(RecordsError::late().into()));
        };
        let ended = match (transaction.failure().cloned(), &done) {
            (Some(failure), _) => {
                transaction.roll_back(self.records, self.deadline).await;
                Err(failure)
            }
            (None, Ok(_)) => transaction.commit(self.records, self.deadline).await,
            (None, Err(_)) => {
                transaction.roll_back(self.records, self.deadline).await;
                Ok(())
            }
        };
        match ended {
            Ok(()) => ControlFlow::Break(done),
            Err(failure) if failure.is_passing() && self.wait().await => ControlFlow::Continue(()),
            Err(failure) => ControlFlow::Break(Err(done.err().unwrap_or_else(|| failure.into()))),
        }
    }

    /// Waits before the next attempt; not when the time does not suffice. Others have their turn.
    async fn wait(&mut self) -> bool {
        self.turn = None;
        let wait = self.waits.next_wait();
        if Instant::now() + wait >= self.deadline {
            return false;
        }
        sleep(wait).await;
        true
    }
}
