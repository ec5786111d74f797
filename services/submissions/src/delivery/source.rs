//! Where attachments come from: `service/submissions`, as a stream.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hydrant_contracts::header;
use hydrant_sdk::{Code, Error, Hydrant};
use reqwest::Client;
use reqwest::header::HeaderValue;

use super::outcome::Failure;

const CONNECT: Duration = Duration::from_secs(5);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(30);

/// The way to the attachments. Cheap to clone.
#[derive(Clone)]
pub(super) struct Source {
    client: Client,
    base: String,
    token: Option<HeaderValue>,
}

impl Source {
    pub(super) fn new(hydrant: &Hydrant) -> Result<Self, Error> {
        let config = hydrant.config();
        let authority = config.url.authority().map_or("", |known| known.as_str());
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .no_proxy()
            .tls_backend_preconfigured(hydrant_outbound::client_config(None).map_err(unusable)?)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            client,
            base: format!("http://{authority}/service/submissions/v1/attachments"),
            token: config.token.clone(),
        })
    }

    /// The bytes of an attachment, piece by piece.
    pub(super) async fn open(
        &self,
        upload: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Failure>> + Unpin + use<>, Failure> {
        let mut request = self.client.get(format!("{}/{upload}", self.base));
        if let Some(token) = &self.token {
            request = request.header(header::TOKEN, token.clone());
        }
        let answer = request.send().await;
        let answer = answer.map_err(|_| cannot_be_read("service/submissions is away"))?;
        match answer.status().as_u16() {
            200 => Ok(answer
                .bytes_stream()
                .map(|chunk| chunk.map_err(|_| cannot_be_read("it broke off")))),
            status => Err(cannot_be_read(&format!("status {status}"))),
        }
    }
}

fn cannot_be_read(why: &str) -> Failure {
    Failure::ours(format!("an attachment can't be read: {why}"))
}

fn unusable(why: String) -> Error {
    Error::new(Code::Internal, "no_client", why)
}

#[cfg(test)]
impl Source {
    /// A source without a node, at a server of a test.
    pub(super) fn at(base: &str) -> Self {
        let tls = hydrant_outbound::client_config(None).unwrap();
        let client = Client::builder().no_proxy().tls_backend_preconfigured(tls);
        Self {
            client: client.build().unwrap(),
            base: base.to_owned(),
            token: None,
        }
    }
}
