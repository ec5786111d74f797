//! The contract suites: one function for each promise of a port, run by the tests of every engine.
//!
//! An engine says how it is opened, and gets one test for each promise:
//!
//! ```text
//! mod coordination {
//!     hydrant_ports::coordination_contract!(super::open());
//! }
//! mod state {
//!     hydrant_ports::state_contract!(super::open());
//! }
//! ```
//!
//! where `open()` is a future of a [`Subject`] that is empty. The test crate depends on `tokio`.

pub mod coordination;
pub mod state;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Change, EngineError, Entry, ErrorKind, Key, Prefix, Watch};

/// An engine under test. `E` is `dyn Coordination` or `dyn State`.
#[async_trait]
pub trait Subject<E: ?Sized>: Send + Sync {
    /// The engine as it is open now.
    fn engine(&self) -> Arc<E>;

    /// Ends the engine at once, as SIGKILL ends its process, and opens it again on what is
    /// durable. Sessions, seats and watches of the old one are void.
    async fn kill_and_reopen(&mut self);

    /// Lets time pass for the engine: by its clock if a test can move it, else by waiting.
    async fn pass(&self, time: Duration);
}

/// How long a promise may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

fn key(text: &str) -> Key {
    text.parse().expect("the suite's keys are valid")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("the suite's prefixes are valid")
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn kind<T>(result: Result<T, EngineError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind)
}

/// What a watcher knows.
struct Mirror {
    watch: Watch,
    entries: BTreeMap<Key, Entry>,
    /// How often it was told everything, and how often one change.
    alls: usize,
    changes: usize,
}

impl Mirror {
    /// Takes the first word of a watch, which must be all that is there.
    async fn new(mut watch: Watch) -> Self {
        let first = within("a watch begins", watch.next()).await;
        assert!(
            matches!(first, Some(Change::All(_))),
            "a watch begins with all, not with {first:?}"
        );
        let mut mirror = Self {
            watch,
            entries: BTreeMap::new(),
            alls: 0,
            changes: 0,
        };
        mirror.apply(first);
        mirror
    }

    fn apply(&mut self, change: Option<Change>) {
        match change.expect("the watch of an open engine does not end") {
            Change::All(entries) => {
                self.alls += 1;
                self.entries = entries.into_iter().map(|e| (e.key.clone(), e)).collect();
            }
            Change::Put(entry) => {
                self.changes += 1;
                self.entries.insert(entry.key.clone(), entry);
            }
            Change::Removed(key) => {
                self.changes += 1;
                self.entries.remove(&key);
            }
        }
    }

    /// Follows the watch until the mirror is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&BTreeMap<Key, Entry>) -> bool) {
        let follow = async {
            while !wanted(&self.entries) {
                let change = self.watch.next().await;
                self.apply(change);
            }
        };
        within(what, follow).await;
    }

    /// Follows the watch until the mirror holds exactly `truth`.
    async fn converges_to(&mut self, truth: &[Entry]) {
        self.until("the watch converges to the truth", |entries| {
            entries.values().eq(truth.iter())
        })
        .await;
    }
}

/// Makes one test of each named promise.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    (if_there $open:expr, $port:ident: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(subject) = $open.await {
                    $crate::contract::$port::$promise(subject).await;
                }
            }
        )*
    };
    ($open:expr, $port:ident: $($promise:ident)*) => {
        $crate::contract_tests! { if_there async { Some($open.await) }, $port: $($promise)* }
    };
}

/// One test for each promise of [`Coordination`](crate::Coordination). Takes a future of a
/// [`Subject`] of `dyn Coordination`; with `if_there` in front, of an `Option`: with none, its server
/// is not here, and the tests are skipped.
#[macro_export]
macro_rules! coordination_contract {
    ($($open:tt)+) => {
        $crate::contract_tests! { $($open)+, coordination:
            kept_keys_outlive_a_kill
            a_deleted_key_stays_deleted_after_a_kill
            ephemeral_keys_are_gone_after_a_kill
            ephemeral_keys_end_with_a_closed_session
            ephemeral_keys_end_with_a_dropped_session
            revisions_grow_across_deletion
            revisions_grow_across_a_kill
            ephemeral_revisions_grow_across_sessions
            a_write_happens_only_as_expected
            a_refused_write_changes_nothing
            of_concurrent_writers_one_wins
            an_ephemeral_key_belongs_to_its_session
            a_later_session_of_an_owner_takes_its_keys_over
            delete_tells_whether_it_was_there
            a_list_is_sorted_and_keeps_to_its_prefix
            a_value_over_the_limit_is_refused
            a_watch_begins_with_all
            a_watch_tells_changes_of_its_prefix_only
            a_watch_misses_no_final_state
            a_slow_watcher_learns_the_truth
            many_watchers_learn_the_truth
            a_watch_tells_the_end_of_a_session
            a_closed_session_is_lost_and_refuses
            a_seat_has_one_holder_at_a_time
            a_seat_is_taken_in_turn
            who_leaves_the_line_gets_no_seat
            a_dropped_seat_is_free
            a_closed_session_gives_up_its_seats
            a_closed_session_leaves_the_line
            epochs_grow_across_a_kill
            seats_of_different_names_are_apart
            the_holder_is_seen
        }
    };
}

/// One test for each promise of [`State`](crate::State). Takes a future of a [`Subject`] of
/// `dyn State`; with `if_there` in front, of an `Option`, as above.
#[macro_export]
macro_rules! state_contract {
    ($($open:tt)+) => {
        $crate::contract_tests! { $($open)+, state:
            values_outlive_a_kill
            a_deleted_key_stays_deleted_after_a_kill
            revisions_grow_across_deletion_and_end_of_life
            revisions_grow_across_a_kill
            a_write_happens_only_as_expected
            of_concurrent_writers_one_wins
            delete_tells_whether_it_was_there
            a_key_is_gone_when_its_time_is_over
            watchers_are_told_that_a_time_is_over
            a_time_to_live_outlives_a_kill
            a_new_write_sets_the_time_to_live_anew
            a_list_has_pages
            a_value_over_the_limit_is_refused
            a_watch_begins_with_all
            a_watch_misses_no_final_state
            a_lower_epoch_is_refused_on_every_key
            a_lower_epoch_raises_nothing
            a_mark_outlives_a_kill
            a_write_under_a_higher_epoch_raises_the_mark
            marks_are_apart
            a_delete_is_fenced_too
            no_write_of_the_old_epoch_follows_a_raise
        }
    };
}
