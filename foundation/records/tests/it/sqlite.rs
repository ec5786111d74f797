//! SQLite: a file.

use hydrant_records::contract::Subject;
use hydrant_records::{Config, Kind, Records, records_contract};

fn config(folder: &std::path::Path) -> Config {
    let url = format!("sqlite:{}/data/records.db", folder.display());
    Config::new(&url).unwrap()
}

fn open() -> Option<Subject> {
    let folder = tempfile::tempdir().unwrap();
    Some(Subject {
        config: config(folder.path()),
        keep: Box::new(folder),
    })
}

records_contract!(open());

#[tokio::test]
async fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(config(folder.path()));
    records.migrate("a", &[]).await.unwrap();
    let files = std::fs::read_dir(folder.path().join("data")).unwrap();
    for file in files.flatten() {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has {mode:o}", file.path());
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(
        folder.path().join("data/records.db"),
        "no database".repeat(100),
    )
    .unwrap();
    let records = Records::open(config(folder.path()));
    let told = records.ping().await.unwrap_err();
    assert_eq!(told.kind(), Kind::Broken);
    assert!(told.to_string().contains("damaged"), "{told}");
}
