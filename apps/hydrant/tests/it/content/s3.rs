//! The same with the images in an S3 store that nobody of this project wrote.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_harness::Process;
use hydrant_harness::{skipped, wait_until};

use super::{Desk, pears};
use crate::foreign;
use crate::harness::Setup;

/// How long the store may take to start on a busy machine.
const READY: Duration = Duration::from_secs(60);

const KEY: &str = "access_key_id = \"AKIAEXAMPLE\"\nsecret_access_key = \"secret\"\n";

/// Who writes to the store beside the service; its signature is not looked at.
const OWNER: &str = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261122/us-east-1/s3/aws4_request, \
    SignedHeaders=host, Signature=00";

#[test]
fn images_are_in_s3_and_its_absence_and_its_lies_are_noticed() {
    let Some(store) = Store::start() else {
        return skipped("moto does not run here");
    };
    let desk = Desk::start(Setup::up().config(&store.objects()));
    let credentials = store.credentials();
    let sha256 = desk.add_image("pears.png", &pears());
    let shown = desk.json(&["image", "show", &sha256[..8]]);
    let path = |at: usize| shown["variants"][at]["path"].as_str().unwrap().to_owned();
    desk.node.wait("the image", |_| {
        (desk.get(&path(0), &[]).status == 200).then_some(())
    });

    store.spoil(&desk);
    let spoiled = desk.get(&path(1), &[]);
    assert_eq!(spoiled.status, 503, "half of the bytes are not the image");
    desk.json(&["image", "remove", &sha256[..8], "-m", "x"]);
    let again = [
        "image",
        "add",
        &desk.path("pears.png"),
        "--alt",
        "",
        "-m",
        "x",
    ];
    let refused = desk.refused(&again);
    assert!(
        refused.contains("something else under the name"),
        "{refused}"
    );

    store.let_in("0");
    let refused = desk.refused(&again);
    assert!(
        refused.contains("refuses the service's credentials"),
        "{refused}"
    );
    store.let_in("inf");
    fs::write(&credentials, "access_key_id = 7").unwrap();
    let refused = desk.refused(&again);
    assert!(refused.contains("object store"), "{refused}");
    fs::write(&credentials, KEY).unwrap();
    store.process.kill();
    let refused = desk.refused(&again);
    assert!(
        refused.contains("object store does not answer"),
        "{refused}"
    );
}

/// An S3 server out of PyPI, with a bucket.
pub(super) struct Store {
    process: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl Store {
    pub(super) fn start() -> Option<Self> {
        let packages = foreign::pypi()?;
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .ok()?
            .local_addr()
            .ok()?
            .port();
        let script = format!(
            "import sys; sys.path.insert(0, {packages:?}); sys.argv = ['moto', '-H', '127.0.0.1', '-p', '{port}']; \
             from moto.server import main; main()"
        );
        let arguments = ["-c".to_owned(), script];
        let process = Process::new("s3", Path::new(folder.path()), "python3", &arguments);
        process.start();
        let store = Self {
            process,
            port,
            folder,
        };
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        (wait_until(READY, is_up) && store.put("images", "")).then_some(store)
    }

    /// The table of a configuration file that names it.
    pub(super) fn objects(&self) -> String {
        let (port, credentials) = (self.port, self.credentials());
        fs::write(&credentials, KEY).unwrap();
        format!(
            "[objects]\nurl = \"s3://images/hydrant\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
             region = \"us-east-1\"\ncredentials_file = {credentials:?}\n"
        )
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("s3.toml")
    }

    /// Puts an object, or makes a bucket, without this project's own client.
    pub(super) fn put(&self, path: &str, body: &str) -> bool {
        let url = format!("http://127.0.0.1:{}/{path}", self.port);
        let output = std::process::Command::new("curl")
            .args(["-sf", "-X", "PUT", "-H", "content-type: text/plain"])
            .args(["-H", &format!("authorization: {OWNER}")])
            .args(["--data-binary", body, &url])
            .output();
        output.is_ok_and(|output| output.status.success())
    }

    /// After so many requests more, keys that the store does not know are refused.
    fn let_in(&self, requests: &str) {
        let url = format!("http://127.0.0.1:{}/moto-api/reset-auth", self.port);
        let output = std::process::Command::new("curl")
            .args(["-sf", "-X", "POST", "-H", "content-type: text/plain"])
            .args(["-d", requests, &url])
            .output();
        assert!(output.unwrap().status.success());
    }

    /// Writes something else under the name of each object.
    fn spoil(&self, desk: &Desk) {
        let listed = desk.json(&["image", "list"]);
        assert_eq!(listed["images"].as_array().unwrap().len(), 2);
        let keys = self.keys();
        assert_eq!(
            keys.len(),
            5,
            "two files, and the same three widths: {keys:?}"
        );
        for key in keys {
            assert!(self.put(&format!("images/{key}"), "half"));
        }
    }
    /// The keys of all objects.
    pub(super) fn keys(&self) -> Vec<String> {
        let url = format!("http://127.0.0.1:{}/images?list-type=2", self.port);
        let output = std::process::Command::new("curl")
            .args(["-sf", &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let keys = text.split("<Key>").skip(1);
        let keys = keys.filter_map(|part| part.split('<').next());
        keys.map(str::to_owned).collect()
    }
}
