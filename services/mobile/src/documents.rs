//! What product people change: documents, each of a kind and with a name.

use std::fmt;
use std::str::FromStr;

use hydrant_sdk::{Code, Error};
use serde::{Deserialize, Serialize};

/// What a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A flag set, in flagd's JSON.
    Flags,
    /// An experiment on a flag.
    Experiment,
    /// Experiments that share people: nobody is in two of them.
    Layer,
    /// A share of people who are in no experiment.
    Holdout,
    /// Which slots an experiment's arms have. Made by the service itself, never by people.
    Allocation,
    /// A layer of the configuration.
    Config,
    /// The JSON schema of the configuration; its only document is `config`.
    ConfigSchema,
    /// A layer of the menu: the calls that apps make.
    Menu,
    /// People with something in common, by a rule.
    Cohort,
    /// A type of content, with its JSON schema.
    ContentType,
    /// An entry of content.
    Content,
    /// What is known of an image. Made by the service itself when one is added, never by people.
    Image,
    /// An API key: its hash, its role and its rate.
    Key,
    /// Settings of the service; its only document is `settings`.
    Settings,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Flags,
        Self::Experiment,
        Self::Layer,
        Self::Holdout,
        Self::Allocation,
        Self::Config,
        Self::ConfigSchema,
        Self::Menu,
        Self::Cohort,
        Self::ContentType,
        Self::Content,
        Self::Image,
        Self::Key,
        Self::Settings,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Flags => "flags",
            Self::Experiment => "experiment",
            Self::Layer => "layer",
            Self::Holdout => "holdout",
            Self::Allocation => "allocation",
            Self::Config => "config",
            Self::ConfigSchema => "config-schema",
            Self::Menu => "menu",
            Self::Cohort => "cohort",
            Self::ContentType => "content-type",
            Self::Content => "content",
            Self::Image => "image",
            Self::Key => "key",
            Self::Settings => "settings",
        }
    }
}

impl Kind {
    /// Whether only the service itself makes documents of this kind.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Allocation | Self::Image)
    }

    /// The name of the only document of this kind, where there can be one only.
    pub(crate) fn only_name(self) -> Option<&'static str> {
        match self {
            Self::ConfigSchema => Some("config"),
            Self::Settings => Some("settings"),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                let all: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
                format!("a document is one of: {}", all.join(", "))
            })
    }
}

/// The longest name of a document, in bytes.
const MAX_NAME: usize = 100;

/// Which document: its kind and its name, written `flags/demo`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DocumentId {
    pub(crate) kind: Kind,
    name: String,
}

impl DocumentId {
    pub(crate) fn new(kind: Kind, name: &str) -> Result<Self, String> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_good) {
            return Err(format!(
                "the name of a document has 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, '-', '_' and '.', unlike `{}`",
                name.escape_debug()
            ));
        }
        if let Some(only) = kind.only_name().filter(|only| *only != name) {
            return Err(format!("the only document of this kind is {kind}/{only}"));
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }

    /// As somebody asks for it, from outside.
    ///
    /// # Errors
    ///
    /// If there can be no such document.
    pub(crate) fn asked(id: Option<&crate::proto::DocumentId>) -> Result<Self, Error> {
        let refuse = |message| Error::new(Code::InvalidArgument, "bad_document", message);
        let id = id.ok_or_else(|| refuse("no document is named".into()))?;
        let kind = id.kind.parse().map_err(|told: String| {
            refuse(format!("`{}` is no kind: {told}", id.kind.escape_debug()))
        })?;
        Self::new(kind, &id.name).map_err(refuse)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl From<&DocumentId> for crate::proto::DocumentId {
    fn from(id: &DocumentId) -> Self {
        Self {
            kind: id.kind.to_string(),
            name: id.name.clone(),
            ..Default::default()
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
