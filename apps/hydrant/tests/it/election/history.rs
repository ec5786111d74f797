//! What the processes of an election did, as they and their node tell it.

use std::collections::HashMap;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's monotonic clock. It is one for all processes, so that of two
/// moments in different processes the smaller one came first.
pub type Moment = u64;

/// The moment that is now.
pub fn now() -> Moment {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// One line of what a process tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The process, as `a-2`: the second one of candidate `a`.
    pub who: String,
    /// Counts the lines of the process from 0, without a gap.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Campaign was asked at `began` and had answered at `at`.
    Elected {
        epoch: u64,
        began: Moment,
        at: Moment,
    },
    /// The process learnt that it leads no more.
    Lost { epoch: u64, at: Moment },
    /// A write is about to be sent. Its value is its name: the process and the line's number.
    Sending {
        epoch: u64,
        key: String,
        at: Moment,
        manner: Manner,
    },
    /// What became of the write that was told in line `sending`.
    Answered {
        sending: u64,
        at: Moment,
        outcome: Outcome,
    },
    /// What stood at a key at some moment between `began` and `at`.
    Read(Read),
}

/// How a write was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// By the SDK, which looks at its own clock first.
    Checked,
    /// Straight to the node, as the leader that the process believes to be.
    Raw,
    /// Straight to the node, after the process learnt that it leads no more.
    Rogue,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Accepted {
        revision: u64,
    },
    /// The node refused it, because a higher epoch is known.
    Refused,
    /// The SDK did not send it.
    Withheld,
    /// No answer came that decides it: it may have happened.
    Unknown {
        why: String,
    },
}

/// What stood at a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub key: String,
    pub began: Moment,
    pub at: Moment,
    /// 0 when nothing stood there.
    pub revision: u64,
    pub value: String,
}

/// A write that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its name, which is its value.
    pub name: String,
    pub who: String,
    pub epoch: u64,
    pub key: String,
    pub manner: Manner,
    pub sent: Moment,
    pub answered: Option<Moment>,
    pub outcome: Outcome,
}

impl Write {
    /// Its revision, when it is known to have happened.
    pub fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Accepted { revision } => Some(revision),
            _ => None,
        }
    }
}

/// A process heard that it was elected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    pub who: String,
    pub epoch: u64,
    pub began: Moment,
    pub at: Moment,
}

/// All that was recorded.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub elections: Vec<Election>,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    /// Who led under which epoch, in the order in which the node told an observer.
    pub observed: Vec<(String, u64)>,
    /// Lines that are missing or name what is missing, for people.
    pub gaps: Vec<String>,
}

impl History {
    /// Puts together what the processes told; the lines of each are in their order.
    pub fn of(lines: &[Line]) -> Self {
        let mut history = Self::default();
        let mut expected: HashMap<&str, u64> = HashMap::new();
        let mut sent: HashMap<(&str, u64), usize> = HashMap::new();
        for line in lines {
            let number = expected.entry(&line.who).or_default();
            if *number != line.number {
                let gap = format!("{}: line {} follows {number}", line.who, line.number);
                history.gaps.push(gap);
            }
            *number = line.number + 1;
            match &line.event {
                Event::Elected { epoch, began, at } => history.elections.push(Election {
                    who: line.who.clone(),
                    epoch: *epoch,
                    began: *began,
                    at: *at,
                }),
                Event::Lost { .. } => {}
                Event::Sending {
                    epoch,
                    key,
                    at,
                    manner,
                } => {
                    sent.insert((&line.who, line.number), history.writes.len());
                    history.writes.push(Write {
                        name: name_of(&line.who, line.number),
                        who: line.who.clone(),
                        epoch: *epoch,
                        key: key.clone(),
                        manner: *manner,
                        sent: *at,
                        answered: None,
                        outcome: Outcome::Unknown {
                            why: "the process was gone before the answer".into(),
                        },
                    });
                }
                Event::Answered {
                    sending,
                    at,
                    outcome,
                } => match sent.get(&(line.who.as_str(), *sending)) {
                    Some(place) => {
                        history.writes[*place].answered = Some(*at);
                        history.writes[*place].outcome = outcome.clone();
                    }
                    None => history
                        .gaps
                        .push(format!("{}: line {sending} is no write", line.who)),
                },
                Event::Read(read) => history.reads.push(read.clone()),
            }
        }
        history
    }
}

/// The name of the write that a process tells of in its line `number`.
pub fn name_of(who: &str, number: u64) -> String {
    format!("{who}/{number}")
}
