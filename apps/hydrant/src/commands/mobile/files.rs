//! Texts in files, and documents in folders.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::documents::bad_file;
use crate::failure::{Result, system};

/// The largest text that is read, in bytes: more than a document may have.
const MAX_TEXT: u64 = 2 << 20;
/// The most files of a folder.
const MAX_FILES: usize = 2000;

/// Documents by kind and name.
pub(crate) type Tree = BTreeMap<(String, String), String>;

/// Whether only the service itself makes documents of this kind.
pub(crate) fn is_own(kind: &str) -> bool {
    matches!(kind, "allocation" | "image")
}

/// The text of a file; `-` is standard input.
pub(crate) fn read_text(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin()
            .take(MAX_TEXT + 1)
            .read_to_string(&mut text),
        false => fs::File::open(file).and_then(|open| {
            let mut open = open.take(MAX_TEXT + 1);
            open.read_to_string(&mut text)
        }),
    };
    read.map_err(|error| {
        let what = format!("cannot read {}", file.display());
        system(what, &error, "name a file of UTF-8 text")
    })?;
    if text.len() as u64 > MAX_TEXT {
        return Err(bad_file(file, "it is larger than 2 MB", "divide it"));
    }
    Ok(text)
}

/// The text of a file that becomes a part of a document, and so is JSON by itself.
pub(crate) fn read_part(file: &Path) -> Result<String> {
    let text = read_text(file)?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(bad_file(
            file,
            &format!("it is not JSON: {error}"),
            "mend it there; nothing was changed",
        )),
    }
}

/// The documents of a folder: the files KIND/NAME.json in it.
pub(crate) fn read_tree(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    for (kind, of_kind) in entries(folder)? {
        if !of_kind.is_dir() || is_own(&kind) {
            continue;
        }
        for (file, path) in entries(&of_kind)? {
            let Some(name) = file.strip_suffix(".json") else {
                continue;
            };
            tree.insert((kind.clone(), name.to_owned()), read_text(&path)?);
            if tree.len() > MAX_FILES {
                let mend = "apply it in parts";
                return Err(bad_file(folder, "it has more than 2000 documents", mend));
            }
        }
    }
    match tree.is_empty() {
        true => {
            let mend = "documents are files like flags/demo.json in it; `hydrant mobile export` writes them so";
            Err(bad_file(folder, "it has no documents", mend))
        }
        false => Ok(tree),
    }
}

/// What is in a folder, by name; hidden files are not.
fn entries(folder: &Path) -> Result<BTreeMap<String, std::path::PathBuf>> {
    let failed = |error: std::io::Error| {
        let what = format!("cannot read the folder {}", folder.display());
        system(what, &error, "name a folder")
    };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.insert(name, entry.path());
        }
    }
    Ok(found)
}

/// Writes documents into a folder, which is made when missing.
pub(crate) fn write_tree(folder: &Path, tree: &Tree) -> Result<()> {
    for ((kind, name), body) in tree {
        // Both came from the service, which lets no slash into a name; two dots stay harmless by
        // the ending.
        let path = folder.join(kind).join(format!("{name}.json"));
        let parent = path.parent().unwrap_or(folder);
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, body));
        written.map_err(|error| {
            let what = format!("cannot write {}", path.display());
            system(what, &error, "make the folder writable")
        })?;
    }
    Ok(())
}
