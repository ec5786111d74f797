//! What the node asks of the router.

use hydrant_contracts::{Error, Instance, InstanceId, Pattern, proto};

/// The data plane, as the node sees it.
pub trait Traffic: Send + Sync + 'static {
    /// Routes to these instances, and to no others, from now on.
    fn publish(&self, instances: &[Instance]);

    /// How many requests the instance has not finished yet, also after it left the table.
    fn in_flight(&self, instance: &InstanceId) -> u64;

    /// Counts of the instances that the pattern means.
    fn stats(&self, pattern: &Pattern) -> Vec<proto::InstanceStats>;

    /// What the router would do with a request, without sending it.
    fn explain(&self, request: &proto::ExplainRequest) -> Result<proto::ExplainResponse, Error>;
}
