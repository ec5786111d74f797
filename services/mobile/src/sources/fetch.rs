use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Error, Hydrant, State};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tokio::io::AsyncReadExt as _;

use crate::sources::address::{Names, SystemNames};
use crate::sources::answer::{Rules, too_large};
use crate::sources::courier::{BROUGHT, Brought};
use crate::sources::definition::{Errand, Location};
use crate::sources::http::{Http, Reply, read_body, told, wrong_status};
use crate::sources::snapshot::{Failure, Outcome, Validator};
use crate::sources::{Source, Sources};

/// How long an answer may be on its way from the process that asked for it.
const DELIVERY: Duration = Duration::from_secs(10);

/// Asks sources for their documents.
#[derive(Clone)]
pub(crate) struct Fetcher {
    http: Http,
    errands: Errands,
    instance: String,
    /// Where the answers of services are that this one may not call.
    state: Option<State>,
    clock: Clock,
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Asker {
    /// Told to the sources, so that they see who polls them.
    pub(crate) instance: String,
    /// The node's local listener, through which other services are reached.
    pub(crate) node: String,
    /// Proves to the node who asks; `None` asks as the outside does.
    pub(crate) token: Option<HeaderValue>,
}

impl Asker {
    /// As this process.
    pub(crate) fn of(hydrant: &Hydrant) -> Self {
        let config = hydrant.config();
        Self {
            instance: hydrant.own_name(),
            node: config.url.to_string(),
            token: config.token.clone(),
        }
    }

    /// The same, as the outside.
    pub(crate) fn without_token(self) -> Self {
        Self {
            token: None,
            ..self
        }
    }
}

impl Fetcher {
    /// # Errors
    ///
    /// If a `ca` can't be read.
    pub(crate) fn new(hydrant: &Hydrant, sources: &Sources) -> Result<Self, Error> {
        let fetcher = Self::with_names(sources, Asker::of(hydrant), Arc::new(SystemNames))?;
        Ok(Self {
            state: Some(hydrant.state()),
            ..fetcher
        })
    }

    fn with_names(sources: &Sources, who: Asker, names: Arc<dyn Names>) -> Result<Self, Error> {
        let authorities = sources
            .list()
            .iter()
            .filter_map(|source| match &source.location {
                Location::Url(remote) => Some(remote.ca.as_deref()),
                _ => None,
            });
        let http = Http::new(authorities, &names).map_err(|message| {
            Error::new(Code::InvalidArgument, "bad_configuration", message)
                .mend("mend sources.toml, or the file that it names")
        })?;
        Ok(Self {
            http,
            instance: who.instance.clone(),
            // What the outside may call is called as the outside: the tier of this service calls none.
            errands: Errands::new(who.without_token())?,
            state: None,
            clock: Clock::system(),
        })
    }

    /// Asks once, within the source's time and size. `known` is what the last good answer gave, or
    /// `None` when there is no value to keep.
    pub(crate) async fn fetch(&self, source: &Source, known: Option<&Validator>) -> Outcome {
        tokio::time::timeout(source.timeout, self.answer(source, known))
            .await
            .unwrap_or_else(|_| Err(too_slow(source)))
            .unwrap_or_else(Outcome::Failed)
    }

    async fn answer(&self, source: &Source, known: Option<&Validator>) -> Result<Outcome, Failure> {
        let max_size = source.max_size;
        let reply = match &source.location {
            Location::File(path) => read_file(path, max_size).await?,
            Location::Url(remote) => {
                let known = known.filter(|known| known.definition == source.mark);
                self.http
                    .ask(remote, max_size, &self.instance, known)
                    .await?
            }
            Location::Service(errand) if errand.is_open() => Reply::Body {
                body: self.errands.run(errand, max_size).await?,
                encoding: String::new(),
                validator: Validator::default(),
            },
            Location::Service(_) => self.brought(source, known).await?,
        };
        let Reply::Body {
            body,
            encoding,
            validator,
        } = reply
        else {
            return Ok(Outcome::Unchanged);
        };
        let rules = Rules::from(source);
        let value = tokio::task::spawn_blocking(move || rules.value(&body, &encoding))
            .await
            .map_err(|_| Failure::new("its answer could not be read", "report this"))??;
        let validator = Validator {
            definition: source.mark.clone(),
            ..validator
        };
        Ok(Outcome::Changed { value, validator })
    }

    /// What a process of `api/mobile` has brought, which may call the service.
    async fn brought(&self, source: &Source, known: Option<&Validator>) -> Result<Reply, Failure> {
        let state = self.state.as_ref().ok_or_else(nobody_brings)?;
        let key = format!("{BROUGHT}{}", source.name);
        let entry = state.get(&key).await.map_err(|error| {
            Failure::new(
                format!("the shared state has nothing: {error}"),
                error.mend.clone(),
            )
        })?;
        let brought = entry.and_then(|entry| Brought::read(&entry.value));
        let brought = brought.ok_or_else(nobody_brings)?;
        let age = self.clock.unix_ms().saturating_sub(brought.head.at_unix_ms);
        let patience = 3 * source.interval + source.timeout + DELIVERY;
        if u128::try_from(age).is_ok_and(|age| age > patience.as_millis()) {
            return Err(nobody_brings());
        }
        if !brought.head.reason.is_empty() {
            return Err(Failure::new(brought.head.reason, brought.head.mend));
        }
        let validator = Validator {
            etag: Some(brought.head.at_unix_ms.to_string()),
            ..Validator::default()
        };
        let is_known = known.is_some_and(|known| known.etag == validator.etag);
        if is_known && known.is_some_and(|known| known.definition == source.mark) {
            return Ok(Reply::Unchanged);
        }
        Ok(Reply::Body {
            body: brought.body,
            encoding: String::new(),
            validator,
        })
    }
}

/// Asks other services through the node, which decides who may call whom.
#[derive(Clone)]
pub(crate) struct Errands {
    client: reqwest::Client,
    who: Asker,
}

impl Errands {
    pub(crate) fn new(who: Asker) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build();
        let client =
            client.map_err(|error| Error::new(Code::Internal, "no_client", error.to_string()))?;
        Ok(Self { client, who })
    }

    /// The body of the answer.
    pub(crate) async fn run(&self, errand: &Errand, max_size: u64) -> Result<Vec<u8>, Failure> {
        let url = format!("{}{}", self.who.node.trim_end_matches('/'), errand.endpoint);
        let mut request = match &errand.request {
            None => self.client.get(url),
            Some(message) => self
                .client
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .header("connect-protocol-version", "1")
                .body(message.clone()),
        };
        if let Some(token) = &self.who.token {
            request = request.header(hydrant_contracts::header::TOKEN, token.clone());
        }
        request = request.header("hydrant-instance", &self.who.instance);
        let mut answer = request.send().await.map_err(|error| told(&error))?;
        match answer.status() {
            reqwest::StatusCode::OK => read_body(&mut answer, max_size).await,
            status => Err(wrong_status(status)),
        }
    }
}

fn nobody_brings() -> Failure {
    Failure::new(
        "no process of api/mobile brings its answers",
        "start one: hydrant scale api/mobile 2",
    )
}

async fn read_file(path: &Path, max_size: u64) -> Result<Reply, Failure> {
    let unreadable = |error| {
        Failure::new(
            format!("the file {} can't be read: {error}", path.display()),
            "write it, or mend its place in sources.toml",
        )
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut body = Vec::new();
    let mut limited = file.take(max_size + 1);
    limited.read_to_end(&mut body).await.map_err(unreadable)?;
    if body.len() as u64 > max_size {
        return Err(too_large(max_size));
    }
    Ok(Reply::Body {
        body,
        encoding: String::new(),
        validator: Validator::default(),
    })
}

fn too_slow(source: &Source) -> Failure {
    Failure::new(
        format!("no answer in {} ms", source.timeout.as_millis()),
        "make it faster, or raise its `timeout` in sources.toml",
    )
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
