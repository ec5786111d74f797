use std::time::Duration;

use hydrant_contracts::proto::{
    self, CompareAndPutRequest, DeleteRequest, DeleteResponse, GetRequest, GetResponse,
    ListRequest, ListResponse, PutRequest, PutResponse, STATE_COMPARE_AND_PUT_SPEC,
    STATE_DELETE_SPEC, STATE_GET_SPEC, STATE_LIST_SPEC, STATE_PUT_SPEC, STATE_WATCH_SPEC,
    WatchStateEvent, WatchStateRequest, watch_state_event,
};
use hydrant_contracts::{Error, ServiceId};

use crate::client::Hydrant;
use crate::clock::SteadyClock;
use crate::election::Leadership;
use crate::lock::Lock;
use crate::seat::Stamp;
use crate::watching::Watching;

/// State that the instances of a service share: bytes by key, durable when a write returns.
#[derive(Clone)]
pub struct State {
    hydrant: Hydrant,
    namespace: String,
    under: Option<Stamp>,
}

/// A key and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, within its service's namespace.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Grows with every write of this key; never 0.
    pub revision: u64,
    /// How long it has to live; `None` until it is deleted.
    pub ttl: Option<Duration>,
}

/// What a read from memory found: [`State::get_within`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What stands at the key; `None` when there is nothing.
    pub entry: Option<Entry>,
    /// How long ago that was so, at most. Zero when the store was asked for this answer.
    pub age: Duration,
}

/// A seat under which state may be written: a [`Leadership`] or a [`Lock`].
pub trait Seat: sealed::Seat {}

mod sealed {
    pub trait Seat {
        #[doc(hidden)]
        fn stamp_of(&self) -> crate::state::Held<'_>;
    }
}

/// What a [`Seat`] shows of itself to [`State`].
pub struct Held<'a>(&'a Stamp);

impl Seat for Leadership {}
impl Seat for Lock {}

impl sealed::Seat for Leadership {
    fn stamp_of(&self) -> Held<'_> {
        Held(self.stamp())
    }
}

impl sealed::Seat for Lock {
    fn stamp_of(&self) -> Held<'_> {
        Held(self.stamp())
    }
}

impl Hydrant {
    /// The state of the own service.
    pub fn state(&self) -> State {
        State {
            hydrant: self.clone(),
            namespace: String::new(),
            under: None,
        }
    }
}

impl State {
    /// The state of another service, to read: one of the same name in a tier that may be called,
    /// as `api/mobile` reads `service/mobile`.
    #[must_use]
    pub fn of(&self, service: &ServiceId) -> Self {
        Self {
            namespace: service.to_string(),
            ..self.clone()
        }
    }

    /// The same state, written under a seat: a write fails as soon as the seat is lost by this
    /// process's clock, and is refused as soon as another one has taken it.
    #[must_use]
    pub fn under(&self, seat: &impl Seat) -> Self {
        Self {
            under: Some(seat.stamp_of().0.clone()),
            ..self.clone()
        }
    }

    /// Reads a key as it is now.
    ///
    /// # Errors
    ///
    /// If the namespace may not be read, or the node or the store does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let seen = self.get_within(key, Duration::ZERO).await?;
        Ok(seen.entry)
    }

    /// Reads a key as it was at most `max_age` ago: the node may answer from memory, which is
    /// fast, spares the store, and goes on for so long while the store is away. What was written
    /// through the same node is seen at once. Zero asks the store; parts of a millisecond do not
    /// count.
    ///
    /// # Errors
    ///
    /// As [`State::get`].
    pub async fn get_within(&self, key: &str, max_age: Duration) -> Result<Seen, Error> {
        let request = GetRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            max_age_ms: u32::try_from(max_age.as_millis()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let answer: GetResponse = self
            .hydrant
            .node_in_context(STATE_GET_SPEC, request)
            .await?;
        Ok(Seen {
            entry: answer.entry.into_option().map(Entry::from),
            age: Duration::from_millis(answer.age_ms.into()),
        })
    }

    /// Writes a key and returns its revision.
    ///
    /// # Errors
    ///
    /// `aborted` when the seat is lost; else if the node refuses it or does not answer: then the
    /// write may have happened.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<u64, Error> {
        self.write(key, value.into(), None).await
    }

    /// Writes a key that lives for `ttl`, and returns its revision.
    ///
    /// # Errors
    ///
    /// As [`State::put`].
    pub async fn put_for(
        &self,
        ttl: Duration,
        key: &str,
        value: impl Into<Vec<u8>>,
    ) -> Result<u64, Error> {
        self.write(key, value.into(), Some(ttl)).await
    }

    async fn write(&self, key: &str, value: Vec<u8>, ttl: Option<Duration>) -> Result<u64, Error> {
        let request = PutRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            value,
            ttl_ms: ttl_ms(ttl),
            under: self.checked_under()?.into(),
            ..Default::default()
        };
        let answer: PutResponse = self
            .hydrant
            .node_in_context(STATE_PUT_SPEC, request)
            .await?;
        Ok(answer.revision)
    }

    /// Writes a key only if it is at `revision`, where 0 means that it must not exist.
    ///
    /// # Errors
    ///
    /// `aborted` when it is at another one, and as [`State::put`].
    pub async fn compare_and_put(
        &self,
        key: &str,
        revision: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<u64, Error> {
        self.swap(key, revision, value.into(), None).await
    }

    /// Writes a key that lives for `ttl`, only if it is at `revision`, where 0 means that it must not exist.
    ///
    /// # Errors
    ///
    /// As [`State::compare_and_put`].
    pub async fn compare_and_put_for(
        &self,
        ttl: Duration,
        key: &str,
        revision: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<u64, Error> {
        self.swap(key, revision, value.into(), Some(ttl)).await
    }

    async fn swap(
        &self,
        key: &str,
        revision: u64,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<u64, Error> {
        let request = CompareAndPutRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            value,
            ttl_ms: ttl_ms(ttl),
            under: self.checked_under()?.into(),
            expected_revision: revision,
            ..Default::default()
        };
        let answer: PutResponse = self
            .hydrant
            .node_in_context(STATE_COMPARE_AND_PUT_SPEC, request)
            .await?;
        Ok(answer.revision)
    }

    /// Deletes a key; tells whether it was there.
    ///
    /// # Errors
    ///
    /// As [`State::put`].
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        let request = DeleteRequest {
            namespace: self.namespace.clone(),
            key: key.into(),
            under: self.checked_under()?.into(),
            ..Default::default()
        };
        let answer: DeleteResponse = self
            .hydrant
            .node_in_context(STATE_DELETE_SPEC, request)
            .await?;
        Ok(answer.existed)
    }

    /// Everything below a prefix, sorted by key, however many pages it takes.
    ///
    /// # Errors
    ///
    /// If the namespace may not be read, or the node does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let request = ListRequest {
                namespace: self.namespace.clone(),
                prefix: prefix.into(),
                after: entries
                    .last()
                    .map(|entry| entry.key.clone())
                    .unwrap_or_default(),
                ..Default::default()
            };
            let page: ListResponse = self
                .hydrant
                .node_in_context(STATE_LIST_SPEC, request)
                .await?;
            let is_last = !page.more || page.entries.is_empty();
            entries.extend(page.entries.into_iter().map(Entry::from));
            if is_last {
                return Ok(entries);
            }
        }
    }

    /// Watches everything below a prefix.
    pub fn watch(&self, prefix: &str) -> StateWatch {
        let request = WatchStateRequest {
            namespace: self.namespace.clone(),
            prefix: prefix.into(),
            ..Default::default()
        };
        StateWatch(Watching::new(
            self.hydrant.clone(),
            STATE_WATCH_SPEC,
            request,
        ))
    }

    pub(crate) fn clock(&self) -> SteadyClock {
        self.hydrant.clock()
    }

    fn checked_under(&self) -> Result<Option<proto::Under>, Error> {
        let Some(stamp) = &self.under else {
            return Ok(None);
        };
        stamp.check()?;
        Ok(Some(proto::Under::from(stamp)))
    }
}

/// What happens below a prefix.
pub struct StateWatch(Watching<WatchStateRequest, WatchStateEvent>);

/// What happened below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// This is all that is there: at the start, and again after a break.
    All(Vec<Entry>),
    /// A key was written.
    Put(Entry),
    /// A key is gone.
    Removed(String),
}

impl StateWatch {
    /// What happens next. It goes on through every break of the way to the node, converges to the
    /// truth, and may skip what was overwritten meanwhile. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If the node refuses the watch for good.
    pub async fn next(&mut self) -> Result<StateChange, Error> {
        loop {
            let change = match self.0.next().await?.event {
                Some(watch_state_event::Event::All(all)) => {
                    StateChange::All(all.entries.into_iter().map(Entry::from).collect())
                }
                Some(watch_state_event::Event::Put(entry)) => StateChange::Put((*entry).into()),
                Some(watch_state_event::Event::Removed(key)) => StateChange::Removed(key),
                None => continue,
            };
            return Ok(change);
        }
    }
}

impl From<proto::Entry> for Entry {
    fn from(entry: proto::Entry) -> Self {
        Self {
            key: entry.key,
            value: entry.value,
            revision: entry.revision,
            ttl: Some(Duration::from_millis(entry.ttl_ms)).filter(|ttl| !ttl.is_zero()),
        }
    }
}

fn ttl_ms(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| {
        u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}
