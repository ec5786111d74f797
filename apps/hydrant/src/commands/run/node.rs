use hydrant_contracts::{ServiceId, proto};
use hydrant_sdk::Config;

use crate::api::Api;
use crate::cli::Global;
use crate::data;
use crate::failure::Result;

/// The node of this server, and what proves the service to it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) url: String,
    pub(super) token: String,
    /// Where the outside reaches it; `None` when nothing tells.
    pub(super) public_url: Option<String>,
}

impl Node {
    /// A supervised service finds all in its environment, and needs no node to begin. For one that
    /// is started by hand the operator's token, in the data folder, makes the service's own.
    pub(super) async fn find(global: &Global, service: &ServiceId) -> Result<Self> {
        let public_url = variable("HYDRANT_PUBLIC_URL").or_else(|| announced(global));
        if let (Some(url), Some(token)) = (global.url.clone(), variable("HYDRANT_TOKEN")) {
            return Ok(Self {
                url,
                token,
                public_url,
            });
        }
        let api = Api::connect(global).await?;
        let token = match variable("HYDRANT_TOKEN") {
            Some(token) => token,
            None => issue(&api, service).await?,
        };
        Ok(Self {
            url: api.url().to_owned(),
            token,
            public_url,
        })
    }

    pub(super) fn config(&self) -> Result<Config> {
        Ok(Config::new(&self.url, Some(&self.token))?)
    }
}

async fn issue(api: &Api, service: &ServiceId) -> Result<String> {
    let request = proto::IssueTokenRequest {
        tier: proto::Tier::from(service.tier).into(),
        service: service.name.to_string(),
        ..Default::default()
    };
    Ok(api.node().issue_token(request).await?.into_owned().token)
}

/// The public listener, as the node tells it in its data folder.
fn announced(global: &Global) -> Option<String> {
    let folder = data::folder(global.data.as_deref()).ok()?;
    let node = data::running_node(&folder).ok()??;
    Some(format!("http://{}", node.public))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
