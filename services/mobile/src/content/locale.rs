//! Which locale of an entry somebody gets.

/// The longest locale, in bytes.
const MAX_LOCALE: usize = 35;

/// Whether the text is a language tag as `en` or `en-US` (BCP 47, without checking that it is
/// registered).
pub(crate) fn is_locale(text: &str) -> bool {
    let mut parts = text.split('-');
    let language = parts.next().unwrap_or("");
    (2..=3).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.len() <= MAX_LOCALE
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// Why a locale was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is the one that was asked for.
    Exact,
    /// It is the one that was asked for with fewer subtags: `de` for `de-AT`.
    Shorter,
    /// It is the first of the entry's `fallback` list.
    Fallback,
    /// It is the first that the entry declares.
    First,
}

impl Step {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Shorter => "shorter",
            Self::Fallback => "fallback",
            Self::First => "first declared",
        }
    }
}

/// Finds the locale for who asks for `wanted`: the one itself, then with fewer and fewer subtags
/// (`zh-Hant-TW`, `zh-Hant`, `zh`), then the first of `fallback`, then the first that is declared.
/// Upper and lower case do not matter. Gives its place in `declared`; `None` when that is empty.
pub(crate) fn choose<'a>(
    declared: impl Iterator<Item = &'a str> + Clone,
    fallback: Option<usize>,
    wanted: &str,
) -> Option<(usize, Step)> {
    let find = |tag: &str| {
        let mut declared = declared.clone();
        declared.position(|one| one.eq_ignore_ascii_case(tag))
    };
    if let Some(at) = find(wanted) {
        return Some((at, Step::Exact));
    }
    let mut tag = wanted;
    while let Some(end) = tag.rfind('-') {
        tag = &tag[..end];
        if let Some(at) = find(tag) {
            return Some((at, Step::Shorter));
        }
    }
    match fallback {
        Some(at) => Some((at, Step::Fallback)),
        None => declared.clone().next().map(|_| (0, Step::First)),
    }
}
