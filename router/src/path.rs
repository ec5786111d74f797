//! Which request paths are safe to forward. A path must mean the same to the router, which
//! compares prefixes, and to any web server behind it, which may decode and clean it.

use crate::refusal::{Reason, Refusal, shown};

/// The path of a request target, without its query, if no server could read it as a path outside
/// of the prefix that it begins with.
pub(crate) fn checked(target: &[u8]) -> Result<&[u8], Refusal> {
    let (path, query) = split_query(target);
    if path.first() != Some(&b'/') {
        return Err(not_a_path(target));
    }
    check_query(query)?;
    check_path(path)?;
    Ok(path)
}

/// The path of a request target, and its query with the question mark.
pub(crate) fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    target.split_at(end)
}

fn check_path(path: &[u8]) -> Result<(), Refusal> {
    for (at, byte) in path.iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => {}
            Class::Slash => check_segment(path, &path[at + 1..])?,
            Class::Percent => check_escape(path, &path[at + 1..])?,
            Class::Forbidden => return Err(bad(path, forbidden(*byte))),
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Percent,
    Forbidden,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Forbidden; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = Class::Plain;
        byte += 1;
    }
    classes[b'\\' as usize] = Class::Forbidden;
    classes[b'#' as usize] = Class::Forbidden;
    classes[b'/' as usize] = Class::Slash;
    classes[b'%' as usize] = Class::Percent;
    classes
};

/// `rest` is what follows a slash.
fn check_segment(path: &[u8], rest: &[u8]) -> Result<(), Refusal> {
    match rest.first() {
        Some(b'/') => Err(bad(path, "it has an empty segment, '//'")),
        Some(b'.' | b'%' | b';') if is_dot_segment(rest) => {
            Err(bad(path, "it has a segment '.' or '..'"))
        }
        _ => Ok(()),
    }
}

/// Whether the segment is one or two dots, plain or escaped. Some servers cut a segment at ';'.
fn is_dot_segment(mut rest: &[u8]) -> bool {
    let mut dots = 0;
    loop {
        let (byte, after) = decoded(rest);
        match byte {
            Some(b'.') if dots < 2 => dots += 1,
            None | Some(b'/' | b'\\' | b';') => return dots > 0,
            _ => return false,
        }
        rest = after;
    }
}

/// The first byte, unescaped, and what follows it.
fn decoded(text: &[u8]) -> (Option<u8>, &[u8]) {
    match text {
        [] => (None, text),
        [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => (Some(high << 4 | low), after),
            _ => (Some(b'%'), &text[1..]),
        },
        [byte, after @ ..] => (Some(*byte), after),
    }
}

/// `rest` is what follows a percent sign.
fn check_escape(path: &[u8], rest: &[u8]) -> Result<(), Refusal> {
    let digit = |at: usize| rest.get(at).copied().and_then(hex);
    let (Some(high), Some(low)) = (digit(0), digit(1)) else {
        return Err(bad(path, "a '%' is not followed by two hexadecimal digits"));
    };
    match high << 4 | low {
        b'/' => Err(bad(path, "it has an escaped slash, %2F")),
        b'\\' => Err(bad(path, "it has an escaped backslash, %5C")),
        0..0x20 | 0x7f => Err(bad(path, "it has an escaped control character")),
        // Careless decoders read a dot or a slash out of these.
        0xc0 | 0xc1 => Err(bad(path, "it has an escape that is never UTF-8")),
        _ => Ok(()),
    }
}

fn check_query(query: &[u8]) -> Result<(), Refusal> {
    let unsafe_byte = query
        .iter()
        .find(|byte| matches!(byte, 0..=0x20 | 0x7f | b'#'));
    unsafe_byte.map_or(Ok(()), |byte| Err(bad(query, forbidden(*byte))))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn forbidden(byte: u8) -> &'static str {
    match byte {
        b'\\' => "it has a backslash",
        b'#' => "it has a '#'",
        b' ' => "it has a space; write %20",
        0..=0x1f | 0x7f => "it has a control character",
        _ => "it has a byte outside of ASCII; percent-encode it",
    }
}

fn not_a_path(target: &[u8]) -> Refusal {
    let message = format!("the target `{}` is not a path", shown(target));
    Refusal::new(Reason::BadRequest, message).mend("a path begins with '/'")
}

fn bad(path: &[u8], what: &'static str) -> Refusal {
    let message = format!("the path `{}` is refused: {what}", shown(path));
    Refusal::new(Reason::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_paths_pass_unchanged() {
        for path in [
            "/",
            "/api/files/a.txt",
            "/api/files/.hidden",
            "/api/files/..rc/...",
            "/api/files/a%20b%C3%A4",
            "/api/files/%61%25",
            "/api/files/a;v=1/b:c@d,e~f",
            "/api/files/",
        ] {
            assert_eq!(checked(path.as_bytes()), Ok(path.as_bytes()));
        }
        assert_eq!(
            checked(b"/a?b=/../%"),
            Ok(&b"/a"[..]),
            "a query is only kept"
        );
    }

    #[test]
    fn what_could_mean_another_path_is_refused() {
        for (path, part) in [
            ("", "not a path"),
            ("*", "not a path"),
            ("http://host/a", "not a path"),
            ("?a", "not a path"),
            ("//a", "'//'"),
            ("/a//b", "'//'"),
            ("/a/../b", "'..'"),
            ("/a/..", "'..'"),
            ("/a/./b", "'..'"),
            ("/a/%2e%2e/b", "'..'"),
            ("/a/.%2E", "'..'"),
            ("/a/%2e./b", "'..'"),
            ("/a/..;x/b", "'..'"),
            ("/a/..%3Bx/b", "'..'"),
            ("/a%2fb", "%2F"),
            ("/a%2Fb", "%2F"),
            ("/a%5cb", "%5C"),
            ("/a\\b", "backslash"),
            ("/a%00b", "escaped control"),
            ("/a%0d%0ab", "escaped control"),
            ("/a%7f", "escaped control"),
            ("/a/%c0%ae%C0%AE/b", "UTF-8"),
            ("/a%c1%9cb", "UTF-8"),
            ("/a\nb", "control"),
            ("/a b", "space"),
            ("/a%", "'%'"),
            ("/a%2", "'%'"),
            ("/a%zz", "'%'"),
            ("/a#b", "'#'"),
            ("/ä", "outside of ASCII"),
            ("/a?b c", "space"),
            ("/a?b\r\nc", "control"),
        ] {
            let refusal = checked(path.as_bytes()).expect_err(path);
            assert_eq!(refusal.reason, Reason::BadRequest);
            assert!(refusal.message.contains(part), "{path}: {refusal}");
        }
    }

    /// Decodes and cleans a path as the most eager server would.
    fn cleaned(path: &[u8]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = path;
        while let (Some(byte), after) = decoded(rest) {
            bytes.push(if byte == b'\\' { b'/' } else { byte });
            rest = after;
        }
        let mut segments = Vec::new();
        for segment in bytes.split(|byte| *byte == b'/') {
            let name = segment
                .split(|byte| *byte == b';')
                .next()
                .unwrap_or(segment);
            match name {
                b"" | b"." => {}
                b".." => {
                    segments.pop();
                }
                _ => segments.push(segment.to_vec()),
            }
        }
        segments
    }

    proptest! {
        #[test]
        fn no_accepted_path_leaves_its_prefix(
            parts in proptest::collection::vec(
                prop_oneof![
                    "[.%/\\\\;25eEfFcC0]{0,4}",
                    Just("..".into()), Just("%2e".into()), Just("%2f".into()), Just("/".into()),
                    Just("a".into()), "[ -~]{0,3}",
                ],
                0..12,
            ),
        ) {
            let path = format!("/api/files/{}", parts.concat());
            if let Ok(path) = checked(path.as_bytes()) {
                let segments = cleaned(path);
                prop_assert_eq!(&segments[..2], &[b"api".to_vec(), b"files".to_vec()]);
            }
        }

        #[test]
        fn checking_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = checked(&bytes);
        }
    }
}
