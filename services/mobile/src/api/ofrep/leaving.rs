//! Ends the streams of an instance that is drained: the node waits for what is in flight before it stops
//! a process, and a stream would keep it waiting.

use hydrant_runtime::Shutdown;
use hydrant_sdk::{Error, Hydrant, Instance, InstanceChange, InstanceState};

/// Waits until the node drains this instance, then begins `leaving`. Who opens a stream again comes to
/// another instance.
pub(crate) async fn leave_when_drained(hydrant: Hydrant, leaving: Shutdown) -> Result<(), Error> {
    if let Err(error) = drained(&hydrant).await {
        // Then streams end when the process is told to stop.
        tracing::warn!(%error, "cannot see when this instance is drained");
        return Ok(());
    }
    leaving.begin();
    Ok(())
}

/// Resolves when this instance is drained; never for one that the node did not start.
async fn drained(hydrant: &Hydrant) -> Result<(), Error> {
    let Some(own) = hydrant.config().instance.clone() else {
        return std::future::pending().await;
    };
    let is_drained = |one: &Instance| one.id == own && one.state == InstanceState::Draining;
    let mut watch = hydrant.watch("api/mobile");
    loop {
        let seen = match watch.next().await? {
            InstanceChange::All(all) => all.iter().any(is_drained),
            InstanceChange::Put(one) => is_drained(&one),
            InstanceChange::Removed(_) => false,
        };
        if seen {
            return Ok(());
        }
    }
}
