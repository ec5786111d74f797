//! Names of header fields that say what only the router may say. Servers exist that read other
//! signs in a name as `-` (CGI makes `_` of both), and that merge trailers into the head: no name
//! of ours, nor of framing, may come in that way.

use hydrant_contracts::header;

const OURS: [&str; 15] = [
    header::CALLER,
    header::CLIENT_CERT,
    header::TOKEN,
    header::FORWARDED_PREFIX,
    header::SERVER,
    header::TO,
    header::UNSENT,
    header::BROKEN,
    header::PRIORITY,
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];
const ONLY_IN_HEADS: [&str; 15] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];
const ONLY_IN_HEADS_FROM: [&str; 2] = ["hydrant-", "x-forwarded-"];

/// Whether it is one of those names, written with another sign for `-`.
pub(crate) fn is_lookalike(name: &[u8]) -> bool {
    let is_odd = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-';
    name.iter().any(is_odd) && OURS.iter().any(|ours| is_same(name, ours))
}

/// Whether a request's trailer may not have this name, of which the first 20 bytes suffice.
pub(crate) fn is_only_in_heads(name: &[u8]) -> bool {
    let begins = |start: &&str| {
        name.get(..start.len())
            .is_some_and(|name| is_same(name, start))
    };
    ONLY_IN_HEADS.iter().any(|only| is_same(name, only)) || ONLY_IN_HEADS_FROM.iter().any(begins)
}

fn is_same(name: &[u8], ours: &str) -> bool {
    let same =
        |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (b == b'-' && !a.is_ascii_alphanumeric());
    name.len() == ours.len() && name.iter().zip(ours.bytes()).all(|(a, b)| same(*a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookalikes_are_told_from_ours_and_from_others() {
        for name in [
            "hydrant_caller",
            "Hydrant.Token",
            "content_length",
            "x-forwarded_for",
        ] {
            assert!(is_lookalike(name.as_bytes()), "{name}");
        }
        for name in [
            "hydrant-caller",
            "hydrant_other",
            "x_custom",
            "contentlength",
        ] {
            assert!(!is_lookalike(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn trailers_say_nothing_of_framing_origin_or_identity() {
        for name in [
            "Content-Length",
            "content_length",
            "hydrant-caller",
            "hydrant_x",
            "x-forwarded-for",
            "x_forwarded_anything",
            "TE",
        ] {
            assert!(is_only_in_heads(name.as_bytes()), "{name}");
        }
        for name in ["checksum", "grpc-status", "hydrants", "x-forward", "ten"] {
            assert!(!is_only_in_heads(name.as_bytes()), "{name}");
        }
    }
}
