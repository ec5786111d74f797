//! The way to `service/mobile`: through a node as its operator, or through the public address with
//! a key.

use std::path::Path;
use std::time::Duration;

use connectrpc::client::{BoxFuture, ClientBody, ClientConfig, ClientTransport};
use http::{Request, Response};

use crate::api::Api;
use crate::cli::Global;
use crate::failure::{Result, system, wrong};

/// What carries the calls, over HTTP or HTTPS.
#[derive(Clone)]
pub(crate) struct Way(reqwest::Client);

impl Way {
    fn new() -> Self {
        // A provider that is installed already is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self(reqwest::Client::new())
    }
}

impl ClientTransport for Way {
    type ResponseBody = reqwest::Body;
    type Error = reqwest::Error;

    fn send(
        &self,
        request: Request<ClientBody>,
    ) -> BoxFuture<'static, std::result::Result<Response<reqwest::Body>, reqwest::Error>> {
        let client = self.0.clone();
        Box::pin(async move {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
            client.execute(request).await.map(Response::from)
        })
    }
}

/// How long a call may take: a change compiles everything, and waits until it is published.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
/// The longest key, in bytes.
const MAX_KEY: usize = 1024;

/// Where the calls go, and what proves who asks.
pub(crate) struct Access {
    way: Way,
    config: ClientConfig,
    /// The same for calls that are no messages: where, and the header that proves who asks.
    base: String,
    proof: Option<(&'static str, String)>,
}

impl Access {
    pub(crate) async fn open(global: &Global, key_file: Option<&Path>) -> Result<Self> {
        match key_file {
            None => Ok(Self::of_node(&Api::connect(global).await?)),
            Some(file) => Self::of_key(global.url.as_deref(), &read_key(file)?),
        }
    }

    fn of_node(api: &Api) -> Self {
        let config = configured(api.url(), "service").expect("the node was reached by it");
        let token = api.token().map(str::to_owned);
        Self {
            way: Way::new(),
            base: base(api.url(), "service"),
            proof: token.map(|token| (hydrant_contracts::header::TOKEN, token)),
            config: match api.token() {
                None => config,
                Some(token) => config.with_default_header(hydrant_contracts::header::TOKEN, token),
            },
        }
    }

    fn of_key(url: Option<&str>, key: &str) -> Result<Self> {
        let url = url.ok_or_else(|| {
            wrong(
                "no_url",
                "a key is for the public address, and none is named",
                "name it with --url https://HOST, or leave --key-file out to ask the node here",
            )
        })?;
        let config = configured(url, "api").ok_or_else(|| {
            wrong(
                "bad_url",
                format!("`{url}` is not the URL of a host"),
                "write it as https://example.com",
            )
        })?;
        Ok(Self {
            way: Way::new(),
            base: base(url, "api"),
            proof: Some(("authorization", format!("Bearer {key}"))),
            config: config.with_default_header("authorization", format!("Bearer {key}")),
        })
    }

    pub(crate) fn way(&self) -> Way {
        self.way.clone()
    }

    /// A request that is no message, as that which sends an image.
    pub(crate) fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder> {
        let url = format!("{}/{path}", self.base);
        let url = reqwest::Url::parse_with_params(&url, query)
            .map_err(|_| wrong("bad_url", format!("`{url}` is not a URL"), "mend --url"))?;
        let request = reqwest::Client::new().post(url);
        Ok(match &self.proof {
            Some((name, proof)) => request.header(*name, proof),
            None => request,
        })
    }

    pub(crate) fn config(&self) -> ClientConfig {
        self.config.clone()
    }
}

/// Where the service `mobile` of this tier answers.
fn base(url: &str, tier: &str) -> String {
    format!("{}/{tier}/mobile", url.trim_end_matches('/'))
}

/// Calls of the service `mobile` of this tier.
fn configured(url: &str, tier: &str) -> Option<ClientConfig> {
    let config = ClientConfig::new(base(url, tier).parse().ok()?)
        .json()
        .with_default_timeout(PATIENCE)
        .with_default_max_message_size(MAX_ANSWER);
    Some(config)
}

fn read_key(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let what = format!("cannot read the key in {}", file.display());
        system(what, &error, "name the file that has the key")
    })?;
    let key = text.trim();
    let is_good = !key.is_empty() && key.len() <= MAX_KEY;
    if !is_good || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(
            "bad_key",
            format!("{} does not have a key in it", file.display()),
            "the file has the key alone, as `hydrant mobile key create` printed it",
        ));
    }
    Ok(key.to_owned())
}
