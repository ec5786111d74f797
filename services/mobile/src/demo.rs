use std::io;
use std::path::{Path, PathBuf};

/// The files of the demo, as they come with the program.
const FILES: [(&str, &str); 3] = [
    (
        "configuration.json",
        include_str!("../demo/configuration.json"),
    ),
    ("content.json", include_str!("../demo/content.json")),
    ("sources.toml", include_str!("../demo/sources.toml")),
];

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
