//! TLS and users hold for Sentinels and clusters too.

use hydrant_ports::State;
use hydrant_ports::state::{Put, Under};

use crate::servers::{Kind, share};
use crate::watches::{Told, key, put};

async fn works(kind: Kind) {
    let Some(share) = share(kind).await else {
        return;
    };
    let (writer, reader) = (share.connect().await, share.connect().await);
    let mut told = Told::new(&reader, "s/").await;
    writer.raise(&key("m"), 3).await.unwrap();
    let options = Put {
        under: Some(Under {
            mark: key("m"),
            epoch: 3,
        }),
        ..Put::default()
    };
    let written = writer.put(&key("s/a"), "x".into(), options).await.unwrap();
    put(&writer, "s/b", &"y".repeat(100_000)).await;
    told.until(|known| known.len() == 2).await;
    let read = reader.get(&key("s/a")).await.unwrap().unwrap();
    assert_eq!(read.entry.revision, written);
    assert_eq!(reader.mark(&key("m")).await.unwrap(), 3);
    reader.check().await.unwrap();
    assert_eq!(writer.counts().unconfirmed_writes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_with_tls_and_users() {
    works(Kind::TlsSentinel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_and_users() {
    works(Kind::TlsCluster).await;
}
