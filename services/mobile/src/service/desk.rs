//! Where documents are changed: by people, by the leader, by any process of the service.
//!
//! A change is one transaction: it locks the head, reads the documents, does what is asked, lets
//! experiments have their slots, compiles, and writes the revision. So no two changes are made from
//! the same documents, and what does not compile leaves no trace.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_records::{Records, RecordsError, Tables, Transaction, read, transaction};
use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Error};

use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::demo;
use crate::documents::DocumentId;
use crate::service::Refused;
use crate::service::published::Published;
use crate::service::revise;
use crate::service::store::{self, Changed, Revision};

/// The longest name of an author, in bytes.
const MAX_AUTHOR: usize = 200;
/// The longest reason, in bytes.
const MAX_REASON: usize = 2000;

/// How long it is tried whether the database takes writes.
const PROBE: Duration = Duration::from_millis(1500);

/// Changes documents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    tables: Tables,
    published: Published,
    clock: Clock,
    compiled: Mutex<Arc<Compiled>>,
    /// What the first revision has, when nobody has made one yet.
    first: Vec<Edit>,
}

/// A document that is put, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) id: DocumentId,
    /// The new text; `None` to remove the document.
    pub(crate) body: Option<String>,
}

/// A change that somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) what: What,
    /// The newest revision that the author has seen.
    pub(crate) base: Option<u64>,
    /// Only checks.
    pub(crate) dry_run: bool,
    /// Whether documents that the service makes itself may be among it.
    pub(crate) own: bool,
}

/// What shall become of the documents.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Edits(Vec<Edit>),
    /// The same, if there has never been a revision; else nothing.
    First(Vec<Edit>),
    Revert {
        to: u64,
        only: Vec<DocumentId>,
    },
}

/// What came of a wish.
#[derive(Debug)]
pub(crate) struct Done {
    /// The new revision, or the newest one when there is none new.
    pub(crate) revision: u64,
    pub(crate) changed: Vec<Changed>,
}

impl Desk {
    /// A desk on tables; those without a revision get the documents of `first` before anything else.
    pub(crate) fn new(
        tables: Tables,
        published: Published,
        clock: Clock,
        first: Vec<Edit>,
    ) -> Self {
        Self(Arc::new(Inner {
            tables,
            published,
            clock,
            compiled: Mutex::default(),
            first,
        }))
    }

    /// The time of everything that is decided here.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether there is a database in which changes are kept.
    pub(crate) fn has_tables(&self) -> bool {
        self.0.tables.are_there()
    }

    /// The database, the tables of the documents made.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer.
    pub(crate) async fn records(&self) -> Result<&Records, Error> {
        self.0.tables.ready().await
    }

    /// What the shared state has.
    pub(crate) fn published(&self) -> &Published {
        &self.0.published
    }

    /// The newest revision of the tables, compiled; without tables, what is published.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the documents do not compile.
    pub(crate) async fn current(&self) -> Result<Arc<Compiled>, Error> {
        let known = self.compiled();
        if !self.has_tables() {
            return match self.published().bundle() {
                Some(bundle) if bundle.revision != known.revision => self.compile(bundle).await,
                _ => Ok(known),
            };
        }
        if self.head().await? == known.revision {
            return Ok(known);
        }
        self.compile(self.newest().await?).await
    }

    /// The number of the newest revision of the tables; 0 before the first.
    ///
    /// # Errors
    ///
    /// If there are none, or the database does not answer.
    pub(crate) async fn head(&self) -> Result<u64, Error> {
        let records = self.records().await?;
        Ok(read!(records, |tx| store::head(tx).await)?)
    }

    /// The same, after a transaction that could write: for who wants to know whether changes are taken.
    ///
    /// # Errors
    ///
    /// If there are none, or the database does not answer, or takes no writes.
    pub(crate) async fn writable_head(&self) -> Result<u64, Error> {
        let hurried = self.0.tables.within(PROBE)?;
        // Why nobody is let in is told before tables are asked for that may never have been made.
        read!(hurried, |tx| tx.query("SELECT 1", &[]).await)?;
        self.records().await?;
        transaction!(hurried, |tx| store::try_to_write(tx).await)?;
        self.head().await
    }

    /// The newest revision of the tables with all its documents.
    ///
    /// # Errors
    ///
    /// If there are none, or the database does not answer.
    pub(crate) async fn newest(&self) -> Result<Bundle, Error> {
        let records = self.records().await?;
        Ok(read!(records, |tx| store::newest(tx).await)?)
    }

    /// All documents of a revision, drafts of content too; of the newest when none is named.
    ///
    /// # Errors
    ///
    /// If there is no such revision, there are no tables, or the database does not answer.
    pub(crate) async fn bundle(&self, revision: Option<u64>) -> Result<Bundle, Error> {
        let Some(revision) = revision else {
            return self.newest().await;
        };
        let records = self.records().await?;
        read!(records, |tx| {
            let head = store::head(tx).await?;
            at(tx, head, revision).await
        })
    }

    async fn compile(&self, bundle: Bundle) -> Result<Arc<Compiled>, Error> {
        let compiled = aside(move || Compiled::compile(&bundle)).await?;
        let compiled = compiled.map_err(|mistakes| Refused::mistakes(mistakes).error)?;
        Ok(self.keep(Arc::new(compiled)))
    }

    fn compiled(&self) -> Arc<Compiled> {
        let compiled = self.0.compiled.lock();
        Arc::clone(&compiled.unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, compiled: Arc<Compiled>) -> Arc<Compiled> {
        let mut known = self
            .0
            .compiled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if compiled.revision > known.revision {
            *known = Arc::clone(&compiled);
        }
        compiled
    }

    /// Changes documents as one revision of this author, for this reason; returns its number, or
    /// that of the newest one when nothing changes. For the service itself.
    ///
    /// # Errors
    ///
    /// If it would not compile, or the database does not answer.
    pub(crate) async fn apply(
        &self,
        author: &str,
        reason: &str,
        edits: Vec<Edit>,
    ) -> Result<u64, Refused> {
        let what = What::Edits(edits);
        Ok(self.fulfil(own_wish(author, reason, what)).await?.revision)
    }

    /// The same for who has read the documents at the revision `base`: refused with `aborted` when one
    /// of them has changed since.
    ///
    /// # Errors
    ///
    /// As [`Desk::apply`].
    pub(crate) async fn amend(
        &self,
        author: &str,
        reason: &str,
        edits: Vec<Edit>,
        base: u64,
    ) -> Result<u64, Refused> {
        let mut wish = own_wish(author, reason, What::Edits(edits));
        wish.base = Some(base);
        Ok(self.fulfil(wish).await?.revision)
    }

    /// The number of the newest revision, after the first one was made where there was none; 0 where
    /// there is nothing to begin with.
    ///
    /// # Errors
    ///
    /// If there are no tables, or the database does not answer.
    pub(crate) async fn begun(&self) -> Result<u64, Error> {
        let head = self.head().await?;
        if head > 0 || self.0.first.is_empty() {
            return Ok(head);
        }
        let what = What::First(self.0.first.clone());
        let wish = own_wish(demo::AUTHOR, demo::REASON, what);
        let begun = self.change(&wish).await;
        Ok(begun.map_err(|refused| refused.error)?.revision)
    }

    /// Does what somebody wants, as one revision, or not at all.
    ///
    /// # Errors
    ///
    /// If it can't be, would not compile, is of documents that others changed meanwhile, or the
    /// database does not answer.
    pub(crate) async fn fulfil(&self, wish: Wish) -> Result<Done, Refused> {
        let wish = checked(wish)?;
        if !self.0.first.is_empty() {
            self.begun().await?;
        }
        self.change(&wish).await
    }

    async fn change(&self, wish: &Wish) -> Result<Done, Refused> {
        let records = self.records().await?;
        let (done, compiled) = transaction!(records, |tx| self.revise(tx, wish).await)?;
        if let Some(compiled) = compiled {
            self.keep(Arc::new(compiled));
        }
        if !wish.dry_run && !done.changed.is_empty() {
            let (revision, author) = (done.revision, &wish.author);
            tracing::info!(
                revision,
                author,
                documents = done.changed.len(),
                "a new revision"
            );
            self.published().want(done.revision).await;
        }
        Ok(done)
    }

    async fn revise(
        &self,
        tx: &mut Transaction,
        wish: &Wish,
    ) -> Result<(Done, Option<Compiled>), Refused> {
        let head = store::lock_head(tx).await?;
        let old = store::newest(tx).await?;
        let mut new = wanted(tx, wish, head, &old).await?;
        (new.revision, new.at_unix_ms) = (head + 1, self.0.clock.unix_ms());
        let (old, new, compiled) = aside(move || {
            let compiled = revise::finish(&old, &mut new);
            compiled.map(|compiled| (old, new, compiled))
        })
        .await??;
        let changed = revise::changed(&old, &new);
        if changed.is_empty() || wish.dry_run {
            let revision = head;
            return Ok((Done { revision, changed }, None));
        }
        let revision = Revision {
            number: new.revision,
            author: wish.author.clone(),
            reason: wish.reason.clone(),
            at_unix_ms: new.at_unix_ms,
            reverts_to: match &wish.what {
                What::Revert { to, .. } => Some(*to),
                What::Edits(_) | What::First(_) => None,
            },
        };
        store::write(tx, &revision, &changed).await?;
        let revision = new.revision;
        Ok((Done { revision, changed }, Some(compiled)))
    }
}

/// A wish of the service itself.
fn own_wish(author: &str, reason: &str, what: What) -> Wish {
    Wish {
        author: author.into(),
        reason: reason.into(),
        what,
        base: None,
        dry_run: false,
        own: true,
    }
}

/// The documents as the wish would have them.
async fn wanted(
    tx: &mut Transaction,
    wish: &Wish,
    head: u64,
    old: &Bundle,
) -> Result<Bundle, Refused> {
    let new = match &wish.what {
        What::First(_) if head > 0 => old.clone(),
        What::Edits(edits) | What::First(edits) => revise::edited(old, edits)?,
        What::Revert { to, only } => {
            let then = at(tx, head, *to).await?;
            revise::reverted(old, &then, only)?
        }
    };
    if let Some(base) = wish.base {
        refuse_stale(tx, base, head, old, &new).await?;
    }
    Ok(new)
}

/// All documents of an older revision.
pub(crate) async fn at(tx: &mut Transaction, head: u64, revision: u64) -> Result<Bundle, Error> {
    if revision > head {
        return Err(no_such_revision(revision, head));
    }
    let documents = store::documents_at(tx, revision).await?;
    Ok(store::bundle(revision, 0, &documents))
}

pub(crate) fn no_such_revision(revision: u64, head: u64) -> Error {
    let message = format!("there is no revision {revision}; the newest one is {head}");
    Error::new(Code::NotFound, "no_such_revision", message)
        .mend("see which there are: `hydrant mobile history`")
}

/// Others may not have changed the same documents since `base`.
async fn refuse_stale(
    tx: &mut Transaction,
    base: u64,
    head: u64,
    old: &Bundle,
    new: &Bundle,
) -> Result<(), Refused> {
    if base > head {
        return Err(no_such_revision(base, head).into());
    }
    let touched: BTreeSet<DocumentId> = revise::changed(old, new)
        .into_iter()
        .map(|one| one.id)
        .collect();
    let since = store::changed(tx, base + 1, head).await?;
    let Some((number, documents)) = revise::conflict(&touched, &since) else {
        return Ok(());
    };
    let by = store::revision(tx, number).await?;
    Err(stale(base, number, by.as_ref(), &documents).into())
}

fn stale(base: u64, number: u64, by: Option<&Revision>, what: &BTreeSet<DocumentId>) -> Error {
    let names: Vec<String> = what.iter().map(DocumentId::to_string).collect();
    let (author, reason) = by.map_or(("somebody", ""), |by| (&by.author, &by.reason));
    let message = format!(
        "{} changed since revision {base}: revision {number} by {author}, \"{reason}\"",
        names.join(", ")
    );
    let mut error = Error::new(Code::Aborted, "stale_base", message).mend(format!(
        "look at `hydrant mobile diff {base} {number}`, take it in, and change it again"
    ));
    error.retryable = false;
    error
}

fn checked(wish: Wish) -> Result<Wish, Refused> {
    check_text("author", &wish.author, MAX_AUTHOR)?;
    check_text("reason", &wish.reason, MAX_REASON)?;
    if let What::Edits(edits) | What::First(edits) = &wish.what {
        revise::check(edits, wish.own)?;
    }
    Ok(wish)
}

fn check_text(what: &str, text: &str, limit: usize) -> Result<(), Error> {
    let is_shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.trim().is_empty() || text.len() > limit || !text.chars().all(is_shown) {
        let message = format!("a change has its {what}: 1 to {limit} bytes of text");
        return Err(Error::new(Code::InvalidArgument, "bad_change", message)
            .mend("say who changes it, and why"));
    }
    Ok(())
}

/// Does what takes long where nobody waits for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| {
        let message = "the documents could not be compiled: the program has a mistake";
        Error::new(Code::Internal, "compiler_failed", message)
    })
}

impl From<RecordsError> for Refused {
    fn from(error: RecordsError) -> Self {
        Error::from(error).into()
    }
}
