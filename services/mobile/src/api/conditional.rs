//! Conditional requests, as RFC 9110 has them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// A strong entity tag over the bytes of a body, with its quotes.
pub(crate) fn etag_of(body: &[u8]) -> String {
    let hash = Sha256::digest(body);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash[..18]))
}

/// Whether an `If-None-Match` names `etag`, by the weak comparison, or is `*`. Reads a list up to
/// its first mistake.
pub(crate) fn is_named(if_none_match: &[u8], etag: &str) -> bool {
    let text = trim(if_none_match);
    if text == b"*" {
        return true;
    }
    let mut rest = text;
    while let Some((tag, behind)) = next_tag(rest) {
        if tag == etag.as_bytes() {
            return true;
        }
        rest = behind;
    }
    false
}

/// The opaque part of the next tag, with its quotes, and what is behind its comma.
fn next_tag(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = list
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = &list[start..];
    let tag = list.strip_prefix(b"W/").unwrap_or(list);
    let inner = tag.strip_prefix(b"\"")?;
    let length = inner.iter().position(|byte| *byte == b'"')?;
    let valid = inner[..length]
        .iter()
        .all(|byte| *byte > b' ' && *byte != 0x7f);
    let (tag, behind) = tag.split_at(length + 2);
    let behind = trim(behind);
    (valid && matches!(behind.first(), None | Some(b','))).then_some((tag, behind))
}

fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text
        .iter()
        .position(|byte| !is_space(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|byte| !is_space(byte))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_weak_tags_and_the_star() {
        for (header, expected) in [
            (r#""abc""#, true),
            (r#"W/"abc""#, true),
            (r#" "x" , W/"y",	"abc" "#, true),
            (r#""a,b", "abc""#, true),
            (r#",, "abc""#, true),
            ("*", true),
            (" * ", true),
            (r#""abd""#, false),
            ("abc", false),
            (r#""abc"#, false),
            (r#"w/"abc""#, false),
            (r#""x" "abc""#, false),
            (r#"*, "x""#, false),
            (r#""ABC""#, false),
            ("", false),
        ] {
            assert_eq!(is_named(header.as_bytes(), "\"abc\""), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            is_named(&bytes, "\"abc\"");
        }

        #[test]
        fn a_tag_is_found_wherever_it_stands(
            before in proptest::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4),
            after in proptest::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..4),
            body in proptest::collection::vec(any::<u8>(), 0..50),
            weak in any::<bool>(),
        ) {
            let etag = etag_of(&body);
            let own = format!("{}{etag}", if weak { "W/" } else { "" });
            let list = [before.clone(), vec![own], after.clone()].concat().join(", ");
            prop_assert!(is_named(list.as_bytes(), &etag));
            let others = [before, after].concat().join(",");
            prop_assert!(!is_named(others.as_bytes(), &etag));
        }

        #[test]
        fn equal_bodies_have_equal_tags(one in any::<Vec<u8>>(), two in any::<Vec<u8>>()) {
            prop_assert_eq!(etag_of(&one) == etag_of(&two), one == two);
        }
    }
}
