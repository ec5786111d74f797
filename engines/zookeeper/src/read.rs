//! Reads of many keys: directory by directory, many on their way at once.

use futures::stream::{self, StreamExt, TryStreamExt};
use hydrant_ports::{Entry, Prefix, Versioned};
use zookeeper_client::Stat;

use crate::error::{Result, corrupt};
use crate::leaf;
use crate::link::{Data, Link};
use crate::path::{Name, Tree, may_hold, name};

/// How many leaves are read with one request: some tens of small values, or 8 MB of large ones.
const BATCH: usize = 32;

/// How many requests of a walk are on their way.
const AT_ONCE: usize = 32;

/// When a directory was last set, and when a child was last made or deleted. If both are as they
/// were, nothing in the directory has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    set: i64,
    children: i64,
}

impl From<Stat> for Mark {
    fn from(stat: Stat) -> Self {
        Self {
            set: stat.mzxid,
            children: stat.pzxid,
        }
    }
}

/// A directory as it was listed: its leaves are read later, and may have changed since.
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) mark: Mark,
    pub(crate) leaves: Vec<String>,
    pub(crate) directories: Vec<String>,
}

/// Lists directories and what is below them, as far as it may hold keys with `prefix`.
/// `is_known` names directories that need not be listed.
pub(crate) async fn walk(
    link: &Link,
    tree: &Tree,
    prefix: &Prefix,
    from: Vec<String>,
    is_known: impl Fn(&str) -> bool,
) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    let mut level = from;
    while !level.is_empty() {
        let listed: Vec<Listed> = stream::iter(level)
            .map(|path| list(link, tree, prefix, path))
            .buffered(AT_ONCE)
            .try_filter_map(async |listed| Ok(listed))
            .try_collect()
            .await?;
        level = listed
            .iter()
            .flat_map(|listed| &listed.directories)
            .filter(|path| !is_known(path))
            .cloned()
            .collect();
        all.extend(listed);
    }
    Ok(all)
}

/// Lists one directory; `None` when it is not there.
async fn list(link: &Link, tree: &Tree, prefix: &Prefix, path: String) -> Result<Option<Listed>> {
    let Some((children, stat)) = link.children(&path, link.deadline()).await? else {
        return Ok(None);
    };
    let below = tree.keys_below(&path).unwrap_or_default();
    let (mut leaves, mut directories) = (Vec::new(), Vec::new());
    for child in children {
        let (text, into) = match name(&child) {
            Some(Name::Leaf(leaf)) => (format!("{below}{leaf}"), &mut leaves),
            Some(Name::Directory(part)) => (format!("{below}{part}/"), &mut directories),
            None => continue,
        };
        let is_wanted = if text.ends_with('/') {
            may_hold(prefix, &text)
        } else {
            text.starts_with(prefix.as_str())
        };
        if is_wanted {
            into.push(format!("{path}/{child}"));
        }
    }
    Ok(Some(Listed {
        path,
        mark: stat.into(),
        leaves,
        directories,
    }))
}

/// Reads leaves: for each path what is there.
pub(crate) async fn leaves(link: &Link, paths: Vec<String>) -> Result<Vec<(String, Option<Data>)>> {
    let batches: Vec<Vec<String>> = paths.chunks(BATCH).map(<[String]>::to_vec).collect();
    let read: Vec<Vec<(String, Option<Data>)>> = stream::iter(batches)
        .map(|batch| async move {
            let found = link.many(&batch, link.deadline()).await?;
            Ok::<_, hydrant_ports::EngineError>(batch.into_iter().zip(found).collect())
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

/// Whether directories are as they were: for each path its mark, `None` when it is gone.
pub(crate) async fn marks(link: &Link, paths: Vec<String>) -> Result<Vec<(String, Option<Mark>)>> {
    stream::iter(paths)
        .map(|path| async move {
            let stat = link.stat(&path, link.deadline()).await?;
            Ok((path, stat.map(Mark::from)))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// Everything below a prefix, sorted by key.
pub(crate) async fn all(link: &Link, tree: &Tree, prefix: &Prefix) -> Result<Vec<Entry>> {
    link.sync(link.deadline()).await?;
    let from = vec![tree.directory_of(prefix)];
    let listed = walk(link, tree, prefix, from, |_| false).await?;
    let paths = listed
        .into_iter()
        .flat_map(|listed| listed.leaves)
        .collect();
    let mut entries = Vec::new();
    for (path, found) in leaves(link, paths).await? {
        let Some(found) = found else { continue };
        entries.push(entry(tree, &path, found)?);
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(entries)
}

/// What a leaf says.
pub(crate) fn entry(tree: &Tree, path: &str, found: Data) -> Result<Entry> {
    let key = tree
        .key(path)
        .ok_or_else(|| corrupt(path, "is not named as a key is"))?;
    let Versioned { value, revision } = versioned(path, found)?;
    Ok(Entry {
        key,
        value,
        revision,
    })
}

pub(crate) fn versioned(path: &str, (data, stat): Data) -> Result<Versioned> {
    let (_, value) =
        leaf::decode(data).ok_or_else(|| corrupt(path, "does not hold what a key holds"))?;
    Ok(Versioned {
        value,
        revision: stat.mzxid.cast_unsigned(),
    })
}
