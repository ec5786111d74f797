//! A node whose submissions go to a shop and then to an archive, over lines that tests cut and slow down.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_harness::{Proxy, Sshd, WireMock, skipped};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{Node, Setup};
use crate::submissions_chaos::record;

const BYTES: &str = "application/offset+octet-stream";
/// photo.png, image/png
const PHOTO: &str = "filename cGhvdG8ucG5n,filetype aW1hZ2UvcG5n";

/// What the consumers are called.
pub const CONSUMERS: [&str; 2] = ["shop", "archive"];

pub struct Line {
    pub node: Node,
    pub shop: WireMock,
    pub to_shop: Proxy,
    pub sshd: Sshd,
    pub to_archive: Proxy,
    runtime: Runtime,
    http: Client,
}

/// What came of one that was sent.
pub struct Sent {
    pub id: String,
    /// What `submit` answered.
    pub status: StatusCode,
    /// How long that took.
    pub took: Duration,
}

impl Line {
    /// Starts all of it; `flow` are more lines for each consumer. Says aloud what is missing.
    pub fn start(flow: &str) -> Option<Self> {
        let shop = WireMock::start(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        let sshd = Sshd::start().map_err(skipped).ok()?;
        let (to_shop, to_archive) = (Proxy::start(shop.address()), Proxy::start(sshd.address()));
        let setup = Setup::up();
        let folder = setup.data().join("demo");
        fs::create_dir_all(&folder).expect("a folder");
        let forms = forms(&to_shop, &to_archive, &sshd, flow);
        fs::write(folder.join("submissions.toml"), forms).expect("a file");
        Some(Self {
            node: setup.start(),
            shop,
            to_shop,
            sshd,
            to_archive,
            runtime: hydrant_harness::runtime(),
            http: Client::builder().no_proxy().build().expect("a client"),
        })
    }

    /// Sends a submission with these files, whole.
    pub fn send(&self, store: &str, files: &[&[u8]]) -> Sent {
        let id = uuid::Uuid::new_v4().to_string();
        let base = format!(
            "http://{}/api/submissions/v1/submissions",
            self.node.public()
        );
        let one = format!("{base}/{id}");
        self.runtime.block_on(async {
            let body = json!({"form": "demo", "fields": {"name": "Ada"}});
            let post = self.http.post(&base).header("correlation-id", &id);
            let post = post.header("x-store-id", store).json(&body);
            assert_eq!(post.send().await.expect("an answer").status(), 201);
            for file in files {
                let create = self.http.post(format!("{one}/attachments"));
                let create = create
                    .header("tus-resumable", "1.0.0")
                    .header("upload-length", file.len())
                    .header("upload-metadata", PHOTO)
                    .header("content-type", BYTES)
                    .body(file.to_vec());
                assert_eq!(create.send().await.expect("an answer").status(), 201);
            }
            let begun = Instant::now();
            let submit = self.http.post(format!("{one}/submit"));
            let answer = submit.send().await.expect("an answer");
            Sent {
                id,
                status: answer.status(),
                took: begun.elapsed(),
            }
        })
    }

    /// How a submission stands.
    pub fn status(&self, id: &str) -> Value {
        let path = format!("submissions/v1/submissions/{id}");
        record::get(self.node.public(), &path).expect("a status")
    }

    /// The receipt of a submission.
    pub fn receipt(&self, id: &str) -> Value {
        let path = format!("submissions/v1/submissions/{id}/receipt");
        record::get(self.node.public(), &path).expect("a receipt")
    }

    /// Waits until a submission is delivered.
    pub fn wait_delivered(&self, id: &str) {
        let done = || self.status(id)["state"] == "delivered";
        let done = hydrant_harness::wait_until(hydrant_harness::READY, done);
        assert!(done, "not delivered: {}", self.status(id));
    }

    /// When the consumer of this step had it, in milliseconds since 1970.
    pub fn delivered_at(&self, id: &str, step: usize) -> i64 {
        let receipt = self.receipt(id);
        receipt["hops"][2 + step]["at"].as_i64().expect("a time")
    }

    /// How much waits for a consumer, ready or leased.
    pub fn backlog(&self, consumer: &str) -> u64 {
        let backlog = self.node.json(&["submissions", "backlog"]);
        let all = backlog.as_array().expect("a list").iter();
        let mut of = all.filter(|one| one["consumer"] == consumer);
        of.next().map_or(0, |one| {
            ["ready", "leased"]
                .map(|key| one[key].as_u64().unwrap_or(0))
                .iter()
                .sum()
        })
    }

    /// The processes of a service.
    pub fn pids(&self, service: &str) -> Vec<u32> {
        let instances = self.node.instances(service);
        let pids = instances.iter().filter_map(|one| one["pid"].as_u64());
        pids.map(|pid| pid as u32).collect()
    }

    /// The files of a submission at the archive, by their names.
    pub fn archived(&self, id: &str) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let days = fs::read_dir(self.sshd.files()).expect("a folder").flatten();
        for day in days {
            let files = fs::read_dir(day.path().join(id)).into_iter().flatten();
            found.extend(files.flatten().map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                (name, fs::read(file.path()).unwrap_or_default())
            }));
        }
        found.sort();
        found
    }
}

fn forms(to_shop: &Proxy, to_archive: &Proxy, sshd: &Sshd, flow: &str) -> String {
    let [shop, archive] = CONSUMERS;
    format!(
        "[forms.demo]\nschema = \"demo.schema.json\"\npatience = \"2s\"\ndeliver = [\"{shop}\", \"{archive}\"]\n\n\
         [forms.demo.attachments]\nmax_count = 10\nmax_size = \"100MB\"\ntypes = [\"image/*\"]\n\n\
         [consumers.{shop}]\nkind = \"rest\"\nurl = \"http://{}/orders\"\nreference = \"/order\"\n{flow}\n\
         [consumers.{archive}]\nkind = \"sftp\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
         host_key = \"{}\"\nkey = {{ file = {:?} }}\nfolder = {:?}\n{flow}",
        to_shop.address(),
        to_archive.address().port(),
        sshd.user(),
        sshd.fingerprint(),
        sshd.key(),
        sshd.files()
    )
}
