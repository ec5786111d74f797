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
            flags,
        })
    }

    /// Whether a rule may read the clock, so that an answer is right for no longer than a moment.
    pub(crate) fn uses_time(&self) -> bool {
        self.flags.uses_time()
            || self.experiments.uses_time()
            || self.configuration.uses_time()
            || self.content.uses_time()
    }
}
