//! Carries what is kept from one pair of engines to another: kept keys, state with the time that it
//! has to live, and marks.
//!
//! A copy has three steps, of which each reads both sides anew: it compares, writes what the target
//! lacks, and compares again. It never writes over a key that has changed since it looked, so it may
//! be broken off and repeated at any time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hydrant_ports::state::Put;
use hydrant_ports::{Coordination, EngineError, ErrorKind, Expect, Key, Prefix, State};

/// How many keys are read at a time.
const PAGE: usize = 256;

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;

/// Below these, keys are of living sessions, and none of a copy.
const OF_SESSIONS: [&str; 2] = ["instances/", "servers/"];

/// One side of a copy.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) state: Arc<dyn State>,
}

/// What a copy does with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: Key,
    /// What the target must be for it: absent, or at the revision that is to be replaced.
    expect: Expect,
}

impl Step {
    /// Whether the target has something else under the key.
    pub(crate) fn replaces(&self) -> bool {
        self.expect != Expect::Absent
    }
}

/// What was found on comparing one kind of things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// How many the source has.
    pub(crate) found: u64,
    /// What the target lacks or has otherwise.
    pub(crate) steps: Vec<Step>,
}

impl Comparison {
    /// How many the target has as the source does.
    pub(crate) fn same(&self) -> u64 {
        self.found - self.steps.len() as u64
    }

    /// What the target has otherwise.
    pub(crate) fn differing(&self) -> impl Iterator<Item = &Key> {
        let differing = self.steps.iter().filter(|step| step.replaces());
        differing.map(|step| &step.key)
    }
}

/// What was found on comparing two sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kept: Comparison,
    pub(crate) state: Comparison,
    /// The marks that are higher in the source, with their epochs.
    pub(crate) marks: Vec<(Key, u64)>,
    /// How many marks the source has.
    pub(crate) marks_found: u64,
}

impl Plan {
    /// Whether the target has all that the source has.
    pub(crate) fn is_done(&self) -> bool {
        self.kept.steps.is_empty() && self.state.steps.is_empty() && self.marks.is_empty()
    }

    /// The keys that the target has otherwise, each behind the name of its port.
    pub(crate) fn differing(&self) -> Vec<String> {
        let named = |port: &'static str| move |key: &Key| format!("{port} {key}");
        let kept = self.kept.differing().map(named("coordination"));
        kept.chain(self.state.differing().map(named("state")))
            .collect()
    }
}

/// Compares the sides; `marks` are those of the source.
pub(crate) async fn compare(
    from: &Side,
    to: &Side,
    marks: &[(Key, u64)],
) -> Result<Plan, EngineError> {
    Ok(Plan {
        kept: compare_shelves(&from.kept(), &to.kept()).await?,
        state: compare_shelves(&from.state(), &to.state()).await?,
        marks: lower_marks(&*to.state, marks).await?,
        marks_found: marks.len() as u64,
    })
}

/// Does what a plan says: marks first, so that nobody writes under an epoch that is over.
pub(crate) async fn carry_out(plan: &Plan, from: &Side, to: &Side) -> Result<(), EngineError> {
    for some in plan.marks.chunks(AT_ONCE) {
        let raise = |(mark, epoch): &(Key, u64)| raise(&*to.state, mark.clone(), *epoch);
        all_done(some.iter().map(raise)).await?;
    }
    write_all(&plan.kept.steps, &from.kept(), &to.kept()).await?;
    write_all(&plan.state.steps, &from.state(), &to.state()).await
}

async fn raise(state: &dyn State, mark: Key, epoch: u64) -> Result<(), EngineError> {
    match state.raise(&mark, epoch).await {
        // Somebody has raised it further meanwhile.
        Err(error) if matches!(error.kind, ErrorKind::Superseded { .. }) => Ok(()),
        other => other,
    }
}

async fn lower_marks(to: &dyn State, marks: &[(Key, u64)]) -> Result<Vec<(Key, u64)>, EngineError> {
    let mut lower = Vec::new();
    for (mark, epoch) in marks {
        if to.mark(mark).await? < *epoch {
            lower.push((mark.clone(), *epoch));
        }
    }
    Ok(lower)
}

async fn compare_shelves(from: &Shelf<'_>, to: &Shelf<'_>) -> Result<Comparison, EngineError> {
    let keys = from.keys().await?;
    let look = |key| async move { look(key, from, to).await };
    let looked = stream::iter(keys).map(look).buffered(AT_ONCE);
    let looked: Vec<Seen> = looked.try_collect().await?;
    let mut comparison = Comparison::default();
    for seen in looked {
        comparison.found += u64::from(seen != Seen::Over);
        if let Seen::Otherwise(step) = seen {
            comparison.steps.push(step);
        }
    }
    Ok(comparison)
}

/// How the target has a key of the source.
#[derive(PartialEq, Eq)]
enum Seen {
    /// The source itself has it no more: its time is over.
    Over,
    Same,
    Otherwise(Step),
}

async fn look(key: Key, from: &Shelf<'_>, to: &Shelf<'_>) -> Result<Seen, EngineError> {
    let Some(item) = from.get(&key).await? else {
        return Ok(Seen::Over);
    };
    let expect = match to.get(&key).await? {
        Some(other) if other.is_as(&item) => return Ok(Seen::Same),
        Some(other) => Expect::Revision(other.revision),
        // Its time may have ended between the two looks.
        None if from.get(&key).await?.is_none() => return Ok(Seen::Over),
        None => Expect::Absent,
    };
    Ok(Seen::Otherwise(Step { key, expect }))
}

async fn write_all(steps: &[Step], from: &Shelf<'_>, to: &Shelf<'_>) -> Result<(), EngineError> {
    for some in steps.chunks(AT_ONCE) {
        all_done(some.iter().map(|step| write(step, from, to))).await?;
    }
    Ok(())
}

async fn write(step: &Step, from: &Shelf<'_>, to: &Shelf<'_>) -> Result<(), EngineError> {
    match from.get(&step.key).await? {
        Some(item) => to.put(&step.key, item, step.expect).await,
        // Its time was over meanwhile.
        None => Ok(()),
    }
}

/// Waits for all, also when one fails: who goes on then shall find nothing under way.
async fn all_done(
    writes: impl Iterator<Item = impl Future<Output = Result<(), EngineError>>>,
) -> Result<(), EngineError> {
    join_all(writes).await.into_iter().collect()
}

/// What is behind a key.
struct Item {
    value: Bytes,
    revision: u64,
    ttl: Option<Duration>,
}

impl Item {
    /// Whether it says the same: the value, and whether it lives until it is deleted. The time that
    /// is left passes on both sides.
    fn is_as(&self, other: &Self) -> bool {
        self.value == other.value && self.ttl.is_some() == other.ttl.is_some()
    }
}

/// What coordination and state have in common for a copy.
enum Shelf<'a> {
    Kept(&'a dyn Coordination),
    State(&'a dyn State),
}

impl Side {
    fn kept(&self) -> Shelf<'_> {
        Shelf::Kept(&*self.coordination)
    }

    fn state(&self) -> Shelf<'_> {
        Shelf::State(&*self.state)
    }
}

impl Shelf<'_> {
    /// All keys that a copy carries, in order.
    async fn keys(&self) -> Result<Vec<Key>, EngineError> {
        let state = match self {
            Shelf::Kept(coordination) => {
                let all = coordination.list(&Prefix::default()).await?;
                let kept = all.into_iter().map(|entry| entry.key);
                return Ok(kept.filter(|key| !is_of_session(key)).collect());
            }
            Shelf::State(state) => state,
        };
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let page = state.list(&Prefix::default(), keys.last(), PAGE).await?;
            if page.is_empty() {
                return Ok(keys);
            }
            keys.extend(page.into_iter().map(|found| found.entry.key));
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, EngineError> {
        Ok(match self {
            Shelf::Kept(coordination) => coordination.get(key).await?.map(|found| Item {
                value: found.value,
                revision: found.revision,
                ttl: None,
            }),
            Shelf::State(state) => state.get(key).await?.map(|found| Item {
                value: found.entry.value,
                revision: found.entry.revision,
                ttl: found.ttl,
            }),
        })
    }

    async fn put(&self, key: &Key, item: Item, expect: Expect) -> Result<(), EngineError> {
        match self {
            Shelf::Kept(coordination) => coordination.put(key, item.value, expect).await?,
            Shelf::State(state) => {
                let ttl = item.ttl;
                let options = Put {
                    expect,
                    ttl,
                    under: None,
                };
                state.put(key, item.value, options).await?
            }
        };
        Ok(())
    }
}

fn is_of_session(key: &Key) -> bool {
    OF_SESSIONS
        .iter()
        .any(|prefix| key.as_str().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use hydrant_embedded::{Config, EmbeddedStore};
    use hydrant_ports::state::Under;
    use hydrant_runtime::Clock;

    use super::*;

    struct Store {
        store: EmbeddedStore,
        clock: Clock,
        _temp: tempfile::TempDir,
    }

    impl Store {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1000));
            let mut config = Config::new(temp.path().join("store"));
            config.clock = clock.clone();
            let store = EmbeddedStore::open_with(config).unwrap();
            Self {
                store,
                clock,
                _temp: temp,
            }
        }

        fn side(&self) -> Side {
            Side {
                coordination: self.store.coordination(),
                state: self.store.state(),
            }
        }
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    async fn put(side: &Side, name: &str, value: &'static str, ttl: Option<u64>) {
        let ttl = ttl.map(Duration::from_secs);
        let options = Put {
            ttl,
            ..Put::default()
        };
        side.state
            .put(&key(name), value.into(), options)
            .await
            .unwrap();
    }

    async fn value(side: &Side, name: &str) -> Option<Bytes> {
        let found = side.state.get(&key(name)).await.unwrap();
        found.map(|found| found.entry.value)
    }

    async fn kept(side: &Side, name: &str) -> hydrant_ports::Versioned {
        side.coordination.get(&key(name)).await.unwrap().unwrap()
    }

    /// A source with something of each kind.
    async fn source() -> Store {
        let store = Store::new();
        let side = store.side();
        for at in 0..PAGE + 10 {
            put(&side, &format!("service/a/{at:04}"), "x", None).await;
        }
        put(&side, "service/a/short", "soon over", Some(60)).await;
        let scale = key("scale/one/api/a");
        side.coordination
            .put(&scale, "3".into(), Expect::Any)
            .await
            .unwrap();
        let mark = key("elections/api/a/x");
        side.state.raise(&mark, 7).await.unwrap();
        store
    }

    #[tokio::test]
    async fn all_is_carried_and_again_nothing() {
        let (source, target) = (source().await, Store::new());
        let (from, to) = (source.side(), target.side());
        let marks = source.store.marks().unwrap();
        let plan = compare(&from, &to, &marks).await.unwrap();
        let count = PAGE as u64 + 11;
        assert_eq!((plan.state.found, plan.state.same()), (count, 0));
        assert_eq!((plan.kept.found, plan.marks.len()), (1, 1));
        assert!(plan.differing().is_empty());

        carry_out(&plan, &from, &to).await.unwrap();
        let after = compare(&from, &to, &marks).await.unwrap();
        assert!(after.is_done(), "{after:?}");
        assert_eq!((after.state.same(), after.kept.same()), (count, 1));
        let found = kept(&to, "scale/one/api/a").await;
        assert_eq!(found.value, "3");

        let revision = found.revision;
        carry_out(&after, &from, &to).await.unwrap();
        let found = kept(&to, "scale/one/api/a").await;
        assert_eq!(found.revision, revision, "written again");
    }

    #[tokio::test]
    async fn a_time_to_live_goes_on() {
        let (source, target) = (source().await, Store::new());
        let (from, to) = (source.side(), target.side());
        source.clock.advance(Duration::from_secs(20));
        let plan = compare(&from, &to, &[]).await.unwrap();
        carry_out(&plan, &from, &to).await.unwrap();
        let found = to
            .state
            .get(&key("service/a/short"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.ttl, Some(Duration::from_secs(40)));
        source.clock.advance(Duration::from_secs(41));
        target.clock.advance(Duration::from_secs(41));
        assert!(compare(&from, &to, &[]).await.unwrap().is_done());
    }

    #[tokio::test]
    async fn marks_only_grow() {
        let (source, target) = (source().await, Store::new());
        let (from, to) = (source.side(), target.side());
        let (mark, marks) = (key("elections/api/a/x"), source.store.marks().unwrap());
        let plan = compare(&from, &to, &marks).await.unwrap();
        to.state.raise(&mark, 9).await.unwrap();
        carry_out(&plan, &from, &to).await.unwrap();
        assert_eq!(to.state.mark(&mark).await.unwrap(), 9);
        assert!(compare(&from, &to, &marks).await.unwrap().is_done());
        let under = Some(Under { mark, epoch: 7 });
        let options = Put {
            under,
            ..Put::default()
        };
        let refused = to
            .state
            .put(&key("service/a/x"), "old".into(), options)
            .await;
        assert_eq!(
            refused.unwrap_err().kind,
            ErrorKind::Superseded { known: 9 }
        );
    }

    #[tokio::test]
    async fn what_differs_is_told_and_what_changes_meanwhile_is_kept() {
        let (source, target) = (source().await, Store::new());
        let (from, to) = (source.side(), target.side());
        put(&to, "service/a/0001", "newer", None).await;
        put(&to, "service/a/0002", "x", Some(60)).await;
        put(&to, "service/b/own", "of the target", None).await;
        let plan = compare(&from, &to, &[]).await.unwrap();
        let differing = ["state service/a/0001", "state service/a/0002"];
        assert_eq!(plan.differing(), differing);

        put(&to, "service/a/0001", "newest", None).await;
        let error = carry_out(&plan, &from, &to).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert_eq!(value(&to, "service/a/0001").await.unwrap(), "newest");

        let plan = compare(&from, &to, &[]).await.unwrap();
        carry_out(&plan, &from, &to).await.unwrap();
        assert_eq!(value(&to, "service/a/0001").await.unwrap(), "x");
        assert_eq!(value(&to, "service/b/own").await.unwrap(), "of the target");
    }

    #[tokio::test]
    async fn what_is_of_sessions_stays() {
        let (source, target) = (Store::new(), Store::new());
        let (from, to) = (source.side(), target.side());
        let session = from
            .coordination
            .open_session("one", Duration::from_secs(9));
        let session = session.await.unwrap();
        for name in ["instances/api/a/a-1", "servers/one"] {
            let key = key(name);
            let put = session.put_ephemeral(&key, "{}".into(), Expect::Any);
            put.await.unwrap();
        }
        let plan = compare(&from, &to, &[]).await.unwrap();
        assert_eq!((plan.kept.found, plan.is_done()), (0, true));
    }
}
