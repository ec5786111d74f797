//! The client to the node that runs: finds it in the data folder, and proves who asks.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use connectrpc::client::{ClientConfig, HttpClient};
use hydrant_contracts::proto::{NodeClient, RegistryClient, RulesClient, StateClient};
use hydrant_contracts::{Code, Error, header};

use crate::cli::Global;
use crate::data;
use crate::failure::{Result, wrong};

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call of another service may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// A node that answers.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    token: Option<String>,
    transport: HttpClient,
    config: ClientConfig,
}

impl Api {
    /// Finds the node: by `--url`, else as the data folder tells.
    pub(crate) async fn connect(global: &Global) -> Result<Self> {
        let folder = data::folder(global.data.as_deref());
        let (url, folder) = match &global.url {
            Some(url) => (url.trim_end_matches('/').to_owned(), folder.ok()),
            None => {
                let folder = folder?;
                let node = data::running_node(&folder)?.ok_or_else(|| not_running(&folder))?;
                (format!("http://{}", node.local), Some(folder))
            }
        };
        let token = match std::env::var("HYDRANT_TOKEN") {
            Ok(token) if !token.is_empty() => Some(token),
            // The operator's token opens everything: it does not leave this machine.
            _ if !is_here(&url) => None,
            _ => folder
                .as_deref()
                .map(data::operator_token)
                .transpose()?
                .flatten(),
        };
        let api = Self::new(url, token)?;
        api.reach(folder.as_deref().filter(|_| global.url.is_none()))
            .await?;
        Ok(api)
    }

    /// The node of another server of its fleet, asked through this one.
    pub(crate) fn of_server(&self, server: &str) -> Self {
        let config = self.config.clone();
        Self {
            config: config.with_default_header(header::SERVER, server),
            ..self.clone()
        }
    }

    /// The node at `local`, which was started just now by this process.
    pub(crate) fn own(local: SocketAddr, folder: &Path) -> Result<Self> {
        Self::new(format!("http://{local}"), data::operator_token(folder)?)
    }

    fn new(url: String, token: Option<String>) -> Result<Self> {
        let uri = url
            .parse::<reqwest::Url>()
            .ok()
            .filter(|url| url.scheme() == "http");
        let uri = uri.and_then(|_| url.parse().ok()).ok_or_else(|| {
            wrong(
                "bad_url",
                format!("`{url}` is not the URL of a node"),
                "write it as http://127.0.0.1:8081",
            )
        })?;
        let mut config = ClientConfig::new(uri)
            .json()
            .with_default_max_message_size(MAX_ANSWER);
        if let Some(token) = &token {
            config = config.with_default_header(header::TOKEN, token.as_str());
        }
        Ok(Self {
            url,
            token,
            transport: HttpClient::plaintext(),
            config,
        })
    }

    /// Fails with one clear line when nobody listens.
    async fn reach(&self, folder: Option<&Path>) -> Result<()> {
        let url: reqwest::Url = self.url.parse().expect("checked when it was made");
        let host = url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let connect = tokio::net::TcpStream::connect((host, port));
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(match folder {
                Some(folder) => not_running(folder),
                None => unreachable(&self.url),
            }),
        }
    }

    /// Where the node's local listener is, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The token that proves who asks.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) fn node(&self) -> NodeClient<HttpClient> {
        NodeClient::new(self.transport.clone(), self.config.clone())
    }

    /// A generated client of another service, as `api.service("service/submissions", AuditClient::new)`, with the
    /// rights of who asks.
    pub(crate) fn service<C>(
        &self,
        service: &str,
        make: impl FnOnce(HttpClient, ClientConfig) -> C,
    ) -> C {
        let uri = format!("{}/{service}", self.url.trim_end_matches('/'));
        let uri = uri.parse().expect("the node was reached by it");
        let mut config = ClientConfig::new(uri)
            .json()
            .with_default_timeout(PATIENCE)
            .with_default_max_message_size(MAX_ANSWER);
        if let Some(token) = &self.token {
            config = config.with_default_header(header::TOKEN, token.as_str());
        }
        make(self.transport.clone(), config)
    }

    pub(crate) fn registry(&self) -> RegistryClient<HttpClient> {
        RegistryClient::new(self.transport.clone(), self.config.clone())
    }

    pub(crate) fn rules(&self) -> RulesClient<HttpClient> {
        RulesClient::new(self.transport.clone(), self.config.clone())
    }

    pub(crate) fn state(&self) -> StateClient<HttpClient> {
        StateClient::new(self.transport.clone(), self.config.clone())
    }
}

/// Whether the URL is one of this machine.
fn is_here(url: &str) -> bool {
    let url = url.parse::<reqwest::Url>().ok();
    let host = url
        .as_ref()
        .and_then(|url| url.host_str())
        .unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// No node has taken the data folder.
pub(crate) fn not_running(folder: &Path) -> crate::failure::Failure {
    let message = format!("no node runs on the data folder {}", folder.display());
    Error::new(Code::Unavailable, "node_not_running", message)
        .mend("start one with `hydrant up`, or name its folder with --data DIR")
        .into()
}

fn unreachable(url: &str) -> crate::failure::Failure {
    let message = format!("no node answers at {url}");
    Error::new(Code::Unavailable, "node_not_running", message)
        .mend("start one with `hydrant up`, or give the right --url")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_gets_the_operators_token() {
        for here in [
            "http://127.0.0.1:8081",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(is_here(here), "{here}");
        }
        for away in [
            "http://10.0.0.1:1",
            "http://localhost.example:1",
            "http://127.0.0.1@x:1",
            "x",
        ] {
            assert!(!is_here(away), "{away}");
        }
    }
}
