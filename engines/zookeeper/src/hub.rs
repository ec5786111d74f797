//! Watches: for each directory that is watched, one recursive watch and one image of what is
//! there, shared by all who watch it.
//!
//! What the ensemble tells is only which znode has changed. Each is read once however often it was
//! told meanwhile, and compared with the image: what differs is one change. After the connection
//! was away, the watch is set anew (the client does not do it) and the directories are compared by
//! their marks; only those that differ are listed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::try_join;
use hydrant_ports::{Change, Entry, ErrorKind, Key, Prefix, WatchSender};
use tokio::sync::{mpsc, oneshot};
use zookeeper_client::{AddWatchMode, EventType, PersistentWatcher, SessionState, WatchedEvent};

use crate::coordination::Shared;
use crate::error::{Result, closed, of_request};
use crate::link::Link;
use crate::path::{Name, Tree, name, parent};
use crate::read::{self, Mark};

/// How often those who do not watch any more are looked for.
const PRUNE: Duration = Duration::from_secs(10);

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody who wants to watch.
pub(crate) struct Join {
    pub(crate) prefix: Prefix,
    pub(crate) sender: WatchSender,
    /// Told when all that is there was told.
    pub(crate) done: oneshot::Sender<()>,
}

/// Keeps the image of one directory.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    directory: String,
    joins: mpsc::Receiver<Join>,
    /// Who came and was not told yet.
    waiting: Vec<Join>,
    image: Image,
}

/// Why the hub stops to listen to a watch.
enum Stop {
    /// The connection was away and is back.
    Again,
    /// The session is lost: there will be another.
    Lost,
    /// Nobody watches any more, or the engine is closed.
    Over,
}

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>, directory: String, joins: mpsc::Receiver<Join>) -> Self {
        let image = Image::new(shared.keys.clone(), &directory);
        Self {
            shared,
            directory,
            joins,
            waiting: Vec::new(),
            image,
        }
    }

    /// Runs until nobody watches any more.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        tokio::select! {
            () = self.work() => {}
            () = shared.closed() => {}
        }
        for (_, sender) in &self.image.watchers {
            sender.close();
        }
    }

    async fn work(&mut self) {
        loop {
            let link = self.shared.link().await;
            match self.follow(&link).await {
                Ok(Stop::Over) => return,
                Ok(Stop::Again | Stop::Lost) => {}
                Err(error) => {
                    tracing::debug!(directory = self.directory, %error, "a watch begins again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Follows the watch on one session.
    async fn follow(&mut self, link: &Link) -> Result<Stop> {
        let mut watcher = self.watch(link).await?;
        loop {
            let stop = self.follow_watch(link, &mut watcher).await;
            if let Ok(stop @ (Stop::Lost | Stop::Over)) = stop {
                return Ok(stop);
            }
            // What was told and not read yet is read with the next comparison.
            if let Some(stop @ Stop::Lost) = self.image.take_all(&mut watcher) {
                return Ok(stop);
            }
            stop?;
            // The old watcher goes when the new one is there.
            watcher = self.watch(link).await?;
        }
    }

    async fn watch(&self, link: &Link) -> Result<PersistentWatcher> {
        let directory = &self.directory;
        let watch = link.ask("watch", link.deadline(), |client| async move {
            client
                .watch(directory, AddWatchMode::PersistentRecursive)
                .await
        });
        watch.await?.map_err(|error| of_request("watch", error))
    }

    async fn follow_watch(&mut self, link: &Link, watcher: &mut PersistentWatcher) -> Result<Stop> {
        self.image.compare(link).await?;
        self.welcome();
        let mut prune = tokio::time::interval(PRUNE);
        loop {
            tokio::select! {
                event = watcher.changed() => {
                    if let Some(stop) = self.image.take(event) {
                        return Ok(stop);
                    }
                }
                Some(join) = self.joins.recv() => {
                    self.waiting.push(join);
                    while let Ok(join) = self.joins.try_recv() {
                        self.waiting.push(join);
                    }
                    // What was written before the watch began is told in its first word.
                    link.sync(link.deadline()).await?;
                }
                _ = prune.tick() => {
                    self.image.forget_the_gone();
                    if self.is_over() {
                        return Ok(Stop::Over);
                    }
                }
                () = link.lost() => return Ok(Stop::Lost),
                // What was told while something else was read.
                () = std::future::ready(()), if !self.image.dirty.is_empty() => {}
            }
            if let Some(stop) = self.image.take_all(watcher) {
                return Ok(stop);
            }
            if let Some(stop) = self.image.read_dirty(link, watcher).await? {
                return Ok(stop);
            }
            self.welcome();
        }
    }

    /// Tells who came all that is there.
    fn welcome(&mut self) {
        for join in self.waiting.drain(..) {
            if join.done.is_closed() {
                continue;
            }
            join.sender.send(self.image.all(&join.prefix));
            self.image.watchers.push((join.prefix, join.sender));
            let _ = join.done.send(());
        }
    }

    fn is_over(&mut self) -> bool {
        self.image.watchers.is_empty()
            && self.waiting.is_empty()
            && self.shared.hubs.end(&self.directory, &mut self.joins)
    }
}

/// What is in a directory as far as it is known, and who is told of it.
struct Image {
    tree: Tree,
    directory: String,
    /// All keys that can be in the directory.
    prefix: Prefix,
    entries: BTreeMap<Key, Entry>,
    /// The directories and how they were; `None` if that is not known any more.
    marks: HashMap<String, Option<Mark>>,
    /// What has changed since it was read.
    dirty: HashSet<String>,
    watchers: Vec<(Prefix, WatchSender)>,
}

impl Image {
    fn new(tree: Tree, directory: &str) -> Self {
        let below = tree.keys_below(directory).unwrap_or_default();
        Self {
            tree,
            directory: directory.to_owned(),
            prefix: below.parse().unwrap_or_default(),
            entries: BTreeMap::new(),
            marks: HashMap::new(),
            dirty: HashSet::new(),
            watchers: Vec::new(),
        }
    }

    /// Notes what an event tells.
    fn take(&mut self, event: WatchedEvent) -> Option<Stop> {
        match event.event_type {
            EventType::Session => match event.session_state {
                SessionState::SyncConnected => return Some(Stop::Again),
                state if state.is_terminated() => return Some(Stop::Lost),
                _ => {}
            },
            // Its own event follows for each child.
            EventType::NodeChildrenChanged => {}
            kind => {
                // A new or deleted znode changes the mark of its directory.
                let above = parent(&event.path);
                if kind != EventType::NodeDataChanged && above.len() >= self.directory.len() {
                    self.dirty.insert(above.to_owned());
                }
                self.dirty.insert(event.path);
            }
        }
        None
    }

    /// Notes all that was told up to now.
    fn take_all(&mut self, watcher: &mut PersistentWatcher) -> Option<Stop> {
        // After the end of the session, the client does not bear to be asked.
        while let Some(event) = watcher.changed().now_or_never() {
            let stop = self.take(event);
            if stop.is_some() {
                return stop;
            }
        }
        None
    }

    /// Reads each znode that has changed.
    async fn read_dirty(
        &mut self,
        link: &Link,
        watcher: &mut PersistentWatcher,
    ) -> Result<Option<Stop>> {
        if self.dirty.is_empty() {
            return Ok(None);
        }
        let is_leaf = |path: &&String| {
            let last = path.rsplit_once('/').map_or("", |(_, last)| last);
            matches!(name(last), Some(Name::Leaf(_)))
        };
        let (leaves, directories): (Vec<_>, Vec<_>) = self.dirty.iter().partition(is_leaf);
        let leaves: Vec<String> = leaves.into_iter().cloned().collect();
        let directories: Vec<String> = directories.into_iter().cloned().collect();
        // In any order: whatever a mark covers was told before the mark came, so it is among what is
        // read here or next.
        let marks = read::marks(link, directories);
        let (marks, found) = try_join(marks, read::leaves(link, leaves)).await?;
        self.dirty.clear();
        // Unless the connection broke in between: then the marks are those of the next connection,
        // and what they cover may never have been told.
        let stop = self.take_all(watcher);
        for (path, mark) in marks {
            match (mark, &stop) {
                (_, Some(_)) => self.marks.insert(path, None),
                (Some(_), None) => self.marks.insert(path, mark),
                (None, None) => self.marks.remove(&path),
            };
        }
        let changes = found
            .into_iter()
            .filter_map(|(path, found)| self.change(&path, found))
            .collect();
        self.tell(changes);
        Ok(stop)
    }

    /// Compares the image with all that is there: lists the directories whose marks differ.
    async fn compare(&mut self, link: &Link) -> Result<()> {
        for path in std::mem::take(&mut self.dirty) {
            let directory = match self.marks.contains_key(&path) {
                true => path,
                false => parent(&path).to_owned(),
            };
            if let Some(mark) = self.marks.get_mut(&directory) {
                *mark = None;
            }
        }
        link.sync(link.deadline()).await?;
        let known: Vec<String> = self.marks.keys().cloned().collect();
        let now = read::marks(link, known).await?;
        let (mut differ, mut gone) = (Vec::new(), HashSet::new());
        for (path, mark) in now {
            if mark.is_none() {
                gone.insert(path);
            } else if self.marks.get(&path).copied().flatten() != mark {
                differ.push(path);
            }
        }
        if !self.marks.contains_key(&self.directory) {
            differ.push(self.directory.clone());
        }
        for path in &differ {
            // If this fails halfway, they still differ.
            self.marks
                .entry(path.clone())
                .and_modify(|mark| *mark = None);
        }
        let is_known = |path: &str| self.marks.contains_key(path) && !gone.contains(path);
        let listed = read::walk(link, &self.tree, &self.prefix, differ, is_known).await?;
        let there: Vec<String> = listed.iter().flat_map(|one| one.leaves.clone()).collect();
        let missing = self.missing(&listed, &there, &gone);
        let found = read::leaves(link, there).await?;

        self.marks.retain(|path, _| !gone.contains(path));
        for one in listed {
            self.marks.insert(one.path, Some(one.mark));
        }
        let missing = missing.into_iter().map(|path| (path, None));
        let changes = missing
            .chain(found)
            .filter_map(|(path, found)| self.change(&path, found))
            .collect();
        self.tell(changes);
        Ok(())
    }

    /// The leaves of the image that are not in the directories any more.
    fn missing(
        &self,
        listed: &[read::Listed],
        there: &[String],
        gone: &HashSet<String>,
    ) -> Vec<String> {
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        let directories: HashSet<&str> = listed
            .iter()
            .map(|one| one.path.as_str())
            .chain(gone.iter().map(String::as_str))
            .collect();
        let known = self.entries.keys().map(|key| self.tree.place(key));
        known
            .filter(|place| directories.contains(place.directory.as_str()))
            .map(|place| place.leaf)
            .filter(|leaf| !there.contains(leaf.as_str()))
            .collect()
    }

    /// What a leaf as it was read changes.
    fn change(&mut self, path: &str, found: Option<crate::link::Data>) -> Option<Change> {
        let key = self.tree.key(path)?;
        let Some(found) = found else {
            self.entries.remove(&key)?;
            return Some(Change::Removed(key));
        };
        let entry = match read::entry(&self.tree, path, found) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%error, "a watched znode is passed over");
                return None;
            }
        };
        let known = self.entries.get(&key).map(|entry| entry.revision);
        if known == Some(entry.revision) {
            return None;
        }
        self.entries.insert(key, entry.clone());
        Some(Change::Put(entry))
    }

    /// Tells changes to whom they concern, and everything to who was too slow.
    fn tell(&mut self, changes: Vec<Change>) {
        for index in 0..self.watchers.len() {
            let (prefix, sender) = &self.watchers[index];
            let mut own = changes.iter().filter(|change| match change {
                Change::All(_) => true,
                Change::Put(entry) => prefix.contains(&entry.key),
                Change::Removed(key) => prefix.contains(key),
            });
            if !own.all(|change| sender.send(change.clone())) {
                sender.send(self.all(prefix));
            }
        }
    }

    fn all(&self, prefix: &Prefix) -> Change {
        let from = self.entries.range::<str, _>((
            std::ops::Bound::Included(prefix.as_str()),
            std::ops::Bound::Unbounded,
        ));
        let own = from.take_while(|(key, _)| prefix.contains(key));
        Change::All(own.map(|(_, entry)| entry.clone()).collect())
    }

    fn forget_the_gone(&mut self) {
        self.watchers.retain(|(_, sender)| !sender.is_closed());
    }
}

/// The hubs of an engine, by directory.
#[derive(Default)]
pub(crate) struct Hubs(std::sync::Mutex<HashMap<String, mpsc::Sender<Join>>>);

/// How many may wait to be told everything at once.
const MAX_WAITING: usize = 1024;

impl Hubs {
    /// Hands somebody who wants to watch to the hub of the directory.
    pub(crate) fn join(&self, shared: &Arc<Shared>, directory: String, join: Join) -> Result<()> {
        let mut hubs = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if shared.is_closed() {
            return Err(closed());
        }
        let hub = hubs.entry(directory).or_insert_with_key(|directory| {
            let (sender, joins) = mpsc::channel(MAX_WAITING);
            tokio::spawn(Hub::new(shared.clone(), directory.clone(), joins).run());
            sender
        });
        hub.try_send(join).map_err(|_| {
            hydrant_ports::EngineError::new(
                ErrorKind::TooLarge,
                "too many begin to watch at once, or the engine is being closed",
            )
        })
    }

    /// Takes the hub of a directory off the list, unless somebody just came.
    fn end(&self, directory: &str, joins: &mut mpsc::Receiver<Join>) -> bool {
        let mut hubs = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !joins.is_empty() {
            return false;
        }
        hubs.remove(directory);
        joins.close();
        true
    }
}
