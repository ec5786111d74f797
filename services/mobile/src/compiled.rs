//! A revision, ready to answer from: immutable, and swapped whole.

use hydrant_flags::{Definitions, Mistake};

use crate::bundle::Bundle;
use crate::configuration::{Configuration, Menu};
use crate::content::Content;
use crate::documents::Kind;
use crate::experiments::Experiments;
use crate::keys::Keys;
use crate::settings::Settings;
use crate::views::Views;

/// Everything that answers are made from, of one revision.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) revision: u64,
    pub(crate) flags: Definitions,
    pub(crate) experiments: Experiments,
    pub(crate) configuration: Configuration,
    pub(crate) menu: Menu,
    pub(crate) content: Content,
    pub(crate) keys: Keys,
    pub(crate) settings: Settings,
    uses_time: bool,
    /// Whether it is different from another one for who asks.
    pub(crate) views: Views,
}

impl Compiled {
    /// Compiles a revision: on entry, so that a bad change is refused, and where it is served.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, at least as far as the first part that has mistakes.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let flags = Definitions::compile(bundle.of(Kind::Flags))?;
        let experiments = Experiments::compile(bundle, &flags)?;
        Ok(Self {
            revision: bundle.revision,
            views: Views::compile(bundle, &flags, &experiments),
            experiments,
            configuration: Configuration::compile(bundle)?,
            menu: Menu::compile(bundle)?,
            content: Content::compile(bundle)?,
            keys: Keys::compile(bundle)?,
            settings: Settings::compile(bundle)?,
            uses_time: names_the_time(bundle),
            flags,
        })
    }

    /// Whether an answer may depend on the time of day.
    pub(crate) fn uses_time(&self) -> bool {
        self.uses_time
    }
}

/// Whether a rule anywhere reads the time.
fn names_the_time(bundle: &Bundle) -> bool {
    let texts = bundle.documents.values().flat_map(|named| named.values());
    texts
        .into_iter()
        .any(|text| text.contains("$flagd.timestamp"))
}
