//! Media types, and ranges of them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `image/*`, `application/pdf` or `*/*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MediaRange {
    kind: String,
    /// Any when absent.
    subtype: Option<String>,
}

impl MediaRange {
    /// Whether a media type, with or without parameters, is in it.
    pub(crate) fn has(&self, media: &str) -> bool {
        let media = media.split(';').next().unwrap_or_default().trim();
        let Some((kind, subtype)) = media.split_once('/') else {
            return false;
        };
        let is_kind = self.kind == "*" || self.kind.eq_ignore_ascii_case(kind);
        let wanted = self.subtype.as_deref();
        is_kind && wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(subtype))
    }
}

impl FromStr for MediaRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |part: &str| {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
            !part.is_empty() && part.len() <= 127 && part.bytes().all(is_good)
        };
        match text.split_once('/') {
            Some(("*", "*")) => Ok(Self {
                kind: "*".into(),
                subtype: None,
            }),
            Some((kind, "*")) if is_token(kind) => Ok(Self {
                kind: kind.into(),
                subtype: None,
            }),
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(Self {
                kind: kind.into(),
                subtype: Some(subtype.into()),
            }),
            _ => Err(format!(
                "`{}` is no media type: write image/* or application/pdf",
                text.escape_debug()
            )),
        }
    }
}

impl TryFrom<String> for MediaRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subtype = self.subtype.as_deref().unwrap_or("*");
        write!(f, "{}/{subtype}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_types_and_no_others() {
        let has = |range: &str, media| range.parse::<MediaRange>().unwrap().has(media);
        assert!(has("image/*", "image/png"));
        assert!(has("IMAGE/*", "image/PNG; q=1"));
        assert!(has("*/*", "application/pdf"));
        assert!(has("text/plain", "text/plain;charset=utf-8"));
        for (range, media) in [
            ("image/*", "images/png"),
            ("text/plain", "text/html"),
            ("text/plain", "text"),
            ("*/*", ""),
        ] {
            assert!(!has(range, media), "{range} {media}");
        }
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        for text in ["", "image", "*/png", "a b/c", "image/", "/png", "a/b/c"] {
            let refused = text.parse::<MediaRange>();
            assert!(refused.unwrap_err().contains("image/*"), "{text}");
        }
    }
}
