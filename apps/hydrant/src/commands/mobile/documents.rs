//! `hydrant mobile get`, `put`, `list`, …: documents of every kind, and their revisions.

use clap::Subcommand;
use hydrant_mobile::proto::ListDocumentsRequest;

use super::Mobile;
use crate::failure::Result;
use crate::output::{Table, plain};

#[derive(Debug, Subcommand)]
pub(crate) enum DocumentsCommand {
    /// List documents
    List {
        /// Only of this kind, as flags
        #[arg(default_value = "", hide_default_value = true)]
        kind: String,
    },
}

pub(crate) async fn run(mobile: &Mobile<'_>, command: &DocumentsCommand) -> Result<()> {
    match command {
        DocumentsCommand::List { kind } => list(mobile, kind).await,
    }
}

async fn list(mobile: &Mobile<'_>, kind: &str) -> Result<()> {
    let request = ListDocumentsRequest {
        kind: kind.into(),
        ..Default::default()
    };
    let answer = mobile.documents().list(request).await?.into_owned();
    let mut table = Table::new(&["DOCUMENT", "REVISION", "AUTHOR"]);
    for document in &answer.documents {
        let id = document.id.as_option().cloned().unwrap_or_default();
        table.row([
            plain(format!("{}/{}", id.kind, id.name)),
            plain(document.revision),
            plain(&document.author),
        ]);
    }
    mobile.output.table(&table)
}
