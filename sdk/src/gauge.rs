//! What a service counts of itself, for the node's page of metrics and for what is sent on from there.

use std::time::Duration;

use hydrant_contracts::Error;
use hydrant_contracts::proto::{self, MeasureRequest, MeasureResponse, NODE_MEASURE_SPEC};

use crate::client::Hydrant;

/// One number that a service shows as `hydrant_service_gauge{service, name, of}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    name: &'static str,
    of: String,
    value: f64,
}

impl Gauge {
    /// `name` is of small letters, digits and `_`, at most 60 of them.
    pub fn new(name: &'static str, value: f64) -> Self {
        Self {
            name,
            of: String::new(),
            value,
        }
    }

    /// What it is counted of, as the name of a queue, of at most 100 bytes.
    #[must_use]
    pub fn of(self, of: impl Into<String>) -> Self {
        Self {
            of: of.into(),
            ..self
        }
    }
}

impl Hydrant {
    /// Says all gauges of the own service, at most 64, in the place of those that were said before. They are
    /// shown for `ttl`, an hour at most: who says them again within it keeps them there.
    ///
    /// # Errors
    ///
    /// If one is none, or the node does not answer.
    pub async fn measure(&self, gauges: &[Gauge], ttl: Duration) -> Result<(), Error> {
        let gauges = gauges.iter().map(|gauge| proto::Gauge {
            name: gauge.name.into(),
            of: gauge.of.clone(),
            value: gauge.value,
            ..Default::default()
        });
        let request = MeasureRequest {
            gauges: gauges.collect(),
            ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let said = self.node(NODE_MEASURE_SPEC, request, Some(Duration::from_secs(5)));
        said.await.map(|_: MeasureResponse| ())
    }
}
