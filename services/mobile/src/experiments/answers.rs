//! The methods that are about experiments.

use hydrant_sdk::Service;

use super::observe::Observations;
use crate::proto::{
    EXPERIMENTS_LIST_SPEC, EXPERIMENTS_REPORT_SPEC, EXPERIMENTS_WHO_SPEC, OBSERVATIONS_EXPOSE_SPEC,
    OBSERVATIONS_MEASURE_SPEC,
};

/// Adds them to the service.
pub(crate) fn serve(service: Service, observations: &Observations) -> Service {
    macro_rules! answer {
        ($method:ident) => {{
            let observations = observations.clone();
            move |request| {
                let observations = observations.clone();
                async move { observations.$method(request).await }
            }
        }};
    }
    service
        .endpoint(OBSERVATIONS_EXPOSE_SPEC, answer!(expose))
        .endpoint(OBSERVATIONS_MEASURE_SPEC, answer!(measure))
        .endpoint(EXPERIMENTS_LIST_SPEC, answer!(list))
        .endpoint(EXPERIMENTS_REPORT_SPEC, answer!(report))
        .endpoint(EXPERIMENTS_WHO_SPEC, answer!(who))
}
