use hydrant_sdk::axum::Router;
use hydrant_sdk::axum::extract::{Path, State};
use hydrant_sdk::axum::routing::get;
use hydrant_sdk::{Error, Hydrant, Problem, Service, Tier};
use proto::{GreetRequest, GreetResponse};

mod proto {
    connectrpc::include_generated!();
    pub use self::greet::v1::*;
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    let routes = Router::new()
        .route("/v1/hello/{name}", get(hello))
        .with_state(hydrant);
    Service::new(Tier::Api, "welcome", "1.0.0")?
        .http(routes)
        .run()
        .await
}

async fn hello(
    State(hydrant): State<Hydrant>,
    Path(name): Path<String>,
) -> Result<String, Problem> {
    let request = GreetRequest {
        name: name.trim().to_owned(),
        ..Default::default()
    };
    let endpoint = "/service/greeter/greet.v1.Greeter/Greet";
    let greeting: GreetResponse = hydrant.call(endpoint, request).await?;
    Ok(greeting.text + "\n")
}
