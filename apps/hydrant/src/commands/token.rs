use hydrant_contracts::{ServiceId, proto};
use serde_json::json;

use crate::api::Api;
use crate::cli::{Global, TokenArgs};
use crate::failure::Result;
use crate::output::Output;

/// Makes a token for a service.
pub(crate) async fn run(global: &Global, args: &TokenArgs, output: &Output) -> Result<()> {
    let service: ServiceId = args.service.parse()?;
    let api = Api::connect(global).await?;
    let request = proto::IssueTokenRequest {
        tier: proto::Tier::from(service.tier).into(),
        service: service.name.to_string(),
        ..Default::default()
    };
    let token = api.node().issue_token(request).await?.into_owned().token;
    if output.json {
        return output.json(&json!({
            "service": service.name,
            "tier": service.tier.as_str(),
            "token": token,
            "url": api.url(),
        }));
    }
    // The token alone on standard output, so that it can be put into a variable.
    output.text(&format!("{token}\n"))?;
    eprintln!(
        "Start {service} with HYDRANT_URL={} and this token in HYDRANT_TOKEN.\n\
         Whoever has the token is {service} to the node, and it does not expire. It keeps services \
         apart by mistake,\nnot against a process of the same user, which can read it.",
        api.url()
    );
    Ok(())
}
