//! Epochs: a server refuses what is superseded also where the writer does not know it, and who has
//! seen a higher epoch of a key is shown no lower one when the servers have forgotten it.

use std::sync::Arc;

use hydrant_ports::state::{Put, Under};
use hydrant_ports::{EngineError, ErrorKind, Expect, State};
use hydrant_redis::{Mode, RedisState};

use crate::servers::{Kind, Share, share};
use crate::watches::{Told, cli, key};

/// Names in several partitions of a cluster.
const NAMES: [&str; 5] = ["f/a", "f/b", "f/c", "f/d", "f/e"];

pub fn under(epoch: u64) -> Put {
    Put {
        under: Some(Under {
            mark: key("m/a"),
            epoch,
        }),
        ..Put::default()
    }
}

async fn put_under(engine: &RedisState, name: &str, epoch: u64) -> Result<u64, EngineError> {
    let value = epoch.to_string().into();
    engine.put(&key(name), value, under(epoch)).await
}

/// An engine that remembers nothing of what others have raised.
async fn newcomer(share: &Share) -> Arc<RedisState> {
    share.connect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_of_no_higher_epoch_is_refused_by_the_server() {
    for kind in [Kind::Single, Kind::Cluster] {
        let Some(share) = share(kind).await else {
            return;
        };
        let holder = share.connect().await;
        holder.raise(&key("m/a"), 6).await.unwrap();
        for name in NAMES {
            put_under(&holder, name, 6).await.unwrap();
            let put = put_under(&*newcomer(&share).await, name, 5).await;
            assert_eq!(put.unwrap_err().kind, ErrorKind::Superseded { known: 6 });
            let late = newcomer(&share).await;
            let delete = late.delete(&key(name), Expect::Any, under(5).under).await;
            assert_eq!(delete.unwrap_err().kind, ErrorKind::Superseded { known: 6 });
            let raise = newcomer(&share).await.raise(&key("m/a"), 5).await;
            assert_eq!(raise.unwrap_err().kind, ErrorKind::Superseded { known: 6 });
            let found = holder.get(&key(name)).await.unwrap().unwrap();
            assert_eq!(&*found.entry.value, b"6", "{name}");
        }
        // A write under a higher epoch than any server knows raises the mark everywhere.
        put_under(&*newcomer(&share).await, NAMES[0], 7)
            .await
            .unwrap();
        for name in NAMES {
            let put = put_under(&holder, name, 6).await;
            assert_eq!(put.unwrap_err().kind, ErrorKind::Superseded { known: 7 });
        }
    }
}

/// The server loses its marks without any sign of it: then the holder of a lower epoch, whom no
/// engine that knows better stands beside, writes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_a_higher_epoch_is_not_led_back() {
    let Some(share) = share(Kind::Single).await else {
        return;
    };
    assert_eq!(share.config.mode, Mode::Single);
    let (leader, reader) = (share.connect().await, share.connect().await);
    let mut told = Told::new(&reader, "f/").await;
    put_under(&leader, "f/a", 6).await.unwrap();
    told.until(|known| known.len() == 1).await;

    cli(
        &share,
        &["DEL", &format!("{}{{p0}}:marks", share.config.prefix)],
    );
    let late = newcomer(&share).await;
    put_under(&late, "f/a", 5).await.unwrap();
    let shown = late.get(&key("f/a")).await.unwrap().unwrap();
    assert_eq!(&*shown.entry.value, b"5", "it has seen no other");

    told.is_silent().await;
    let hidden = reader.get(&key("f/a")).await.unwrap_err();
    assert_eq!(hidden.kind, ErrorKind::Unavailable);
    let listed = reader.list(&"f/".parse().unwrap(), None, 9).await;
    assert!(listed.unwrap().is_empty());
    let another = Told::new(&reader, "f/").await;
    assert!(another.entries.is_empty(), "{:?}", another.entries);
    assert_eq!(reader.counts().hidden_reads, 2);

    put_under(&leader, "f/a", 6).await.unwrap();
    told.next().await;
    let again = reader.get(&key("f/a")).await.unwrap().unwrap();
    assert_eq!(&*again.entry.value, b"6");
    assert_eq!(told.entries[&key("f/a")].revision, again.entry.revision);
    assert_eq!(told.changes.len(), 2, "{:?}", told.changes);
}
