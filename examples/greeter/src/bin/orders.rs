use hydrant_sdk::axum::Router;
use hydrant_sdk::axum::http::{StatusCode, header};
use hydrant_sdk::axum::response::IntoResponse;
use hydrant_sdk::axum::routing::post;
use hydrant_sdk::{Attempt, Error, Hydrant, Idempotency, Problem, Service, State, Tier};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    let once = Idempotency::new(&hydrant.state()).required();
    let state = hydrant.state();
    let routes = Router::new().route(
        "/v1/orders",
        post(move |what| order(state, what)).layer(once),
    );
    Service::new(Tier::Api, "orders", "1.0.0")?
        .http(routes)
        .run_on(hydrant)
        .await
}

async fn order(state: State, what: String) -> Result<impl IntoResponse, Problem> {
    let attempt = Attempt::current().expect("a key is required");
    // Writing it again changes nothing: the order stands under the client's key.
    let id = attempt.key();
    state.put(&format!("orders/{id}"), what).await?;
    let location = format!("/v1/orders/{id}");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        "ordered\n",
    ))
}
