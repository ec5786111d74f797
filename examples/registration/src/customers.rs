use hydrant_sdk::{Code, Error, Hydrant, Service, State, Tier};
use serde::{Deserialize, Serialize};

use crate::proto::{
    CUSTOMERS_CREATE_SPEC, CUSTOMERS_FIND_SPEC, CreateRequest, CreateResponse, Customer,
    FindRequest, FindResponse,
};

/// `service/customers`: keeps the customers in shared state, by their address, so that all its
/// instances know the same ones.
pub async fn run() -> Result<(), Error> {
    let hydrant = Hydrant::from_env()?;
    let (create_in, find_in) = (hydrant.state(), hydrant.state());
    Service::new(Tier::Service, "customers", "1.0.0")?
        .endpoint(CUSTOMERS_CREATE_SPEC, move |request| {
            create(create_in.clone(), request)
        })
        .endpoint(CUSTOMERS_FIND_SPEC, move |request| {
            find(find_in.clone(), request)
        })
        .run()
        .await
}

/// As it stands in the state.
#[derive(Serialize, Deserialize)]
struct Record {
    id: String,
    name: String,
}

async fn create(state: State, request: CreateRequest) -> Result<CreateResponse, Error> {
    let email = request.email;
    let record = Record {
        id: format!("c-{}", hydrant_sdk::CorrelationId::generate()),
        name: request.name,
    };
    let text = serde_json::to_vec(&record).map_err(broken)?;
    let (record, created) = match state.compare_and_put(&key(&email), 0, text).await {
        Ok(_) => (record, true),
        // Somebody with this address is there already: perhaps this very request, repeated.
        Err(error) if error.code == Code::Aborted => (read(&state, &email).await?, false),
        Err(error) => return Err(error),
    };
    Ok(CreateResponse {
        customer: Some(shown(record, email)).into(),
        created,
        ..Default::default()
    })
}

async fn find(state: State, request: FindRequest) -> Result<FindResponse, Error> {
    let record = read(&state, &request.email).await?;
    Ok(FindResponse {
        customer: Some(shown(record, request.email)).into(),
        ..Default::default()
    })
}

async fn read(state: &State, email: &str) -> Result<Record, Error> {
    let entry = state.get(&key(email)).await?.ok_or_else(|| {
        Error::new(
            Code::NotFound,
            "no_such_customer",
            "nobody has this address",
        )
    })?;
    serde_json::from_slice(&entry.value).map_err(broken)
}

fn key(email: &str) -> String {
    format!("customers/{email}")
}

fn shown(record: Record, email: String) -> Customer {
    Customer {
        id: record.id,
        name: record.name,
        email,
        ..Default::default()
    }
}

fn broken(error: serde_json::Error) -> Error {
    Error::new(
        Code::Internal,
        "broken_record",
        format!("a customer's record is broken: {error}"),
    )
}
