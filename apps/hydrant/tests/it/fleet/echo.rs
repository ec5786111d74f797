//! A service that tells on which server it runs. It is this test binary itself, run for one test
//! alone, as a node's supervisor starts it.

use std::time::Duration;

use hydrant_sdk::axum::Router;
use hydrant_sdk::axum::routing::get;
use hydrant_sdk::{Service, Tier};

/// Says which service this process is, and on which server.
const MARK: &str = "ECHO_TEST";

/// How long an answer of `/slowly` takes, so that requests of many clients queue at an instance.
const SLOWLY: Duration = Duration::from_millis(20);

/// The tables of a configuration file: so many processes of `service`, written `TIER/NAME`.
pub fn table(service: &str, server: &str, instances: usize) -> String {
    let (tier, name) = service.split_once('/').expect("a tier and a name");
    let this = std::env::current_exe().expect("the path of this binary");
    format!(
        "[[service]]\nname = \"{name}\"\ntier = \"{tier}\"\nversion = \"1.0.0\"\nsdk = true\n\
         instances = {instances}\n\
         command = [{this:?}, \"--exact\", \"fleet::echo::process\", \"--nocapture\"]\n\
         env = {{ {MARK} = \"{service}@{server}\" }}\n\n"
    )
}

/// The service's process; does nothing when it is not started as one.
#[test]
fn process() {
    let Ok(mark) = std::env::var(MARK) else {
        return;
    };
    let (service, server) = mark.split_once('@').expect("a service and a server");
    let (tier, name) = service.split_once('/').expect("a tier and a name");
    let tier: Tier = tier.parse().expect("a tier");
    let server = server.to_owned();
    let who = get({
        let server = server.clone();
        move || async move { server }
    });
    let who = who.post(|| async { "taken" });
    let slowly = get(move || async move {
        tokio::time::sleep(SLOWLY).await;
        server
    });
    let runtime = hydrant_harness::runtime();
    let service = Service::new(tier, name, "1.0.0").expect("a name and a version");
    let routes = Router::new().route("/who", who).route("/slowly", slowly);
    let ended = runtime.block_on(service.http(routes).run());
    ended.expect("the service ends well");
}
