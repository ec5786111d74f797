//! Looks after the servers: who is master, and whether each is still what it was.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use crate::core::Core;

pub(crate) async fn run(core: Arc<Core>) {
    loop {
        sleep(jittered(core.config.compare.get())).await;
        if let Err(failure) = core.topology.refresh().await {
            tracing::debug!(%failure, "the topology of Redis is not known");
        }
        let masters = core.topology.masters();
        join_all(masters.iter().map(|server| server.look())).await;
    }
}

/// Between three quarters of `time` and all of it: many nodes do not ask at once.
pub(crate) fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 4.0)
}
