//! Consumers that get files: each file is written whole under a temporary name, read back, and only then
//! gets its own; the list of them, `manifest.json`, is the last. Who waits for the list sees everything whole.

mod folder;
mod names;
mod sftp;

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::facts::Facts;
use super::lease::Held;
use super::outcome::{Done, Failure};
use super::source::Source;
use crate::forms::template::Template;
use crate::proto::Task;
use crate::receipt;
pub(super) use folder::FolderDepot;
use names::Names;
pub(super) use sftp::SftpPool;

const MANIFEST: &str = "manifest.json";

/// What a file has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    /// In hex.
    pub(super) sha256: String,
}

/// Bytes on their way into a file.
pub(super) type Pieces<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send + 'a>>;

/// A place that takes files. Paths are relative to it, with `/` between names.
pub(super) trait Depot: Send {
    /// Makes a folder, and those around it.
    fn make_folder(&mut self, path: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The names in a folder that is there.
    fn names(&mut self, path: &str) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;

    /// How large a file is; none when there is none.
    fn size(&mut self, path: &str) -> impl Future<Output = Result<Option<u64>, Failure>> + Send;

    /// Reads a file to its end.
    fn read(&mut self, path: &str) -> impl Future<Output = Result<Content, Failure>> + Send;

    /// Writes a new file, or one in the place of another, until it is on disk as far as the depot can promise.
    fn write(
        &mut self,
        path: &str,
        pieces: Pieces<'_>,
    ) -> impl Future<Output = Result<Content, Failure>> + Send;

    /// Gives a file its own name, at once.
    fn rename(&mut self, from: &str, to: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    fn remove(&mut self, path: &str) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One delivery of files.
struct Parcel<'a, D> {
    depot: &'a mut D,
    held: &'a Held,
    names: Names,
}

/// Brings a submission to a depot, or finds that it is there already.
pub(super) async fn deliver_files<D: Depot>(
    depot: &mut D,
    name: &Template,
    task: &Task,
    source: &Source,
    held: &Held,
) -> Result<Done, Failure> {
    let facts = Facts::new(task).ok_or_else(|| Failure::ours("the fields are no JSON"))?;
    let names = Names::new(&facts, name, task);
    let manifest = facts.whole(&names.files) + "\n";
    let mut parcel = Parcel { depot, held, names };
    parcel.prepare().await?;
    let mut files = Vec::new();
    for (number, attachment) in task.attachments.iter().enumerate() {
        let name = parcel.names.files[number].clone();
        let content = content_of(attachment)?;
        let pieces = || async {
            let pieces = source.open(&attachment.id).await?;
            Ok(Box::pin(pieces) as Pieces<'_>)
        };
        parcel.put(number, &name, &content, pieces).await?;
        files.push(shown(&name, &content));
    }
    let content = content(manifest.as_bytes());
    let bytes = Bytes::from(manifest);
    let pieces = || async {
        let piece = futures::stream::once(std::future::ready(Ok(bytes.clone())));
        Ok(Box::pin(piece) as Pieces<'_>)
    };
    let number = task.attachments.len();
    parcel.put(number, MANIFEST, &content, pieces).await?;
    files.push(shown(MANIFEST, &content));
    Ok(Done {
        reference: None,
        evidence: json!({ "folder": parcel.names.folder, "files": files }),
    })
}

impl<D: Depot> Parcel<'_, D> {
    /// Makes the folder, and takes away what earlier attempts left in it.
    async fn prepare(&mut self) -> Result<(), Failure> {
        self.depot.make_folder(&self.names.folder).await?;
        for name in self.depot.names(&self.names.folder).await? {
            if self.names.is_left_over(&name) {
                self.check()?;
                self.depot.remove(&self.names.path(&name)).await?;
            }
        }
        Ok(())
    }

    /// Puts one file there, unless it is there.
    async fn put<'p, F: Future<Output = Result<Pieces<'p>, Failure>>>(
        &mut self,
        number: usize,
        name: &str,
        content: &Content,
        pieces: impl FnOnce() -> F,
    ) -> Result<(), Failure> {
        let last = self.names.path(name);
        if self.is_there(&last, content).await? {
            return Ok(());
        }
        let first = self.names.temporary(number);
        let written = self.depot.write(&first, pieces().await?).await?;
        if written != *content {
            self.depot.remove(&first).await?;
            return Err(Failure::failing(format!(
                "what was to be written as {name} is not what was accepted"
            )));
        }
        if self.depot.read(&first).await? != *content {
            self.depot.remove(&first).await?;
            return Err(Failure::failing(format!(
                "{name} read back is not what was written"
            )));
        }
        self.check()?;
        self.depot.rename(&first, &last).await
    }

    /// Whether the file is there already; with anything else in it, somebody has to look.
    async fn is_there(&mut self, path: &str, content: &Content) -> Result<bool, Failure> {
        let Some(size) = self.depot.size(path).await? else {
            return Ok(false);
        };
        if size == content.size && self.depot.read(path).await? == *content {
            return Ok(true);
        }
        Err(Failure::refused(format!(
            "{path} is there already, with another content"
        )))
    }

    /// Whoever has the lease now goes on.
    fn check(&self) -> Result<(), Failure> {
        match self.held.is_held() {
            true => Ok(()),
            false => Err(Failure::ours("the lease was lost")),
        }
    }
}

fn content_of(attachment: &crate::proto::Attachment) -> Result<Content, Failure> {
    let sha256 = attachment.sha256.clone();
    Ok(Content {
        size: attachment.size.unwrap_or(attachment.offset),
        sha256: sha256.ok_or_else(|| Failure::ours("an attachment has no hash"))?,
    })
}

fn content(bytes: &[u8]) -> Content {
    Content {
        size: bytes.len() as u64,
        sha256: receipt::sha256_of(bytes),
    }
}

fn shown(name: &str, content: &Content) -> Value {
    json!({ "name": name, "size": content.size, "sha256": content.sha256 })
}

/// Counts and hashes what goes by.
#[derive(Default)]
struct Meter {
    size: u64,
    sha256: Sha256,
}

impl Meter {
    fn see(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    fn content(self) -> Content {
        Content {
            size: self.size,
            sha256: receipt::hex(&self.sha256.finalize()),
        }
    }
}

/// The next piece.
async fn next(pieces: &mut Pieces<'_>) -> Result<Option<Bytes>, Failure> {
    pieces.next().await.transpose()
}

#[cfg(test)]
mod tests;
