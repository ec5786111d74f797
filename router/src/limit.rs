//! How many requests may wait at an instance for their answers: learnt from its own answers, by each
//! worker for itself, so that nothing is shared.
//!
//! While few wait, an answer takes what the instance needs for it. When many wait and nearly all answers
//! take more than twice that, the rest is time in a queue: then the instance gets as many as it works on
//! at once, and a few more, so that it never runs dry. Now and then the limit is halved for a moment. An
//! instance that answers no faster then is slow for a reason that a limit does not mend, and has none.

use std::time::Duration;

use crate::clock::Moment;
use crate::counter::{Count, Measure};
use crate::priority::Priority;

/// An answer that takes more than so many times what it takes without a queue has waited in one.
const TOLERANCE: f64 = 2.0;
/// ... and more than so much longer: where answers take a millisecond, a thousand clients may well wait for
/// each other.
const BEARABLE: Duration = Duration::from_millis(100);
/// The share of a window's answers that must have waited: slow endpoints among others are no queue.
const NEARLY_ALL: f64 = 0.8;
/// No limit is lower, and below it nothing is limited: for a worker that is alone, and for many together.
const FLOOR: u64 = 16;
const FLOOR_OF_ALL: u64 = 64;
const LOWEST_FLOOR: u64 = 6;
/// How long answers are gathered before the limit is looked at; longer where they take long.
const WINDOW: Duration = Duration::from_millis(100);
const LONGEST_WINDOW: Duration = Duration::from_secs(2);
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// Fewer answers say nothing.
const FEWEST: u64 = 8;
/// A limit ends after so many windows without a queue.
const CALM_WINDOWS: u64 = 20;
/// An instance without answers for so long has no past.
const FORGET: Duration = Duration::from_secs(10);
/// The limit is halved after the second window with a queue, and once in so many.
const FIRST_PROBE: u64 = 2;
const PROBE_EVERY: u64 = 32;
/// A probe has shown that load is not the reason when latency stays above this share of what it was...
const AS_SLOW: f64 = 0.8;
/// ... with at most this share of the requests.
const FEWER: f64 = 0.6;
/// How fast the mean of an endpoint's latency follows, and how fast its latency without a queue follows that.
const MEAN_WEIGHT: f64 = 1.0 / 16.0;
const CALM_WEIGHT: f64 = 1.0 / 64.0;

/// What an endpoint of an instance takes, as one worker measures it, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    mean: Measure,
    /// Without a queue; 0 before the first answer.
    unloaded: Measure,
    rebases: Count,
}

impl Pace {
    /// Of late, in nanoseconds; 0 before the first answer.
    pub(crate) fn mean(&self) -> f64 {
        self.mean.get()
    }

    /// Takes an answer in; tells what one takes without a queue.
    fn observe(&self, latency: f64, calm: bool, rebases: u64) -> f64 {
        let mean = match self.mean.get() {
            0.0 => latency,
            mean => mean + (latency - mean) * MEAN_WEIGHT,
        };
        self.mean.set(mean);
        let before = self.unloaded.get();
        let unloaded = if before == 0.0 || mean < before || self.rebases.get() != rebases {
            self.rebases.set(rebases);
            mean
        } else if calm {
            before + (mean - before) * CALM_WEIGHT
        } else {
            before
        };
        self.unloaded.set(unloaded);
        unloaded
    }
}

/// The limit of one worker at one instance.
#[derive(Debug)]
pub(crate) struct Limit {
    floor: u64,
    waiting: Count,
    /// Of these, those that have no answer for another reason than the queue, as long polls. They fill no
    /// place.
    silent: Count,
    /// 0 while there is none.
    most: Count,
    window: Window,
    queued_windows: Count,
    calm_windows: Count,
    /// 1 in the window after the limit was lowered: its answers are still to what came before.
    settles: Count,
    probe: Probe,
    /// How often a probe has shown that what is slow is not slow from load.
    rebases: Count,
}

/// The answers since the limit was last looked at.
#[derive(Debug, Default)]
struct Window {
    began: Count,
    ends: Count,
    answers: Count,
    queued: Count,
    /// The sum of what each answer's latency leaves of the limit, from 0 to 1.
    room: Measure,
    latency: Measure,
    /// The most that waited at a time.
    peak: Count,
}

/// How it was before the limit was halved for a moment.
#[derive(Debug, Default)]
struct Probe {
    /// Windows that it still lasts; in the first there are still answers to what came before.
    left: Count,
    most: Count,
    peak: Count,
    latency: Measure,
}

/// What a window has shown.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// How many waited in the mean, of those that were answered.
    served: f64,
    queued: bool,
    room: f64,
    latency: f64,
    peak: u64,
}

impl Limit {
    pub(crate) fn new(workers: usize) -> Self {
        let share = FLOOR_OF_ALL / (workers.max(1) as u64);
        Self {
            floor: share.clamp(LOWEST_FLOOR, FLOOR),
            waiting: Count::default(),
            silent: Count::default(),
            most: Count::default(),
            window: Window::default(),
            queued_windows: Count::default(),
            calm_windows: Count::default(),
            settles: Count::default(),
            probe: Probe::default(),
            rebases: Count::default(),
        }
    }

    /// Requests without an answer.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.get()
    }

    /// How many may wait; `None` while the instance has no queue.
    pub(crate) fn most(&self) -> Option<u64> {
        let most = Some(self.most.get()).filter(|most| *most > 0);
        most.map(|most| most + self.silent.get())
    }

    /// Whether one more request of this priority may wait.
    pub(crate) fn has_room(&self, priority: Priority) -> bool {
        let most = self.most.get();
        most == 0 || self.waiting.get() < priority.share_of(most) + self.silent.get()
    }

    /// A request found no room. When nothing was answered for long, those that wait are not in a queue: others
    /// get their places, but not all at once, since it may as well hang.
    pub(crate) fn refused(&self, now: Moment) {
        let overdue = Moment::from_nanos(self.window.ends.get()).after(LONGEST_WINDOW + WINDOW);
        if self.most.get() > 0 && now > overdue {
            self.silent.set(self.waiting.get());
            self.window.begin(now, WINDOW, self.waiting.get());
        }
    }

    /// A request was sent.
    pub(crate) fn begin(&self) {
        self.waiting.add(1);
        let waiting = self.waiting.get();
        if waiting > self.window.peak.get() {
            self.window.peak.set(waiting);
        }
    }

    /// A request waits no longer, whatever came of it.
    pub(crate) fn end(&self) {
        self.waiting.subtract(1);
    }

    /// It was answered, after so many nanoseconds.
    pub(crate) fn answered(&self, pace: &Pace, latency: f64, now: Moment) {
        let calm = self.waiting.get() <= self.floor / 4;
        let unloaded = pace.observe(latency, calm, self.rebases.get());
        if !calm || self.most.get() > 0 {
            self.take(latency, unloaded, now);
        }
    }

    /// Nobody waits any longer for its answer, after so many nanoseconds: it would have taken more.
    pub(crate) fn given_up(&self, pace: &Pace, after: f64, now: Moment) {
        let unloaded = pace.unloaded.get();
        if unloaded > 0.0 && after > allowed(unloaded) {
            self.take(after, unloaded, now);
        }
    }

    fn take(&self, latency: f64, unloaded: f64, now: Moment) {
        self.window.add(latency, allowed(unloaded) / latency);
        if self.window.is_over(now) {
            self.look(now);
        }
    }

    fn look(&self, now: Moment) {
        let (seen, ended) = (self.window.seen(now), self.window.ends.get());
        self.silent.set(self.silent_beside(seen.served));
        let forgotten = now.since(Moment::from_nanos(ended)) > FORGET;
        let begins = self.most.get() == 0 && self.window.answers.get() < FEWEST;
        if forgotten || begins {
            self.lift();
        } else if self.probe.left.get() > 0 {
            self.go_on_probing(&seen);
        } else if self.settles.get() > 0 {
            self.settles.set(0);
        } else if seen.queued {
            self.lower(&seen);
        } else {
            self.raise();
        }
        let longest = match self.probe.left.get() {
            0 => LONGEST_WINDOW,
            _ => LONGEST_PROBE,
        };
        let length = Duration::from_nanos((2.0 * seen.latency) as u64).clamp(WINDOW, longest);
        self.window.begin(now, length, self.waiting.get());
    }

    /// Those that wait and are not among the answered, by Little's law. A few may be chance.
    fn silent_beside(&self, served: f64) -> u64 {
        let silent = self.waiting.get().saturating_sub(served as u64);
        if silent > self.floor / 2 { silent } else { 0 }
    }

    fn lower(&self, seen: &Seen) {
        let peak = seen.peak.saturating_sub(self.silent.get());
        let most = match self.most.get() {
            // What came before the limit is not answered yet.
            most if most > 0 && peak > most => return,
            0 if peak <= self.floor || seen.served < self.floor as f64 / 2.0 => return,
            0 => peak,
            most => most,
        };
        self.calm_windows.set(0);
        self.queued_windows.add(1);
        let lowered = (most as f64 * seen.room) as u64 + self.floor / 2;
        self.most.set(lowered.max(self.floor));
        self.settles.set(1);
        if self.queued_windows.get() % PROBE_EVERY == FIRST_PROBE {
            self.begin_probe(seen);
        }
    }

    fn raise(&self) {
        let most = self.most.get();
        self.calm_windows.add(1);
        if self.calm_windows.get() >= CALM_WINDOWS {
            self.lift();
        } else if most > 0 {
            self.most.set(most + (self.floor / 2).max(most / 8));
        }
    }

    /// There is no limit any more.
    fn lift(&self) {
        self.most.set(0);
        self.probe.left.set(0);
        self.settles.set(0);
        self.calm_windows.set(0);
        self.queued_windows.set(0);
    }

    fn begin_probe(&self, seen: &Seen) {
        let most = self.most.get();
        self.probe.left.set(2);
        self.probe.most.set(most);
        self.probe.peak.set(seen.peak);
        self.probe.latency.set(seen.latency);
        self.most.set(most / 2);
    }

    fn go_on_probing(&self, seen: &Seen) {
        self.probe.left.subtract(1);
        if self.probe.left.get() > 0 {
            return;
        }
        self.most.set(self.probe.most.get());
        let fewer = seen.peak as f64 <= FEWER * self.probe.peak.get() as f64;
        if fewer && seen.latency > AS_SLOW * self.probe.latency.get() {
            self.rebases.add(1);
            self.lift();
        }
    }
}

/// How long an answer may take, in nanoseconds, and count as one that has not waited.
fn allowed(unloaded: f64) -> f64 {
    (TOLERANCE * unloaded).max(unloaded + BEARABLE.as_nanos() as f64)
}

impl Window {
    fn begin(&self, now: Moment, length: Duration, waiting: u64) {
        self.began.set(now.nanos());
        self.ends.set(now.after(length).nanos());
        self.answers.set(0);
        self.queued.set(0);
        self.room.set(0.0);
        self.latency.set(0.0);
        self.peak.set(waiting);
    }

    fn add(&self, latency: f64, room: f64) {
        self.answers.add(1);
        self.queued.add(u64::from(room < 1.0));
        self.room.set(self.room.get() + room.min(1.0));
        self.latency.set(self.latency.get() + latency);
    }

    /// Few answers are waited for a while longer.
    fn is_over(&self, now: Moment) -> bool {
        let ends = Moment::from_nanos(self.ends.get());
        now >= ends && (self.answers.get() >= FEWEST || now >= ends.after(LONGEST_WINDOW))
    }

    fn seen(&self, now: Moment) -> Seen {
        let answers = self.answers.get() as f64;
        let length = now.since(Moment::from_nanos(self.began.get()));
        let mean = |sum: &Measure| sum.get() / answers.max(1.0);
        Seen {
            served: self.latency.get() / (length.as_nanos() as f64).max(1.0),
            queued: self.queued.get() as f64 >= NEARLY_ALL * answers && answers > 0.0,
            room: mean(&self.room),
            latency: mean(&self.latency),
            peak: self.peak.get(),
        }
    }
}
