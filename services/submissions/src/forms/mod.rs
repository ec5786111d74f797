//! The file that says what may be sent, and where it goes.

mod consumer;
mod media;
mod origin;
mod schema;
pub(crate) mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_runtime::ByteSize;
use hydrant_runtime::config::{self, ConfigError};
use hydrant_sdk::{Code, Error};
use serde::Deserialize;

#[cfg(test)]
pub(crate) use consumer::Waits;
pub(crate) use consumer::{
    Body, Breaker, Consumer, Flow, HostKey, Kind, Login, Place, Reference, Rest, Sftp,
};
pub(crate) use media::MediaRange;
use origin::Origin;
pub(crate) use schema::{Mistake, Schema};

/// The variable that names the file of forms and consumers.
pub const FORMS: &str = "HYDRANT_SUBMISSIONS";

/// The most forms, and the most consumers, of one file.
const MAX_NAMES: usize = 256;
/// The longest name of a form or a consumer.
const MAX_NAME: usize = 63;
/// The most consumers of one form.
const MAX_STEPS: usize = 8;
/// How long `submit` waits for the reference, when the form does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that a form may say.
const MAX_PATIENCE: Duration = Duration::from_secs(25);
/// The largest fields, when the form does not say.
const FIELDS: ByteSize = ByteSize::new(64 * 1024);
/// The largest fields that a form may say: they are kept as one text.
pub(crate) const MAX_FIELDS: ByteSize = ByteSize::new(1024 * 1024);
/// The most attachments, and the largest, that a form may say.
const MAX_ATTACHMENTS: u32 = 1000;
const MAX_ATTACHMENT: ByteSize = ByteSize::new(64 * 1024 * 1024 * 1024);

/// What may be sent, and where it goes.
#[derive(Debug)]
pub(crate) struct Forms {
    forms: BTreeMap<String, Arc<Form>>,
    consumers: BTreeMap<String, Arc<Consumer>>,
    origins: Vec<Origin>,
}

/// One kind of submission.
#[derive(Debug)]
pub(crate) struct Form {
    /// As clients name it.
    pub(crate) name: String,
    /// What its fields must be like.
    pub(crate) schema: Schema,
    /// How long `submit` waits for the reference.
    pub(crate) patience: Duration,
    /// The largest fields, in bytes of JSON.
    pub(crate) max_fields: usize,
    /// What may be attached; none when absent.
    pub(crate) attachments: Option<Attachments>,
    /// The names of its consumers, in the order in which they get it.
    pub(crate) deliver: Vec<String>,
}

/// What may be attached to a form.
#[derive(Clone, Debug)]
pub(crate) struct Attachments {
    /// How many.
    pub(crate) max_count: u32,
    /// Of how many bytes each.
    pub(crate) max_size: u64,
    /// Of which media types; any when empty.
    pub(crate) types: Vec<MediaRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    forms: BTreeMap<String, FormTable>,
    #[serde(default)]
    consumers: BTreeMap<String, consumer::Table>,
    /// Whose pages may send from a browser, beside the service's own.
    #[serde(default)]
    origins: Vec<Origin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormTable {
    schema: PathBuf,
    patience: Option<hydrant_runtime::Duration>,
    max_fields: Option<ByteSize>,
    attachments: Option<AttachmentsTable>,
    deliver: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachmentsTable {
    max_count: u32,
    max_size: ByteSize,
    #[serde(default)]
    types: Vec<MediaRange>,
}

/// A file of forms that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormsError {
    /// It can't be read, or is not TOML of the right form.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It says something that can't be.
    #[error("{}: {message}", path.display())]
    Invalid { path: PathBuf, message: String },
}

/// What surrounds a definition: the folder of its file, and the address that clients use.
pub(crate) struct Around<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) public_url: Option<&'a str>,
}

impl Forms {
    /// Reads the file that the environment names.
    ///
    /// # Errors
    ///
    /// If it names none, or the file can't be used.
    pub(crate) fn from_env(public_url: Option<&str>) -> Result<Self, Error> {
        let path = std::env::var_os(FORMS).ok_or_else(not_named)?;
        let loaded = Self::load(path.as_ref(), public_url);
        loaded.map_err(|error| {
            Error::new(
                Code::InvalidArgument,
                "bad_configuration",
                error.to_string(),
            )
        })
    }

    /// Reads a file of forms and consumers. Paths in it are relative to its folder; `public_url` replaces
    /// `${HYDRANT_PUBLIC_URL}` in URLs.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or says something that can't be.
    pub(crate) fn load(path: &Path, public_url: Option<&str>) -> Result<Self, FormsError> {
        let around = Around {
            folder: path.parent().unwrap_or(Path::new("")),
            public_url,
        };
        let file = config::load(path)?;
        Self::checked(file, &around).map_err(|message| FormsError::Invalid {
            path: path.into(),
            message,
        })
    }

    fn checked(file: File, around: &Around<'_>) -> Result<Self, String> {
        if file.forms.len() > MAX_NAMES
            || file.consumers.len() > MAX_NAMES
            || file.origins.len() > MAX_NAMES
        {
            return Err(format!(
                "it has more than {MAX_NAMES} forms, consumers or origins"
            ));
        }
        let mut consumers = BTreeMap::new();
        for (name, table) in file.consumers {
            let of = |message| format!("the consumer `{}` {message}", name.escape_debug());
            check_name(&name).map_err(of)?;
            let consumer = table.checked(around).map_err(of)?;
            consumers.insert(name, Arc::new(consumer));
        }
        let mut forms = BTreeMap::new();
        for (name, table) in file.forms {
            let of = |message| format!("the form `{}` {message}", name.escape_debug());
            check_name(&name).map_err(of)?;
            let form = table.checked(&name, &consumers, around).map_err(of)?;
            forms.insert(name, Arc::new(form));
        }
        let origins = file.origins;
        Ok(Self {
            forms,
            consumers,
            origins,
        })
    }

    /// Whose pages may send from a browser.
    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The form of this name.
    pub(crate) fn form(&self, name: &str) -> Option<&Arc<Form>> {
        self.forms.get(name)
    }

    /// The consumer of this name.
    pub(crate) fn consumer(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(name)
    }

    /// All consumers, by their names.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (&String, &Arc<Consumer>)> {
        self.consumers.iter()
    }

    /// All forms, by their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Form>> {
        self.forms.values()
    }

    /// The names of all forms, for people.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.forms.keys().map(String::as_str).collect();
        names.join(", ")
    }
}

impl FormTable {
    fn checked(
        self,
        name: &str,
        consumers: &BTreeMap<String, Arc<Consumer>>,
        around: &Around<'_>,
    ) -> Result<Form, String> {
        let patience = self.patience.map_or(PATIENCE, |patience| patience.get());
        if patience > MAX_PATIENCE {
            let most = MAX_PATIENCE.as_secs();
            return Err(format!("has a `patience` of more than {most}s"));
        }
        let max_fields = self.max_fields.unwrap_or(FIELDS);
        if max_fields.get() > MAX_FIELDS.get() {
            return Err(format!("has `max_fields` of more than {MAX_FIELDS}"));
        }
        check_way(&self.deliver, consumers)?;
        Ok(Form {
            name: name.to_owned(),
            schema: Schema::load(&around.folder.join(&self.schema))?,
            patience,
            max_fields: max_fields.get() as usize,
            attachments: self
                .attachments
                .map(AttachmentsTable::checked)
                .transpose()?,
            deliver: self.deliver,
        })
    }
}

impl AttachmentsTable {
    fn checked(self) -> Result<Attachments, String> {
        if !(1..=MAX_ATTACHMENTS).contains(&self.max_count) {
            return Err(format!(
                "has an attachments' `max_count` that is not from 1 to {MAX_ATTACHMENTS}"
            ));
        }
        if self.max_size.get() > MAX_ATTACHMENT.get() {
            return Err(format!(
                "has an attachments' `max_size` of more than {MAX_ATTACHMENT}"
            ));
        }
        Ok(Attachments {
            max_count: self.max_count,
            max_size: self.max_size.get(),
            types: self.types,
        })
    }
}

/// The way of a form: known consumers, each once, and the one that gives the reference first.
fn check_way(
    deliver: &[String],
    consumers: &BTreeMap<String, Arc<Consumer>>,
) -> Result<(), String> {
    if deliver.is_empty() || deliver.len() > MAX_STEPS {
        return Err(format!("has in `deliver` not 1 to {MAX_STEPS} consumers"));
    }
    for (number, name) in deliver.iter().enumerate() {
        let shown = name.escape_debug();
        let consumer = consumers.get(name);
        let consumer =
            consumer.ok_or_else(|| format!("is delivered to `{shown}`, which is no consumer"))?;
        if deliver[..number].contains(name) {
            return Err(format!("is delivered to `{shown}` twice"));
        }
        if number > 0 && consumer.kind() == Kind::Rest {
            return Err(format!(
                "has the REST consumer `{shown}` behind another: it gives the reference, so it comes first"
            ));
        }
    }
    Ok(())
}

/// Names stand in URLs, tables, files and metrics.
fn check_name(name: &str) -> Result<(), String> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(is_good)
        && !name.starts_with('-')
        && !name.ends_with('-');
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "has a name that is not 1 to {MAX_NAME} small letters, digits and hyphens"
        )),
    }
}

fn not_named() -> Error {
    let message = format!("{FORMS} is not set, so no forms are known");
    Error::new(Code::FailedPrecondition, "no_forms", message)
        .mend("set it to the path of a submissions.toml")
}

#[cfg(test)]
mod tests;
