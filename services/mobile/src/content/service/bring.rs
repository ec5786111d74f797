//! Brings the image of the demo into the object store. Its document is in the first revision, which waits
//! for no image: that would hold up flags and configuration.

use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Duty, Error, Term};

use super::ContentDesk;
use crate::demo;

/// How long the leader waits after the store has failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Brings it once, while it leads.
pub(crate) struct Bring(pub(crate) ContentDesk);

impl Duty for Bring {
    fn carry_out<'a>(&'a self, _: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            while self.0.has_store() {
                match self.0.bring(demo::IMAGE).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "cannot keep the image of the demo yet"),
                }
                tokio::time::sleep(PAUSE).await;
            }
            std::future::pending().await
        })
    }
}
