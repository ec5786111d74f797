//! Content from a file to an app: images, drafts, schedules and previews, as product people and apps
//! meet them.

mod copied;
mod s3;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{Node, Setup};

/// 700 × 260 pixels.
const APPLES: &[u8] = include_bytes!("../../../../services/mobile/demo/apples.png");

/// The same picture in another file: what stands behind the end of a PNG is not looked at. (The demo has
/// the file itself.)
fn pears() -> Vec<u8> {
    [APPLES, b"pears"].concat()
}

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&slots=home.top&locale=";

#[test]
fn an_image_goes_from_a_file_into_what_an_app_shows() {
    let desk = Desk::start(Setup::up());
    let sha256 = desk.add_image("pears.png", &pears());
    let again = desk.json(&[
        "image",
        "add",
        &desk.path("pears.png"),
        "--alt",
        "Pears",
        "-m",
        "x",
    ]);
    assert_eq!(
        again["sha256"],
        sha256.as_str(),
        "a second time changes nothing"
    );
    desk.put_banner(&json!({"locales": {
        "en": {"title": "Fresh", "image": {"$image": sha256}},
        "de": {"title": "Frisch"},
    }}));
    let shown = desk.shown("en-GB");
    let image = &shown["fields"]["image"];
    assert_eq!(
        (&image["width"], &image["alt"]),
        (&json!(700), &json!("Pears"))
    );
    let answer = desk.get(image["src"].as_str().unwrap(), &[]);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "image/png")
    );
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.body.starts_with(b"\x89PNG"));
    let known = [("if-none-match", answer.header("etag"))];
    assert_eq!(desk.get(image["src"].as_str().unwrap(), &known).status, 304);
    let path = image["src"].as_str().unwrap().replace("700.png", "701.png");
    assert_eq!(desk.get(&path, &[]).status, 404);
    let refused = desk.refused(&["image", "remove", &sha256[..8], "-m", "x"]);
    assert!(refused.contains("used by: fresh"), "{refused}");
    desk.only_what_was_seen_goes_on(image);
}

#[test]
fn what_is_no_image_is_refused_with_how_to_mend_it() {
    let desk = Desk::start(Setup::up());
    for (name, bytes, told) in [
        ("text.png", &b"hello"[..], "JPEG, PNG, WebP or GIF"),
        ("cut.png", &APPLES[..200], "broken"),
        ("empty.png", b"", "JPEG, PNG, WebP or GIF"),
    ] {
        fs::write(desk.path(name), bytes).unwrap();
        let refused = desk.refused(&["image", "add", &desk.path(name), "--alt", "", "-m", "x"]);
        assert!(refused.contains(told), "{name}: {refused}");
    }
    fs::write(desk.path("large.png"), vec![0; 20 * 1024 * 1024 + 1]).unwrap();
    let large = desk.path("large.png");
    let refused = desk.refused(&["image", "add", &large, "--alt", "", "-m", "x"]);
    assert!(refused.contains("20.0 MB"), "{refused}");
    let unknown = json!({"type": "banner", "slot": "home.top", "locales": {
        "en": {"title": "", "image": {"$image": "a".repeat(64)}},
    }});
    desk.put_type();
    fs::write(desk.path("entry.json"), format!("{unknown:#}")).unwrap();
    let refused = desk.refused(&[
        "content",
        "put",
        "fresh",
        &desk.path("entry.json"),
        "-m",
        "x",
    ]);
    assert!(
        refused.contains("content/fresh:5:") && refused.contains("no image"),
        "{refused}"
    );
}

#[test]
fn a_draft_is_seen_by_who_has_its_link_and_by_nobody_else() {
    let desk = Desk::start(Setup::up());
    desk.put_banner(&json!({
        "locales": {"en": {"title": "now"}},
        "draft": {"locales": {"en": {"title": "SECRET <b>"}}},
    }));
    assert_eq!(desk.shown("en")["fields"]["title"], "now");
    let state = ["state", "--namespace", "service/mobile", "get", "bundle"];
    let packed = desk.node.json(&state)["value_base64"]
        .as_str()
        .unwrap()
        .to_owned();
    let packed = STANDARD.decode(packed).unwrap();
    let bundle = zstd::stream::decode_all(&packed[..]).expect("the bundle is zstd");
    assert!(
        !String::from_utf8_lossy(&bundle).contains("SECRET"),
        "it left the service"
    );
    let link = desk.json(&["content", "preview", "fresh", "--for", "1h"]);
    let link = link["url"].as_str().unwrap();
    let path = &link[link.find("/api").unwrap()..];
    let seen = desk.get(path, &[]);
    assert_eq!(
        (seen.status, seen.header("cache-control")),
        (200, "no-store")
    );
    assert_eq!(seen.json()["locales"][0]["fields"]["title"], "SECRET <b>");
    let page = desk.get(path, &[("accept", "text/html")]);
    assert!(page.text().contains("SECRET &lt;b&gt;"), "{}", page.text());
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'none'")
    );
    for forged in [
        format!("{path}x"),
        path.replace("token=", "token=x"),
        "/api/mobile/v1/preview".into(),
    ] {
        assert_eq!(desk.get(&forged, &[]).status, 403, "{forged}");
    }
    desk.json(&["content", "preview", "fresh", "--revoke"]);
    assert_eq!(desk.get(path, &[]).status, 410);
    let page = desk.get(path, &[("accept", "text/html")]);
    let told = (page.status, page.text().contains("was revoked</p>"));
    assert_eq!(told, (410, true), "people get a page: {}", page.text());
    desk.json(&[
        "content",
        "publish",
        "fresh",
        "--from",
        "2020-01-01T00:00:00Z",
        "-m",
        "go",
    ]);
    desk.node.wait("what is published", |_| {
        (desk.shown("en")["fields"]["title"] == "SECRET <b>").then_some(())
    });
    desk.json(&[
        "content",
        "schedule",
        "fresh",
        "--until",
        "2020-01-02T00:00:00Z",
        "-m",
        "over",
    ]);
    desk.node
        .wait("nothing", |_| desk.shown("en").is_null().then_some(()));
    let why = desk.json(&["content", "explain", "home.top"]);
    assert_eq!(why["entries"][0]["schedule"], "over");
}

#[test]
fn the_demo_shows_content_with_its_image_from_the_first_revision_on() {
    let desk = Desk::start(Setup::up());
    let path = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=de-AT&slots=home,offers";
    let shown = desk.node.wait("the demo", |_| {
        let init = desk.get(path, &[]).json();
        let shown = init["content"].clone();
        shown["home"]["entry"].is_string().then_some(shown)
    });
    assert_eq!(shown["home"]["fields"]["title"], "Die Äpfel sind da");
    assert_eq!(shown["home"]["fields"]["image"]["alt"], "Vier Äpfel");
    assert_eq!(shown["offers"]["entry"], "delivery");
    let src = shown["home"]["fields"]["image"]["src"].as_str().unwrap();
    let image = desk.node.wait("its image", |_| {
        let image = desk.get(src, &[]);
        (image.status == 200).then_some(image)
    });
    assert_eq!(image.header("content-type"), "image/png");
    let why = desk.json(&["content", "explain", "home", "--at", "2040-01-02T00:00:00Z"]);
    assert_eq!(why["entries"][0]["shown"], true, "the scheduled one");
    let history = desk.json(&["history"]);
    assert_eq!(
        history["revisions"].as_array().unwrap().len(),
        1,
        "{history}"
    );
}

#[test]
fn a_program_adds_images_with_an_admin_key_and_with_no_other() {
    let desk = Desk::start(Setup::up());
    let [admin, server, client] = ["admin", "server", "client"].map(|role| desk.key(role));
    let path = "/api/mobile/v1/images?reason=autumn&alt=Pears";
    desk.node.json(&["scale", "api/mobile", "1"]);
    desk.node.wait("the keys are known", |_| {
        (desk.post(path, Some(&admin), b"").status == 422).then_some(())
    });
    let before = desk.json(&["history"])["revisions"][0]["revision"].clone();
    for (key, status, reason) in [
        (None, 401, "no_key"),
        (Some("hyk_nobody"), 401, "wrong_key"),
        (Some(client.as_str()), 403, "not_admin"),
        (Some(server.as_str()), 403, "not_admin"),
    ] {
        let refused = desk.post(path, key, &pears());
        let told = (refused.status, refused.header("content-type"));
        assert_eq!(told, (status, "application/problem+json"), "{reason}");
        assert_eq!(refused.json()["reason"], reason, "{}", refused.text());
        assert!(refused.json()["mend"].is_string(), "{}", refused.text());
    }
    let large = vec![0; 20 * 1024 * 1024 + 1];
    for (bytes, status, reason) in [
        (&b""[..], 422, "bad_image"),
        (b"<svg/>", 422, "bad_image"),
        (&APPLES[..500], 422, "bad_image"),
        (&large, 413, "image_too_large"),
    ] {
        let refused = desk.post(path, Some(&admin), bytes);
        assert_eq!(refused.status, status, "{}", refused.text());
        assert_eq!(refused.json()["reason"], reason, "{}", refused.text());
    }
    let without_reason = desk.post("/api/mobile/v1/images", Some(&admin), &pears());
    assert_eq!(without_reason.status, 400, "{}", without_reason.text());
    let after = desk.json(&["history"])["revisions"][0]["revision"].clone();
    assert_eq!(after, before, "what is refused changes nothing");

    let added = desk.post(path, Some(&admin), &pears());
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["image"]["alt"], "Pears");
    assert_eq!(desk.post(path, Some(&admin), &pears()).status, 200);
    let newest = &desk.json(&["history"])["revisions"][0];
    let by = (&newest["author"], &newest["reason"]);
    assert_eq!(by, (&json!("admin-key"), &json!("autumn")));
}

#[test]
fn an_image_is_added_from_another_machine_by_the_command_line() {
    let desk = Desk::start(Setup::up());
    let keys = ["admin", "client"].map(|role| {
        fs::write(desk.path(role), desk.key(role)).unwrap();
        desk.path(role)
    });
    fs::write(desk.path("pears.png"), pears()).unwrap();
    desk.node.json(&["scale", "api/mobile", "1"]);
    let url = format!("http://{}", desk.node.public());
    let add = |key: &str| {
        let way = ["--json", "mobile", "--url", &url, "--key-file", key];
        let (file, what) = (desk.path("pears.png"), ["--alt", "Pears", "-m", "autumn"]);
        let line = [&way[..], &["image", "add", &file], &what].concat();
        desk.node.run(&line)
    };
    desk.node.wait("the key is known", |_| {
        add(&keys[0]).status.success().then_some(())
    });
    let refused = add(&keys[1]);
    assert_eq!(refused.status.code(), Some(4), "another role");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("role admin") && told.contains("mend"),
        "{told}"
    );
    let newest = desk.json(&["history"])["revisions"][0].clone();
    assert_eq!(newest["author"], "admin-key");
}

/// A node, as people of the product and apps see it.
struct Desk {
    node: Node,
    runtime: Runtime,
    client: reqwest::Client,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Desk {
    fn start(setup: hydrant_harness::node::Setup) -> Self {
        let desk = Self {
            node: setup.start(),
            runtime: hydrant_harness::runtime(),
            client: reqwest::Client::new(),
        };
        desk.node.wait("the first revision", |_| {
            (desk.get(&format!("{INIT}en"), &[]).status == 200).then_some(())
        });
        desk
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.node.data().join(name);
        path.to_string_lossy().into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.node.json(&[&["mobile"], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.node.run(&[&["mobile"], arguments].concat())
    }

    /// What a command says that has to fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn add_image(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        let path = self.path(name);
        let added = self.json(&["image", "add", &path, "--alt", "Pears", "-m", "summer"]);
        assert!(added["revision"].as_u64() > Some(1), "{added}");
        added["sha256"].as_str().unwrap().to_owned()
    }

    /// A key of this role, which is in its name.
    fn key(&self, role: &str) -> String {
        let name = format!("{role}-key");
        let made = self.json(&["key", "create", &name, "--role", role, "-m", "a test"]);
        made["key"].as_str().unwrap().to_owned()
    }

    fn put_type(&self) {
        let schema = json!({"schema": {
            "type": "object",
            "properties": {"title": {"type": "string"}, "image": {"$ref": "hydrant:image"}},
            "required": ["title"],
        }});
        fs::write(self.path("type.json"), schema.to_string()).unwrap();
        self.json(&[
            "content",
            "type",
            "banner",
            &self.path("type.json"),
            "-m",
            "x",
        ]);
    }

    /// The entry `fresh` in the slot `home.top`, and waits until apps get it.
    fn put_banner(&self, form: &Value) {
        self.put_type();
        let mut entry = form.clone();
        entry["type"] = "banner".into();
        entry["slot"] = "home.top".into();
        fs::write(self.path("entry.json"), entry.to_string()).unwrap();
        self.json(&[
            "content",
            "put",
            "fresh",
            &self.path("entry.json"),
            "-m",
            "x",
        ]);
        self.node.wait("the banner", |_| {
            (!self.shown("en").is_null()).then_some(())
        });
    }

    /// What an app gets for the slot.
    fn shown(&self, locale: &str) -> Value {
        let init = self.get(&format!("{INIT}{locale}"), &[]).json();
        init["content"]["home.top"].clone()
    }

    fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let url = format!("http://{}{path}", self.node.public());
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        self.answer(request)
    }

    fn post(&self, path: &str, key: Option<&str>, body: &[u8]) -> Answer {
        let url = format!("http://{}{path}", self.node.public());
        let request = self.client.post(url).body(body.to_vec());
        self.answer(match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            Answer {
                status: answer.status().as_u16(),
                headers: answer.headers().clone(),
                body: answer.bytes().await.unwrap().to_vec(),
            }
        })
    }

    /// Without the service, images that were asked for go on, and others may be had later.
    fn only_what_was_seen_goes_on(&self, image: &Value) {
        self.node.json(&["scale", "api/mobile", "1"]);
        let seen = image["src"].as_str().unwrap();
        self.node.wait("the image", |_| {
            (self.get(seen, &[]).status == 200).then_some(())
        });
        self.node.json(&["scale", "service/mobile", "0"]);
        assert_eq!(self.get(seen, &[]).status, 200);
        let other = self.get(&seen.replace("700.png", "320.png"), &[]);
        assert_eq!(
            (other.status, other.header("retry-after")),
            (503, "1"),
            "{}",
            other.text()
        );
    }
}
