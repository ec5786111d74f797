use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::Stream;
use hydrant_contracts::proto::{self, watch_state_event};
use hydrant_contracts::{Code, Error, Identity, ServiceId};
use hydrant_ports::state::{MAX_VALUE, Put, StateEntry, Under};
use hydrant_ports::{Change, Entry, Expect, InvalidKey, Key, Prefix, Watch};

use super::LocalApi;
use crate::identity::{Access, SeatKind, invalid, seat_key};
use crate::leases::millis;

/// How many keys a list returns when it names no number, and the most that it may name.
const LIST: (u32, u32) = (1000, 10_000);

/// About how many bytes of values one message of a list or a watch carries.
const MESSAGE: usize = 2 * 1024 * 1024;

/// How many keys are read from the engine at once.
const PAGE: usize = 32;

impl proto::State for LocalApi {
    async fn get(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::GetRequest>,
    ) -> ServiceResult<proto::GetResponse> {
        let space = self.space(&context, request.namespace, Access::Read)?;
        let key = space.key(request.key)?;
        let max_age = Duration::from_millis(request.max_age_ms.into());
        let answer = self.near.get(&key, max_age).await.map_err(Error::from)?;
        Response::ok(proto::GetResponse {
            entry: answer.found.map(|found| space.state_entry(found)).into(),
            age_ms: millis(answer.age),
            ..Default::default()
        })
    }

    async fn put(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::PutRequest>,
    ) -> ServiceResult<proto::PutResponse> {
        let space = self.space(&context, request.namespace, Access::Write)?;
        let request = request.to_owned_message();
        let options = Put {
            expect: Expect::Any,
            ttl: ttl(request.ttl_ms),
            under: space.under(request.under.as_option())?,
        };
        let written = self.write(&space, &request.key, request.value, options);
        Response::ok(written.await?)
    }

    async fn compare_and_put(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::CompareAndPutRequest>,
    ) -> ServiceResult<proto::PutResponse> {
        let space = self.space(&context, request.namespace, Access::Write)?;
        let request = request.to_owned_message();
        let options = Put {
            expect: match request.expected_revision {
                0 => Expect::Absent,
                revision => Expect::Revision(revision),
            },
            ttl: ttl(request.ttl_ms),
            under: space.under(request.under.as_option())?,
        };
        let written = self.write(&space, &request.key, request.value, options);
        Response::ok(written.await?)
    }

    async fn delete(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::DeleteRequest>,
    ) -> ServiceResult<proto::DeleteResponse> {
        let space = self.space(&context, request.namespace, Access::Write)?;
        let request = request.to_owned_message();
        let under = space.under(request.under.as_option())?;
        let key = space.key(&request.key)?;
        let _written = self.near.writing(&key);
        let deleted = self.state.delete(&key, Expect::Any, under).await;
        Response::ok(proto::DeleteResponse {
            existed: deleted.map_err(Error::from)?,
            ..Default::default()
        })
    }

    async fn list(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ListRequest>,
    ) -> ServiceResult<proto::ListResponse> {
        let space = self.space(&context, request.namespace, Access::Read)?;
        let limit = match request.limit {
            0 => LIST.0,
            limit if limit <= LIST.1 => limit,
            limit => return Err(too_many(limit).into()),
        };
        let prefix = space.prefix(request.prefix)?;
        let after = match request.after {
            "" => None,
            after => Some(space.key(after)?),
        };
        Response::ok(self.page(&space, &prefix, after, limit as usize).await?)
    }

    async fn watch(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::WatchStateRequest>,
    ) -> ServiceResult<ServiceStream<proto::WatchStateEvent>> {
        let space = self.space(&context, request.namespace, Access::Read)?;
        let permit = self.watches.take(&space.who)?;
        let prefix = space.prefix(request.prefix)?;
        let watch = self.state.watch(&prefix).await.map_err(Error::from)?;
        Response::ok(self.permitted(permit, changes(watch, space)))
    }
}

impl LocalApi {
    fn space(&self, context: &RequestContext, named: &str, access: Access) -> Result<Space, Error> {
        let who = self.identify(context)?;
        let service = self.authority.namespace(&who, named, access)?;
        let head = format!("{service}/");
        Ok(Space { who, service, head })
    }

    async fn write(
        &self,
        space: &Space,
        key: &str,
        value: Vec<u8>,
        options: Put,
    ) -> Result<proto::PutResponse, Error> {
        if value.len() > MAX_VALUE {
            let message = format!("a value has at most {MAX_VALUE} bytes, not {}", value.len());
            return Err(invalid("too_large", message));
        }
        let key = space.key(key)?;
        let _written = self.near.writing(&key);
        let revision = self.state.put(&key, Bytes::from(value), options).await?;
        Ok(proto::PutResponse {
            revision,
            ..Default::default()
        })
    }

    /// Up to `limit` keys, or fewer when their values fill a message: then there is more.
    async fn page(
        &self,
        space: &Space,
        prefix: &Prefix,
        mut after: Option<Key>,
        limit: usize,
    ) -> Result<proto::ListResponse, Error> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        loop {
            let page = self.state.list(prefix, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            for found in page {
                bytes += found.entry.value.len();
                if entries.len() == limit || (bytes > MESSAGE && !entries.is_empty()) {
                    return Ok(list_response(entries, true));
                }
                after = Some(found.entry.key.clone());
                entries.push(space.state_entry(found));
            }
            if is_last {
                return Ok(list_response(entries, false));
            }
        }
    }
}

fn list_response(entries: Vec<proto::Entry>, more: bool) -> proto::ListResponse {
    proto::ListResponse {
        entries,
        more,
        ..Default::default()
    }
}

/// The part of the state that a request is about.
struct Space {
    who: Identity,
    service: ServiceId,
    /// What stands before every key of the namespace.
    head: String,
}

impl Space {
    fn key(&self, key: &str) -> Result<Key, Error> {
        format!("{}{key}", self.head).parse().map_err(invalid_key)
    }

    fn prefix(&self, prefix: &str) -> Result<Prefix, Error> {
        format!("{}{prefix}", self.head)
            .parse()
            .map_err(invalid_key)
    }

    /// The election or the lock that a write is under stands in the same namespace.
    fn under(&self, under: Option<&proto::Under>) -> Result<Option<Under>, Error> {
        use proto::__buffa::oneof::under::Holder;
        let Some(under) = under else {
            return Ok(None);
        };
        let mark = match &under.holder {
            Some(Holder::Election(name)) => seat_key(SeatKind::Election, &self.service, name)?,
            Some(Holder::Lock(name)) => seat_key(SeatKind::Lock, &self.service, name)?,
            None => {
                let message = "a write under an epoch names an election or a lock";
                return Err(invalid("no_holder", message.into()));
            }
        };
        if under.epoch == 0 {
            let message = "a write under an epoch names one that was given: 0 never is";
            return Err(invalid("no_epoch", message.into()));
        }
        Ok(Some(Under {
            mark,
            epoch: under.epoch,
        }))
    }

    /// The key as the callers of this namespace know it.
    fn own_name(&self, key: &Key) -> String {
        let name = key.as_str();
        name.strip_prefix(&self.head).unwrap_or(name).into()
    }

    fn entry(&self, entry: Entry) -> proto::Entry {
        proto::Entry {
            key: self.own_name(&entry.key),
            value: entry.value.to_vec(),
            revision: entry.revision,
            ..Default::default()
        }
    }

    fn state_entry(&self, found: StateEntry) -> proto::Entry {
        // A rest below one millisecond must not read as "for ever".
        let ttl_ms = found.ttl.map_or(0, |ttl| (ttl.as_millis() as u64).max(1));
        proto::Entry {
            ttl_ms,
            ..self.entry(found.entry)
        }
    }
}

type Event = proto::__buffa::oneof::watch_state_event::Event;

/// All below the prefix, then a change at a time.
fn changes(
    watch: Watch,
    space: Space,
) -> impl Stream<Item = Result<proto::WatchStateEvent, Error>> {
    let pending = VecDeque::new();
    futures::stream::unfold(Some((watch, space, pending)), |at| async {
        let (mut watch, space, mut pending) = at?;
        while pending.is_empty() {
            match watch.next().await {
                Some(change) => pending = events(change, &space),
                None => return Some((Err(closed()), None)),
            }
        }
        let event = proto::WatchStateEvent {
            event: pending.pop_front(),
            ..Default::default()
        };
        Some((Ok(event), Some((watch, space, pending))))
    })
}

/// A change as messages. What is too large for one message of all follows as single writes, which
/// leads to the same truth.
fn events(change: Change, space: &Space) -> VecDeque<Event> {
    match change {
        Change::Put(entry) => VecDeque::from([space.entry(entry).into()]),
        Change::Removed(key) => VecDeque::from([Event::Removed(space.own_name(&key))]),
        Change::All(entries) => {
            let first = how_many_fit(&entries);
            let mut entries = entries.into_iter().map(|entry| space.entry(entry));
            let all = watch_state_event::All {
                entries: entries.by_ref().take(first).collect(),
                ..Default::default()
            };
            [all.into()]
                .into_iter()
                .chain(entries.map(Event::from))
                .collect()
        }
    }
}

fn how_many_fit(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.value.len() + entry.key.as_str().len();
        bytes <= MESSAGE
    };
    entries.iter().take_while(fits).count()
}

fn ttl(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn invalid_key(error: InvalidKey) -> Error {
    invalid("invalid_key", error.to_string())
}

fn too_many(limit: u32) -> Error {
    invalid(
        "too_many",
        format!("a list has at most {} keys, not {limit}", LIST.1),
    )
    .mend("read on with `after`")
}

fn closed() -> Error {
    Error::new(Code::Unavailable, "closed", "the state tells no more")
}
