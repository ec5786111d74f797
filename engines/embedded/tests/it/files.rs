//! What may be in the place of the file.

use std::path::Path;
use std::sync::Arc;

use hydrant_embedded::{Config, EmbeddedStore, Limits, OpenError};
use hydrant_ports::coordination::SeatName;
use hydrant_ports::state::Put;
use hydrant_ports::{Change, ErrorKind, Expect, Key};

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

async fn filled(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    let (coordination, state) = (store.coordination(), store.state());
    for index in 0..30 {
        let value = value_of(index);
        let name = key(&format!("k/{index}"));
        let put = coordination.put(&name, value.clone().into(), Expect::Any);
        put.await.unwrap();
        let put = state.put(&name, value.into(), Put::default());
        put.await.unwrap();
    }
    state.raise(&key("m"), 3).await.unwrap();
    drop((coordination, state));
    store.close().await;
}

fn value_of(index: u8) -> Vec<u8> {
    vec![index; 100 * usize::from(index)]
}

/// Whatever is there is what was written once.
async fn is_of_whole_records(store: &EmbeddedStore) {
    let kept = store
        .coordination()
        .list(&Default::default())
        .await
        .unwrap();
    let state = store.state().list(&Default::default(), None, 1000).await;
    let state = state.unwrap().into_iter().map(|found| found.entry);
    for entry in kept.into_iter().chain(state) {
        let (_, index) = entry.key.as_str().split_once('/').unwrap();
        assert_eq!(entry.value, value_of(index.parse().unwrap()));
    }
    assert!(matches!(store.state().mark(&key("m")).await, Ok(0 | 3)));
}

fn error_of(path: &Path) -> Option<OpenError> {
    EmbeddedStore::open(path).err()
}

#[tokio::test]
async fn a_store_in_use_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let error = error_of(&path).unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("in use by another process"));
    store.close().await;
    assert!(error_of(&path).is_none());
}

#[tokio::test]
async fn a_dropped_store_is_free_though_sessions_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let engine = store.coordination();
    let session = engine
        .open_session("one", std::time::Duration::ZERO)
        .await
        .unwrap();
    let seat = session.take_seat(&SeatName(key("s")), "me").await.unwrap();
    let mut watch = engine.watch(&Default::default()).await.unwrap();
    drop(store);
    assert!(matches!(watch.next().await, Some(Change::All(_))));
    drop(engine);
    assert!(EmbeddedStore::open(&path).is_ok());
    seat.lost().await;
    assert_eq!(watch.next().await, None);
    let put = session
        .put_ephemeral(&key("a"), "x".into(), Expect::Any)
        .await;
    assert_eq!(put.unwrap_err().kind, ErrorKind::Closed);
}

#[tokio::test]
async fn a_closed_store_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("store.redb")).unwrap();
    let (coordination, state) = (store.coordination(), store.state());
    coordination.check().await.unwrap();
    state.check().await.unwrap();
    store.close().await;
    let closed = |kind| assert_eq!(kind, ErrorKind::Closed);
    closed(coordination.check().await.unwrap_err().kind);
    closed(coordination.get(&key("a")).await.unwrap_err().kind);
    closed(state.get(&key("a")).await.unwrap_err().kind);
    closed(state.mark(&key("a")).await.unwrap_err().kind);
    let put = state.put(&key("a"), "x".into(), Put::default()).await;
    closed(put.unwrap_err().kind);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let error = error_of(Path::new("/nonexistent/folder/store.redb")).unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[test]
fn what_is_not_a_store_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut random = fastrand::Rng::with_seed(7);
    for size in [0, 1, 9, 100, 4096, 70_000] {
        let garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(size)
            .collect();
        std::fs::write(&path, &garbage).unwrap();
        let error = error_of(&path).unwrap();
        assert!(
            matches!(error, OpenError::Corrupt { .. }),
            "{size}: {error:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), garbage, "it was written to");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(error_of(&path).is_some());
}

/// Nothing that is cut off or flipped makes it panic; what opens is a store of whole records.
#[tokio::test]
async fn a_damaged_store_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.redb");
    filled(&whole).await;
    let bytes = std::fs::read(&whole).unwrap();
    let path = folder.path().join("store.redb");
    let mut random = fastrand::Rng::with_seed(11);
    let mut refused = 0;
    let rounds = match std::env::var_os("HYDRANT_SOAK") {
        Some(_) => 3000,
        None => 60,
    };
    for round in 0..rounds {
        let mut damaged = bytes.clone();
        match round % 3 {
            0 => damaged.truncate(random.usize(1..bytes.len())),
            1 => damaged[random.usize(0..512)] ^= 1 << random.u8(0..8),
            _ => {
                let at = random.usize(0..bytes.len() - 64);
                damaged[at..at + 64].fill(random.u8(..));
            }
        }
        std::fs::write(&path, &damaged).unwrap();
        match EmbeddedStore::open(&path) {
            Ok(store) => {
                is_of_whole_records(&store).await;
                store.close().await;
            }
            Err(OpenError::Corrupt { .. } | OpenError::Io { .. } | OpenError::Format { .. }) => {
                refused += 1;
            }
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    println!("{refused} of {rounds} damaged stores were refused");
    assert!(refused > 0);
}

#[tokio::test]
async fn the_file_is_private_and_nothing_lies_beside_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn of_two_that_make_the_store_at_once_one_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("store.redb"));
    let openers: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || EmbeddedStore::open(&**path))
        })
        .collect();
    let opened: Vec<_> = openers.into_iter().map(|o| o.join().unwrap()).collect();
    assert!(opened.iter().any(Result::is_ok));
    for refused in opened.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn limits_hold() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path().join("store.redb"));
    config.limits = Limits {
        coordination: 2000,
        state: 2000,
        names: 2,
        line: 1,
        sessions: 1,
        watchers: 1,
    };
    let store = EmbeddedStore::open_with(config).unwrap();
    let (coordination, state) = (store.coordination(), store.state());
    let put = |name: &'static str, bytes| {
        let state = state.clone();
        async move {
            let (name, value) = (key(name), vec![0; bytes].into());
            let put = state.put(&name, value, Put::default()).await;
            put.map_err(|error| error.kind)
        }
    };
    put("a", 1000).await.unwrap();
    assert_eq!(put("b", 1000).await, Err(ErrorKind::TooLarge));
    put("a", 1800).await.unwrap();
    put("a", 10).await.unwrap();
    put("b", 1000).await.unwrap();

    state.raise(&key("m1"), 1).await.unwrap();
    state.raise(&key("m2"), 1).await.unwrap();
    let third = state.raise(&key("m3"), 1).await.unwrap_err();
    assert_eq!(third.kind, ErrorKind::TooLarge);
    state.raise(&key("m2"), 2).await.unwrap();

    let session = coordination
        .open_session("one", Default::default())
        .await
        .unwrap();
    let second = coordination.open_session("one", Default::default()).await;
    assert_eq!(
        second.err().map(|error| error.kind),
        Some(ErrorKind::TooLarge)
    );
    for (seat, is_ok) in [("s1", true), ("s2", true), ("s3", false), ("s1", true)] {
        let seat = session.take_seat(&SeatName(key(seat)), "me").await;
        assert_eq!(seat.is_ok(), is_ok);
    }

    let watch = state.watch(&Default::default()).await.unwrap();
    let second = state.watch(&Default::default()).await;
    assert_eq!(
        second.err().map(|error| error.kind),
        Some(ErrorKind::TooLarge)
    );
    drop(watch);
    assert!(state.watch(&Default::default()).await.is_ok());
}
