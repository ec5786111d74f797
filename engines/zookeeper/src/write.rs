//! Puts and deletes, each one transaction.
//!
//! Each transaction also sets the leaf's directory, with three effects: a session that was away
//! learns from the directory's state alone whether anything in it has changed; the answer carries
//! the transaction's number, which is the revision; and a compare that demands the version at
//! which it read the directory can't be fooled by a leaf that was deleted and made again, although
//! the version of a new znode begins at 0.

use std::time::Duration;

use hydrant_ports::{Expect, Key};
use tokio::time::Instant;
use zookeeper_client::{CreateMode, Error as ZkError};

use crate::error::{Result, conflict, corrupt, of_request, unavailable};
use crate::leaf;
use crate::link::{Committed, Data, Link, Operation};
use crate::path::Place;

/// Whose key is written.
#[derive(Clone, Copy)]
pub(crate) enum Writer<'a> {
    Kept,
    /// The owner of the session of the link.
    Owner(&'a str),
}

/// What a directory holds. Only that it was set matters.
const TOUCH: &[u8] = b"";

/// A directory that other sessions write to all the time is tried so often, with a wait in between.
const ATTEMPTS: u32 = 200;

/// How long to wait for another connection when an answer was lost.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do with a leaf as it was found.
enum Step {
    Create,
    /// At this version.
    Set(i32),
    /// Delete it at this version and create it anew.
    Replace(i32),
}

/// Writes a key and returns its revision.
pub(crate) async fn put(
    link: &Link,
    (key, place): (&Key, &Place),
    writer: Writer<'_>,
    value: &[u8],
    expect: Expect,
) -> Result<u64> {
    let (owner, mode) = match writer {
        Writer::Kept => ("", CreateMode::Persistent),
        Writer::Owner(owner) => (owner, CreateMode::Ephemeral),
    };
    let data = leaf::encode(owner, value);
    let deadline = link.deadline();
    // Most puts of a session are of a new key: that is tried without a look.
    let mut step = match (writer, expect) {
        (Writer::Owner(_), Expect::Any | Expect::Absent) => Some((Step::Create, None)),
        _ => None,
    };
    let mut turn = None;
    for attempt in 0..ATTEMPTS {
        let (what, directory) = match step.take() {
            Some(step) => step,
            None => {
                // Those of one session do not get in each other's way.
                if turn.is_none() {
                    turn = Some(link.turn(deadline).await?);
                }
                let (directory, found) = link.place(place, deadline).await?;
                let what = decide(link, key, place, writer, expect, found)?;
                (what, directory.map(|directory| directory.version))
            }
        };
        let Place {
            directory: above,
            leaf,
        } = place;
        let operations = match what {
            Step::Create => vec![
                Operation::Create(leaf, &data, mode),
                Operation::Set(above, TOUCH, None),
            ],
            Step::Set(version) => vec![
                Operation::Set(above, TOUCH, directory),
                Operation::Set(leaf, &data, Some(version)),
            ],
            Step::Replace(version) => vec![
                Operation::Set(above, TOUCH, directory),
                Operation::Delete(leaf, Some(version)),
                Operation::Create(leaf, &data, mode),
            ],
        };
        match link.commit("write a key", &operations, deadline).await? {
            Committed::Yes(revision) => return Ok(revision),
            Committed::No(_, ZkError::NoNode) if matches!(what, Step::Create) => {
                link.make_directory(above, deadline).await?;
            }
            // Somebody was faster: look again.
            Committed::No(_, ZkError::NodeExists | ZkError::BadVersion | ZkError::NoNode) => {}
            Committed::No(_, error) => return Err(of_request("write a key", error)),
            // Whoever expects nothing may write twice.
            Committed::Unknown(error) => {
                if expect != Expect::Any || Instant::now() + PAUSE > deadline {
                    return Err(error);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        wait(attempt).await;
    }
    Err(busy(key))
}

/// Deletes a key; tells whether it was there.
pub(crate) async fn delete(
    link: &Link,
    (key, place): (&Key, &Place),
    expect: Expect,
) -> Result<bool> {
    let deadline = link.deadline();
    for attempt in 0..ATTEMPTS {
        let Place {
            directory: above,
            leaf,
        } = place;
        let mut _turn = None;
        let (directory, version) = match expect {
            Expect::Any => (None, None),
            _ => {
                _turn = Some(link.turn(deadline).await?);
                let (directory, found) = link.place(place, deadline).await?;
                check(key, expect, found.as_ref())?;
                let Some((_, stat)) = found else {
                    return Ok(false);
                };
                (
                    directory.map(|directory| directory.version),
                    Some(stat.version),
                )
            }
        };
        let operations = [
            Operation::Delete(leaf, version),
            Operation::Set(above, TOUCH, directory),
        ];
        match link.commit("delete a key", &operations, deadline).await? {
            Committed::Yes(_) => return Ok(true),
            Committed::No(_, ZkError::NoNode) if expect == Expect::Any => return Ok(false),
            Committed::No(_, ZkError::NoNode | ZkError::BadVersion) => {}
            Committed::No(_, error) => return Err(of_request("delete a key", error)),
            Committed::Unknown(error) => return Err(error),
        }
        wait(attempt).await;
    }
    Err(busy(key))
}

/// What is to be done about a leaf, or that it must not be.
fn decide(
    link: &Link,
    key: &Key,
    place: &Place,
    writer: Writer<'_>,
    expect: Expect,
    found: Option<Data>,
) -> Result<Step> {
    check(key, expect, found.as_ref())?;
    let Some((data, stat)) = found else {
        return Ok(Step::Create);
    };
    let is_ephemeral = stat.ephemeral_owner != 0;
    match writer {
        Writer::Kept if is_ephemeral => Err(conflict(key, "is a key of a session")),
        Writer::Kept => Ok(Step::Set(stat.version)),
        Writer::Owner(_) if !is_ephemeral => Err(conflict(key, "is a kept key")),
        Writer::Owner(_) if stat.ephemeral_owner == link.id() => Ok(Step::Set(stat.version)),
        Writer::Owner(owner) => {
            let (theirs, _) = leaf::decode(data)
                .ok_or_else(|| corrupt(&place.leaf, "does not hold what a key holds"))?;
            if theirs != owner {
                return Err(conflict(key, "belongs to a session of another owner"));
            }
            Ok(Step::Replace(stat.version))
        }
    }
}

fn check(key: &Key, expect: Expect, found: Option<&Data>) -> Result<()> {
    match (expect, found) {
        (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(_)) => Err(conflict(key, "is there already")),
        (Expect::Revision(_), None) => Err(conflict(key, "is not there")),
        (Expect::Revision(expected), Some((_, stat))) => {
            if stat.mzxid.cast_unsigned() == expected {
                return Ok(());
            }
            Err(conflict(key, "was written since"))
        }
    }
}

fn busy(key: &Key) -> hydrant_ports::EngineError {
    unavailable(format!(
        "`{key}` could not be written: others write beside it all the time"
    ))
}

/// Lets others get ahead, the longer the more of them there are.
async fn wait(attempt: u32) {
    if attempt >= 3 {
        let most = 1 << attempt.min(6);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..most))).await;
    }
}
