//! One service per tier. The first argument says which one this process is.

mod api;
mod confirmations;
mod customers;
mod onboarding;

#[allow(clippy::all)]
mod proto {
    connectrpc::include_generated!();
    pub use self::registration::v1::*;
}

use std::process::ExitCode;

use hydrant_sdk::{Code, Error};

const SERVICES: &str = "registration, onboarding, customers, confirmations";

#[tokio::main]
async fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let ended = match name.as_str() {
        "registration" => api::run().await,
        "onboarding" => onboarding::run().await,
        "customers" => customers::run().await,
        "confirmations" => confirmations::run().await,
        other => Err(unknown(other)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn unknown(name: &str) -> Error {
    let message = format!("there is no service `{}`", name.escape_debug());
    Error::new(Code::InvalidArgument, "no_such_service", message)
        .mend(format!("name one of {SERVICES}"))
}
