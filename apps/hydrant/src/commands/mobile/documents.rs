//! `hydrant mobile get`, `put`, `list`, …: documents of every kind, and their revisions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Subcommand, ValueHint};
use hydrant_mobile::proto::{
    Change, DiffRequest, DocumentId, GetDocumentRequest, HistoryRequest, ListDocumentsRequest,
    RevertRequest, Revision,
};
use serde_json::{Value, json};

use super::Mobile;
use super::change::{self, ChangeArgs, put, remove};
use super::files;
use super::refusal::refused;
use crate::failure::{Result, wrong};
use crate::output::{Table, plain, printable, time};

#[derive(Debug, Subcommand)]
pub(crate) enum DocumentsCommand {
    /// Print a document of any kind
    Get {
        /// As flags/demo
        #[arg(value_name = "KIND/NAME")]
        document: Named,
        /// As it was at this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// Put a document of any kind
    Put {
        /// As flags/demo
        #[arg(value_name = "KIND/NAME")]
        document: Named,
        /// Its text; `-` reads it from standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Refuse when somebody else changed it since this revision
        #[arg(long, value_name = "N")]
        base: Option<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Delete a document of any kind
    Delete {
        /// As flags/demo
        #[arg(value_name = "KIND/NAME")]
        document: Named,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Put all documents of a folder, KIND/NAME.json, as one revision
    Apply {
        #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// Also delete documents that the folder does not have, of the kinds that it has
        #[arg(long)]
        prune: bool,
        /// Refuse when somebody else changed one of them since this revision
        #[arg(long, value_name = "N")]
        base: Option<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Write all documents into a folder, as KIND/NAME.json
    Export {
        #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        /// As they were at this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// List documents: which there are, and who changed them last
    List {
        /// Only of this kind, as flags
        #[arg(value_name = "KIND", default_value = "", hide_default_value = true)]
        kind: String,
        /// As they were at this revision
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
    /// Show revisions, newest first: who changed what, when and why
    History {
        /// Only those that changed this document
        #[arg(value_name = "KIND/NAME")]
        document: Option<Named>,
        /// Only revisions before this one
        #[arg(long, value_name = "N")]
        before: Option<u64>,
        /// At most so many
        #[arg(
            short = 'n',
            long,
            value_name = "N",
            default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(1..=500)
        )]
        limit: u32,
    },
    /// Show one revision: who, when, why, and what it changed
    Show {
        #[arg(value_name = "REVISION")]
        revision: u64,
    },
    /// Show what differs between two revisions
    Diff {
        #[arg(value_name = "FROM")]
        from: u64,
        /// [default: the newest]
        #[arg(value_name = "TO")]
        to: Option<u64>,
    },
    /// Make everything as it was at a revision; API keys stay as they are unless they are named
    Revert {
        #[arg(value_name = "REVISION")]
        revision: u64,
        /// Only this document; may be given more than once
        #[arg(long, value_name = "KIND/NAME")]
        only: Vec<Named>,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// The name of a document, as `flags/demo`.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    kind: String,
    name: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(Self {
                kind: kind.into(),
                name: name.into(),
            }),
            _ => Err("write its kind and its name, as flags/demo".into()),
        }
    }
}

impl Named {
    fn id(&self) -> DocumentId {
        change::id(&self.kind, &self.name)
    }
}

pub(crate) async fn run(mobile: &Mobile<'_>, command: &DocumentsCommand) -> Result<()> {
    use DocumentsCommand as C;
    match command {
        C::Get { document, revision } => get(mobile, document, *revision).await,
        C::Put {
            document,
            file,
            base,
            change,
        } => {
            let body = files::read_text(file)?;
            let changes = vec![put(&document.kind, &document.name, body)];
            mobile.change(change, changes, *base).await
        }
        C::Delete { document, change } => {
            let changes = vec![remove(&document.kind, &document.name)];
            mobile.change(change, changes, None).await
        }
        C::Apply {
            folder,
            prune,
            base,
            change,
        } => {
            let changes = of_folder(mobile, folder, *prune).await?;
            mobile.change(change, changes, *base).await
        }
        C::Export { folder, revision } => export(mobile, folder, *revision).await,
        C::List { kind, revision } => list(mobile, kind, *revision).await,
        C::History {
            document,
            before,
            limit,
        } => history(mobile, document.as_ref(), *before, *limit).await,
        C::Show { revision } => show(mobile, *revision).await,
        C::Diff { from, to } => diff(mobile, *from, *to).await,
        C::Revert {
            revision,
            only,
            change,
        } => revert(mobile, *revision, only, change).await,
    }
}

async fn get(mobile: &Mobile<'_>, document: &Named, revision: Option<u64>) -> Result<()> {
    let request = GetDocumentRequest {
        id: document.id().into(),
        revision,
        ..Default::default()
    };
    let answer = mobile.documents().get(request).await?.into_owned();
    let document = answer.document.into_option().unwrap_or_default();
    if mobile.output.json {
        let id = document.id.as_option().cloned().unwrap_or_default();
        return mobile.output.json(&json!({
            "document": format!("{}/{}", id.kind, id.name),
            "revision": document.revision,
            "body": document.body,
        }));
    }
    let end = if document.body.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    mobile.output.text(&(document.body + end))
}

/// What the files of a folder are as changes.
async fn of_folder(mobile: &Mobile<'_>, folder: &Path, prune: bool) -> Result<Vec<Change>> {
    let tree = files::read_tree(folder)?;
    let mut changes: Vec<Change> = Vec::new();
    for ((kind, name), body) in &tree {
        changes.push(put(kind, name, body.clone()));
    }
    if prune {
        let request = ListDocumentsRequest::default();
        let there = mobile.documents().list(request).await?.into_owned();
        for document in there.documents {
            let id = document.id.into_option().unwrap_or_default();
            let has_kind = tree.keys().any(|(kind, _)| *kind == id.kind);
            if has_kind && !tree.contains_key(&(id.kind.clone(), id.name.clone())) {
                changes.push(remove(&id.kind, &id.name));
            }
        }
    }
    Ok(changes)
}

async fn export(mobile: &Mobile<'_>, folder: &Path, revision: Option<u64>) -> Result<()> {
    let request = ListDocumentsRequest {
        revision,
        ..Default::default()
    };
    let list = mobile.documents().list(request).await?.into_owned();
    // All of one revision, also when somebody changes something meanwhile.
    let revision = revision.unwrap_or(list.revision);
    let mut tree = BTreeMap::new();
    for document in list.documents {
        let id = document.id.into_option().unwrap_or_default();
        if files::is_own(&id.kind) {
            continue;
        }
        let request = GetDocumentRequest {
            id: id.clone().into(),
            revision: Some(revision),
            ..Default::default()
        };
        let answer = mobile.documents().get(request).await?.into_owned();
        let body = answer.document.into_option().unwrap_or_default().body;
        tree.insert((id.kind, id.name), body);
    }
    files::write_tree(folder, &tree)?;
    if mobile.output.json {
        let documents = tree.len();
        return mobile
            .output
            .json(&json!({ "revision": revision, "documents": documents }));
    }
    let text = format!("{} documents of revision {revision}\n", tree.len());
    mobile.output.text(&text)
}

async fn list(mobile: &Mobile<'_>, kind: &str, revision: Option<u64>) -> Result<()> {
    let request = ListDocumentsRequest {
        kind: kind.into(),
        revision,
        ..Default::default()
    };
    let answer = mobile.documents().list(request).await?.into_owned();
    let rows = answer.documents.iter().map(|document| {
        let id = document.id.as_option().cloned().unwrap_or_default();
        (format!("{}/{}", id.kind, id.name), document)
    });
    if mobile.output.json {
        let documents: Vec<Value> = rows
            .map(|(name, document)| {
                json!({
                    "document": name,
                    "revision": document.revision,
                    "author": document.author,
                    "at": time(document.at_unix_ms),
                })
            })
            .collect();
        let revision = answer.revision;
        return mobile
            .output
            .json(&json!({ "revision": revision, "documents": documents }));
    }
    let mut table = Table::new(&["DOCUMENT", "REVISION", "AUTHOR", "CHANGED"]);
    for (name, document) in rows {
        table.row([
            plain(name),
            plain(document.revision),
            plain(&document.author),
            plain(time(document.at_unix_ms)),
        ]);
    }
    let empty = "no documents yet; put one: `hydrant mobile put KIND/NAME FILE -m 'why'`";
    mobile.output.table_or(&table, empty)
}

async fn history(
    mobile: &Mobile<'_>,
    document: Option<&Named>,
    before: Option<u64>,
    limit: u32,
) -> Result<()> {
    let request = HistoryRequest {
        id: document.map(Named::id).into(),
        before,
        limit,
        ..Default::default()
    };
    let answer = mobile.documents().history(request).await?.into_owned();
    if mobile.output.json {
        let revisions: Vec<Value> = answer.revisions.iter().map(as_json).collect();
        return mobile
            .output
            .json(&json!({ "revisions": revisions, "more": answer.more }));
    }
    let mut table = Table::new(&["REVISION", "CHANGED", "AUTHOR", "DOCUMENTS", "REASON"]);
    for revision in &answer.revisions {
        table.row([
            plain(revision.number),
            plain(time(revision.at_unix_ms)),
            plain(&revision.author),
            plain(some_names(revision)),
            plain(&revision.reason),
        ]);
    }
    mobile.output.table_or(&table, "no revisions")?;
    match answer.revisions.last().filter(|_| answer.more) {
        None => Ok(()),
        Some(oldest) => {
            let text = format!("older ones: --before {}\n", oldest.number);
            mobile.output.text(&text)
        }
    }
}

fn names(revision: &Revision) -> Vec<String> {
    let ids = revision.changed.iter();
    ids.map(|id| format!("{}/{}", id.kind, id.name)).collect()
}

/// The first, and how many more.
fn some_names(revision: &Revision) -> String {
    match names(revision).as_slice() {
        [] => "-".into(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

fn as_json(revision: &Revision) -> Value {
    json!({
        "revision": revision.number,
        "author": revision.author,
        "reason": revision.reason,
        "at": time(revision.at_unix_ms),
        "reverts_to": revision.reverts_to,
        "changed": names(revision),
    })
}

async fn show(mobile: &Mobile<'_>, number: u64) -> Result<()> {
    let request = HistoryRequest {
        before: number.checked_add(1),
        limit: 1,
        ..Default::default()
    };
    let answer = mobile.documents().history(request).await?.into_owned();
    let found = answer.revisions.iter().find(|one| one.number == number);
    let revision = found.ok_or_else(|| no_such_revision(number))?;
    let request = DiffRequest {
        from: number.saturating_sub(1),
        to: Some(number),
        ..Default::default()
    };
    let answer = mobile.documents().diff(request).await?.into_owned();
    if mobile.output.json {
        let mut document = as_json(revision);
        document["differences"] = change::documents(&answer.differences).into();
        return mobile.output.json(&document);
    }
    let mut text = format!(
        "revision {number}, {} by {}: {}\n",
        time(revision.at_unix_ms),
        printable(&revision.author),
        printable(&revision.reason)
    );
    if let Some(to) = revision.reverts_to {
        text += &format!("goes back to revision {to}\n");
    }
    mobile
        .output
        .text(&(text + &change::page(&answer.differences)))
}

fn no_such_revision(number: u64) -> crate::failure::Failure {
    use hydrant_contracts::{Code, Error};
    let message = format!("there is no revision {number}");
    Error::new(Code::NotFound, "no_such_revision", message)
        .mend("see which there are: `hydrant mobile history`")
        .into()
}

async fn diff(mobile: &Mobile<'_>, from: u64, to: Option<u64>) -> Result<()> {
    let request = DiffRequest {
        from,
        to,
        ..Default::default()
    };
    let answer = mobile.documents().diff(request).await?.into_owned();
    if mobile.output.json {
        let differences = change::documents(&answer.differences);
        return mobile
            .output
            .json(&json!({ "from": from, "to": to, "differences": differences }));
    }
    match answer.differences.is_empty() {
        true => mobile.output.text("nothing differs\n"),
        false => mobile.output.text(&change::page(&answer.differences)),
    }
}

async fn revert(
    mobile: &Mobile<'_>,
    revision: u64,
    only: &[Named],
    change: &ChangeArgs,
) -> Result<()> {
    let request = RevertRequest {
        author: change.author(),
        reason: change.reason()?,
        revision,
        only: only.iter().map(Named::id).collect(),
        dry_run: change.dry_run,
        ..Default::default()
    };
    match mobile.documents().revert(request).await {
        Ok(answer) => mobile.show_applied(&answer.into_owned(), change.dry_run),
        Err(error) => Err(refused(mobile.output, &error, &[])),
    }
}

/// What is not as it has to be in a file or folder that was given.
pub(crate) fn bad_file(path: &Path, what: &str, mend: &str) -> crate::failure::Failure {
    wrong("bad_file", format!("{}: {what}", path.display()), mend)
}
