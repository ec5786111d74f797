use std::ops::Range;

use memchr::memchr2_iter;

/// The longest part of an address that is looked at, in bytes.
const MAX_PART: usize = 256;

/// Finds e-mail addresses, and what stands before the `@` of a URL. The `@` may be written as URLs do.
pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    for at in memchr2_iter(b'@', b'%', text.as_bytes()) {
        let Some(after) = behind_sign(text, at) else {
            continue;
        };
        if let Some(credentials) = credentials(text, at) {
            found.push(credentials);
        } else if let Some(address) = mail(text, at, after) {
            found.push(address);
        }
    }
}

fn behind_sign(text: &str, at: usize) -> Option<usize> {
    let rest = &text.as_bytes()[at..];
    match rest {
        [b'@', ..] => Some(at + 1),
        [b'%', b'4', b'0', ..] => Some(at + 3),
        _ => None,
    }
}

/// The user and the password in `scheme://user:password@host`.
fn credentials(text: &str, at: usize) -> Option<Range<usize>> {
    let start = last(&text[..at], |c| c.is_whitespace() || "\"'`<>".contains(c));
    let scheme = text[start..at].rfind("://")?;
    let start = start + scheme + "://".len();
    let is_end = |c: char| "/?#".contains(c);
    (start < at && !text[start..at].contains(is_end)).then_some(start..at)
}

fn mail(text: &str, at: usize, after: usize) -> Option<Range<usize>> {
    let is_local = |c: char| c.is_alphanumeric() || ".!#$'*+^_{|}~-%".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || ".-".contains(c);
    let start = last(&text[..at], |c| !is_local(c));
    let rest = &text[after..];
    let end = rest.find(|c| !is_domain(c)).unwrap_or(rest.len());
    let domain = rest[..end].trim_end_matches(['.', '-']);
    let (_, top) = domain.rsplit_once('.')?;
    let is_top =
        top.chars().count() >= 2 && top.chars().all(char::is_alphabetic) || top.starts_with("xn--");
    (start < at && is_top).then_some(start..after + domain.len())
}

/// Where what follows the last of such characters begins, not too far back.
fn last(text: &str, is_end: impl Fn(char) -> bool) -> usize {
    let mut chars = text.char_indices().rev();
    let near = |(at, c): &(usize, char)| !is_end(*c) && text.len() - at <= MAX_PART;
    let mut start = text.len();
    while let Some((at, _)) = chars.next().filter(&near) {
        start = at;
    }
    start
}
