//! Random operations against a model of both ports: what each answers, what is there at the end,
//! and what is there when it is opened again.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use hydrant_embedded::{Config, EmbeddedStore};
use hydrant_ports::coordination::Session;
use hydrant_ports::state::{Put, Under};
use hydrant_ports::{EngineError, ErrorKind, Expect, Key};
use hydrant_runtime::Clock;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    PutState {
        key: u8,
        expect: Wanted,
        ttl: Option<u8>,
        under: Option<(u8, u64)>,
    },
    DeleteState {
        key: u8,
        expect: Wanted,
        under: Option<(u8, u64)>,
    },
    Raise {
        mark: u8,
        epoch: u64,
    },
    PutKept {
        key: u8,
        expect: Wanted,
    },
    PutEphemeral {
        key: u8,
        expect: Wanted,
    },
    DeleteKept {
        key: u8,
        expect: Wanted,
    },
    NewSession,
    Pass(u8),
    Reopen,
}

/// An expectation that can be drawn before revisions are known.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Any,
    Absent,
    Current,
    Stale,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let wanted = || {
        prop_oneof![
            4 => Just(Wanted::Any),
            1 => Just(Wanted::Absent),
            2 => Just(Wanted::Current),
            1 => Just(Wanted::Stale),
        ]
    };
    let under = || proptest::option::of((0..2_u8, 0..6_u64));
    let key = || 0..4_u8;
    let operation = prop_oneof![
        6 => (key(), wanted(), proptest::option::of(0..5_u8), under())
            .prop_map(|(key, expect, ttl, under)| Operation::PutState { key, expect, ttl, under }),
        2 => (key(), wanted(), under())
            .prop_map(|(key, expect, under)| Operation::DeleteState { key, expect, under }),
        1 => (0..2_u8, 0..6_u64).prop_map(|(mark, epoch)| Operation::Raise { mark, epoch }),
        3 => (key(), wanted()).prop_map(|(key, expect)| Operation::PutKept { key, expect }),
        3 => (key(), wanted()).prop_map(|(key, expect)| Operation::PutEphemeral { key, expect }),
        2 => (key(), wanted()).prop_map(|(key, expect)| Operation::DeleteKept { key, expect }),
        1 => Just(Operation::NewSession),
        2 => (0..4_u8).prop_map(Operation::Pass),
        1 => Just(Operation::Reopen),
    ];
    proptest::collection::vec(operation, 1..60)
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: u64,
    revision: u64,
    /// Seconds of the model's clock.
    until: Option<u64>,
    ephemeral: bool,
}

type Keys = BTreeMap<u8, Held>;

#[derive(Default)]
struct Model {
    now: u64,
    state: Keys,
    coordination: Keys,
    marks: BTreeMap<u8, u64>,
    /// The highest revision so far.
    revision: u64,
}

impl Model {
    fn pass(&mut self, seconds: u8) {
        self.now += u64::from(seconds);
        let now = self.now;
        self.state
            .retain(|_, held| held.until.is_none_or(|until| until > now));
    }

    fn end_session(&mut self) {
        self.coordination.retain(|_, held| !held.ephemeral);
    }

    /// Whether a write under an epoch is let through, and, if it also is as expected, its mark.
    fn is_current(&self, under: Option<(u8, u64)>) -> Result<(), ErrorKind> {
        let Some((mark, epoch)) = under else {
            return Ok(());
        };
        let known = self.marks.get(&mark).copied().unwrap_or(0);
        match epoch < known {
            true => Err(ErrorKind::Superseded { known }),
            false => Ok(()),
        }
    }

    fn raise(&mut self, under: Option<(u8, u64)>) {
        if let Some((mark, epoch)) = under {
            let known = self.marks.entry(mark).or_default();
            *known = epoch.max(*known);
        }
    }
}

fn as_expected(held: Option<&Held>, expect: Expect) -> Result<(), ErrorKind> {
    let is_as_expected = match expect {
        Expect::Any => true,
        Expect::Absent => held.is_none(),
        Expect::Revision(revision) => held.is_some_and(|held| held.revision == revision),
    };
    is_as_expected.then_some(()).ok_or(ErrorKind::Conflict)
}

fn expect(wanted: Wanted, keys: &Keys, key: u8) -> Expect {
    let revision = keys.get(&key).map_or(0, |held| held.revision);
    match wanted {
        Wanted::Any => Expect::Any,
        Wanted::Absent => Expect::Absent,
        Wanted::Current => Expect::Revision(revision),
        Wanted::Stale => Expect::Revision(revision.wrapping_sub(1)),
    }
}

fn key(number: u8) -> Key {
    format!("k/{number}").parse().unwrap()
}

fn mark(number: u8) -> Key {
    format!("m/{number}").parse().unwrap()
}

fn under(drawn: Option<(u8, u64)>) -> Option<Under> {
    drawn.map(|(number, epoch)| Under {
        mark: mark(number),
        epoch,
    })
}

/// The engine beside its model.
struct Pair {
    config: Config,
    store: Option<EmbeddedStore>,
    session: Box<dyn Session>,
    model: Model,
}

impl Pair {
    async fn new(path: std::path::PathBuf) -> Self {
        let mut config = Config::new(path);
        config.clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000));
        let store = EmbeddedStore::open_with(config.clone()).unwrap();
        let session = store
            .coordination()
            .open_session("one", Duration::ZERO)
            .await;
        Self {
            config,
            session: session.unwrap(),
            store: Some(store),
            model: Model::default(),
        }
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    async fn apply(&mut self, step: u64, operation: Operation) {
        match operation {
            Operation::PutState {
                key,
                expect,
                ttl,
                under,
            } => self.put_state(step, key, expect, ttl, under).await,
            Operation::DeleteState { key, expect, under } => {
                self.delete_state(key, expect, under).await;
            }
            Operation::Raise { mark, epoch } => self.raise(mark, epoch).await,
            Operation::PutKept { key, expect } => self.put(step, key, expect, false).await,
            Operation::PutEphemeral { key, expect } => self.put(step, key, expect, true).await,
            Operation::DeleteKept { key, expect } => self.delete(key, expect).await,
            Operation::NewSession => {
                self.session.close().await;
                self.model.end_session();
                self.open_session().await;
            }
            Operation::Pass(seconds) => {
                self.config
                    .clock
                    .advance(Duration::from_secs(seconds.into()));
                self.model.pass(seconds);
            }
            Operation::Reopen => self.reopen().await,
        }
    }

    async fn open_session(&mut self) {
        let engine = self.store().coordination();
        self.session = engine.open_session("one", Duration::ZERO).await.unwrap();
    }

    async fn reopen(&mut self) {
        self.store.take().unwrap().close().await;
        self.store = Some(EmbeddedStore::open_with(self.config.clone()).unwrap());
        self.model.end_session();
        self.open_session().await;
    }

    async fn put_state(
        &mut self,
        step: u64,
        name: u8,
        wanted: Wanted,
        ttl: Option<u8>,
        drawn: Option<(u8, u64)>,
    ) {
        let expect = expect(wanted, &self.model.state, name);
        let options = Put {
            expect,
            ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
            under: under(drawn),
        };
        let value = step.to_string().into();
        let result = self.store().state().put(&key(name), value, options).await;
        let held = self.model.state.get(&name);
        let allowed = self
            .model
            .is_current(drawn)
            .and_then(|()| as_expected(held, expect));
        if let Some(revision) = self.agree(result, allowed) {
            self.model.raise(drawn);
            self.note_revision(revision);
            let until = ttl.map(|seconds| self.model.now + u64::from(seconds));
            let held = Held {
                value: step,
                revision,
                until,
                ephemeral: false,
            };
            self.model.state.insert(name, held);
            self.model.pass(0);
        }
    }

    async fn delete_state(&mut self, name: u8, wanted: Wanted, drawn: Option<(u8, u64)>) {
        let expect = expect(wanted, &self.model.state, name);
        let delete = self.store().state();
        let result = delete.delete(&key(name), expect, under(drawn)).await;
        let held = self.model.state.get(&name);
        let allowed = self
            .model
            .is_current(drawn)
            .and_then(|()| as_expected(held, expect));
        if let Some(existed) = self.agree(result, allowed) {
            self.model.raise(drawn);
            assert_eq!(existed, self.model.state.remove(&name).is_some());
        }
    }

    async fn raise(&mut self, number: u8, epoch: u64) {
        let result = self.store().state().raise(&mark(number), epoch).await;
        let allowed = self.model.is_current(Some((number, epoch)));
        if self.agree(result, allowed).is_some() {
            self.model.raise(Some((number, epoch)));
        }
    }

    async fn put(&mut self, step: u64, name: u8, wanted: Wanted, ephemeral: bool) {
        let expect = expect(wanted, &self.model.coordination, name);
        let value = step.to_string().into();
        let result = match ephemeral {
            true => self.session.put_ephemeral(&key(name), value, expect).await,
            false => {
                self.store()
                    .coordination()
                    .put(&key(name), value, expect)
                    .await
            }
        };
        let held = self.model.coordination.get(&name);
        let is_own_kind = held.is_none_or(|held| held.ephemeral == ephemeral);
        let allowed = is_own_kind.then_some(()).ok_or(ErrorKind::Conflict);
        let allowed = allowed.and_then(|()| as_expected(held, expect));
        if let Some(revision) = self.agree(result, allowed) {
            self.note_revision(revision);
            let held = Held {
                value: step,
                revision,
                until: None,
                ephemeral,
            };
            self.model.coordination.insert(name, held);
        }
    }

    async fn delete(&mut self, name: u8, wanted: Wanted) {
        let expect = expect(wanted, &self.model.coordination, name);
        let result = self.store().coordination().delete(&key(name), expect).await;
        let allowed = as_expected(self.model.coordination.get(&name), expect);
        if let Some(existed) = self.agree(result, allowed) {
            assert_eq!(existed, self.model.coordination.remove(&name).is_some());
        }
    }

    fn agree<T>(
        &self,
        result: Result<T, EngineError>,
        allowed: Result<(), ErrorKind>,
    ) -> Option<T> {
        match (result, allowed) {
            (Ok(value), Ok(())) => Some(value),
            (Err(error), Err(kind)) => {
                assert_eq!(error.kind, kind);
                None
            }
            (Ok(_), Err(kind)) => panic!("it was done, and {kind:?} expected"),
            (Err(error), Ok(())) => panic!("it was refused: {error}"),
        }
    }

    fn note_revision(&mut self, revision: u64) {
        assert!(revision > self.model.revision, "a revision has not grown");
        self.model.revision = revision;
    }

    /// What is there is what the model says.
    async fn compare(&self) {
        let state = self.store().state();
        let found = state
            .list(&Default::default(), None, usize::MAX)
            .await
            .unwrap();
        let expected = self.model.state.iter().map(|(name, held)| {
            let left = held
                .until
                .map(|until| Duration::from_secs(until - self.model.now));
            (key(*name), held.value.to_string(), held.revision, left)
        });
        let found = found.into_iter().map(|found| {
            let text = String::from_utf8(found.entry.value.to_vec()).unwrap();
            (found.entry.key, text, found.entry.revision, found.ttl)
        });
        assert!(found.eq(expected));

        let found = self
            .store()
            .coordination()
            .list(&Default::default())
            .await
            .unwrap();
        let expected = self.model.coordination.iter();
        let expected =
            expected.map(|(name, held)| (key(*name), held.value.to_string(), held.revision));
        let found = found.into_iter().map(|found| {
            let text = String::from_utf8(found.value.to_vec()).unwrap();
            (found.key, text, found.revision)
        });
        assert!(found.eq(expected));

        for (number, epoch) in &self.model.marks {
            assert_eq!(state.mark(&mark(*number)).await.unwrap(), *epoch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("HYDRANT_SOAK").is_some() { 500 } else { 24 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_does_as_its_model(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut pair = Pair::new(folder.path().join("store.redb")).await;
            for (step, operation) in (1..).zip(operations) {
                pair.apply(step, operation).await;
                pair.compare().await;
            }
            pair.reopen().await;
            pair.compare().await;
        });
    }
}
