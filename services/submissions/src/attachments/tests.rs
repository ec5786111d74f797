//! Whatever is cut, restarted and repeated: the bytes are those that were sent.

mod copies;
mod faulty;
mod life;
mod resume;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hydrant_records::{Config, Records, RecordsError, params, read, transaction};
use hydrant_runtime::Clock;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::sync::watch;
use uuid::Uuid;

use super::checksum::Checksum;
use super::create::New;
use super::headers::Concat;
use super::metadata::Metadata;
use super::receive::Sent;
use super::refusal::Refusal;
use super::rows::Upload;
use super::stores::Stores;
use super::{Attachments, Limits};
use crate::forms::Forms;
use crate::service::{Desk, TABLES};
use crate::sites::Tables;

const PIECE: usize = 512;
/// A time to begin at.
const BEGIN_MS: u64 = 1_800_000_000_000;

/// A submission that is open, and where its attachments go.
struct Bench {
    _folder: tempfile::TempDir,
    records: Records,
    desk: Desk,
    stores: Stores,
    clock: Clock,
    id: String,
    stop: watch::Sender<()>,
}

impl Bench {
    async fn new() -> Self {
        Self::on(vec![("main", Arc::new(InMemory::new()))]).await
    }

    async fn on(stores: Vec<(&str, Arc<dyn ObjectStore>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("records.db").display());
        Self::with(Config::new(&url).unwrap(), folder, stores).await
    }

    async fn with(
        config: Config,
        folder: tempfile::TempDir,
        stores: Vec<(&str, Arc<dyn ObjectStore>)>,
    ) -> Self {
        let records = Records::open(config);
        TABLES.make(&records).await.unwrap();
        let forms = crate::demo::install_demo(folder.path()).unwrap();
        let clock = Clock::manual(std::time::UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
        let desk = Desk {
            tables: Tables::of(&TABLES, Some(records.clone())),
            forms: Arc::new(Forms::load(&forms, Some("http://host")).unwrap()),
            clock: clock.clone(),
            changes: crate::service::Changes::default(),
            work: Default::default(),
        };
        let bench = Self {
            _folder: folder,
            records,
            desk,
            stores: Stores::of(stores),
            clock,
            id: Uuid::new_v4().to_string(),
            stop: watch::channel(()).0,
        };
        let insert = "INSERT INTO submissions (id, nonce, form, state, version, fingerprint, fields, store, \
                      person, session, accepted_ms, hops, hop_hash) \
                      VALUES (?, '', 'demo', 'open', 1, '', '{}', '', '', '', 0, 0, '')";
        bench.execute(insert, &bench.id.clone()).await;
        bench
    }

    async fn execute(&self, sql: &'static str, id: &str) {
        let done: Result<u64, RecordsError> =
            transaction!(self.records, |tx| tx.execute(sql, &params![id]).await);
        done.unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let rows: Result<_, RecordsError> = read!(self.records, |tx| tx.query(sql, &[]).await);
        rows.unwrap()[0].get(0).unwrap()
    }

    /// What a process of the service has in memory; a new one, as after a restart.
    fn process(&self) -> Attachments {
        self.process_with(Limits {
            piece: PIECE,
            ..Limits::default()
        })
    }

    fn process_with(&self, limits: Limits) -> Attachments {
        let stopping = self.stop.subscribe();
        Attachments::new(self.desk.clone(), self.stores.clone(), limits, stopping)
    }

    async fn begin(&self, desk: &Attachments, length: usize) -> Upload {
        self.begin_as(desk, Some(length), None).await.unwrap()
    }

    async fn begin_as(
        &self,
        desk: &Attachments,
        length: Option<usize>,
        concat: Option<Concat>,
    ) -> Result<Upload, Refusal> {
        let new = New {
            key: None,
            meta: Metadata::parse("filename YS5wbmc=,filetype aW1hZ2UvcG5n").unwrap(),
            length: length.map(|length| length as u64),
            concat,
        };
        desk.create(&self.id, new).await.map(|(upload, _)| upload)
    }

    async fn look(&self, id: &str) -> Upload {
        self.process().look(&self.id, id).await.unwrap()
    }

    /// Sends bytes in small chunks; a line that is cut ends with an error.
    async fn send(
        &self,
        desk: &Attachments,
        id: &str,
        offset: usize,
        bytes: &[u8],
        how: How,
    ) -> Result<Upload, Refusal> {
        let mut chunks: Vec<Result<Bytes, &str>> = bytes
            .chunks(100)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        chunks.extend(how.is_cut.then_some(Err("cut")));
        // Others have their turn in between.
        let body = stream::iter(chunks).then(|chunk| async {
            tokio::task::yield_now().await;
            chunk
        });
        let sent = Sent {
            offset: offset as u64,
            length: None,
            announced: None,
            checksum: how.checksum.as_deref().and_then(Checksum::parse),
        };
        desk.receive(&self.id, id, sent, body).await
    }

    /// The whole, as those get it who deliver.
    async fn fetch(&self, upload: &Upload, from: u64) -> Result<Vec<u8>, hydrant_sdk::Error> {
        let desk = self.process();
        let place = desk.0.sends.clone().try_acquire_owned().unwrap();
        let stream = desk.send(upload, from, place).await.unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await?;
        Ok(chunks.concat())
    }
}

/// How bytes are sent.
#[derive(Clone, Debug, Default)]
struct How {
    is_cut: bool,
    checksum: Option<String>,
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn status(refusal: &Refusal) -> u16 {
    refusal.status.map_or(0, |status| status.as_u16())
}
