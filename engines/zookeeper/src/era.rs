//! Eras: what makes epochs grow also when the ensemble was rebuilt from nothing.
//!
//! An era is a number of seconds since 2025-01-01, at which the root of the seats was first made.
//! An epoch is at least its era times 2^20, so epochs of a root that was made anew are higher than
//! all of the one before, as long as no seat was taken 2^20 times for each second that passed.
//! Every engine remembers the highest era it has seen, and raises a root that has fallen behind:
//! one that was made anew by a machine whose clock was set back. What no engine that still runs,
//! and no era file, remembers is not known: after both a rebuild and a clock that was set back
//! while everything was down, epochs grow only if there is an era file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use hydrant_runtime::Clock;
use zookeeper_client::{CreateMode, Error as ZkError};

use crate::error::{Result, corrupt, misconfigured, of_request, unavailable};
use crate::link::{Committed, Link, Operation};

/// Epochs of an era before they reach into the next one's.
pub(crate) const EPOCHS: u64 = 1 << 20;

/// 2025-01-01T00:00:00Z in seconds since 1970.
const BEGINNING: u64 = 1_735_689_600;

/// The last era whose epochs every language can carry: 2^53 / 2^20.
const LAST: u64 = (1 << 33) - 1;

/// Whoever changes the root at the same time is waited for so often.
const ATTEMPTS: u32 = 50;

/// An era, and which root it was seen at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    era: u64,
    root: String,
}

impl Seen {
    fn text(&self) -> String {
        format!("{} {}\n", self.era, self.root)
    }

    fn parse(text: &str) -> Option<Self> {
        let (era, root) = text.trim_end().split_once(' ')?;
        let era = era.parse().ok().filter(|era| *era <= LAST)?;
        Some(Self {
            era,
            root: root.to_owned(),
        })
    }
}

/// The era as it is at the root.
pub(crate) struct Era {
    pub(crate) number: u64,
    /// The version of the root that says so.
    pub(crate) version: i32,
}

/// The highest era that this process has seen.
pub(crate) struct Eras {
    root: String,
    seen: Mutex<Seen>,
    file: Option<PathBuf>,
    clock: Clock,
}

impl Eras {
    /// Of the seats below the znode `root`.
    pub(crate) fn open(root: String, file: Option<PathBuf>, clock: Clock) -> Result<Self> {
        let seen = match &file {
            Some(file) => load(file)?,
            None => Seen::default(),
        };
        Ok(Self {
            root,
            seen: Mutex::new(seen),
            file,
            clock,
        })
    }

    /// The znode that says the era.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The era of the root, made or raised if need be.
    pub(crate) async fn current(&self, link: &Link) -> Result<Era> {
        let deadline = link.deadline();
        for _ in 0..ATTEMPTS {
            let Some((data, stat)) = link.fresh(&self.root, deadline).await? else {
                self.make(link).await?;
                continue;
            };
            let stored = match &*data {
                [] => Seen::default(),
                data => std::str::from_utf8(data)
                    .ok()
                    .and_then(Seen::parse)
                    .ok_or_else(|| corrupt(&self.root, "does not hold an era"))?,
            };
            let wanted = self.wanted(&stored);
            if wanted == stored {
                self.note(stored.clone()).await;
                return Ok(Era {
                    number: stored.era,
                    version: stat.version,
                });
            }
            tracing::warn!(
                stored = stored.era,
                raised = wanted.era,
                "the era of ZooKeeper's seats is raised: the ensemble was rebuilt"
            );
            let text = wanted.text();
            let raise = [Operation::Set(
                &self.root,
                text.as_bytes(),
                Some(stat.version),
            )];
            match link.commit("raise the era", &raise, deadline).await? {
                Committed::Yes(_) | Committed::No(_, ZkError::BadVersion | ZkError::NoNode) => {}
                Committed::No(_, error) => return Err(of_request("raise the era", error)),
                Committed::Unknown(error) => return Err(error),
            }
        }
        Err(unavailable(
            "the era of ZooKeeper's seats is changed all the time",
        ))
    }

    async fn make(&self, link: &Link) -> Result<()> {
        let deadline = link.deadline();
        let text = Seen {
            era: self.next(),
            root: format!("{:016x}", fastrand::u64(..)),
        }
        .text();
        let make = [Operation::Create(
            &self.root,
            text.as_bytes(),
            CreateMode::Persistent,
        )];
        match link.commit("make the root", &make, deadline).await? {
            Committed::Yes(_) | Committed::No(_, ZkError::NodeExists) => Ok(()),
            Committed::No(_, ZkError::NoNode) => {
                link.make_directory(crate::path::parent(&self.root), deadline)
                    .await
            }
            Committed::No(_, error) => Err(of_request("make the root", error)),
            Committed::Unknown(error) => Err(error),
        }
    }

    /// What the root should say when it says `stored`.
    fn wanted(&self, stored: &Seen) -> Seen {
        let seen = self.seen().clone();
        let is_other = stored.root != seen.root && !seen.root.is_empty();
        let has_fallen = stored.era < seen.era || is_other && stored.era == seen.era;
        if !has_fallen && !stored.root.is_empty() {
            return stored.clone();
        }
        let root = match &*stored.root {
            "" => format!("{:016x}", fastrand::u64(..)),
            root => root.to_owned(),
        };
        Seen {
            era: self.next(),
            root,
        }
    }

    /// Higher than all that was seen.
    fn next(&self) -> u64 {
        let now = self.clock.now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().saturating_sub(BEGINNING));
        let seen = self.seen().era;
        now.max(seen + 1).min(LAST)
    }

    /// The epoch that follows `last` in `era`.
    pub(crate) fn epoch_after(last: u64, era: &Era) -> u64 {
        (last + 1).max(era.number * EPOCHS)
    }

    /// An epoch was seen: one that has outgrown its era counts as one of a later era.
    pub(crate) async fn note_epoch(&self, epoch: u64) {
        let mut seen = self.seen().clone();
        if epoch / EPOCHS > seen.era {
            seen.era = epoch / EPOCHS;
            self.note(seen).await;
        }
    }

    async fn note(&self, new: Seen) {
        {
            let mut seen = self.seen();
            if new == *seen || new.era < seen.era {
                return;
            }
            *seen = new.clone();
        }
        let Some(file) = self.file.clone() else {
            return;
        };
        let saved = tokio::task::spawn_blocking(move || save(&file, &new.text())).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the era file cannot be written");
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(file: &Path) -> Result<Seen> {
    match std::fs::read_to_string(file) {
        Ok(text) => Seen::parse(&text).ok_or_else(|| {
            misconfigured(format!(
                "the era file {} does not hold an era: restore it, or delete it if the ensemble was never rebuilt",
                file.display()
            ))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Seen::default()),
        Err(error) => Err(misconfigured(format!(
            "cannot read the era file {}",
            file.display()
        ))
        .caused_by(error)),
    }
}

/// Writes beside the file, then renames, so that a kill leaves the old one or the new one.
fn save(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = std::fs::File::create(&beside)?;
    std::io::Write::write_all(&mut new, text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&beside, file)
}
