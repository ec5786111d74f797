//! How a source on a web server is asked. Redirects are followed here, one by one, because each
//! has to be judged: what an upstream says must not lead to where only this server gets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_outbound::{client_config, headers};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};

use crate::sources::address::{Any, Names, PrivateAddress, PublicOnly, is_public};
use crate::sources::answer::too_large;
use crate::sources::definition::Remote;
use crate::sources::snapshot::{Failure, Validator};

/// The most redirects that are followed for one answer.
const MAX_REDIRECTS: usize = 3;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest text of an upstream that is told in an error, in characters.
const TOLD: usize = 100;

/// What a source answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// What is known is the newest.
    Unchanged,
    Body {
        body: Vec<u8>,
        encoding: String,
        validator: Validator,
    },
}

/// Asks web servers.
#[derive(Clone)]
pub(crate) struct Http {
    clients: HashMap<Option<PathBuf>, Clients>,
}

/// Two ways to the same authorities.
#[derive(Clone)]
struct Clients {
    /// To where the operator said.
    any: Client,
    /// To where an upstream said.
    public_only: Client,
}

impl Http {
    /// `authorities` are the files of all that sources trust.
    pub(crate) fn new<'a>(
        authorities: impl IntoIterator<Item = Option<&'a Path>>,
        names: &Arc<dyn Names>,
    ) -> Result<Self, String> {
        let mut clients = HashMap::new();
        for ca in authorities {
            if let Entry::Vacant(vacant) = clients.entry(ca.map(Path::to_owned)) {
                vacant.insert(Clients::new(ca, names)?);
            }
        }
        Ok(Self { clients })
    }

    /// Asks once. `known` is what the last good answer gave, when there is a value to keep.
    pub(crate) async fn ask(
        &self,
        remote: &Remote,
        max_size: u64,
        instance: &str,
        known: Option<&Validator>,
    ) -> Result<Reply, Failure> {
        let clients = self.clients.get(&remote.ca).ok_or_else(no_client)?;
        let mut url = remote.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let known = known.filter(|known| known.url == url.as_str());
            let mut request = clients.for_url(remote, &url)?.get(url.clone());
            request = request
                .header(ACCEPT, "application/json")
                .header(ACCEPT_ENCODING, "gzip, br, zstd")
                .headers(conditions(known));
            if is_same_origin(&url, &remote.url) {
                let own = headers(&remote.headers, remote.credentials.as_ref()).await?;
                request = request.header("hydrant-instance", instance).headers(own);
            }
            let answer = request.send().await.map_err(|error| told(&error))?;
            match next_place(&answer, &url)? {
                Some(next) => url = next,
                None => return read(answer, max_size, &url, known.is_some()).await,
            }
        }
        Err(Failure::new(
            format!("it redirects more than {MAX_REDIRECTS} times"),
            "write the URL that it redirects to into sources.toml",
        ))
    }
}

impl Clients {
    fn new(ca: Option<&Path>, names: &Arc<dyn Names>) -> Result<Self, String> {
        let tls = client_config(ca)?;
        let build = |builder: ClientBuilder| {
            builder
                .user_agent(concat!("hydrant-mobile/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .redirect(Policy::none())
                .referer(false)
                // A proxy would look names up itself, and go where it must not.
                .no_proxy()
                .tls_backend_preconfigured(tls.clone())
                .build()
                .map_err(|error| told(&error).reason)
        };
        let builder = Client::builder;
        Ok(Self {
            any: build(builder().dns_resolver(Any(Arc::clone(names))))?,
            public_only: build(builder().dns_resolver(PublicOnly(Arc::clone(names))))?,
        })
    }

    /// The operator's own place is asked wherever it is; every other only on the public Internet.
    fn for_url(&self, remote: &Remote, url: &Url) -> Result<&Client, Failure> {
        if remote.allow_private_redirects || is_same_origin(url, &remote.url) {
            return Ok(&self.any);
        }
        // An address that is written in the URL is never looked up.
        match address_of(url) {
            Some(address) if !is_public(address) => Err(refused(&address.to_string())),
            _ => Ok(&self.public_only),
        }
    }
}

fn address_of(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_matches(['[', ']']).parse().ok()
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

fn conditions(known: Option<&Validator>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name: HeaderName, value: &str| {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    };
    match known {
        Some(Validator {
            etag: Some(etag), ..
        }) => insert(IF_NONE_MATCH, etag),
        Some(Validator {
            last_modified: Some(time),
            ..
        }) => insert(IF_MODIFIED_SINCE, time),
        _ => {}
    }
    headers
}

/// Where a redirect leads to; `None` when it is none.
fn next_place(answer: &Response, url: &Url) -> Result<Option<Url>, Failure> {
    let redirects = [301, 302, 303, 307, 308];
    if !redirects.contains(&answer.status().as_u16()) {
        return Ok(None);
    }
    let place = answer
        .headers()
        .get(LOCATION)
        .and_then(|place| place.to_str().ok())
        .and_then(|place| url.join(place).ok());
    let mend = "mend the source, or write the right URL into sources.toml";
    let Some(mut next) = place else {
        return Err(Failure::new("it redirects to no readable place", mend));
    };
    if next.scheme() != "https" && next.scheme() != url.scheme() {
        let reason = format!("it redirects from {} to {}", url.scheme(), next.scheme());
        return Err(Failure::new(reason, mend));
    }
    // A name and a password in it would be sent along.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.set_fragment(None);
    Ok(Some(next))
}

async fn read(
    mut answer: Response,
    max_size: u64,
    url: &Url,
    is_conditional: bool,
) -> Result<Reply, Failure> {
    let status = answer.status();
    if status == StatusCode::NOT_MODIFIED && is_conditional {
        return Ok(Reply::Unchanged);
    }
    if status != StatusCode::OK {
        return Err(wrong_status(status));
    }
    let text = |name| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let promised = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if promised.is_some_and(|promised| promised > max_size) {
        return Err(too_large(max_size));
    }
    let encoding = text(CONTENT_ENCODING).unwrap_or_default();
    let validator = Validator {
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
        url: url.to_string(),
        definition: String::new(),
    };
    let body = read_body(&mut answer, max_size).await?;
    Ok(Reply::Body {
        body,
        encoding,
        validator,
    })
}

pub(crate) async fn read_body(answer: &mut Response, max_size: u64) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| told(&error))? {
        if (body.len() + chunk.len()) as u64 > max_size {
            return Err(too_large(max_size));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) fn wrong_status(status: StatusCode) -> Failure {
    let mend = match status.as_u16() {
        401 | 403 => "look at its credentials: `bearer`, `basic` or `headers` in sources.toml",
        404 | 410 => "look at its URL in sources.toml",
        429 => "ask it less often: raise its `interval` in sources.toml",
        _ => "mend the source: its value stays the last good one until then",
    };
    Failure::new(format!("it answered {status}"), mend)
}

/// What went wrong, by its innermost cause: the outer ones only say that a request failed. URLs are
/// left out, since their queries may hold secrets.
pub(crate) fn told(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut innermost = error;
    loop {
        if innermost.is::<PrivateAddress>() {
            return refused(&innermost.to_string());
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => break,
        }
    }
    let text: String = innermost.to_string().chars().take(2 * TOLD).collect();
    let mend = if text.contains("certificate") {
        "let it prove who it is, or name its authority by `ca` in sources.toml"
    } else if text.contains("before message completed") || text.contains("end of file") {
        "mend the source: it ends its answers before their end"
    } else {
        "start it, or look at its address in sources.toml"
    };
    Failure::new(text, mend)
}

fn refused(what: &str) -> Failure {
    let what: String = what.escape_debug().take(TOLD).collect();
    Failure::new(
        format!("it redirects to a private address: {what}"),
        "mend the source, or write allow_private_redirects = true for it into sources.toml",
    )
}

fn no_client() -> Failure {
    Failure::new("its `ca` was not read", "restart service/mobile")
}
