use std::fmt;
use std::time::Duration;

use http::Uri;
use hydrant_contracts::{Code, Error, InstanceId};

/// How long a service lives without a node when `HYDRANT_GRACE` does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What a process needs to know of its node. The node puts it into the environment of the
/// processes that it starts; one that is started by hand gets it from `hydrant token`.
#[derive(Clone)]
pub struct Config {
    /// The node's local listener, from `HYDRANT_URL`, as `http://127.0.0.1:8081`.
    pub url: Uri,
    /// Proves which service this is, from `HYDRANT_TOKEN`; without one it is the outside.
    pub token: Option<http::HeaderValue>,
    /// The node's public listener, from `HYDRANT_PUBLIC_URL`.
    pub public_url: Option<String>,
    /// The id that the supervisor chose for this process, from `HYDRANT_INSTANCE`.
    pub instance: Option<InstanceId>,
    /// The port to answer at, from `PORT`; 0 takes any that is free.
    pub port: u16,
    /// How long to live without a node, from `HYDRANT_GRACE`, as `30s`.
    pub grace: Duration,
}

impl Config {
    /// A node's local listener and a token; the rest as it is without an environment.
    ///
    /// # Errors
    ///
    /// If the URL is not an `http://` one, or the token has characters that a header can't carry.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, Error> {
        Ok(Self {
            url: parse_url(url)?,
            token: token.map(parse_token).transpose()?,
            public_url: None,
            instance: None,
            port: 0,
            grace: DEFAULT_GRACE,
        })
    }

    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// If `HYDRANT_URL` is missing, or a variable is not what it should be.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let url = variable("HYDRANT_URL").ok_or_else(no_url)?;
        let mut config = Self::new(&url, variable("HYDRANT_TOKEN").as_deref())?;
        config.public_url = variable("HYDRANT_PUBLIC_URL");
        if let Some(id) = variable("HYDRANT_INSTANCE") {
            config.instance = Some(
                id.parse()
                    .map_err(|error| broken("HYDRANT_INSTANCE", error))?,
            );
        }
        if let Some(port) = variable("PORT") {
            config.port = port.parse().map_err(|error| broken("PORT", error))?;
        }
        if let Some(grace) = variable("HYDRANT_GRACE") {
            let grace: hydrant_runtime::Duration = grace
                .parse()
                .map_err(|error| broken("HYDRANT_GRACE", error))?;
            config.grace = grace.get();
        }
        Ok(config)
    }
}

/// Leaves the token out.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url)
            .field("public_url", &self.public_url)
            .field("instance", &self.instance)
            .field("port", &self.port)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

fn parse_url(text: &str) -> Result<Uri, Error> {
    let url: Uri = text.parse().map_err(|error| broken("HYDRANT_URL", error))?;
    if url.scheme_str() != Some("http") || url.authority().is_none() {
        return Err(broken("HYDRANT_URL", "it is written http://ADDRESS:PORT"));
    }
    Ok(url)
}

fn parse_token(text: &str) -> Result<http::HeaderValue, Error> {
    let mut token = http::HeaderValue::from_str(text)
        .map_err(|_| broken("HYDRANT_TOKEN", "it has characters that no token has"))?;
    token.set_sensitive(true);
    Ok(token)
}

fn broken(variable: &str, reason: impl fmt::Display) -> Error {
    let message = format!("the environment variable {variable} can't be used: {reason}");
    Error::new(Code::InvalidArgument, "bad_environment", message)
}

fn no_url() -> Error {
    Error::new(Code::FailedPrecondition, "no_node", "HYDRANT_URL is not set, so no node is known")
        .mend("let `hydrant up` or `hydrant run` start this process, or set HYDRANT_URL and HYDRANT_TOKEN (see `hydrant token`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn reads_what_the_supervisor_sets() {
        let config = read(&[
            ("HYDRANT_URL", "http://127.0.0.1:8081"),
            ("HYDRANT_TOKEN", "h1.service/customers.abc"),
            ("HYDRANT_INSTANCE", "customers-1"),
            ("HYDRANT_GRACE", "5s"),
            ("PORT", "4000"),
        ])
        .unwrap();
        assert_eq!(config.port, 4000);
        assert_eq!(config.grace, Duration::from_secs(5));
        assert_eq!(config.instance.as_ref().unwrap().as_str(), "customers-1");
        assert!(
            !format!("{config:?}").contains("abc"),
            "a token is not shown"
        );
    }

    #[test]
    fn says_which_variable_is_wrong_and_how_to_mend_it() {
        let url = ("HYDRANT_URL", "http://127.0.0.1:8081");
        for (variables, part) in [
            (vec![], "hydrant up"),
            (
                vec![("HYDRANT_URL", "127.0.0.1:8081")],
                "http://ADDRESS:PORT",
            ),
            (vec![("HYDRANT_URL", "https://a")], "http://ADDRESS:PORT"),
            (vec![url, ("PORT", "high")], "PORT"),
            (vec![url, ("HYDRANT_GRACE", "30")], "30s"),
            (vec![url, ("HYDRANT_INSTANCE", "A")], "HYDRANT_INSTANCE"),
            (vec![url, ("HYDRANT_TOKEN", "a\nb")], "HYDRANT_TOKEN"),
        ] {
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(part), "{variables:?}: {error}");
        }
    }
}
