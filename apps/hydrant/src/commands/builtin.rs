use hydrant_runtime::telemetry;

use crate::cli::Builtin;
use crate::failure::Result;

/// Runs one of the services that come with the binary, until it is asked to end.
pub(crate) async fn run(service: Builtin) -> Result<()> {
    telemetry::start();
    match service {
        Builtin::ApiMobile => hydrant_mobile::run_api().await?,
        Builtin::ServiceMobile => hydrant_mobile::run_service().await?,
        Builtin::DemoUpstream => hydrant_mobile::run_demo_upstream().await?,
        Builtin::ApiSubmissions => hydrant_submissions::run_api().await?,
        Builtin::ServiceSubmissions => hydrant_submissions::run_service().await?,
        Builtin::Delivery => hydrant_submissions::run_delivery().await?,
        Builtin::DemoConsumer => hydrant_submissions::run_demo_consumer().await?,
    }
    Ok(())
}
