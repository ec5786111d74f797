//! Seats: who waits in line has an ephemeral, numbered znode, and waits for its predecessor only.
//!
//! ```text
//! /hydrant/seats                       the era
//! /hydrant/seats/elections/api/=greeter    the last epoch, its candidate and the holder's name
//! /hydrant/seats/elections/api/=greeter/c-3f…-0000000007    a candidate
//! ```
//!
//! The seat is held by the candidate that its znode names, as long as that candidate is there.

use std::sync::Arc;

use async_trait::async_trait;
use hydrant_ports::coordination::{Holder, Seat};
use tokio::sync::watch;
use zookeeper_client::{CreateMode, Error as ZkError};

use crate::era::Eras;
use crate::error::{Result, closed, corrupt, is_unknown, of_request, unavailable};
use crate::link::{Committed, Link, Operation};

/// What stands before a candidate's id.
const CANDIDATE: &str = "c-";

/// How often a step is tried that others get in the way of.
const ATTEMPTS: u32 = 100;

/// What a seat's znode says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) epoch: u64,
    /// The name of the znode that won the epoch.
    pub(crate) candidate: String,
    pub(crate) holder: String,
}

impl Record {
    fn text(&self) -> String {
        format!("{} {} {}", self.epoch, self.candidate, self.holder)
    }

    pub(crate) fn parse(path: &str, data: &[u8]) -> Result<Self> {
        if data.is_empty() {
            return Ok(Self::default());
        }
        let parse = || {
            let mut parts = std::str::from_utf8(data).ok()?.splitn(3, ' ');
            Some(Self {
                epoch: parts.next()?.parse().ok()?,
                candidate: parts.next()?.to_owned(),
                holder: parts.next()?.to_owned(),
            })
        };
        parse().ok_or_else(|| corrupt(path, "does not hold who has the seat"))
    }

    pub(crate) fn seen(&self) -> Holder {
        Holder {
            name: self.holder.clone(),
            epoch: self.epoch,
        }
    }
}

/// Waits in line for the seat whose znode is `seat`.
pub(crate) async fn take(
    link: &Arc<Link>,
    eras: &Eras,
    seat: &str,
    holder: &str,
) -> Result<Box<dyn Seat>> {
    // From here on, whatever becomes of this future, the line is left.
    let place = Candidate {
        link: link.clone(),
        seat: seat.to_owned(),
        id: format!(
            "{CANDIDATE}{:016x}{:016x}-",
            fastrand::u64(..),
            fastrand::u64(..)
        ),
        has_left: false,
    };
    let name = place.enter().await?;
    place.wait_for_turn(&name).await?;
    let epoch = place.win(eras, &name, holder).await?;
    eras.note_epoch(epoch).await;
    Ok(Box::new(HeldSeat::new(place, name, epoch)))
}

/// A candidate, by a name that no other has: it is found also when the answer was lost that would
/// have told its number. Dropping it leaves the line in the background.
struct Candidate {
    link: Arc<Link>,
    seat: String,
    id: String,
    has_left: bool,
}

impl Candidate {
    /// Enters the line and returns the name of its znode there.
    async fn enter(&self) -> Result<String> {
        let path = format!("{}/{}", self.seat, self.id);
        let options = CreateMode::EphemeralSequential.with_acls(self.link.acls());
        let mut deadline = self.link.deadline();
        for _ in 0..ATTEMPTS {
            let create = self.link.ask("wait in line", deadline, |client| {
                let (path, options) = (&path, &options);
                async move { client.create(path, b"", options).await }
            });
            match create.await? {
                Ok((_, number)) => return Ok(format!("{}{number}", self.id)),
                Err(ZkError::NoNode) => self.link.make_directory(&self.seat, deadline).await?,
                Err(error) if is_unknown(&error) => {
                    deadline = self.link.deadline();
                    if let Some(name) = self.find().await? {
                        return Ok(name);
                    }
                }
                Err(error) => return Err(of_request("wait in line", error)),
            }
        }
        Err(unavailable("the line for a seat cannot be entered"))
    }

    /// The names of all in line, in turn.
    async fn line(&self) -> Result<Vec<String>> {
        let line = self.link.children(&self.seat, self.link.deadline()).await?;
        let mut line = line.map(|(line, _)| line).unwrap_or_default();
        line.retain(|name| name.starts_with(CANDIDATE));
        line.sort_by(|a, b| number(a).cmp(number(b)));
        Ok(line)
    }

    async fn find(&self) -> Result<Option<String>> {
        let deadline = self.link.deadline();
        self.link.sync(deadline).await?;
        let line = self.line().await?;
        Ok(line.into_iter().find(|name| name.starts_with(&self.id)))
    }

    /// Waits until nobody is in front. Those in front can only leave, so a line that was read
    /// after this candidate came misses none of them.
    async fn wait_for_turn(&self, name: &str) -> Result<()> {
        loop {
            let line = match self.line().await {
                Err(error) if self.is_away(&error) => {
                    self.back().await?;
                    continue;
                }
                line => line?,
            };
            let position = line.iter().position(|other| other == name);
            match position {
                None => return Err(unavailable("the place in the line for a seat was deleted")),
                Some(0) => return Ok(()),
                Some(position) => {
                    let before = format!("{}/{}", self.seat, line[position - 1]);
                    self.until_gone_or_changed(&before).await?;
                }
            }
        }
    }

    /// Waits for an event of a znode; returns at once if it is not there.
    async fn until_gone_or_changed(&self, path: &str) -> Result<()> {
        let watched = self
            .link
            .ask("watch a seat", self.link.deadline(), |client| async move {
                client.get_and_watch_data(path).await
            });
        match watched.await {
            Ok(Ok((_, _, watcher))) => tokio::select! {
                _ = watcher.changed() => Ok(()),
                () = self.link.lost() => Err(closed()),
            },
            Ok(Err(ZkError::NoNode)) => Ok(()),
            Ok(Err(error)) if is_unknown(&error) => self.back().await,
            Ok(Err(error)) => Err(of_request("watch a seat", error)),
            Err(error) if self.is_away(&error) => self.back().await,
            Err(error) => Err(error),
        }
    }

    /// Nobody answers now: waiting in line goes on as long as the session does.
    fn is_away(&self, error: &hydrant_ports::EngineError) -> bool {
        error.kind == hydrant_ports::ErrorKind::Unavailable && !self.link.is_lost()
    }

    /// Waits a little, or until the session is lost.
    async fn back(&self) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => Ok(()),
            () = self.link.lost() => Err(closed()),
        }
    }

    /// Writes the epoch into the seat, in one step with the proof that this candidate is there and
    /// that the era is as it was read.
    async fn win(&self, eras: &Eras, name: &str, holder: &str) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            match self.try_to_win(eras, name, holder).await {
                Ok(Some(epoch)) => return Ok(epoch),
                Ok(None) => {}
                Err(error) if self.is_away(&error) => self.back().await?,
                Err(error) => return Err(error),
            }
        }
        Err(unavailable("the seat cannot be taken now"))
    }

    async fn try_to_win(&self, eras: &Eras, name: &str, holder: &str) -> Result<Option<u64>> {
        let era = eras.current(&self.link).await?;
        let deadline = self.link.deadline();
        let Some((data, stat)) = self.link.fresh(&self.seat, deadline).await? else {
            return Err(unavailable("the znode of a seat was deleted"));
        };
        let last = Record::parse(&self.seat, &data)?;
        if last.candidate == name {
            // The answer to an earlier try was lost.
            return Ok(Some(last.epoch));
        }
        let epoch = Eras::epoch_after(last.epoch, &era);
        let record = Record {
            epoch,
            candidate: name.to_owned(),
            holder: holder.to_owned(),
        };
        let (candidate, text) = (format!("{}/{name}", self.seat), record.text());
        let operations = [
            Operation::Check(eras.root(), era.version),
            Operation::Check(&candidate, -1),
            Operation::Set(&self.seat, text.as_bytes(), Some(stat.version)),
        ];
        match self
            .link
            .commit("take a seat", &operations, deadline)
            .await?
        {
            Committed::Yes(_) => Ok(Some(epoch)),
            Committed::No(1, _) => Err(unavailable("the place in the line for a seat was deleted")),
            Committed::No(_, ZkError::BadVersion | ZkError::NoNode) => Ok(None),
            Committed::No(_, error) => Err(of_request("take a seat", error)),
            Committed::Unknown(error) => Err(error),
        }
    }

    /// Leaves the line, however long that takes, unless the session ends first.
    async fn leave(link: &Link, seat: &str, id: &str, known: Option<&str>) {
        while !link.is_lost() {
            let left = Self::try_to_leave(link, seat, id, known).await;
            if left.is_ok() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
                () = link.lost() => {}
            }
        }
    }

    async fn try_to_leave(link: &Link, seat: &str, id: &str, known: Option<&str>) -> Result<()> {
        let deadline = link.deadline();
        let names = match known {
            Some(name) => vec![name.to_owned()],
            None => {
                link.sync(deadline).await?;
                let children = link.children(seat, deadline).await?;
                let mut names = children.map(|(names, _)| names).unwrap_or_default();
                names.retain(|name| name.starts_with(id));
                names
            }
        };
        for name in names {
            let path = format!("{seat}/{name}");
            let delete = link.ask("leave a line", deadline, |client| {
                let path = &path;
                async move { client.delete(path, None).await }
            });
            match delete.await? {
                Ok(()) | Err(ZkError::NoNode) => {}
                Err(error) => return Err(of_request("leave a line", error)),
            }
        }
        Ok(())
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.has_left || self.link.is_lost() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (link, seat, id) = (self.link.clone(), self.seat.clone(), self.id.clone());
        runtime.spawn(async move { Self::leave(&link, &seat, &id, None).await });
    }
}

/// The number at the end of a candidate's name, as text of one length.
fn number(name: &str) -> &str {
    name.rsplit_once('-').map_or("", |(_, number)| number)
}

/// A seat that is held.
struct HeldSeat {
    candidate: Candidate,
    name: String,
    epoch: u64,
    lost: watch::Receiver<bool>,
    watching: tokio::task::JoinHandle<()>,
}

impl HeldSeat {
    fn new(candidate: Candidate, name: String, epoch: u64) -> Self {
        let (tell, lost) = watch::channel(false);
        let (link, path) = (candidate.link.clone(), format!("{}/{name}", candidate.seat));
        let watching = tokio::spawn(async move {
            tokio::select! {
                () = gone(&link, &path) => {}
                () = link.doubtful() => {}
            }
            tell.send_replace(true);
        });
        Self {
            candidate,
            name,
            epoch,
            lost,
            watching,
        }
    }
}

/// Resolves when a znode is not there any more.
async fn gone(link: &Link, path: &str) {
    while !link.is_lost() {
        let watched = link.ask("watch a seat", link.deadline(), |client| async move {
            client.get_and_watch_data(path).await
        });
        match watched.await {
            Ok(Ok((_, _, watcher))) => {
                tokio::select! {
                    _ = watcher.changed() => {}
                    () = link.lost() => {}
                }
            }
            Ok(Err(ZkError::NoNode)) => return,
            _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

#[async_trait]
impl Seat for HeldSeat {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn lost(&self) {
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    async fn give_up(mut self: Box<Self>) {
        self.watching.abort();
        let Candidate { link, seat, id, .. } = &self.candidate;
        let left = Candidate::leave(link, seat, id, Some(&self.name));
        if tokio::time::timeout_at(link.deadline(), left).await.is_ok() {
            self.candidate.has_left = true;
        }
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
