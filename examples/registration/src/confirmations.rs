use hydrant_sdk::{Code, Error, Hydrant, Service, State, Tier};

use crate::proto::{CONFIRMATIONS_SEND_SPEC, SendRequest, SendResponse};

/// `service/confirmations`: sends each customer one confirmation. Sending is a line in the log
/// here; what matters is that a repeated request does not send twice.
pub async fn run() -> Result<(), Error> {
    let state = Hydrant::from_env()?.state();
    Service::new(Tier::Service, "confirmations", "1.0.0")?
        .endpoint(CONFIRMATIONS_SEND_SPEC, move |request| {
            send(state.clone(), request)
        })
        .run()
        .await
}

async fn send(state: State, request: SendRequest) -> Result<SendResponse, Error> {
    let key = format!("sent/{}", request.customer_id);
    let sent = match state.compare_and_put(&key, 0, request.email).await {
        Ok(_) => true,
        Err(error) if error.code == Code::Aborted => false,
        Err(error) => return Err(error),
    };
    if sent {
        tracing::info!(customer = request.customer_id, "sent the confirmation");
    }
    Ok(SendResponse {
        sent,
        ..Default::default()
    })
}
