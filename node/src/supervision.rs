//! What the local API asks of the supervisor.

use async_trait::async_trait;
use futures::stream::BoxStream;
use hydrant_contracts::{Error, Pattern, ServiceId, proto};

/// The supervised services of this server, and what they print.
#[async_trait]
pub trait Supervision: Send + Sync + 'static {
    /// Each supervised service with its processes.
    fn services(&self) -> Vec<proto::SupervisedService>;

    /// Changes the number of processes of a service; returns how many there should have been
    /// before.
    async fn scale(&self, service: &ServiceId, instances: u32) -> Result<u32, Error>;

    /// The last `tail` lines that the pattern means, then, with `follow`, those that come.
    fn logs(
        &self,
        pattern: Pattern,
        tail: usize,
        follow: bool,
    ) -> BoxStream<'static, proto::LogLine>;
}
