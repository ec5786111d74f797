//! What a change makes of the documents: without tables, so that it can be tested in thousands.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_flags::Mistake;
use hydrant_sdk::{Code, Error};
use serde::de::IgnoredAny;

use crate::bundle::{Bundle, MAX_JSON, MAX_PACKED};
use crate::compiled::Compiled;
use crate::documents::{DocumentId, Kind};
use crate::experiments;
use crate::service::Refused;
use crate::service::desk::Edit;
use crate::service::store::Changed;

/// The largest document, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;
/// The most documents of one change.
const MAX_EDITS: usize = 2000;

/// Checks what can be seen of edits without the documents that are there: `own` for those that the
/// service makes itself.
pub(crate) fn check(edits: &[Edit], own: bool) -> Result<(), Refused> {
    if edits.is_empty() || edits.len() > MAX_EDITS {
        let message = format!(
            "a change is of 1 to {MAX_EDITS} documents, not {}",
            edits.len()
        );
        return Err(refuse("bad_change", message).into());
    }
    let mut seen = BTreeSet::new();
    for edit in edits {
        if edit.id.kind.is_own() && !own {
            return Err(refuse_own(&edit.id).into());
        }
        if !seen.insert(&edit.id) {
            let message = format!("{} is changed twice", edit.id);
            return Err(refuse("bad_change", message).into());
        }
    }
    let mistakes: Vec<Mistake> = edits.iter().filter_map(check_text).collect();
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Refused::mistakes(mistakes)),
    }
}

fn refuse(reason: &'static str, message: String) -> Error {
    Error::new(Code::InvalidArgument, reason, message)
}

pub(crate) fn refuse_own(id: &DocumentId) -> Error {
    let message = format!("{id} is made by the service itself");
    let mend = match id.kind {
        Kind::Image => "add images with `hydrant mobile image add`",
        _ => "change the experiment, and it follows",
    };
    refuse("own_document", message).mend(mend)
}

fn check_text(edit: &Edit) -> Option<Mistake> {
    let text = edit.body.as_deref()?;
    if text.len() > MAX_DOCUMENT {
        let message = format!("it has {} bytes, and may have {MAX_DOCUMENT}", text.len());
        let mistake = Mistake::at("", message).of(edit.id.to_string());
        return Some(mistake.mend("divide it into several documents"));
    }
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    Some(hydrant_flags::not_json(text, &error).of(edit.id.to_string()))
}

/// The documents after these edits.
///
/// # Errors
///
/// If one that is not there shall be removed.
pub(crate) fn edited(current: &Bundle, edits: &[Edit]) -> Result<Bundle, Error> {
    let mut edited = current.clone();
    for edit in edits {
        if edit.body.is_none() && current.get(edit.id.kind, edit.id.name()).is_none() {
            return Err(no_such(&edit.id));
        }
        edited.put(&edit.id, edit.body.clone());
    }
    Ok(edited)
}

pub(crate) fn no_such(id: &DocumentId) -> Error {
    let message = format!("there is no document {id}");
    Error::new(Code::NotFound, "no_such_document", message)
        .mend("see which there are: `hydrant mobile list`")
}

/// The documents as they were at an older revision: all, or `only` some. Of all, keys stay as they
/// are, so that a revoked one does not come back by the way, and no image is removed.
///
/// # Errors
///
/// If one of `only` is neither in the older revision nor there now.
pub(crate) fn reverted(
    current: &Bundle,
    old: &Bundle,
    only: &[DocumentId],
) -> Result<Bundle, Error> {
    let mut reverted = current.clone();
    for id in wanted(current, old, only)? {
        let body = old.get(id.kind, id.name()).map(str::to_owned);
        if id.kind != Kind::Image || body.is_some() {
            reverted.put(&id, body);
        }
    }
    Ok(reverted)
}

fn wanted(
    current: &Bundle,
    old: &Bundle,
    only: &[DocumentId],
) -> Result<BTreeSet<DocumentId>, Error> {
    let there: BTreeSet<DocumentId> = current.ids().chain(old.ids()).collect();
    if only.is_empty() {
        return Ok(there
            .into_iter()
            .filter(|id| id.kind != Kind::Key)
            .collect());
    }
    let mut wanted = BTreeSet::new();
    for id in only {
        if id.kind.is_own() {
            return Err(refuse_own(id));
        }
        if !there.contains(id) {
            return Err(no_such(id));
        }
        wanted.insert(id.clone());
        wanted.extend(companions(id));
    }
    Ok(wanted)
}

/// The tables of slots that go with an experiment.
fn companions(id: &DocumentId) -> Vec<DocumentId> {
    if id.kind != Kind::Experiment {
        return Vec::new();
    }
    let names = experiments::companions(id.name()).into_iter();
    names
        .filter_map(|name| DocumentId::new(Kind::Allocation, &name).ok())
        .collect()
}

/// Gives experiments their slots, and checks that all of it compiles and fits.
///
/// # Errors
///
/// All that is wrong.
pub(crate) fn finish(old: &Bundle, new: &mut Bundle) -> Result<Compiled, Refused> {
    experiments::allocate(old, new).map_err(Refused::mistakes)?;
    let compiled = Compiled::compile(new).map_err(Refused::mistakes)?;
    check_size(new)?;
    Ok(compiled)
}

fn check_size(bundle: &Bundle) -> Result<(), Error> {
    let texts = bundle.documents.values().flatten();
    let plain: usize = texts.map(|(name, body)| name.len() + body.len()).sum();
    // JSON in JSON grows; twice is never reached by what people write.
    if plain > MAX_JSON / 2 {
        return Err(too_large(plain, MAX_JSON / 2, "as text"));
    }
    let packed = bundle.pack().len();
    match packed > MAX_PACKED {
        true => Err(too_large(packed, MAX_PACKED, "compressed")),
        false => Ok(()),
    }
}

fn too_large(size: usize, limit: usize, how: &str) -> Error {
    let percent = size.saturating_mul(100) / limit;
    let message = format!(
        "all documents together have {size} bytes {how}, {percent} % of the {limit} that can be published"
    );
    Error::new(Code::ResourceExhausted, "bundle_full", message)
        .mend("remove documents that are not needed any more, or keep long texts outside")
}

/// What is different, in the order of the documents.
pub(crate) fn changed(old: &Bundle, new: &Bundle) -> Vec<Changed> {
    let ids: BTreeSet<DocumentId> = old.ids().chain(new.ids()).collect();
    let text = |bundle: &Bundle, id: &DocumentId| bundle.get(id.kind, id.name()).map(str::to_owned);
    ids.into_iter()
        .map(|id| Changed {
            before: text(old, &id),
            after: text(new, &id),
            id,
        })
        .filter(|one| one.before != one.after)
        .collect()
}

/// Who changed one of these documents meanwhile, by the revisions since.
pub(crate) fn conflict(
    touched: &BTreeSet<DocumentId>,
    since: &[(u64, DocumentId)],
) -> Option<(u64, BTreeSet<DocumentId>)> {
    let mut by_revision: BTreeMap<u64, BTreeSet<DocumentId>> = BTreeMap::new();
    for (revision, id) in since.iter().filter(|(_, id)| touched.contains(id)) {
        by_revision.entry(*revision).or_default().insert(id.clone());
    }
    by_revision.pop_last()
}
