//! `[proxies]` of the configuration file: what stands in front of the node.

use hydrant_router::{Network, Proxies, Told, Written};
use serde::Deserialize;
use toml::Spanned;

use super::Mistake;

/// The most networks of proxies: each is compared with the address of each connection.
const MAX_TRUSTED: usize = 256;

/// `[proxies]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(default)]
    trusted: Vec<Spanned<String>>,
    #[serde(default)]
    read: Read,
    #[serde(default)]
    write: Write,
    proxy_protocol: Option<Spanned<bool>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Read {
    #[default]
    XForwarded,
    Forwarded,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Write {
    #[default]
    XForwarded,
    Forwarded,
    Both,
}

/// As the router takes it.
pub(super) fn read(table: Option<Table>) -> Result<Proxies, Mistake> {
    let Some(table) = table else {
        return Ok(Proxies::default());
    };
    if let Some(one) = table.trusted.get(MAX_TRUSTED) {
        let message = format!("`trusted` has at most {MAX_TRUSTED} networks");
        return Err((one.span().start, message));
    }
    let trusted = table.trusted.iter().map(network);
    let trusted = trusted.collect::<Result<Vec<_>, _>>()?;
    let proxy_protocol = match &table.proxy_protocol {
        Some(on) if *on.get_ref() && trusted.is_empty() => {
            let message = "`proxy_protocol` is for trusted proxies, and there are none: add trusted = \
                           [\"10.0.0.0/8\"], the addresses from which they come";
            return Err((on.span().start, message.into()));
        }
        on => on.as_ref().is_some_and(|on| *on.get_ref()),
    };
    Ok(Proxies {
        trusted,
        read: match table.read {
            Read::XForwarded => Told::XForwarded,
            Read::Forwarded => Told::Forwarded,
        },
        write: match table.write {
            Write::XForwarded => Written::XForwarded,
            Write::Forwarded => Written::Forwarded,
            Write::Both => Written::Both,
        },
        proxy_protocol,
    })
}

fn network(text: &Spanned<String>) -> Result<Network, Mistake> {
    let shown = text.get_ref().escape_debug();
    text.get_ref()
        .parse()
        .map_err(|error| (text.span().start, format!("`{shown}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::{File, Path};
    use super::*;

    fn parse(text: &str) -> Result<Proxies, String> {
        let file = File::parse(Path::new("h.toml"), text);
        file.map(|file| file.proxies)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_is_trusted_when_the_file_does_not_say_so() {
        assert_eq!(parse("").unwrap(), Proxies::default());
        assert_eq!(parse("[proxies]").unwrap(), Proxies::default());
    }

    #[test]
    fn all_of_it_is_read() {
        let text = "[proxies]\ntrusted = [\"10.0.0.0/8\", \"fd00::1\"]\nread = \"forwarded\"\nwrite = \"both\"\n\
                    proxy_protocol = true";
        let expected = Proxies {
            trusted: ["10.0.0.0/8", "fd00::1/128"]
                .map(|text| text.parse().unwrap())
                .into(),
            read: Told::Forwarded,
            write: Written::Both,
            proxy_protocol: true,
        };
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, place, message) in [
            (
                "trusted = [\"10.0.0.1/8\"]",
                "2:12",
                "where the network begins, as 10.0.0.0/8",
            ),
            (
                "trusted = [\"lb.example\"]",
                "2:12",
                "`lb.example`: it is not a network",
            ),
            (
                "proxy_protocol = true",
                "2:18",
                "there are none: add trusted",
            ),
            ("read = \"x\"", "2:8", "unknown variant `x`"),
            ("trust = []", "2:1", "unknown field `trust`"),
        ] {
            let error = parse(&format!("[proxies]\n{text}")).unwrap_err();
            assert!(error.contains(place) && error.contains(message), "{error}");
        }
    }
}
