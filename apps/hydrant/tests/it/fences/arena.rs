//! The holders, what they tell, and the run of a schedule.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::holder::{self, SEATS, Seat, name_at};
use super::schedule::{Fault, Schedule};
use super::servers::Servers;
use crate::election::checker::{self, Numbering, Violation};
use crate::election::contest::{read_lines, state_of};
use crate::election::history::{Event, History, Line, Moment, Outcome, now};
use crate::harness::kill;

/// How many processes compete behind each node.
const HOLDERS: usize = 2;
/// How long it may take until every seat is taken again after the last fault.
const PATIENCE: Duration = Duration::from_secs(40);

/// Servers, and the processes that compete on them.
pub struct Arena<S> {
    servers: S,
    numbering: Numbering,
    holders: Vec<Holder>,
    sender: Sender<Line>,
    receiver: Receiver<Line>,
    lines: Vec<Line>,
    /// Who took each seat last, and when.
    latest: [Option<(String, Moment)>; SEATS.len()],
    chapters: Vec<Chapter>,
}

/// A schedule that was run.
struct Chapter {
    seed: u64,
    ended: Moment,
    /// From the last fault's end until every seat was taken again.
    healing: Duration,
    faults: Vec<Fault>,
}

/// A holder's process; it is killed when this is dropped.
struct Holder {
    node: usize,
    /// As `1-0-3`: the third process in the first place behind the second node.
    place: usize,
    incarnation: u32,
    child: Child,
    is_stopped: bool,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl<S: Servers> Arena<S> {
    pub fn new(servers: S, numbering: Numbering) -> Self {
        let (sender, receiver) = channel();
        let mut arena = Self {
            servers,
            numbering,
            holders: Vec::new(),
            sender,
            receiver,
            lines: Vec::new(),
            latest: Default::default(),
            chapters: Vec::new(),
        };
        for number in 0..arena.servers.reach().nodes.max(2) * HOLDERS {
            let node = number % arena.servers.reach().nodes;
            let holder = arena.spawn(node, number, 0);
            arena.holders.push(holder);
        }
        arena.all_are_taken_since(0, "at the begin");
        arena
    }

    fn spawn(&self, node: usize, place: usize, incarnation: u32) -> Holder {
        let who = format!("{node}-{place}-{incarnation}");
        let mut child = holder::start(&who, &self.servers.url(node), self.servers.token());
        let out = child.stdout.take().expect("its output is a pipe");
        let sender = self.sender.clone();
        Holder {
            node,
            place,
            incarnation,
            child,
            is_stopped: false,
            reader: Some(std::thread::spawn(move || read_lines(out, &sender))),
        }
    }

    /// Runs one schedule, and waits until every seat has been taken after it.
    pub fn run(&mut self, schedule: &Schedule) {
        let begun = Instant::now();
        let mut struck: Vec<Option<usize>> = vec![None; schedule.faults.len()];
        for (at, place, begins) in schedule.steps() {
            self.listen_until(begun + Duration::from_millis(at));
            let fault = schedule.faults[place].fault;
            match begins {
                true => struck[place] = self.begin(fault),
                false => self.end(fault, struck[place]),
            }
        }
        let healed = now();
        self.servers.mend();
        self.all_are_taken_since(healed, &format!("{schedule:?}"));
        self.chapters.push(Chapter {
            seed: schedule.seed,
            ended: now(),
            healing: Duration::from_nanos(now() - healed),
            faults: schedule.faults.iter().map(|one| one.fault).collect(),
        });
    }

    /// Begins a fault; gives the place of the holder that it struck.
    fn begin(&mut self, fault: Fault) -> Option<usize> {
        let (Fault::StopHolder(seat) | Fault::KillHolder(seat)) = fault else {
            self.servers.begin(fault);
            return None;
        };
        let place = self.place_of_holder(SEATS[seat])?;
        let holder = &mut self.holders[place];
        holder.is_stopped = true;
        let is_kill = matches!(fault, Fault::KillHolder(_));
        kill(
            holder.child.id(),
            if is_kill { Signal::KILL } else { Signal::STOP },
        );
        Some(place)
    }

    fn end(&mut self, fault: Fault, struck: Option<usize>) {
        match (fault, struck) {
            (Fault::StopHolder(_), Some(place)) => {
                self.holders[place].is_stopped = false;
                kill(self.holders[place].child.id(), Signal::CONT);
            }
            (Fault::KillHolder(_), Some(place)) => {
                self.holders[place].end();
                let old = &self.holders[place];
                self.holders[place] = self.spawn(old.node, old.place, old.incarnation + 1);
            }
            (Fault::StopHolder(_) | Fault::KillHolder(_), None) => {}
            _ => self.servers.end(fault),
        }
    }

    /// The process that took a seat last; another one where that one is struck already.
    fn place_of_holder(&self, seat: Seat) -> Option<usize> {
        let number = SEATS.iter().position(|one| *one == seat)?;
        let latest = self.latest[number].as_ref().map(|(who, _)| who);
        let holds = |one: &Holder| Some(&name_at(&one.who(), seat)) == latest;
        let mut free = (0..self.holders.len()).filter(|place| !self.holders[*place].is_stopped);
        let first = free.clone().next();
        free.find(|place| holds(&self.holders[*place])).or(first)
    }

    fn note(&mut self, line: Line) {
        if let Event::Elected { at, .. } = line.event
            && let Some(seat) = seat_of(&line.who)
        {
            self.latest[seat] = Some((line.who.clone(), at));
        }
        self.lines.push(line);
    }

    fn listen_until(&mut self, end: Instant) {
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if let Ok(line) = self.receiver.recv_timeout(left) {
                self.note(line);
            }
        }
        while let Ok(line) = self.receiver.try_recv() {
            self.note(line);
        }
    }

    fn all_are_taken_since(&mut self, since: Moment, when: &str) {
        let end = Instant::now() + PATIENCE;
        let is_taken =
            |latest: &Option<(String, Moment)>| latest.as_ref().is_some_and(|(_, at)| *at > since);
        while !self.latest.iter().all(is_taken) {
            let left: Vec<_> = self.latest.iter().map(is_taken).collect();
            assert!(
                Instant::now() < end,
                "seats are not taken again ({left:?}): {when}"
            );
            self.listen_until(Instant::now() + Duration::from_millis(10));
        }
    }

    /// Ends the holders, reads what is in the state, and judges all that was recorded.
    pub fn finish(mut self) -> Judged {
        let mut holders = std::mem::take(&mut self.holders);
        for holder in &mut holders {
            holder.end();
        }
        drop(holders);
        self.listen_until(Instant::now());
        let runtime = hydrant_harness::runtime();
        let reads = runtime.block_on(state_of(&self.servers.hydrant(), &self.lines));
        let mut judged = Judged::default();
        for (number, seat) in SEATS.iter().enumerate() {
            let lines = self.lines.iter();
            let own: Vec<Line> = lines
                .filter(|line| seat_of(&line.who) == Some(number))
                .cloned()
                .collect();
            let mut history = History::of(&own);
            let head = format!("{}/", seat.name());
            let of_seat = reads.iter().filter(|read| read.key.starts_with(&head));
            history.reads.extend(of_seat.cloned());
            judged.add(*seat, &history, self.numbering, &self.chapters);
        }
        for chapter in &self.chapters {
            judged.healing.push(chapter.healing);
            for fault in &chapter.faults {
                *judged.faults.entry(fault.kind()).or_default() += 1;
            }
        }
        judged
    }
}

/// Which of the seats a process tells of.
fn seat_of(who: &str) -> Option<usize> {
    let (_, seat) = who.split_once('@')?;
    SEATS.iter().position(|one| one.name() == seat)
}

impl Holder {
    fn who(&self) -> String {
        format!("{}-{}-{}", self.node, self.place, self.incarnation)
    }

    /// Kills it, and waits until all that it told is read.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// What came out of a run.
#[derive(Default)]
pub struct Judged {
    pub wrong: Vec<String>,
    pub taken: BTreeMap<&'static str, usize>,
    pub accepted: usize,
    pub refused: usize,
    pub unanswered: usize,
    pub reads: usize,
    healing: Vec<Duration>,
    faults: BTreeMap<String, usize>,
}

impl Judged {
    fn add(&mut self, seat: Seat, history: &History, numbering: Numbering, chapters: &[Chapter]) {
        for violation in checker::check(history, numbering) {
            self.wrong.push(told(seat, &violation, chapters));
        }
        let count = |outcome: fn(&Outcome) -> bool| {
            let writes = history.writes.iter();
            writes.filter(|write| outcome(&write.outcome)).count()
        };
        *self.taken.entry(seat.name()).or_default() += history.elections.len();
        self.accepted += count(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        self.refused += count(|outcome| *outcome == Outcome::Refused);
        self.unanswered += count(|outcome| matches!(outcome, Outcome::Unknown { .. }));
        self.reads += history.reads.len();
    }

    /// Adds what came out of another run.
    pub fn join(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
        for (seat, count) in other.taken {
            *self.taken.entry(seat).or_default() += count;
        }
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.reads += other.reads;
        self.healing.extend(other.healing);
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    pub fn print(&mut self) {
        self.healing.sort_unstable();
        println!("seats taken: {:?}", self.taken);
        println!(
            "writes: {} accepted, {} refused, {} unanswered; {} reads",
            self.accepted, self.refused, self.unanswered, self.reads
        );
        println!("faults: {:?}", self.faults);
        if let (Some(median), Some(most)) = (
            self.healing.get(self.healing.len() / 2),
            self.healing.last(),
        ) {
            println!(
                "all seats taken again after the last fault: median {} ms, max {} ms",
                median.as_millis(),
                most.as_millis()
            );
        }
        let wrong = &self.wrong[..self.wrong.len().min(10)];
        println!("{}", wrong.join("\n"));
    }
}

fn told(seat: Seat, violation: &Violation, chapters: &[Chapter]) -> String {
    let chapter = chapters.iter().find(|one| violation.at <= one.ended);
    let seed = chapter.map_or_else(|| "the end".into(), |one| one.seed.to_string());
    format!("{} (schedule {seed}): {violation}", seat.name())
}
