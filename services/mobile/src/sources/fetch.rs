use std::path::Path;
use std::sync::Arc;

use hydrant_sdk::{Code, Error, Hydrant};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tokio::io::AsyncReadExt as _;

use crate::sources::address::{Names, SystemNames};
use crate::sources::answer::{Rules, too_large};
use crate::sources::definition::{Errand, Location};
use crate::sources::http::{Http, Reply, read_body, told, wrong_status};
use crate::sources::snapshot::{Failure, Outcome, Validator};
use crate::sources::{Source, Sources};

/// Asks sources for their documents.
#[derive(Clone)]
pub(crate) struct Fetcher {
    http: Http,
    node: reqwest::Client,
    who: Asker,
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
            instance: match &config.instance {
                Some(instance) => instance.to_string(),
                None => format!("pid-{}", std::process::id()),
            },
            node: config.url.to_string(),
            token: config.token.clone(),
        }
    }

    /// The same, as the outside.
    pub(crate) fn as_anybody(self) -> Self {
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
    pub(crate) fn new(sources: &Sources, who: Asker) -> Result<Self, Error> {
        Self::with_names(sources, who, Arc::new(SystemNames)).map_err(|message| {
            Error::new(Code::InvalidArgument, "bad_configuration", message)
                .mend("mend sources.toml, or the file that it names")
        })
    }

    fn with_names(sources: &Sources, who: Asker, names: Arc<dyn Names>) -> Result<Self, String> {
        let authorities = sources
            .list()
            .iter()
            .filter_map(|source| match &source.location {
                Location::Url(remote) => Some(remote.ca.as_deref()),
                _ => None,
            });
        let node = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            http: Http::new(authorities, &names)?,
            node,
            who,
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
                let instance = &self.who.instance;
                self.http.ask(remote, max_size, instance, known).await?
            }
            Location::Service(errand) => self.run(errand, max_size).await?,
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

    /// Asks another service through the node, which decides who may call whom.
    async fn run(&self, errand: &Errand, max_size: u64) -> Result<Reply, Failure> {
        let url = format!("{}{}", self.who.node.trim_end_matches('/'), errand.endpoint);
        let mut request = match &errand.request {
            None => self.node.get(url),
            Some(message) => self
                .node
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
        let status = answer.status();
        if status != reqwest::StatusCode::OK {
            return Err(wrong_status(status));
        }
        Ok(Reply::Body {
            body: read_body(&mut answer, max_size).await?,
            encoding: String::new(),
            validator: Validator::default(),
        })
    }
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
