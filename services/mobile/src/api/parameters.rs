use hydrant_sdk::{Code, Error, Version};
use serde::Deserialize;

/// The platforms that an app may have.
pub(crate) const PLATFORMS: [&str; 3] = ["android", "ios", "web"];

/// What an app says of itself, as it stands in the query.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Query {
    platform: Option<String>,
    version: Option<String>,
    locale: Option<String>,
}

/// What an app says of itself. Other parameters are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) platform: &'static str,
    pub(crate) version: Version,
    pub(crate) locale: String,
}

impl Parameters {
    pub(crate) fn check(query: Query) -> Result<Self, Error> {
        Ok(Self {
            platform: platform(&required(query.platform, "platform")?)?,
            version: version(&required(query.version, "version")?)?,
            locale: locale(required(query.locale, "locale")?)?,
        })
    }
}

fn required(value: Option<String>, name: &str) -> Result<String, Error> {
    value.ok_or_else(|| refuse(format!("the parameter `{name}` is missing")))
}

fn platform(text: &str) -> Result<&'static str, Error> {
    PLATFORMS
        .into_iter()
        .find(|known| *known == text)
        .ok_or_else(|| refuse(format!("`platform` is one of {}", PLATFORMS.join(", "))))
}

fn version(text: &str) -> Result<Version, Error> {
    text.parse()
        .map_err(|_| refuse("`version` is a semantic version, as 7.2.1".into()))
}

/// A language tag as `en` or `en-US` (BCP 47, without checking that it is registered).
fn locale(text: String) -> Result<String, Error> {
    let mut parts = text.split('-');
    let language = parts.next().unwrap_or("");
    let valid = (2..=3).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.len() <= 35
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    if !valid {
        return Err(refuse("`locale` is a language tag, as en or en-US".into()));
    }
    Ok(text)
}

/// A request that the app has to make otherwise.
pub(crate) fn refuse(message: String) -> Error {
    Error::new(Code::InvalidArgument, "bad_request", message)
        .mend("ask as ?platform=ios&version=7.2.1&locale=en-US")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(platform: &str, version: &str, locale: &str) -> Result<Parameters, Error> {
        Parameters::check(Query {
            platform: Some(platform.into()),
            version: Some(version.into()),
            locale: Some(locale.into()),
        })
    }

    #[test]
    fn good_parameters_are_taken_and_bad_ones_named() {
        assert_eq!(check("ios", "7.2.1", "zh-Hant-TW").unwrap().platform, "ios");
        for (platform, version, locale, part) in [
            ("symbian", "7.2.1", "en", "platform"),
            ("ios", "7.2", "en", "version"),
            ("ios", "7.2.1", "e", "locale"),
            ("ios", "7.2.1", "en_US", "locale"),
            ("ios", "7.2.1", "en-", "locale"),
            ("ios", "7.2.1", "en-<b>", "locale"),
        ] {
            let error = check(platform, version, locale).unwrap_err();
            assert!(error.message.contains(part), "{error}");
            assert_eq!(error.http_status(), 400);
        }
        let error = Parameters::check(Query::default()).unwrap_err();
        assert!(error.message.contains("`platform` is missing"));
    }
}
