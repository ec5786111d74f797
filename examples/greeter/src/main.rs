use hydrant_sdk::{Code, Context, Error, Service, Tier};
use proto::{GREETER_GREET_SPEC, GreetRequest, GreetResponse};

mod proto {
    connectrpc::include_generated!();
    pub use self::greet::v1::*;
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::new(Tier::Service, "greeter", "1.0.0")?
        .endpoint(GREETER_GREET_SPEC, greet)
        .run()
        .await
}

async fn greet(request: GreetRequest) -> Result<GreetResponse, Error> {
    if request.name.is_empty() {
        return Err(
            Error::new(Code::InvalidArgument, "no_name", "a greeting needs a name")
                .mend("say who is greeted"),
        );
    }
    let caller = Context::current().and_then(|context| context.caller);
    Ok(GreetResponse {
        text: format!("Hello, {}! ({})", request.name, caller.unwrap_or_default()),
        ..Default::default()
    })
}
