//! What an open store is made of: the writer's thread, the way to it, and what is read.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use hydrant_ports::{EngineError, Key};
use hydrant_runtime::Clock;
use tokio::sync::watch;

use crate::disk::{Disk, Medium, StoreFile};
use crate::error::closed;
use crate::image::SharedImage;
use crate::queue::{Port, Queue};
use crate::seats::Holders;
use crate::writer::Writer;
use crate::{Config, Limits, OpenError};

/// What everybody reads and the writer changes.
pub(crate) struct Shared {
    pub(crate) coordination: SharedImage,
    pub(crate) state: SharedImage,
    pub(crate) holders: Holders,
    pub(crate) limits: Limits,
    marks: RwLock<HashMap<Key, u64>>,
    clock: Clock,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            coordination: SharedImage::default(),
            state: SharedImage::default(),
            holders: Holders::default(),
            limits: config.limits,
            marks: RwLock::default(),
            clock: config.clock.clone(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    pub(crate) fn mark(&self, mark: &Key) -> u64 {
        self.marks().get(mark).copied().unwrap_or(0)
    }

    pub(crate) fn marks(&self) -> RwLockReadGuard<'_, HashMap<Key, u64>> {
        self.marks.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn marks_mut(&self) -> RwLockWriteGuard<'_, HashMap<Key, u64>> {
        self.marks.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn image(&self, port: Port) -> &SharedImage {
        match port {
            Port::Coordination => &self.coordination,
            Port::State => &self.state,
        }
    }
}

/// An open store: the way to the writer, and what is read.
pub(crate) struct Core {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    ended: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    pub(crate) fn open(config: Config) -> Result<Self, OpenError> {
        let medium = Box::new(StoreFile(config.path.clone()));
        Self::open_on(medium, config)
    }

    pub(crate) fn open_on(medium: Box<dyn Medium>, config: Config) -> Result<Self, OpenError> {
        let (disk, stored) = Disk::open(medium)?;
        let queue = Arc::new(Queue::new());
        let shared = Arc::new(Shared::new(&config));
        let mut writer = Writer::new(disk, stored, queue.clone(), shared.clone());
        let (end, ended) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("hydrant-store".to_owned())
            .spawn(move || {
                writer.run();
                drop(writer);
                drop(end);
            })
            .map_err(|error| OpenError::io(&config.path, error))?;
        Ok(Self {
            shared,
            queue,
            ended,
            thread: Some(thread),
        })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What can be read while the store is open.
    pub(crate) fn shared(&self) -> Result<&Shared, EngineError> {
        if self.queue.is_closed() {
            return Err(closed());
        }
        Ok(&self.shared)
    }

    pub(crate) async fn close(&self) {
        self.queue.close();
        // The sender is dropped behind the file.
        let _ = self.ended.clone().changed().await;
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
