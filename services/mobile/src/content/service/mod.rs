//! What `service/mobile` answers of content: previews, why a slot shows what it shows, and images.

mod bring;
mod intake;
mod rpc;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hydrant_objects::Config;
use hydrant_sdk::{Code, Error, Service};
use tokio::sync::OnceCell;

use crate::content::images::store::Store;
use crate::content::preview::vault::Vault;
use crate::service::Desk;

pub(crate) use bring::Bring;

/// Answers of content in `service/mobile`. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ContentDesk(Arc<Inner>);

struct Inner {
    desk: Desk,
    vault: OnceCell<Vault>,
    objects: Option<Config>,
    store: OnceCell<Store>,
    /// Where people reach the host: previews are there.
    public_url: String,
    room: intake::Room,
}

impl ContentDesk {
    pub(crate) fn new(desk: Desk, public_url: Option<&str>) -> Self {
        Self(Arc::new(Inner {
            desk,
            vault: OnceCell::new(),
            objects: Config::from_env(hydrant_objects::NEAR),
            store: OnceCell::new(),
            public_url: public_url
                .unwrap_or_default()
                .trim_end_matches('/')
                .to_owned(),
            room: intake::Room::default(),
        }))
    }

    /// Adds what it answers to the service.
    pub(crate) fn join(self, service: Service) -> Service {
        let routes = intake::routes(self.clone());
        service.service(Arc::new(self)).http(routes)
    }

    /// Whether there is a place for images.
    pub(crate) fn has_store(&self) -> bool {
        self.0.objects.is_some()
    }

    fn now(&self) -> i64 {
        self.0.desk.clock().unix_ms()
    }

    /// Opened when it is needed first, and tried again when that failed.
    async fn vault(&self) -> Result<&Vault, Error> {
        let open = async || {
            let records = self.0.desk.records().await?.clone();
            Ok(Vault::open(records).await?)
        };
        self.0.vault.get_or_try_init(open).await
    }

    /// Opened when it is needed first, and tried again when that failed.
    async fn store(&self) -> Result<&Store, Error> {
        let open = async || Store::open(self.0.objects.as_ref().ok_or_else(no_store)?);
        self.0.store.get_or_try_init(open).await
    }
}

fn no_store() -> Error {
    let message = "this service has no object store, and images need one";
    Error::new(Code::FailedPrecondition, "no_objects", message)
        .mend("name one in the configuration of every server: [objects] url = \"s3://BUCKET\"")
}
