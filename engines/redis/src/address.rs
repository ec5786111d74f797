use std::fmt;
use std::str::FromStr;

use crate::error::Failure;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Address {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(inner) => inner.strip_suffix(']')?,
                None => host,
            };
            let port = port.parse().ok().filter(|port| *port != 0)?;
            let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
            is_host.then(|| Self {
                host: host.into(),
                port,
            })
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
            Failure::lasting(format!(
                "`{shown}` is not the address of a Redis server: write host:port, as 127.0.0.1:6379"
            ))
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for good in ["redis-1.example:6379", "127.0.0.1:1", "[::1]:6379"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", "host", ":1", "host:0", "host:65536", "[::1:1", "h h:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
