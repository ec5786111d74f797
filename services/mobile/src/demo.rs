//! What `hydrant up` begins with: files of sources, and a first revision of documents.

use std::io;
use std::path::{Path, PathBuf};

use crate::documents::{DocumentId, Kind};
use crate::service::Edit;

/// The variable that asks for the documents of the demo, where there has never been a revision.
pub const DEMO: &str = "HYDRANT_MOBILE_DEMO";
/// Who made the first revision.
pub(crate) const AUTHOR: &str = "hydrant";
/// Why.
pub(crate) const REASON: &str = "demo";

/// The files of the demo, as they come with the program.
const FILES: [(&str, &str); 3] = [
    (
        "configuration.json",
        include_str!("../demo/configuration.json"),
    ),
    ("content.json", include_str!("../demo/content.json")),
    ("sources.toml", include_str!("../demo/sources.toml")),
];

/// The documents of the demo, as they come with the program.
const DOCUMENTS: [(Kind, &str, &str); 7] = [
    (Kind::Flags, "demo", include_str!("../demo/flags/demo.json")),
    (
        Kind::ConfigSchema,
        "config",
        include_str!("../demo/config-schema/config.json"),
    ),
    (
        Kind::Config,
        "base",
        include_str!("../demo/config/base.json"),
    ),
    (Kind::Config, "ios", include_str!("../demo/config/ios.json")),
    (
        Kind::Config,
        "android",
        include_str!("../demo/config/android.json"),
    ),
    (
        Kind::Config,
        "before-7",
        include_str!("../demo/config/before-7.json"),
    ),
    (
        Kind::Config,
        "market-de",
        include_str!("../demo/config/market-de.json"),
    ),
];

/// Whether the environment asks for the documents of the demo.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(DEMO).is_some_and(|value| value == "1")
}

/// The first revision of `hydrant up`.
pub(crate) fn documents() -> Vec<Edit> {
    let edit = |(kind, name, body): (Kind, &str, &str)| Edit {
        id: DocumentId::new(kind, name).expect("the names of the demo are good"),
        body: Some(body.to_owned()),
    };
    DOCUMENTS.into_iter().map(edit).collect()
}

/// Writes the demo's sources into `folder`, which is made when missing. A file that is there stays
/// as it is. Returns the path of `sources.toml`, which [`SOURCES`](crate::SOURCES) takes.
///
/// # Errors
///
/// If the folder or a file can't be written.
pub fn install_demo(folder: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in FILES {
        write_if_missing(&folder.join(name), text)?;
    }
    Ok(folder.join("sources.toml"))
}

fn write_if_missing(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    match std::fs::File::create_new(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    #[test]
    fn the_demo_is_valid_and_keeps_what_people_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = install_demo(folder.path()).unwrap();
        let sources = Sources::load(&path, Some("http://127.0.0.1:8080")).unwrap();
        assert_eq!(sources.list().len(), 3);
        let content = folder.path().join("content.json");
        std::fs::write(&content, "{}").unwrap();
        install_demo(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(content).unwrap(), "{}");
    }
}
