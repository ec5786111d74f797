//! Whose pages may send from a browser.

use serde::Deserialize;

/// An origin as browsers write it, as `https://shop.example`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Origin(String);

impl Origin {
    /// Whether a page of this origin, as its browser says it, is meant.
    pub(crate) fn has(&self, origin: &[u8]) -> bool {
        self.0 == "*" || self.0.as_bytes() == origin
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let is_good = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte)
        };
        let is_origin = host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_good));
        match is_origin || text == "*" {
            true => Ok(Self(text)),
            false => Err(format!(
                "`{}` is no origin: write https://shop.example, in small letters and without a path, or *",
                text.escape_debug()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_write() {
        for text in [
            "https://shop.example",
            "http://127.0.0.1:8080",
            "http://[::1]:80",
            "*",
        ] {
            assert!(
                Origin::try_from(text.to_owned())
                    .unwrap()
                    .has(text.as_bytes())
            );
        }
        for text in [
            "",
            "shop.example",
            "https://",
            "https://a/",
            "https://A",
            "null",
            "https://*",
        ] {
            assert!(Origin::try_from(text.to_owned()).is_err(), "{text}");
        }
        let shop = Origin::try_from("https://shop.example".to_owned()).unwrap();
        assert!(!shop.has(b"https://shop.example.evil") && !shop.has(b"http://shop.example"));
    }
}
