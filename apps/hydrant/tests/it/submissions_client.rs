//! The form page of the submissions service in a real browser: what is entered without a connection, and with
//! the browser closed or killed in between, arrives once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hydrant_harness::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign;
use crate::harness::{Node, Setup, pause};
use crate::ofrep::stage::Client;

const CHROMIUM: &str = "/usr/bin/chromium";
const PATIENCE: Duration = Duration::from_secs(120);
/// What attachments consist of.
const FILL: u8 = 42;

/// The library's own tests, which need no browser.
const UNITS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../services/submissions/client/tests"
);

#[test]
fn the_library_keeps_its_promises_to_a_service_that_fails_at_any_point() {
    if !hydrant_harness::is_there("node") {
        return hydrant_harness::skipped("node is not here");
    }
    let output = Command::new("node")
        .args(["--test", UNITS])
        .output()
        .expect("node starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let told = text
        .lines()
        .filter(|line| line.contains("SEED") || line.starts_with("# pass"));
    told.for_each(|line| println!("{line}"));
}

#[test]
fn what_was_entered_offline_arrives_once_after_the_browser_was_closed() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    tablet.offline(true);
    let made = tablet.make_two();
    tablet.ask(json!({ "do": "type", "name": "Name", "text": "half a na" }));
    tablet.ask(json!({ "do": "reload" }));
    tablet.waits_with(&made, "half a na");
    tablet.shot("offline");
    tablet.ask(json!({ "do": "close" }));
    tablet.open();
    tablet.arrive_once(&made);
    tablet.shot("sent");
    tablet.shown_in_all_sizes();
    tablet.nothing_was_forbidden();
}

#[test]
fn what_was_entered_while_the_node_is_dead_arrives_once_after_the_browser_was_killed() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    let node = tablet.node.take().expect("it runs");
    let node = node.kill_server();
    let made = tablet.make_two();
    tablet.ask(json!({ "do": "type", "name": "Name", "text": "half a na" }));
    tablet.ask(json!({ "do": "reload" }));
    tablet.waits_with(&made, "half a na");
    tablet.ask(json!({ "do": "kill" }));
    tablet.open();
    tablet.waits_with(&made, "half a na");
    tablet.shot("node-dead");
    tablet.node = Some(node.start());
    tablet.arrive_once(&made);
}

#[test]
fn a_page_that_stays_open_sends_when_the_connection_is_back() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    tablet.offline(true);
    let made = tablet.make_two();
    pause(Duration::from_secs(3));
    tablet.offline(false);
    let began = Instant::now();
    tablet.arrive_once(&made);
    println!("sent {:?} after the connection was back", began.elapsed());
}

#[test]
fn what_waits_is_sent_in_the_background_with_the_page_closed() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    tablet.offline(true);
    let made = tablet.make_two();
    tablet.ask(json!({ "do": "leave" }));
    tablet.offline(false);
    let began = Instant::now();
    while !made.iter().all(|id| tablet.is_delivered(id)) {
        assert!(began.elapsed() < PATIENCE, "the worker sends");
        // A browser asks a worker again that was left with something, only later.
        tablet.ask(json!({ "do": "wake" }));
        pause(Duration::from_secs(3));
    }
    tablet.delivered(&made);
    tablet.open_again();
    tablet.arrive_once(&made);
}

#[test]
fn one_tab_at_a_time_sends_with_locks_and_without() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    for has_locks in [true, false] {
        tablet.ask(json!({ "do": "open", "locks": has_locks }));
        tablet.until("the page is there", |shown| {
            shown["fields"]["Name"].is_string()
        });
        let together = tablet.ask(json!({ "do": "run", "script": format!("
            let [now, most] = [0, 0];
            const real = window.fetch;
            window.fetch = async (...all) => {{
                most = Math.max(most, (now += 1));
                await new Promise((resolve) => setTimeout(resolve, 30));
                try {{ return await real(...all); }} finally {{ now -= 1; }}
            }};
            const queues = [0, 1, 2].map(() => new Queue({{ base: location.pathname }}));
            for (let at = 0; at < 6; at += 1) {{
                queues[at % 3].add({{ form: 'demo', fields: {{ name: `tab ${{at % 3}}` }} }});
            }}
            for (;;) {{
                await Promise.all(queues.map((one) => one.sync({{ now: true }})));
                const list = await queue.list();
                if (list.length >= 6 && list.every((one) => one.state === 'sent')) break;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }}
            return {{ most, has: navigator.locks !== undefined }};
        ") }));
        println!("locks {has_locks}: {together}");
        assert_eq!(together["has"], has_locks);
        assert_eq!(together["most"], 1, "locks {has_locks}");
        tablet.ask(json!({ "do": "close" }));
    }
}

#[test]
fn a_line_that_breaks_again_and_again_only_delays() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    let size = 3_000_000;
    tablet.proxy.throttle(1_500_000);
    let made = tablet.make("a large one", size);
    let began = Instant::now();
    let mut cuts = 0;
    while !tablet.is_sent(&made) {
        assert!(began.elapsed() < PATIENCE, "{}", tablet.shown());
        pause(Duration::from_millis(700));
        if cuts < 6 {
            tablet.proxy.reset_all();
            cuts += 1;
        }
    }
    println!(
        "{size} bytes arrived over {cuts} cuts in {:?}",
        began.elapsed()
    );
    tablet.arrive_once(&[made]);
}

#[test]
fn what_the_service_refuses_is_shown_with_its_words_and_can_be_corrected() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    // The page itself would not let this through.
    tablet.ask(
        json!({ "do": "run", "script": "await queue.add({ form: 'demo', fields: { name: 7 } })" }),
    );
    tablet.ask(json!({ "do": "reload" }));
    let shown = tablet.until("it is refused", |shown| {
        shown["unsent"][0]["state"] == "failed"
    });
    let problem = shown["unsent"][0]["problem"].as_str().unwrap_or_default();
    println!("{problem}");
    assert!(problem.contains("Name: "), "{shown}");
    tablet.shot("refused");
    tablet.ask(json!({ "do": "click", "button": "Correct" }));
    tablet.until("its mistake stands at the field", |shown| {
        shown["unsent"].as_array().is_some_and(Vec::is_empty)
            && shown["mistakes"][0]
                .as_str()
                .is_some_and(|text| text.starts_with("Name "))
    });
    let made = tablet.make("Seven", 10);
    tablet.arrive_once(&[made]);
}

#[test]
fn a_device_without_room_says_so_and_nothing_is_lost() {
    let Some(mut tablet) = Tablet::start() else {
        return;
    };
    tablet.open();
    tablet.ask(json!({ "do": "room", "bytes": 6_000_000 }));
    // The browser looks at the room only now and then.
    tablet.refuses("queue.keepDraft('probe', { files: [file] })");
    tablet.ask(json!({ "do": "type", "name": "Name", "text": "too much" }));
    tablet.ask(json!({ "do": "attach", "name": "large.pdf", "type": "application/pdf", "size": 8_000_000 }));
    let said = |shown: &Value| {
        let alarm = shown["alarm"].as_str();
        alarm.is_some_and(|text| text.contains("no room left"))
    };
    tablet.until("it is said as soon as it is attached", said);
    tablet.ask(json!({ "do": "click", "button": "Send" }));
    tablet.refuses("queue.add({ form: 'demo', fields: { name: 'x' }, files: [file] })");
    let shown = tablet.until("it is said", said);
    assert_eq!(shown["fields"]["Name"], "too much", "{shown}");
    assert_eq!(shown["files"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["unsent"], json!([]), "nothing is half kept");
    assert_eq!(shown["sent"], json!([]), "{shown}");
    tablet.shot("no-room");
}

/// A browser with a profile of its own, and a node; between them a line that can break.
struct Tablet {
    client: Client,
    node: Option<Node>,
    proxy: Proxy,
    /// Of what was made the sizes of the attachments.
    sizes: BTreeSet<Vec<usize>>,
    _profile: TempDir,
}

impl Tablet {
    fn start() -> Option<Self> {
        let scripts = foreign::npm()?;
        if !Path::new(CHROMIUM).exists() {
            hydrant_harness::skipped(format!("{CHROMIUM} is not here"));
            return None;
        }
        let node = Setup::up().start();
        let proxy = Proxy::start(node.public());
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command
            .arg(scripts.join("submissions-page.mjs"))
            .arg(profile.path())
            .arg(format!("http://{}/api/submissions/", proxy.address()));
        let tablet = Self {
            client: Client::start(command),
            node: Some(node),
            proxy,
            sizes: BTreeSet::new(),
            _profile: profile,
        };
        tablet.node().wait("the page is served", |_| {
            let asked = tablet.get("/api/submissions/v1/forms");
            asked.is_array().then_some(())
        });
        Some(tablet)
    }

    fn ask(&mut self, command: Value) -> Value {
        let answer = self.client.ask(&command);
        assert!(answer.get("failed").is_none(), "{command}: {answer}");
        answer
    }

    /// Opens the browser at a tablet's size, and waits until the page works without a connection.
    fn open(&mut self) {
        self.ask(json!({ "do": "open", "width": 1024, "height": 768 }));
        self.until("the page can be opened offline", |shown| {
            shown["controlled"] == true && shown["fields"]["Name"].is_string()
        });
    }

    /// Opens the page in the browser that is there, or a browser.
    fn open_again(&mut self) {
        let opened = self.client.ask(&json!({ "do": "close" }));
        drop(opened);
        self.open();
    }

    fn offline(&mut self, is: bool) {
        self.ask(json!({ "do": "offline", "is": is }));
    }

    /// Fills the form in and sends it, with an attachment; its id.
    fn make(&mut self, name: &str, size: usize) -> String {
        self.ask(json!({ "do": "type", "name": "Name", "text": name }));
        let file = format!("{name}.pdf");
        let attach = json!({ "do": "attach", "name": file, "type": "application/pdf", "size": size, "fill": FILL });
        self.sizes.insert(vec![size]);
        self.ask(attach);
        self.ask(json!({ "do": "send" }));
        let of = |shown: &Value| {
            let rows = [&shown["unsent"], &shown["sent"]].map(|list| list.as_array().cloned());
            let mut rows = rows.into_iter().flatten().flatten();
            let row = rows.find(|row| row["title"] == name)?;
            row["id"].as_str().map(str::to_owned)
        };
        of(&self.until("it is in the list", |shown| of(shown).is_some())).expect("an id")
    }

    fn make_two(&mut self) -> [String; 2] {
        [
            self.make("Ada <b>Lovelace</b>", 300_000),
            self.make("Grace Hopper", 1_200_000),
        ]
    }

    /// Waits until the library says of something with a large file that there is no room.
    fn refuses(&mut self, work: &str) {
        let script = format!(
            "const file = new File([new Uint8Array(8e6)], 'large.pdf');
             try {{ await {work}; return 'kept'; }} catch (error) {{ return error.name; }}"
        );
        let began = Instant::now();
        while self.ask(json!({ "do": "run", "script": script })) != "StorageFull" {
            assert!(began.elapsed() < PATIENCE, "{work}: there is room");
            pause(Duration::from_millis(500));
        }
    }

    fn shown(&mut self) -> Value {
        self.ask(json!({ "do": "shown" }))
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.shown();
            if is_so(&shown) {
                return shown;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not in time: {shown}");
            pause(Duration::from_millis(100));
        }
    }

    /// All that was made is shown as not sent, and what was only typed is still in the form.
    fn waits_with(&mut self, made: &[String], typed: &str) {
        let shown = self.until("what was typed is there", |shown| {
            shown["fields"]["Name"] == typed
        });
        assert_eq!(
            ids(&shown["unsent"]),
            made.iter().cloned().collect(),
            "{shown}"
        );
        assert_eq!(shown["sent"], json!([]), "{shown}");
    }

    fn is_sent(&mut self, id: &String) -> bool {
        ids(&self.shown()["sent"]).contains(id)
    }

    /// Waits until everything is sent and delivered; then it has arrived once, and whole.
    fn arrive_once(&mut self, made: &[String]) {
        let all: BTreeSet<String> = made.iter().cloned().collect();
        let shown = self.until("all is sent and has its reference", |shown| {
            let sent = shown["sent"].as_array().cloned().unwrap_or_default();
            let has_reference = |row: &Value| {
                let text = row["text"].as_str();
                text.is_some_and(|text| text.contains("Reference"))
            };
            sent.len() >= all.len() && sent.iter().all(has_reference)
        });
        assert_eq!(shown["unsent"], json!([]), "{shown}");
        assert_eq!(ids(&shown["sent"]), all, "{shown}");
        self.delivered(made);
    }

    /// Waits until the service has delivered each; then the consumers have these and no others, each with
    /// its one attachment.
    fn delivered(&self, made: &[String]) {
        for id in made {
            let began = Instant::now();
            while !self.is_delivered(id) {
                assert!(began.elapsed() < PATIENCE, "{id}: {}", self.status(id));
                pause(Duration::from_millis(200));
            }
            let one = self.status(id);
            let files = one["attachments"].as_array().expect("a list");
            assert_eq!(files.len(), 1, "{one}");
        }
        let orders = self.get("/api/demo-consumer/v1/orders");
        assert_eq!(
            orders.as_array().map(Vec::len),
            Some(made.len()),
            "{orders}"
        );
        let mut folders = self.delivered_files();
        folders.sort();
        assert_eq!(folders.len(), made.len(), "{folders:?}");
        for sizes in folders {
            assert!(self.sizes.contains(&sizes), "{sizes:?} of {:?}", self.sizes);
        }
    }

    fn status(&self, id: &str) -> Value {
        self.get(&format!("/api/submissions/v1/submissions/{id}"))
    }

    fn is_delivered(&self, id: &str) -> bool {
        self.status(id)["state"] == "delivered"
    }

    /// Of each folder that was delivered the sizes of its files, whose content is as it was made.
    fn delivered_files(&self) -> Vec<Vec<usize>> {
        let size = |file: &PathBuf| {
            let content = std::fs::read(file).expect("a file");
            assert!(content.iter().all(|byte| *byte == FILL), "{file:?}");
            content.len()
        };
        let all = files_below(&self.node().data().join("demo/delivered"));
        let manifests = all.iter().filter(|file| file.ends_with("manifest.json"));
        manifests
            .map(|manifest| {
                let folder = manifest.parent();
                let beside = |file: &&PathBuf| file.parent() == folder && *file != manifest;
                all.iter().filter(beside).map(size).collect()
            })
            .collect()
    }

    fn nothing_was_forbidden(&mut self) {
        let wrong = self.ask(json!({ "do": "violations" }));
        assert_eq!(
            wrong,
            json!([]),
            "the page's own policy, and errors of scripts"
        );
    }

    /// Nothing is wider than the screen, on tablets and phones, in light and dark.
    fn shown_in_all_sizes(&mut self) {
        for (width, height, scheme) in [
            (1024, 768, "dark"),
            (768, 1024, "light"),
            (390, 844, "dark"),
        ] {
            self.ask(json!({ "do": "close" }));
            self.ask(json!({ "do": "open", "width": width, "height": height, "scheme": scheme }));
            self.until("the form is there", |shown| {
                shown["fields"]["Name"].is_string()
            });
            let script = "return document.documentElement.scrollWidth - innerWidth";
            let beyond = self.ask(json!({ "do": "run", "script": script }));
            assert!(
                beyond.as_i64().is_none_or(|beyond| beyond <= 0),
                "{width}: {beyond}"
            );
            self.shot(&format!("{width}x{height}-{scheme}"));
        }
    }

    /// A picture to look at, in the tests' folder of the target folder.
    fn shot(&mut self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("submissions-page");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        self.ask(json!({ "do": "shot", "path": path }));
        println!("a picture: {}", path.display());
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.node().public());
        hydrant_harness::runtime().block_on(async {
            let answer = reqwest::get(url).await.ok();
            match answer {
                Some(answer) => answer.json().await.unwrap_or_default(),
                None => Value::Null,
            }
        })
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_below(&path),
            false => vec![path],
        })
        .collect()
}

fn ids(rows: &Value) -> BTreeSet<String> {
    let rows = rows.as_array().into_iter().flatten();
    rows.filter_map(|row| row["id"].as_str().map(str::to_owned))
        .collect()
}
