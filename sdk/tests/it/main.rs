//! The sdk against a node that does what a test tells it.

mod fake_node;
mod holding;
mod registering;
mod serving;

use std::future::Future;
use std::time::Duration;

/// Waits long enough for a loaded machine, and not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("it happens within 20 seconds")
}

/// Waits until a condition holds.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
