//! What somebody has to look at: raised where it is seen, shown by `hydrant mobile status`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_runtime::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The most alarms that one process keeps.
const MOST: usize = 200;
/// The longest text that one tells, in characters.
const LONGEST: usize = 500;

/// Something that somebody has to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Alarm {
    /// What it is about, as `source/catalog` or `experiment/new-checkout`.
    pub(crate) name: String,
    /// Since when, in milliseconds since 1970.
    pub(crate) since_unix_ms: i64,
    /// What is wrong, for people. Nothing secret.
    pub(crate) message: String,
    /// How to mend it, for people.
    pub(crate) mend: String,
}

impl Alarm {
    /// An alarm whose texts are not too long.
    pub(crate) fn new(name: &str, since_unix_ms: i64, message: &str, mend: &str) -> Self {
        let bounded = |text: &str| text.chars().take(LONGEST).collect();
        Self {
            name: bounded(name),
            since_unix_ms,
            message: bounded(message),
            mend: bounded(mend),
        }
    }
}

/// The alarms that one process has raised. Cheap to clone: all clones are one board.
///
/// Each is logged once when it rises and once when it falls. To say "this is how it is now", again
/// and again, is what it is made for: [`Alarms::raise`] and [`Alarms::clear`].
#[derive(Clone)]
pub(crate) struct Alarms(Arc<Board>);

struct Board {
    clock: Clock,
    raised: Mutex<BTreeMap<String, Alarm>>,
    changes: watch::Sender<u64>,
}

impl Alarms {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Board {
            clock,
            raised: Mutex::default(),
            changes: watch::Sender::new(0),
        }))
    }

    /// Raises the alarm `name`, or changes what it says; since when it is there stays.
    pub(crate) fn raise(&self, name: &str, message: &str, mend: &str) {
        self.raise_since(name, self.0.clock.unix_ms(), message, mend);
    }

    /// The same, for what is wrong since an earlier time.
    pub(crate) fn raise_since(&self, name: &str, since_unix_ms: i64, message: &str, mend: &str) {
        if self.put(Alarm::new(name, since_unix_ms, message, mend)) {
            self.tell();
        }
    }

    /// It is well again.
    pub(crate) fn clear(&self, name: &str) {
        let removed = self.raised().remove(name);
        if let Some(alarm) = removed {
            tracing::info!(alarm = name, was = alarm.message, "an alarm is over");
            self.tell();
        }
    }

    /// How it is now: `Some` with what is wrong and how to mend it, or `None` when it is well.
    pub(crate) fn set(&self, name: &str, wrong: Option<(&str, &str)>) {
        match wrong {
            Some((message, mend)) => self.raise(name, message, mend),
            None => self.clear(name),
        }
    }

    /// Whoever looked after these does not any more, as a leader that is none: they are not over,
    /// but somebody else's to tell.
    pub(crate) fn hand_over(&self, prefix: &str) {
        let mut raised = self.raised();
        let before = raised.len();
        raised.retain(|name, _| !name.starts_with(prefix));
        let changed = raised.len() != before;
        drop(raised);
        if changed {
            self.tell();
        }
    }

    /// All that are raised, by name.
    pub(crate) fn list(&self) -> Vec<Alarm> {
        self.raised().values().cloned().collect()
    }

    /// Grows when the list changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Tells whether the list is another one now.
    fn put(&self, alarm: Alarm) -> bool {
        let mut raised = self.raised();
        if let Some(known) = raised.get_mut(&alarm.name) {
            let differs = known.message != alarm.message || known.mend != alarm.mend;
            (known.message, known.mend) = (alarm.message, alarm.mend);
            return differs;
        }
        if raised.len() >= MOST {
            return false;
        }
        let (name, message, mend) = (&alarm.name, &alarm.message, &alarm.mend);
        tracing::warn!(alarm = name, message, mend, "an alarm");
        raised.insert(alarm.name.clone(), alarm);
        true
    }

    fn tell(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn raised(&self) -> MutexGuard<'_, BTreeMap<String, Alarm>> {
        self.0.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_alarm_is_there_since_it_rose_until_it_is_well() {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1));
        let alarms = Alarms::new(clock.clone());
        let changes = alarms.changes();
        alarms.raise("source/a", "gone", "start it");
        clock.advance(Duration::from_secs(5));
        alarms.raise("source/a", "gone", "start it");
        assert_eq!(*changes.borrow(), 1, "the same is told once");
        alarms.raise("source/a", "garbage", "mend it");
        let [alarm] = &alarms.list()[..] else {
            panic!("one alarm")
        };
        assert_eq!(
            (alarm.since_unix_ms, alarm.message.as_str()),
            (1000, "garbage")
        );
        alarms.clear("source/a");
        alarms.clear("source/a");
        assert_eq!((alarms.list().len(), *changes.borrow()), (0, 3));
    }

    #[test]
    fn their_number_and_length_are_bounded() {
        let alarms = Alarms::new(Clock::system());
        for number in 0..MOST + 50 {
            alarms.raise(&format!("a/{number}"), &"x".repeat(10_000), "");
        }
        assert_eq!(alarms.list().len(), MOST);
        assert_eq!(alarms.list()[0].message.len(), LONGEST);
        alarms.hand_over("a/1");
        assert!(
            alarms
                .list()
                .iter()
                .all(|alarm| !alarm.name.starts_with("a/1"))
        );
    }
}
