//! The chain of proxies that a request came through, read from its end: each trusted one is believed in what
//! it has written, and the first address that is not trusted is the client. What stands before was
//! written by the client.

use std::net::{IpAddr, SocketAddr};

use super::{Proxies, Word};
use crate::http1::head::check_host;
use crate::rule::Fields;

/// The most proxies that are believed one after the other.
const MAX_HOPS: usize = 32;

/// Nothing but where the connection comes from.
fn nobody(proxy: IpAddr) -> Word {
    Word {
        address: proxy.to_canonical(),
        https: None,
        host: None,
        port: None,
    }
}

/// By `x-forwarded-for`. The other headers say what the nearest proxy says.
pub(super) fn x_forwarded(proxies: &Proxies, proxy: IpAddr, fields: &dyn Fields) -> Word {
    let mut word = nobody(proxy);
    for item in items(&whole(fields, "x-forwarded-for")).take(MAX_HOPS) {
        let Some(address) = address_of(item) else {
            break;
        };
        word.address = address;
        if !proxies.trusts(address) {
            break;
        }
    }
    let last = |name, read: &mut dyn FnMut(&str)| {
        if let Some(Ok(item)) = items(&whole(fields, name)).next().map(std::str::from_utf8) {
            read(item);
        }
    };
    last("x-forwarded-proto", &mut |item| word.https = https(item));
    last("x-forwarded-host", &mut |item| word.host = host(item));
    last("x-forwarded-port", &mut |item| {
        word.port = item.parse().ok()
    });
    word
}

/// By `forwarded`. One element tells all of one hop.
pub(super) fn forwarded(proxies: &Proxies, proxy: IpAddr, fields: &dyn Fields) -> Word {
    let mut word = nobody(proxy);
    for item in items(&whole(fields, "forwarded")).take(MAX_HOPS) {
        let Some(told) = element(item) else {
            break;
        };
        let trusted = proxies.trusts(told.address);
        word = told;
        if !trusted {
            break;
        }
    }
    word
}

/// The lines of a field as the one that they stand for (RFC 9110, 5.3).
fn whole(fields: &dyn Fields, name: &str) -> Vec<u8> {
    let mut whole = Vec::new();
    fields.any(name, &mut |line| {
        whole.extend_from_slice(line);
        whole.push(b',');
        false
    });
    whole
}

/// The items of a list from its end, without the empty ones. A comma in quotes ends an item too: an item with
/// half a quote is malformed, and so nobody's open quote swallows what a proxy wrote behind it.
fn items(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    let items = whole.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    items.filter(|item| !item.is_empty())
}

/// An address, perhaps with a port. What is no address, as `unknown`, names nobody.
fn address_of(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bare = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<std::net::Ipv6Addr>()
            .ok()
    };
    let address = (text.parse().ok())
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| bare().map(IpAddr::from))?;
    Some(address.to_canonical())
}

fn https(item: &str) -> Option<bool> {
    let is = |scheme: &str| item.eq_ignore_ascii_case(scheme);
    is("https").then_some(true).or(is("http").then_some(false))
}

fn host(item: &str) -> Option<String> {
    (!item.is_empty() && check_host(item).is_ok()).then(|| item.to_owned())
}

/// An element of `forwarded`; one that does not name its client, or is malformed, tells nothing.
fn element(item: &[u8]) -> Option<Word> {
    let (mut address, mut word) = (None, nobody(IpAddr::from([0, 0, 0, 0])));
    let mut seen = [false; 4];
    for pair in std::str::from_utf8(item).ok()?.split(';') {
        let (name, value) = pair.trim_ascii().split_once('=')?;
        let value = unquoted(value)?;
        let which = ["for", "proto", "host", "by"]
            .iter()
            .position(|known| name.eq_ignore_ascii_case(known));
        if let Some(which) = which
            && std::mem::replace(&mut seen[which], true)
        {
            return None;
        }
        match which {
            Some(0) => address = Some(address_of(value.as_bytes())?),
            Some(1) => word.https = https(value),
            Some(2) => word.host = host(value),
            _ => {}
        }
    }
    word.address = address?;
    Some(word)
}

/// A token, or what stands in quotes. An escape is in nothing that a proxy has to say.
fn unquoted(value: &str) -> Option<&str> {
    let inner = value
        .strip_prefix('"')
        .map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    (!inner.contains(['"', '\\'])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxies::Told;

    struct Lines<'a>(&'a [(&'a str, &'a [u8])]);

    impl Fields for Lines<'_> {
        fn any(&self, name: &str, accepts: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            let mut lines = self.0.iter().filter(|(known, _)| *known == name);
            lines.any(|(_, line)| accepts(line))
        }
    }

    fn proxies(read: Told) -> Proxies {
        Proxies {
            trusted: ["10.0.0.0/8", "fd00::/8"]
                .map(|text| text.parse().unwrap())
                .into(),
            read,
            ..Proxies::default()
        }
    }

    fn word(read: Told, lines: &[(&str, &[u8])]) -> Word {
        proxies(read).word([10, 0, 0, 9].into(), &Lines(lines))
    }

    fn x_for(text: &str) -> String {
        word(Told::XForwarded, &[("x-forwarded-for", text.as_bytes())])
            .address
            .to_string()
    }

    fn by_element(text: &str) -> String {
        word(Told::Forwarded, &[("forwarded", text.as_bytes())])
            .address
            .to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_end_that_is_not_trusted() {
        for (chain, client) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.1.1.1, 10.2.2.2", "1.2.3.4"),
            ("10.6.6.6, 1.2.3.4:5678,, 10.1.1.1:1", "1.2.3.4"),
            ("6.6.6.6,[2001:db8::1]:99", "2001:db8::1"),
            ("[2001:db8::1] , fd00::7", "2001:db8::1"),
            ("6.6.6.6, ::ffff:1.2.3.4", "1.2.3.4"),
            // All are trusted: the farthest.
            ("10.3.3.3, 10.1.1.1", "10.3.3.3"),
            // Who names nobody is the client, as far as is known.
            ("6.6.6.6, unknown, 10.1.1.1", "10.1.1.1"),
            ("6.6.6.6, 1.2.3", "10.0.0.9"),
            ("", "10.0.0.9"),
        ] {
            assert_eq!(x_for(chain), client, "{chain}");
        }
        let lines: [(&str, &[u8]); 2] = [
            ("x-forwarded-for", b"6.6.6.6"),
            ("x-forwarded-for", b"1.2.3.4"),
        ];
        assert_eq!(
            word(Told::XForwarded, &lines).address.to_string(),
            "1.2.3.4"
        );
    }

    #[test]
    fn an_element_tells_of_its_hop_alone() {
        for (chain, client) in [
            ("for=1.2.3.4", "1.2.3.4"),
            (
                "for=6.6.6.6, For=\"1.2.3.4:80\";proto=https, for=10.1.1.1",
                "1.2.3.4",
            ),
            (
                "for=\"[2001:db8::1]:4711\";by=10.0.0.1;secret=x",
                "2001:db8::1",
            ),
            ("for=6.6.6.6, for=unknown", "10.0.0.9"),
            ("for=6.6.6.6, for=_hidden, for=10.1.1.1", "10.1.1.1"),
            ("for=6.6.6.6, proto=https", "10.0.0.9"),
            ("for=6.6.6.6, for=1.2.3.4;for=5.5.5.5", "10.0.0.9"),
            ("for=1.2.3.4;", "10.0.0.9"),
        ] {
            assert_eq!(by_element(chain), client, "{chain}");
        }
    }

    /// Half a quote of the client, or a host with signs of ours, does not hide or make an element.
    #[test]
    fn nobody_speaks_through_a_quote() {
        for (chain, client) in [
            ("for=\"6.6.6.6, for=1.2.3.4", "1.2.3.4"),
            ("for=6.6.6.6, for=\"x, for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=1.2.3.4;host=\"a, for=6.6.6.6;b=c\"", "10.0.0.9"),
            ("for=1.2.3.4;host=\"a\\\",for=6.6.6.6;b=\\\"c\"", "10.0.0.9"),
        ] {
            assert_eq!(by_element(chain), client, "{chain}");
        }
    }

    #[test]
    fn scheme_host_and_port_are_those_of_the_nearest_proxy() {
        let lines: [(&str, &[u8]); 4] = [
            ("x-forwarded-for", b"1.2.3.4"),
            ("x-forwarded-proto", b"http, https"),
            ("x-forwarded-host", b"shop.example:8443"),
            ("x-forwarded-port", b"8443"),
        ];
        let told = word(Told::XForwarded, &lines);
        assert_eq!((told.https, told.port), (Some(true), Some(8443)));
        assert_eq!(told.host.as_deref(), Some("shop.example:8443"));
        let odd: [(&str, &[u8]); 3] = [
            ("x-forwarded-proto", b"gopher"),
            ("x-forwarded-host", b"a b"),
            ("x-forwarded-port", b"99999"),
        ];
        assert_eq!(word(Told::XForwarded, &odd), nobody([10, 0, 0, 9].into()));
        let told = word(
            Told::Forwarded,
            &[("forwarded", b"for=1.2.3.4;proto=HTTPS;host=\"a:1\"")],
        );
        assert_eq!(
            (told.https, told.host.as_deref()),
            (Some(true), Some("a:1"))
        );
    }

    #[test]
    fn the_other_header_is_not_read() {
        let lines: [(&str, &[u8]); 2] = [
            ("x-forwarded-for", b"1.2.3.4"),
            ("forwarded", b"for=5.6.7.8"),
        ];
        assert_eq!(
            word(Told::XForwarded, &lines).address.to_string(),
            "1.2.3.4"
        );
        assert_eq!(word(Told::Forwarded, &lines).address.to_string(), "5.6.7.8");
    }

    #[test]
    fn a_long_chain_ends() {
        assert_eq!(
            x_for(&format!("1.2.3.4{}", ", 10.1.1.1".repeat(MAX_HOPS - 1))),
            "1.2.3.4"
        );
        assert_eq!(
            x_for(&format!("1.2.3.4{}", ", 10.1.1.1".repeat(MAX_HOPS))),
            "10.1.1.1"
        );
        let began = std::time::Instant::now();
        x_for(&",".repeat(64 * 1024));
        by_element(&"for=10.1.1.1;for=\"".repeat(4096));
        eprintln!("two hostile lists take {:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn what_a_client_claims_changes_nothing(claim: Vec<u8>, second in any::<bool>()) {
            for (read, name, own) in [
                (Told::XForwarded, "x-forwarded-for", "1.2.3.4, 10.1.1.1"),
                (Told::Forwarded, "forwarded", "for=1.2.3.4, for=10.1.1.1"),
            ] {
                let joined = [&claim, &b","[..], own.as_bytes()].concat();
                let lines = match second {
                    true => vec![(name, &claim[..]), (name, own.as_bytes())],
                    false => vec![(name, &joined[..])],
                };
                prop_assert_eq!(word(read, &lines).address.to_string(), "1.2.3.4");
            }
        }
    }
}
