//! What every command that changes something has in common: who, why, and what came of it.

use std::fmt::Write as _;

use clap::Args;
use hydrant_mobile::proto::{
    ApplyRequest, ApplyResponse, Change, Difference, Document, DocumentId, GetDocumentRequest,
    ValueChange,
};
use serde_json::{Value, json};

use super::Mobile;
use super::refusal::refused;
use crate::failure::{Result, wrong};
use crate::output::printable;

/// How much of a value a person sees, in characters.
const PREVIEW: usize = 70;

/// Who changes something, and why.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Why: it stands in the history
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who [default: $USER; with a key, the name of the key]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Only check, and show what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl ChangeArgs {
    /// Who changes something.
    pub(crate) fn author(&self) -> String {
        let user = || std::env::var("USER").ok();
        let named = self.author.clone().or_else(user);
        named
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "operator".into())
    }

    /// Why.
    pub(crate) fn reason(&self) -> Result<String> {
        let given = self.reason.as_deref().map(str::trim).unwrap_or_default();
        match given {
            "" if self.dry_run => Ok("dry run".into()),
            "" => Err(wrong(
                "no_reason",
                "a change needs a reason, which stands in the history",
                "say it, as -m 'orders fail on Android 9'",
            )),
            given => Ok(given.to_owned()),
        }
    }
}

/// A document that is put.
pub(crate) fn put(kind: &str, name: &str, body: String) -> Change {
    Change {
        id: id(kind, name).into(),
        body: Some(body),
        ..Default::default()
    }
}

/// A document that is removed.
pub(crate) fn remove(kind: &str, name: &str) -> Change {
    Change {
        id: id(kind, name).into(),
        ..Default::default()
    }
}

pub(crate) fn id(kind: &str, name: &str) -> DocumentId {
    DocumentId {
        kind: kind.into(),
        name: name.into(),
        ..Default::default()
    }
}

impl Mobile<'_> {
    /// A document as it is now; `None` when there is no such.
    pub(crate) async fn find(&self, kind: &str, name: &str) -> Result<Option<Document>> {
        let request = GetDocumentRequest {
            id: id(kind, name).into(),
            ..Default::default()
        };
        match self.documents().get(request).await {
            Ok(answer) => Ok(answer.into_owned().document.into_option()),
            Err(error) => match hydrant_contracts::Error::from_connect(&error) {
                error if error.reason == "no_such_document" => Ok(None),
                error => Err(error.into()),
            },
        }
    }

    /// Changes documents as one revision, and tells what came of it. `base` is the revision in which
    /// they were read, when they were.
    pub(crate) async fn change(
        &self,
        args: &ChangeArgs,
        changes: Vec<Change>,
        base: Option<u64>,
    ) -> Result<()> {
        let request = ApplyRequest {
            author: args.author(),
            reason: args.reason()?,
            changes: changes.clone(),
            base,
            dry_run: args.dry_run,
            ..Default::default()
        };
        match self.documents().apply(request).await {
            Ok(answer) => self.show_applied(&answer.into_owned(), args.dry_run),
            Err(error) => Err(refused(self.output, &error, &changes)),
        }
    }

    /// Tells what came of a change.
    pub(crate) fn show_applied(&self, answer: &ApplyResponse, dry_run: bool) -> Result<()> {
        if self.output.json {
            return self.output.json(&json!({
                "revision": answer.revision,
                "published": answer.published,
                "behind": answer.behind,
                "dry_run": dry_run,
                "differences": documents(&answer.differences),
            }));
        }
        let text = page(&answer.differences);
        let end = match (answer.differences.is_empty(), dry_run, answer.published) {
            (true, ..) => format!(
                "nothing changes; the newest revision is {}\n",
                answer.revision
            ),
            (_, true, _) => "only checked; nothing was changed\n".to_owned(),
            (_, _, true) => format!("revision {}, live\n", answer.revision),
            (_, _, false) => not_live(answer),
        };
        self.output.text(&(text + &end))
    }
}

/// What is told of a revision that not all apps are answered from.
pub(crate) fn not_live(answer: &ApplyResponse) -> String {
    let revision = answer.revision;
    if answer.behind.is_empty() {
        return format!(
            "revision {revision} is kept, and not published yet: `hydrant mobile status` says why\n"
        );
    }
    let behind: Vec<String> = answer.behind.iter().map(|id| printable(id)).collect();
    format!(
        "revision {revision}, live but on {}: `hydrant mobile status` says how these are\n",
        behind.join(", ")
    )
}

/// Differences for people.
pub(crate) fn page(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences {
        let id = difference.id.as_option().cloned().unwrap_or_default();
        let line = format!("{}/{}", id.kind, id.name);
        let _ = writeln!(text, "{} {}", difference.what, printable(&line));
        for change in &difference.changes {
            line_of(&mut text, change);
        }
        if difference.what == "changed" && difference.changes.is_empty() {
            text.push_str("  (only its form)\n");
        }
        if difference.left_out > 0 {
            let _ = writeln!(text, "  and {} places more", difference.left_out);
        }
    }
    text
}

fn line_of(text: &mut String, change: &ValueChange) {
    let pointer = match change.pointer.as_str() {
        "" => "(all)".to_owned(),
        pointer => printable(pointer),
    };
    let value = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), preview);
    let (before, after) = (value(&change.before), value(&change.after));
    let _ = writeln!(text, "  {pointer}: {before} → {after}");
}

fn preview(value: &str) -> String {
    let text = printable(value);
    match text.char_indices().nth(PREVIEW) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Differences for programs.
pub(crate) fn documents(differences: &[Difference]) -> Vec<Value> {
    let value = |text: &Option<String>| -> Value {
        let text = text.as_deref().unwrap_or("null");
        serde_json::from_str(text).unwrap_or_else(|_| text.into())
    };
    let changes = |difference: &Difference| -> Vec<Value> {
        let changes = difference.changes.iter();
        changes
            .map(|change| {
                let mut entry = json!({ "pointer": change.pointer });
                if change.before.is_some() {
                    entry["before"] = value(&change.before);
                }
                if change.after.is_some() {
                    entry["after"] = value(&change.after);
                }
                entry
            })
            .collect()
    };
    let one = |difference: &Difference| {
        let id = difference.id.as_option().cloned().unwrap_or_default();
        json!({
            "document": format!("{}/{}", id.kind, id.name),
            "what": difference.what,
            "changes": changes(difference),
            "left_out": difference.left_out,
        })
    };
    differences.iter().map(one).collect()
}
