mod password;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path as Upload;
use axum::routing::get;
use hydrant_harness::{Proxy, Sshd, skipped};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::*;
use crate::delivery::courier::Courier;
use crate::delivery::facts::tests::task;
use crate::delivery::lease::Leases;
use crate::delivery::outcome::Trouble;
use crate::forms::Forms;
use crate::proto::Attachment;

const SIZE: usize = 3_000_000;

/// A consumer, and where its attachments come from.
struct World {
    courier: Courier,
    leases: Leases,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(definition: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("submissions.toml");
        std::fs::write(folder.path().join("s.json"), "{}").unwrap();
        std::fs::write(&path, format!("[consumers.files]\n{definition}\n")).unwrap();
        let forms = Forms::load(&path, None).unwrap();
        let source = Source::at(&attachments().await);
        let consumer = forms.consumer("files").unwrap();
        Self {
            courier: Courier::new("files", consumer, &source).unwrap(),
            leases: Leases::new(Duration::from_secs(30)),
            _folder: folder,
        }
    }

    async fn on_sftp(sshd: &Sshd, port: u16, host_key: &str, key: &Path, more: &str) -> Self {
        Self::new(&format!(
            "kind = \"sftp\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"{}\"\n\
             host_key = \"{host_key}\"\nkey = {{ file = \"{}\" }}\nfolder = \"{}\"\n{more}",
            sshd.user(),
            key.display(),
            sshd.files().display()
        ))
        .await
    }

    async fn deliver(&self, task: &Task) -> Result<Done, Failure> {
        let held = self.leases.hold(&task.id, 0, task.epoch, Instant::now());
        self.courier.deliver(task, &held).await
    }
}

/// Serves `large` and `small`, `wrong`, which is not what it should be, and `late`, which takes two seconds.
async fn attachments() -> String {
    let bytes = async |Upload(name): Upload<String>| match name.as_str() {
        "large" => Body::from(content_of_large()),
        "late" => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Body::from("small")
        }
        _ => Body::from(name),
    };
    let routes = Router::new().route("/{upload}", get(bytes));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    base
}

fn content_of_large() -> Vec<u8> {
    (0..SIZE).map(|number| (number * 31 / 7) as u8).collect()
}

fn attachment(id: &str, name: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        id: id.into(),
        name: name.into(),
        r#type: "image/png".into(),
        size: Some(bytes.len() as u64),
        offset: bytes.len() as u64,
        sha256: Some(receipt::sha256_of(bytes)),
        ..Default::default()
    }
}

fn with_files(epoch: u64) -> Task {
    Task {
        epoch,
        reference: Some("R-1".into()),
        attachments: vec![
            attachment("large", "../../etc/photo 1.png", &content_of_large()),
            attachment("small", "b.txt", b"small"),
        ],
        ..task(r#"{"name": "Ada"}"#)
    }
}

/// The names in the submission's folder.
fn names(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(own(root)) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn own(root: &Path) -> PathBuf {
    root.join("2026-03-01").join(task("{}").id)
}

const EXPECTED: [&str; 3] = ["001-.._.._etc_photo_1.png", "002-b.txt", "manifest.json"];

fn expected() -> [String; 3] {
    EXPECTED.map(|name| name.replace("001-..", "001-_."))
}

fn check_whole(root: &Path) {
    assert_eq!(names(root), expected());
    let read = |name: &str| std::fs::read(own(root).join(name)).unwrap();
    assert!(read(&expected()[0]) == content_of_large());
    assert_eq!(read("002-b.txt"), b"small");
    let manifest: Json = serde_json::from_slice(&read("manifest.json")).unwrap();
    assert_eq!(manifest["reference"], "R-1");
    assert_eq!(manifest["fields"]["name"], "Ada");
    assert_eq!(manifest["attachments"][0]["file"], *expected()[0]);
    assert_eq!(
        manifest["attachments"][1]["sha256"],
        receipt::sha256_of(b"small")
    );
}

/// What holds for every kind of place.
async fn check_place(world: &World, root: &Path) {
    let left = |epoch: u64| own(root).join(format!(".{}.0.{epoch}.0.part", task("{}").id));
    std::fs::create_dir_all(own(root)).unwrap();
    for epoch in [1, 2, 9] {
        std::fs::write(left(epoch), "half of").unwrap();
    }
    let done = world.deliver(&with_files(3)).await.unwrap();
    assert_eq!(done.evidence["files"].as_array().unwrap().len(), 3);
    assert!(
        !left(1).exists() && !left(2).exists(),
        "earlier leases leave nothing"
    );
    assert!(left(9).exists(), "a later lease is at work");
    std::fs::remove_file(left(9)).unwrap();
    check_whole(root);

    let since = |name: &str| {
        std::fs::metadata(own(root).join(name))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = since("manifest.json");
    let again = world.deliver(&with_files(4)).await.unwrap();
    assert_eq!(again.evidence, done.evidence);
    assert_eq!(
        since("manifest.json"),
        before,
        "what is there is left alone"
    );

    std::fs::write(own(root).join("002-b.txt"), "other").unwrap();
    let failure = world.deliver(&with_files(5)).await.unwrap_err();
    assert_eq!(failure.trouble, Trouble::Refused);
    assert!(failure.reason.contains("002-b.txt"), "{failure:?}");
    std::fs::remove_dir_all(own(root)).unwrap();

    let mut wrong = with_files(6);
    wrong.attachments[1].id = "wrong".into();
    let failure = world.deliver(&wrong).await.unwrap_err();
    assert_eq!(failure.trouble, Trouble::Failing, "{failure:?}");
    assert_eq!(
        names(root),
        expected()[..1],
        "nothing of it has its own name, and no list is there"
    );
    std::fs::remove_dir_all(own(root)).unwrap();
}

/// Who has lost the lease in the middle gives nothing its own name any more.
async fn check_lease(world: &World, root: &Path) {
    let mut late = with_files(1);
    late.attachments[1].id = "late".into();
    let leases = Leases::new(Duration::from_secs(1));
    let held = leases.hold(&late.id, 0, 1, Instant::now());
    let failure = world.courier.deliver(&late, &held).await.unwrap_err();
    assert!(failure.reason.contains("lease"), "{failure:?}");
    let named = names(root)
        .into_iter()
        .filter(|name| !name.starts_with('.'));
    assert!(named.count() < 2, "what came after the lease has no name");
    std::fs::remove_dir_all(own(root)).unwrap();
}

#[tokio::test]
async fn a_folder_gets_whole_files_once_and_the_list_last() {
    let root = tempfile::tempdir().unwrap();
    let world = World::new(&format!(
        "kind = \"folder\"\npath = \"{}\"",
        root.path().display()
    ))
    .await;
    check_place(&world, root.path()).await;
    check_lease(&world, root.path()).await;
}

#[tokio::test]
async fn a_server_of_sftp_gets_whole_files_once_and_the_list_last() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(missing) => return skipped(missing),
    };
    for host_key in [sshd.fingerprint(), sshd.host_key()] {
        let port = sshd.address().port();
        let world = World::on_sftp(&sshd, port, &host_key, &sshd.key(), "").await;
        check_place(&world, &sshd.files()).await;
        check_lease(&world, &sshd.files()).await;
    }
}

#[tokio::test]
async fn a_server_with_another_key_gets_nothing_and_a_user_with_another_key_neither() {
    let (sshd, other) = match (Sshd::start(), Sshd::start()) {
        (Ok(sshd), Ok(other)) => (sshd, other),
        (Err(missing), _) | (_, Err(missing)) => return skipped(missing),
    };
    let port = sshd.address().port();
    for host_key in [other.fingerprint(), other.host_key()] {
        let world = World::on_sftp(&sshd, port, &host_key, &sshd.key(), "").await;
        let failure = world.deliver(&with_files(1)).await.unwrap_err();
        assert_eq!(failure.trouble, Trouble::Away);
        assert!(failure.reason.contains("host_key"), "{failure:?}");
    }
    assert!(!sshd.log().contains("Accepted"), "nobody logged in");
    let world = World::on_sftp(&sshd, port, &sshd.fingerprint(), &sshd.other_key(), "").await;
    let failure = world.deliver(&with_files(1)).await.unwrap_err();
    assert!(
        failure.reason.contains("does not let this user in"),
        "{failure:?}"
    );
    assert!(names(&sshd.files()).is_empty());
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_file_leaves_nothing_that_looks_whole() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(missing) => return skipped(missing),
    };
    let proxy = Proxy::start(sshd.address());
    let port = proxy.address().port();
    let world = World::on_sftp(
        &sshd,
        port,
        &sshd.fingerprint(),
        &sshd.key(),
        "timeout = \"2s\"",
    )
    .await;
    let world = Arc::new(world);
    let is_in_the_middle = || {
        let part = own(&sshd.files()).join(format!(".{}.0.1.0.part", task("{}").id));
        std::fs::metadata(part).is_ok_and(|part| part.len() > 100_000)
    };
    for (epoch, is_held) in [(1, false), (1, true)] {
        proxy.throttle(1_000_000);
        let attempt = {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.deliver(&with_files(epoch)).await })
        };
        while !is_in_the_middle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match is_held {
            false => proxy.reset_all(),
            true => proxy.hold(),
        }
        let failure = attempt.await.unwrap().unwrap_err();
        assert_eq!(failure.trouble, Trouble::Away, "{failure:?}");
        let is_part = |name: &String| name.starts_with('.');
        assert!(names(&sshd.files()).iter().all(is_part));
        proxy.restore();
        std::fs::remove_dir_all(own(&sshd.files())).unwrap();
    }
    proxy.cut();
    let failure = world.deliver(&with_files(2)).await.unwrap_err();
    assert_eq!(failure.trouble, Trouble::Away);
    proxy.restore();
    world.deliver(&with_files(3)).await.unwrap();
    check_whole(&sshd.files());
}

#[tokio::test]
async fn what_can_t_be_written_is_a_failure_that_names_nothing() {
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(missing) => return skipped(missing),
    };
    let port = sshd.address().port();
    let world = World::on_sftp(&sshd, port, &sshd.fingerprint(), &sshd.key(), "").await;
    std::fs::write(sshd.files().join("2026-03-01"), "no folder").unwrap();
    let on_sftp = world.deliver(&with_files(1)).await.unwrap_err();
    let folder = sshd.files().display().to_string();
    let world = World::new(&format!("kind = \"folder\"\npath = \"{folder}\"")).await;
    let on_disk = world.deliver(&with_files(1)).await.unwrap_err();
    for failure in [on_sftp, on_disk] {
        assert_eq!(failure.trouble, Trouble::Failing, "{failure:?}");
        assert!(!failure.reason.contains("Ada") && !failure.reason.contains(&folder));
    }
}
