//! What services keep in coordination.

use hydrant_contracts::{Code, proto};

use crate::support::{Client, Server};

fn write(namespace: &str, key: &str, value: &[u8], expected: u64) -> proto::WriteKeptRequest {
    proto::WriteKeptRequest {
        namespace: namespace.into(),
        key: key.into(),
        value: value.into(),
        expected_revision: expected,
        ..Default::default()
    }
}

async fn put(client: &Client, request: proto::WriteKeptRequest) -> Result<u64, Code> {
    let written = client.kept.write_kept(request).await;
    let written = written.map_err(|error| error.code)?;
    Ok(written.into_owned().revision)
}

async fn get(client: &Client, namespace: &str, key: &str) -> (Option<Vec<u8>>, u64) {
    let request = proto::ReadKeptRequest {
        namespace: namespace.into(),
        key: key.into(),
        ..Default::default()
    };
    let found = client.kept.read_kept(request).await.unwrap().into_owned();
    (found.value, found.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_written_by_who_knows_what_stands_there() {
    let server = Server::start().await;
    let service = server.client("service/mobile");
    assert_eq!(get(&service, "", "primary").await, (None, 0));
    let first = put(&service, write("", "primary", b"a", 0)).await.unwrap();
    let again = put(&service, write("", "primary", b"b", 0)).await;
    assert_eq!(again, Err(Code::Aborted));
    let second = put(&service, write("", "primary", b"b", first))
        .await
        .unwrap();
    assert!(second > first);
    let late = put(&service, write("", "primary", b"c", first)).await;
    assert_eq!(late, Err(Code::Aborted));
    let found = get(&service, "", "primary").await;
    assert_eq!(found, (Some(b"b".to_vec()), second));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_belongs_to_its_service() {
    let server = Server::start().await;
    let service = server.client("service/mobile");
    put(&service, write("", "k", b"v", 0)).await.unwrap();
    let api = server.client("api/mobile");
    assert_eq!(
        get(&api, "service/mobile", "k").await.0,
        Some(b"v".to_vec())
    );
    let refused = put(&api, write("service/mobile", "other", b"v", 0)).await;
    assert_eq!(refused, Err(Code::PermissionDenied));
    let other = server.client("service/other");
    assert_eq!(get(&other, "", "k").await, (None, 0));
    let refused = put(&other, write("service/mobile", "k", b"v", 0)).await;
    assert_eq!(refused, Err(Code::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_and_small_values_are_kept() {
    let server = Server::start().await;
    let service = server.client("service/mobile");
    let large = put(&service, write("", "k", &[0; 16 * 1024 + 1], 0)).await;
    assert_eq!(large, Err(Code::InvalidArgument));
    let bad = put(&service, write("", "a//b", b"v", 0)).await;
    assert_eq!(bad, Err(Code::InvalidArgument));
    for number in 0..64 {
        let key = format!("k{number}");
        put(&service, write("", &key, b"v", 0)).await.unwrap();
    }
    let one_more = put(&service, write("", "k64", b"v", 0)).await;
    assert_eq!(one_more, Err(Code::InvalidArgument));
    let revision = get(&service, "", "k0").await.1;
    put(&service, write("", "k0", b"w", revision))
        .await
        .unwrap();
}
