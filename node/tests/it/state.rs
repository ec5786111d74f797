use hydrant_contracts::proto::__buffa::oneof::watch_state_event::Event;
use hydrant_contracts::{Code, proto};

use crate::support::{Client, Server, code, error, next};

async fn put(client: &Client, key: &str, value: &[u8]) -> u64 {
    let request = proto::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    client
        .state
        .put(request)
        .await
        .unwrap()
        .into_owned()
        .revision
}

async fn get(client: &Client, namespace: &str, key: &str) -> Option<proto::Entry> {
    let request = proto::GetRequest {
        namespace: namespace.into(),
        key: key.into(),
        ..Default::default()
    };
    let found = client.state.get(request).await.unwrap().into_owned();
    found.entry.into_option()
}

fn list(prefix: &str, limit: u32, after: &str) -> proto::ListRequest {
    proto::ListRequest {
        prefix: prefix.into(),
        limit,
        after: after.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_written_read_and_deleted() {
    let server = Server::start().await;
    let client = server.client("service/mobile");
    let first = put(&client, "menu/main", b"one").await;
    let second = put(&client, "menu/main", b"two").await;
    assert!(second > first);
    let entry = get(&client, "", "menu/main").await.unwrap();
    assert_eq!((&*entry.key, &*entry.value), ("menu/main", &b"two"[..]));
    assert_eq!((entry.revision, entry.ttl_ms), (second, 0));
    // The api of the same name reads it, a neighbour of the same key does not see it.
    let api = server.client("api/mobile");
    assert!(get(&api, "service/mobile", "menu/main").await.is_some());
    assert!(get(&api, "", "menu/main").await.is_none());

    let delete = || proto::DeleteRequest {
        key: "menu/main".into(),
        ..Default::default()
    };
    let existed = async || {
        let deleted = client.state.delete(delete()).await.unwrap();
        deleted.into_owned().existed
    };
    assert!(existed().await);
    assert!(!existed().await);
    assert!(get(&client, "", "menu/main").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compared_write_needs_the_right_revision() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let write = |expected_revision| {
        client.state.compare_and_put(proto::CompareAndPutRequest {
            key: "k".into(),
            value: b"v".into(),
            expected_revision,
            ..Default::default()
        })
    };
    let revision = write(0).await.unwrap().into_owned().revision;
    assert_eq!(error(write(0).await).reason, "conflict");
    assert_eq!(error(write(revision + 1).await).code, Code::Aborted);
    assert!(write(revision).await.unwrap().into_owned().revision > revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_with_a_time_to_live_ends() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let request = proto::PutRequest {
        key: "k".into(),
        ttl_ms: 400,
        ..Default::default()
    };
    client.state.put(request).await.unwrap();
    let left = get(&client, "", "k").await.unwrap().ttl_ms;
    assert!((1..=400).contains(&left), "{left}");
    tokio::time::sleep(std::time::Duration::from_millis(450)).await;
    assert!(get(&client, "", "k").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_said() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let write = |key: &str, bytes| {
        client.state.put(proto::PutRequest {
            key: key.into(),
            value: vec![7; bytes],
            ..Default::default()
        })
    };
    write("largest", 4 << 20).await.unwrap();
    assert_eq!(
        get(&client, "", "largest").await.unwrap().value.len(),
        4 << 20
    );
    assert_eq!(
        error(write("larger", (4 << 20) + 1).await).reason,
        "too_large"
    );
    // The node reads no more of it and closes the connection: it has one of its own.
    let huge = proto::PutRequest {
        key: "huge".into(),
        value: vec![7; 7 << 20],
        ..Default::default()
    };
    let other = server.client("service/a");
    assert!(other.state.put(huge).await.is_err());
    for key in ["", "/", "a//b", "../x", "a b", &"x".repeat(600)] {
        assert_eq!(
            code(write(key, 1).await),
            Some(Code::InvalidArgument),
            "{key}"
        );
    }
    let listed = client.state.list(list("", 10_001, "")).await;
    assert_eq!(code(listed), Some(Code::InvalidArgument));
    for under in [
        proto::Under {
            epoch: 1,
            ..Default::default()
        },
        proto::Under {
            holder: Some(proto::__buffa::oneof::under::Holder::Lock("l".into())),
            ..Default::default()
        },
    ] {
        let request = proto::PutRequest {
            key: "k".into(),
            under: under.into(),
            ..Default::default()
        };
        assert_eq!(
            code(client.state.put(request).await),
            Some(Code::InvalidArgument)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_page_by_page() {
    let server = Server::start().await;
    let client = server.client("service/a");
    for number in 0..75 {
        put(&client, &format!("p/{number:03}"), b"v").await;
    }
    put(&client, "q/other", b"v").await;
    put(&server.client("service/ab"), "p/foreign", b"v").await;
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.state.list(list("p/", 40, &after)).await.unwrap();
        let page = page.into_owned();
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        if !page.more {
            break;
        }
        after.clone_from(keys.last().unwrap());
    }
    let expected: Vec<_> = (0..75).map(|number| format!("p/{number:03}")).collect();
    assert_eq!(keys, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_fill_a_page_and_a_message() {
    let server = Server::start().await;
    let client = server.client("service/a");
    for key in ["a", "b", "c"] {
        put(&client, key, &vec![7; 1_500_000]).await;
    }
    let page = client
        .state
        .list(list("", 0, ""))
        .await
        .unwrap()
        .into_owned();
    assert_eq!((page.entries.len(), page.more), (1, true));
    let page = client
        .state
        .list(list("", 0, "b"))
        .await
        .unwrap()
        .into_owned();
    assert_eq!((page.entries.len(), page.more), (1, false));

    let mut watch = client.state.watch(Default::default()).await.unwrap();
    assert!(matches!(next!(watch).unwrap(), Some(Event::All(all)) if all.entries.len() == 1));
    for key in ["b", "c"] {
        assert!(matches!(next!(watch).unwrap(), Some(Event::Put(put)) if put.key == key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_all_then_every_change() {
    let server = Server::start().await;
    let client = server.client("service/mobile");
    put(&client, "menu/a", b"1").await;
    put(&client, "other", b"1").await;
    let api = server.client("api/mobile");
    let mut watch = api
        .state
        .watch(proto::WatchStateRequest {
            namespace: "service/mobile".into(),
            prefix: "menu/".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    match next!(watch).unwrap() {
        Some(Event::All(all)) => assert_eq!(all.entries[0].key, "menu/a"),
        other => panic!("{other:?}"),
    }
    put(&client, "other", b"2").await;
    put(&client, "menu/b", b"2").await;
    assert!(matches!(next!(watch).unwrap(), Some(Event::Put(put)) if put.key == "menu/b"));
    let delete = proto::DeleteRequest {
        key: "menu/a".into(),
        ..Default::default()
    };
    client.state.delete(delete).await.unwrap();
    assert!(matches!(next!(watch).unwrap(), Some(Event::Removed(key)) if key == "menu/a"));
}
