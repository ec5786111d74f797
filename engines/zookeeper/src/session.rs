use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::coordination::{Seat, SeatName, Session, SessionState};
use hydrant_ports::{EngineError, Expect, Key};
use tokio::sync::watch;

use crate::coordination::Shared;
use crate::link::Link;
use crate::seats;
use crate::write::{self, Writer};

/// A session of its own with the ensemble.
pub(crate) struct ZookeeperSession {
    shared: Arc<Shared>,
    owner: String,
    link: Arc<Link>,
}

impl ZookeeperSession {
    pub(crate) fn new(shared: Arc<Shared>, owner: &str, link: Arc<Link>) -> Self {
        Self {
            shared,
            owner: owner.to_owned(),
            link,
        }
    }
}

#[async_trait]
impl Session for ZookeeperSession {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.link.state()
    }

    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError> {
        self.shared.check_size(&value)?;
        let place = self.shared.keys.place(key);
        let writer = Writer::Owner(&self.owner);
        write::put(&self.link, (key, &place), writer, &value, expect).await
    }

    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError> {
        let seat = self.shared.seats.place(&seat.0).leaf;
        seats::take(&self.link, &self.shared.eras, &seat, holder).await
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

impl Drop for ZookeeperSession {
    fn drop(&mut self) {
        self.link.end();
    }
}
