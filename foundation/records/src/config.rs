use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::sql::Dialect;

/// Which database, and the limits of what is asked of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it is called where there is one in each of two data centres: the same in both.
    pub name: Option<String>,
    /// Where it is.
    pub address: Address,
    /// A file with the password, read anew for each connection; white space around it is cut off.
    /// MariaDB only.
    pub password_file: Option<PathBuf>,
    /// With it, connections are encrypted and the server's name is checked. MariaDB only.
    pub tls: Option<Tls>,
    /// How long a transaction may take, with its waits and repeats. 10 s.
    pub deadline: Duration,
    /// How long one attempt to connect may take. 3 s.
    pub connect_timeout: Duration,
    /// How many connections there are at most. 8.
    pub connections: usize,
}

/// How connections to MariaDB are encrypted.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The PEM file of the authorities that the server's certificate comes from.
    pub ca: PathBuf,
    /// The PEM files of this side's certificate and its key, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The most servers that a URL may name.
const MAX_SERVERS: usize = 8;

/// Where a database is, read from a URL: `sqlite:/path/of/file.db` or
/// `mysql://user@host:3306/database`. There is no place for a password in it: URLs are shown.
/// The servers of a Galera cluster stand with commas between them, the nearest first:
/// `mysql://user@a:3306,b:3306/database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A file, made when it is missing.
    Sqlite(PathBuf),
    /// A server, or those of one cluster.
    MariaDb {
        /// The name or IP address and the port of each, 3306 if the URL has none; at least one.
        servers: Vec<(String, u16)>,
        /// The user.
        user: String,
        /// The database, which has to be there.
        database: String,
    },
}

/// A URL that names no database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

impl Config {
    /// The database at `url`, with the usual limits.
    ///
    /// # Errors
    ///
    /// If the URL is none.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        Ok(Self {
            name: None,
            address: url.parse()?,
            password_file: None,
            tls: None,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            connections: 8,
        })
    }

    /// What the environment says, as a node hands it to the one service that may know: the URL in
    /// `HYDRANT_RECORDS`, its name in `HYDRANT_RECORDS_NAME`, and files in `HYDRANT_RECORDS_PASSWORD_FILE`,
    /// `HYDRANT_RECORDS_TLS_CA`, `HYDRANT_RECORDS_TLS_CERTIFICATE` and `HYDRANT_RECORDS_TLS_KEY`. None when there is no URL.
    ///
    /// # Errors
    ///
    /// If the URL is none.
    pub fn from_env() -> Result<Option<Self>, InvalidUrl> {
        Self::from_variables("HYDRANT_RECORDS", |name| std::env::var(name).ok())
    }

    /// The same of the database in the other data centre: `HYDRANT_RECORDS_FAR`, `HYDRANT_RECORDS_FAR_PASSWORD_FILE`
    /// and so on.
    ///
    /// # Errors
    ///
    /// If the URL is none.
    pub fn far_from_env() -> Result<Option<Self>, InvalidUrl> {
        Self::from_variables("HYDRANT_RECORDS_FAR", |name| std::env::var(name).ok())
    }

    fn from_variables(
        first: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, InvalidUrl> {
        let set = |rest: &str| {
            let value = variable(&format!("{first}{rest}"));
            value.filter(|value| !value.is_empty())
        };
        let Some(url) = set("") else {
            return Ok(None);
        };
        let file = |name: &str| set(name).map(PathBuf::from);
        let certificate = file("_TLS_CERTIFICATE");
        let identity = certificate.zip(file("_TLS_KEY"));
        let tls = file("_TLS_CA").map(|ca| Tls { ca, identity });
        Ok(Some(Self {
            name: set("_NAME"),
            password_file: file("_PASSWORD_FILE"),
            tls,
            ..Self::new(&url)?
        }))
    }
}

impl Address {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::MariaDb { .. } => Dialect::MariaDb,
        }
    }
}

impl FromStr for Address {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return sqlite(path);
        }
        match url.strip_prefix("mysql://") {
            Some(rest) => mariadb(rest),
            None => Err(InvalidUrl(
                "it begins neither with `sqlite:` nor with `mysql://`".into(),
            )),
        }
    }
}

fn sqlite(path: &str) -> Result<Address, InvalidUrl> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains('\0') || path.starts_with(':') {
        let message = "write the path of a file, as in sqlite:/var/lib/hydrant/mobile.db";
        return Err(InvalidUrl(message.into()));
    }
    Ok(Address::Sqlite(path.into()))
}

fn mariadb(rest: &str) -> Result<Address, InvalidUrl> {
    let bad = |what: &str| {
        let example = "mysql://user@host:3306/database";
        InvalidUrl(format!("{what}: write {example}"))
    };
    let (user, place) = rest.rsplit_once('@').ok_or_else(|| bad("no user"))?;
    if user.contains(':') {
        return Err(bad(
            "a password has no place in a URL, put it into the password file",
        ));
    }
    let (servers, database) = place.split_once('/').ok_or_else(|| bad("no database"))?;
    let servers: Option<Vec<_>> = servers.split(',').map(host_and_port).collect();
    let servers = servers.ok_or_else(|| bad("no host and port"))?;
    if servers.len() > MAX_SERVERS {
        return Err(bad("more than 8 servers"));
    }
    let is_name = |text: &str| {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        (1..=64).contains(&text.len()) && text.chars().all(is_good)
    };
    if !is_name(user) {
        return Err(bad("no name of a user"));
    }
    if !is_name(database) {
        return Err(bad("no name of a database"));
    }
    Ok(Address::MariaDb {
        servers,
        user: user.to_owned(),
        database: database.to_owned(),
    })
}

/// `host`, `host:port`, `[::1]:port`.
fn host_and_port(server: &str) -> Option<(String, u16)> {
    let bracketed = server.strip_prefix('[').and_then(|s| s.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, rest)) => (host, rest),
        None => server.split_at(server.find(':').unwrap_or(server.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => 3306,
        None => return None,
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    (!host.is_empty() && host.chars().all(is_good)).then(|| (host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::MariaDb {
                servers,
                user,
                database,
            } => {
                let shown = servers.iter().map(|(host, port)| match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                });
                let servers = shown.collect::<Vec<_>>().join(",");
                write!(f, "mysql://{user}@{servers}/{database}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for url in [
            "sqlite:/var/lib/a b.db",
            "mysql://u@h:3307/d",
            "mysql://u@[::1]:3306/d",
            "mysql://u@a:3306,[::1]:3307,b:3306/d",
        ] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), url);
        }
        let parsed: Address = "mysql://u@db.example/d".parse().unwrap();
        assert_eq!(parsed.to_string(), "mysql://u@db.example:3306/d");
        assert_eq!(
            "sqlite:///x".parse::<Address>(),
            Ok(Address::Sqlite("/x".into()))
        );
    }

    #[test]
    fn what_is_no_url_is_refused_with_its_mend() {
        let told = |url: &str| url.parse::<Address>().unwrap_err().to_string();
        assert!(told("postgres://x").contains("sqlite:"));
        assert!(told("sqlite:").contains("path of a file"));
        assert!(told("sqlite::memory:").contains("path of a file"));
        assert!(told("mysql://h/d").contains("no user"));
        assert!(told("mysql://u@h").contains("no database"));
        assert!(told("mysql://u@h:0/d").contains("no host and port"));
        assert!(told("mysql://u@h,/d").contains("no host and port"));
        let many = format!("mysql://u@{}h/d", "h,".repeat(MAX_SERVERS));
        assert!(told(&many).contains("more than 8"));
        assert!(told("mysql://u@h/").contains("no name of a database"));
        let secret = told("mysql://u:hunter2@h/d");
        assert!(secret.contains("password file") && !secret.contains("hunter2"));
    }

    #[test]
    fn the_environment_names_files_and_no_secrets() {
        let variable = |name: &str| match name {
            "HYDRANT_RECORDS" => Some("mysql://u@h/d".to_owned()),
            "HYDRANT_RECORDS_PASSWORD_FILE" => Some("/p".to_owned()),
            "HYDRANT_RECORDS_TLS_CA" => Some("/ca".to_owned()),
            "HYDRANT_RECORDS_TLS_KEY" => Some(String::new()),
            _ => None,
        };
        let config = Config::from_variables("HYDRANT_RECORDS", variable)
            .unwrap()
            .unwrap();
        assert_eq!(config.password_file, Some("/p".into()));
        assert!(config.tls.unwrap().identity.is_none());
        let far = Config::from_variables("HYDRANT_RECORDS_FAR", variable).unwrap();
        assert!(far.is_none());
        let there = |name: &str| match name {
            "HYDRANT_RECORDS_FAR" => Some("mysql://u@far/d".to_owned()),
            "HYDRANT_RECORDS_FAR_NAME" => Some("b".to_owned()),
            _ => None,
        };
        let far = Config::from_variables("HYDRANT_RECORDS_FAR", there);
        assert_eq!(far.unwrap().unwrap().name.as_deref(), Some("b"));
        let nothing = |_: &str| None;
        assert!(
            Config::from_variables("HYDRANT_RECORDS", nothing)
                .unwrap()
                .is_none()
        );
    }
}
