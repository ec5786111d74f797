//! Configuration files: TOML, read into types that refuse unknown keys.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line of the mistake, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// Reads a TOML file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::Unreadable {
        path: path.into(),
        reason,
    })?;
    parse(path, &text)
}

/// Reads TOML text; `path` names it in errors.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        ConfigError::at(path, text, at, error.message().replace('\n', " "))
    })
}

impl ConfigError {
    /// A mistake at the byte `at` of the file's text.
    pub fn at(path: &Path, text: &str, at: usize, message: impl Into<String>) -> Self {
        let before = &text.as_bytes()[..at.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        Self::Invalid {
            path: path.into(),
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: before.len() - line_start.map_or(0, |newline| newline + 1) + 1,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its reading is tested")]
        grace: crate::Duration,
    }

    #[test]
    fn an_error_names_file_line_and_mend() {
        let error = |text| {
            parse::<Sample>(Path::new("h.toml"), text)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error("# comment\ngrace = \"30\""),
            "h.toml:2:9: `30` is not a duration: write a whole number and one of ms, s, m, h, as 500ms or 30s"
        );
        assert!(error("grace = 30").starts_with("h.toml:1:9: `30` is not a duration: write"));
        assert!(error("grase = \"30s\"").starts_with("h.toml:1:1: unknown field `grase`"));
    }
}
