use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use crate::clock::Moment;

/// How exact an alarm is. Limits of seconds need no more, and one sweep in this time costs less
/// than a timer for each step of each request.
pub(crate) const GRAIN: Duration = Duration::from_millis(100);

/// The time limits of a worker's connections: one alarm each, swept together.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<usize>>,
    now: Cell<Moment>,
}

#[derive(Debug)]
struct Entry {
    due: Option<Moment>,
    waker: Option<Waker>,
}

/// The alarm of one connection; wakes its task.
#[derive(Debug)]
pub(crate) struct Alarm {
    alarms: Rc<Alarms>,
    index: usize,
}

impl Alarms {
    /// A new alarm that wakes `waker`.
    pub(crate) fn alarm(self: &Rc<Self>, waker: Waker) -> Alarm {
        let entry = Entry {
            due: None,
            waker: Some(waker),
        };
        let mut entries = self.entries.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                entries[index] = entry;
                index
            }
            None => {
                entries.push(entry);
                entries.len() - 1
            }
        };
        Alarm {
            alarms: Rc::clone(self),
            index,
        }
    }

    /// Wakes all whose time has come.
    pub(crate) fn sweep(&self, now: Moment) {
        self.now.set(now);
        for entry in self.entries.borrow().iter() {
            if entry.due.is_some_and(|due| due <= now)
                && let Some(waker) = &entry.waker
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes all, so that each sees that something has changed.
    pub(crate) fn wake_all(&self) {
        for waker in self
            .entries
            .borrow()
            .iter()
            .filter_map(|entry| entry.waker.as_ref())
        {
            waker.wake_by_ref();
        }
    }
}

impl Alarm {
    /// Rings `wait` from now, and not at the time that was set before.
    pub(crate) fn set(&self, wait: Duration) {
        let due = self.alarms.now.get().after(wait + GRAIN);
        self.alarms.entries.borrow_mut()[self.index].due = Some(due);
    }

    /// Whether its time has come.
    pub(crate) fn rings(&self) -> bool {
        let due = self.alarms.entries.borrow()[self.index].due;
        due.is_some_and(|due| due <= self.alarms.now.get())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.alarms.entries.borrow_mut()[self.index] = Entry {
            due: None,
            waker: None,
        };
        self.alarms.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_rings_when_its_time_has_come_and_not_before() {
        let alarms = Rc::new(Alarms::default());
        let start = Moment::from_nanos(1_000_000_000);
        alarms.sweep(start);
        let alarm = alarms.alarm(Waker::noop().clone());
        assert!(!alarm.rings());
        alarm.set(Duration::from_secs(1));
        alarms.sweep(start.after(Duration::from_millis(900)));
        assert!(!alarm.rings());
        alarms.sweep(start.after(Duration::from_millis(1200)));
        assert!(alarm.rings());
        alarm.set(Duration::from_secs(1));
        assert!(!alarm.rings());
        drop(alarm);
        let again = alarms.alarm(Waker::noop().clone());
        assert_eq!(again.index, 0, "its place is used again");
    }
}
