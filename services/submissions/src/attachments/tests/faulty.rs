//! A store that is away, or lies.

use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It refuses everything.
    Away,
    /// It never answers to a write.
    Hangs,
    /// It says yes, and keeps nothing.
    Forgets,
    /// It says yes, and keeps a part.
    Short,
    /// It says yes, and keeps other bytes.
    Wrong,
}

#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) inner: InMemory,
    fault: Mutex<Fault>,
}

impl Faulty {
    pub(super) fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            fault: Mutex::new(fault),
        })
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn check(&self) -> Result<()> {
        match self.fault() {
            Fault::Away => Err(object_store::Error::Generic {
                store: "test",
                source: "away".into(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) async fn len(&self) -> usize {
        self.inner.list(None).count().await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check()?;
        let mut bytes = Bytes::from(payload).to_vec();
        match self.fault() {
            Fault::Hangs => std::future::pending().await,
            Fault::Forgets => {
                return Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: Default::default(),
                });
            }
            Fault::Short => bytes.truncate(bytes.len() / 2),
            Fault::Wrong => bytes[0] ^= 1,
            Fault::None | Fault::Away => {}
        }
        self.inner.put_opts(at, bytes.into(), options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.check() {
            Ok(()) => self.inner.delete_stream(all),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
