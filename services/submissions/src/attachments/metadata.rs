//! `Upload-Metadata`: what a client says of a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::names;

/// The longest header, in bytes.
const MAX_METADATA: usize = 4096;
/// The longest media type, in bytes.
const MAX_MEDIA: usize = 200;
/// Of a file of which nothing is said.
const ANY_MEDIA: &str = "application/octet-stream";

/// What is said of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Cleaned.
    pub(super) name: String,
    /// A media type.
    pub(super) media: String,
    /// The header as it came.
    pub(super) text: String,
}

impl Metadata {
    /// Reads `filename BASE64,filetype BASE64,…`; other keys are kept as they are. `name` and `type` are taken
    /// for these two.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_METADATA {
            return Err(format!("it has more than {MAX_METADATA} bytes"));
        }
        let pairs = pairs(text)?;
        let find = |names: [&str; 2]| {
            let of = |name| pairs.iter().find(|(key, _)| *key == name);
            names.into_iter().find_map(of).map(|(_, value)| value)
        };
        let name = find(["filename", "name"]).map_or("", String::as_str);
        let media = find(["filetype", "type"]).map_or("", String::as_str);
        Ok(Self {
            name: names::clean(name),
            media: checked_media(media)?,
            text: text.to_owned(),
        })
    }
}

fn pairs(text: &str) -> Result<Vec<(&str, String)>, String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (key, value) = part.split_once(' ').unwrap_or((part, ""));
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a key is not ASCII".into());
        }
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(format!("`{}` stands there twice", key.escape_debug()));
        }
        let value = STANDARD.decode(value.trim());
        let value = value.map_err(|_| format!("`{}` is not base64", key.escape_debug()))?;
        pairs.push((key, String::from_utf8_lossy(&value).into_owned()));
    }
    Ok(pairs)
}

fn checked_media(media: &str) -> Result<String, String> {
    let media = media.trim();
    if media.is_empty() {
        return Ok(ANY_MEDIA.into());
    }
    let is_text = media.len() <= MAX_MEDIA && media.bytes().all(|b| (b' '..=b'~').contains(&b));
    let kind = media.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !part.is_empty() && part.bytes().all(is_good)
    };
    let halves = kind.split_once('/');
    let is_media = halves.is_some_and(|(one, other)| is_token(one) && is_token(other));
    match is_text && is_media {
        true => Ok(media.to_ascii_lowercase()),
        false => Err("`filetype` is no media type".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(pairs: &[(&str, &str)]) -> String {
        let pair = |(key, value): &(&str, &str)| format!("{key} {}", STANDARD.encode(value));
        pairs.iter().map(pair).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn name_and_type_are_read_and_the_name_is_cleaned() {
        let text = encoded(&[("filename", "../a.PNG"), ("filetype", "Image/PNG")]);
        let read = Metadata::parse(&format!("{text},relativePath,lastModified MQ==")).unwrap();
        assert_eq!(read.name, "a.PNG");
        assert_eq!(read.media, "image/png");
        let short = Metadata::parse(&encoded(&[("name", "b"), ("type", "text/plain")])).unwrap();
        assert_eq!((&*short.name, &*short.media), ("b", "text/plain"));
        let none = Metadata::parse("").unwrap();
        assert_eq!((&*none.name, &*none.media), ("file", ANY_MEDIA));
    }

    #[test]
    fn what_is_no_metadata_is_told() {
        for (text, part) in [
            ("filename ?".to_owned(), "base64"),
            (encoded(&[("a", "1"), ("a", "2")]), "twice"),
            (encoded(&[("filetype", "image")]), "media type"),
            (encoded(&[("filetype", "a/b\nc")]), "media type"),
            ("ä MQ==".to_owned(), "ASCII"),
            ("x".repeat(MAX_METADATA + 1), "bytes"),
        ] {
            let error = Metadata::parse(&text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in ".*") {
            let _ = Metadata::parse(&text);
        }
    }
}
