//! What `hydrant.mobile.v1.Documents` answers.

use hydrant_flags::{Context, EvaluationError};
use hydrant_records::{Transaction, read};
use hydrant_sdk::{Code, Error, Service};
use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::documents::{DocumentId, Kind};
use crate::proto::{
    self, ApplyRequest, ApplyResponse, Change, DOCUMENTS_APPLY_SPEC, DOCUMENTS_DIFF_SPEC,
    DOCUMENTS_GET_SPEC, DOCUMENTS_HISTORY_SPEC, DOCUMENTS_LIST_SPEC, DOCUMENTS_REVERT_SPEC,
    DiffRequest, DiffResponse, Difference, Document, DocumentSummary, EvaluateRequest,
    EvaluateResponse, FLAGS_EVALUATE_SPEC, GetDocumentRequest, GetDocumentResponse, HistoryRequest,
    HistoryResponse, ListDocumentsRequest, ListDocumentsResponse, RevertRequest, Revision,
};
use crate::service::desk::{Desk, Done, Edit, What, Wish, at, no_such_revision};
use crate::service::published::Reached;
use crate::service::store::{self, Documents};
use crate::service::{Refused, diff, revise};

/// How many revisions a page of the history has, when it is not said.
const PAGE: u32 = 50;
/// The most revisions of one page.
const MAX_PAGE: u32 = 500;
/// The most that one answer tells of differences, in bytes of JSON; what is beyond is counted.
const MAX_TOLD: usize = 8 * 1024 * 1024;

/// The service with the methods that change and show documents.
pub(crate) fn serve(service: Service, desk: &Desk) -> Service {
    let [a, b, c, d, e, f, g] = [(); 7].map(|()| desk.clone());
    service
        .endpoint(DOCUMENTS_APPLY_SPEC, move |request| {
            apply(a.clone(), request)
        })
        .endpoint(DOCUMENTS_REVERT_SPEC, move |request| {
            revert(b.clone(), request)
        })
        .endpoint(DOCUMENTS_GET_SPEC, move |request| get(c.clone(), request))
        .endpoint(DOCUMENTS_LIST_SPEC, move |request| list(d.clone(), request))
        .endpoint(DOCUMENTS_HISTORY_SPEC, move |request| {
            history(e.clone(), request)
        })
        .endpoint(DOCUMENTS_DIFF_SPEC, move |request| {
            differ(f.clone(), request)
        })
        .endpoint(FLAGS_EVALUATE_SPEC, move |request| {
            evaluate(g.clone(), request)
        })
}

async fn apply(desk: Desk, request: ApplyRequest) -> Result<ApplyResponse, Refused> {
    let edits: Result<Vec<Edit>, Error> = request.changes.into_iter().map(edit).collect();
    let wish = Wish {
        author: request.author,
        reason: request.reason,
        what: What::Edits(edits?),
        base: request.base,
        dry_run: request.dry_run,
        own: false,
    };
    fulfil(&desk, wish).await
}

fn edit(change: Change) -> Result<Edit, Error> {
    Ok(Edit {
        id: DocumentId::asked(change.id.as_option())?,
        body: change.body,
    })
}

async fn revert(desk: Desk, request: RevertRequest) -> Result<ApplyResponse, Refused> {
    let only: Result<Vec<_>, Error> = request
        .only
        .iter()
        .map(|id| DocumentId::asked(Some(id)))
        .collect();
    let wish = Wish {
        author: request.author,
        reason: request.reason,
        what: What::Revert {
            to: request.revision,
            only: only?,
        },
        base: None,
        dry_run: request.dry_run,
        own: false,
    };
    fulfil(&desk, wish).await
}

async fn fulfil(desk: &Desk, wish: Wish) -> Result<ApplyResponse, Refused> {
    let dry_run = wish.dry_run;
    let Done { revision, changed } = desk.fulfil(wish).await?;
    let Reached {
        is_published,
        behind,
    } = match dry_run {
        true => Reached::default(),
        false => desk.published().until_live(revision).await,
    };
    Ok(ApplyResponse {
        revision,
        differences: told(&changed),
        published: is_published && behind.is_empty(),
        behind,
        ..Default::default()
    })
}

/// What differs, within what one answer may tell. Tables of slots speak for nobody.
fn told(changed: &[store::Changed]) -> Vec<Difference> {
    let mut left = MAX_TOLD;
    let shown = changed.iter().filter(|one| one.id.kind != Kind::Allocation);
    shown
        .map(|one| {
            let mut told = diff::told(one);
            let size: usize = told.changes.iter().map(size_of).sum();
            if size > left {
                told.left_out += told.changes.len() as u32;
                told.changes.clear();
            } else {
                left -= size;
            }
            told
        })
        .collect()
}

fn size_of(change: &proto::ValueChange) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    change.pointer.len() + length(&change.before) + length(&change.after)
}

/// The documents of a revision, or the newest ones; with the number of the newest revision.
async fn documents_of(
    tx: &mut Transaction,
    revision: Option<u64>,
) -> Result<(u64, Documents), Error> {
    let head = store::head(tx).await?;
    let documents = match revision {
        None => store::documents(tx).await?,
        Some(revision) if revision > head => return Err(no_such_revision(revision, head)),
        Some(revision) => store::documents_at(tx, revision).await?,
    };
    Ok((head, documents))
}

async fn get(desk: Desk, request: GetDocumentRequest) -> Result<GetDocumentResponse, Error> {
    let id = DocumentId::asked(request.id.as_option())?;
    let records = desk.records().await?;
    let (_, documents) = read!(records, |tx| documents_of(tx, request.revision).await)?;
    let stored = documents.get(&id).ok_or_else(|| revise::no_such(&id))?;
    let document = Document {
        id: proto::DocumentId::from(&id).into(),
        body: stored.body.clone(),
        revision: stored.revision,
        ..Default::default()
    };
    Ok(GetDocumentResponse {
        document: document.into(),
        ..Default::default()
    })
}

async fn list(desk: Desk, request: ListDocumentsRequest) -> Result<ListDocumentsResponse, Error> {
    let kind = match request.kind.as_str() {
        "" => None,
        kind => Some(kind.parse::<Kind>().map_err(bad_kind)?),
    };
    let records = desk.records().await?;
    let (head, documents, authors) = read!(records, |tx| {
        let (head, documents) = documents_of(tx, request.revision).await?;
        let authors = store::authors(tx).await?;
        Ok::<_, Error>((head, documents, authors))
    })?;
    let of_kind = documents
        .iter()
        .filter(|(id, _)| kind.is_none_or(|kind| id.kind == kind));
    let summaries = of_kind.map(|(id, stored)| {
        let (author, at_unix_ms) = authors.get(&stored.revision).cloned().unwrap_or_default();
        DocumentSummary {
            id: proto::DocumentId::from(id).into(),
            revision: stored.revision,
            author,
            at_unix_ms,
            ..Default::default()
        }
    });
    Ok(ListDocumentsResponse {
        documents: summaries.collect(),
        revision: head,
        ..Default::default()
    })
}

fn bad_kind(told: String) -> Error {
    Error::new(Code::InvalidArgument, "bad_document", told)
}

async fn history(desk: Desk, request: HistoryRequest) -> Result<HistoryResponse, Error> {
    let document = match request.id.as_option() {
        None => None,
        id => Some(DocumentId::asked(id)?),
    };
    let limit = match request.limit {
        0 => PAGE,
        limit => limit.min(MAX_PAGE),
    } as usize;
    let records = desk.records().await?;
    let (revisions, changed) = read!(records, |tx| {
        // One more, to know whether there are older ones.
        let found = store::revisions(tx, document.as_ref(), request.before, limit + 1).await?;
        let shown = &found[..found.len().min(limit)];
        let changed = match (shown.last(), shown.first()) {
            (Some(oldest), Some(newest)) => {
                store::changed(tx, oldest.number, newest.number).await?
            }
            _ => Vec::new(),
        };
        Ok::<_, Error>((found, changed))
    })?;
    let more = revisions.len() > limit;
    let changed_by = |number: u64| {
        let by = changed
            .iter()
            .filter(|(revision, id)| *revision == number && id.kind != Kind::Allocation);
        by.map(|(_, id)| proto::DocumentId::from(id)).collect()
    };
    let told = |one: store::Revision| Revision {
        changed: changed_by(one.number),
        number: one.number,
        author: one.author,
        reason: one.reason,
        at_unix_ms: one.at_unix_ms,
        reverts_to: one.reverts_to,
        ..Default::default()
    };
    Ok(HistoryResponse {
        revisions: revisions.into_iter().take(limit).map(told).collect(),
        more,
        ..Default::default()
    })
}

async fn differ(desk: Desk, request: DiffRequest) -> Result<DiffResponse, Error> {
    let records = desk.records().await?;
    let (from, to) = read!(records, |tx| {
        let head = store::head(tx).await?;
        let from = at(tx, head, request.from).await?;
        let to = at(tx, head, request.to.unwrap_or(head)).await?;
        Ok::<(Bundle, Bundle), Error>((from, to))
    })?;
    Ok(DiffResponse {
        differences: told(&revise::changed(&from, &to)),
        ..Default::default()
    })
}

async fn evaluate(desk: Desk, request: EvaluateRequest) -> Result<EvaluateResponse, Error> {
    let attributes = serde_json::from_str::<Map<String, Value>>(&request.context);
    let attributes = attributes.map_err(|error| {
        let message = format!("the context is no JSON object: {error}");
        Error::new(Code::InvalidArgument, "bad_context", message)
            .mend("write it as {\"targetingKey\": \"ann\"}")
    })?;
    let compiled = desk.current().await?;
    let context = Context {
        targeting_key: attributes.get("targetingKey").and_then(Value::as_str),
        attributes: &attributes,
        now_unix: desk.clock().unix_ms() / 1000,
    };
    let answer = compiled.evaluate(&request.key, &context);
    let answer = answer.map_err(not_evaluated)?;
    Ok(EvaluateResponse {
        variant: answer.variant.map(str::to_owned),
        value: answer.value.map(Value::to_string),
        reason: answer.reason.as_str().into(),
        revision: compiled.revision,
        experiment: answer.assigned.map_or("", |one| one.experiment).into(),
        ..Default::default()
    })
}

fn not_evaluated(error: EvaluationError) -> Error {
    let (code, reason) = match error {
        EvaluationError::FlagNotFound(_) => (Code::NotFound, "no_such_flag"),
        _ => (Code::FailedPrecondition, "not_evaluated"),
    };
    Error::new(code, reason, error.to_string())
}
