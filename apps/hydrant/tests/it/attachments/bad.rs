//! Whatever else may be sent gets its status, and nothing of it is kept.

use super::*;
use crate::harness::Setup;

#[test]
fn each_bad_request_has_its_status_and_nothing_of_it_is_kept() {
    let counter = Counter::new(Setup::up().start());
    let all = counter.attachments();
    let options = counter.ask(Method::OPTIONS, &all, &[], b"");
    assert_eq!(options.status, 204);
    assert_eq!(options.header("tus-version"), "1.0.0");
    assert_eq!(options.header("tus-max-size"), "104857600");
    new_uploads(&counter, &all);
    assert_eq!(counter.listed(), Vec::<Value>::new(), "nothing is kept");
    more_bytes(&counter);
    closed(&counter);
}

fn new_uploads(counter: &Counter, all: &str) {
    let text = ("upload-metadata", "filename YS5odG1s,filetype dGV4dC9odG1s");
    let (one, picture) = (("upload-length", "1"), ("upload-metadata", PICTURE));
    let unknown = format!("{BASE}/3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50/attachments");
    let nonsense = format!("{BASE}/nonsense/attachments");
    for (what, path, headers, status) in [
        ("no length", all, vec![picture], 400),
        (
            "two lengths",
            all,
            vec![one, ("upload-defer-length", "1"), picture],
            400,
        ),
        (
            "a length below 0",
            all,
            vec![("upload-length", "-1"), picture],
            400,
        ),
        (
            "a huge length",
            all,
            vec![("upload-length", "99999999999"), picture],
            413,
        ),
        (
            "no number at all",
            all,
            vec![("upload-length", "99999999999999999999"), picture],
            400,
        ),
        ("a type that is not taken", all, vec![one, text], 415),
        (
            "no base64",
            all,
            vec![one, ("upload-metadata", "filename ?")],
            400,
        ),
        (
            "no checksum",
            all,
            vec![
                one,
                picture,
                ("upload-checksum", "md5 x"),
                ("content-type", BYTES),
            ],
            400,
        ),
        (
            "no concat",
            all,
            vec![one, picture, ("upload-concat", "half")],
            400,
        ),
        (
            "unknown parts",
            all,
            vec![picture, ("upload-concat", "final;/a /b")],
            400,
        ),
        (
            "no key",
            all,
            vec![one, picture, ("idempotency-key", "7")],
            400,
        ),
        ("an unknown submission", &unknown, vec![one, picture], 404),
        ("no submission", &nonsense, vec![one, picture], 404),
    ] {
        let answer = counter.tus(Method::POST, path, &headers, b"");
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{what}"
        );
        assert_eq!(answer.header("tus-resumable"), "1.0.0", "{what}");
    }
    let old = counter.ask(Method::POST, all, &[one, picture], b"");
    assert_eq!(
        (old.status.as_u16(), old.header("tus-version")),
        (412, "1.0.0")
    );
    assert_eq!(counter.tus(Method::PUT, all, &[], b"").status, 405);
    let wrong = [
        ("upload-length", "5"),
        picture,
        ("content-type", BYTES),
        ("upload-checksum", "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="),
    ];
    assert_eq!(counter.tus(Method::POST, all, &wrong, b"hellO").status, 460);
}

fn more_bytes(counter: &Counter) {
    let url = counter.create(5);
    let (at, kind) = (("upload-offset", "0"), ("content-type", BYTES));
    let sum = ("upload-checksum", "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=");
    let other = format!(
        "{}/3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50",
        counter.attachments()
    );
    for (what, path, headers, body, status) in [
        ("no type", &url, vec![at], "hello", 415),
        (
            "another type",
            &url,
            vec![at, ("content-type", "text/plain")],
            "hello",
            415,
        ),
        ("no offset", &url, vec![kind], "hello", 400),
        (
            "another offset",
            &url,
            vec![("upload-offset", "1"), kind],
            "hell",
            409,
        ),
        ("too much", &url, vec![at, kind], "hello!", 413),
        ("another checksum", &url, vec![at, kind, sum], "hellO", 460),
        (
            "another length",
            &url,
            vec![at, kind, ("upload-length", "6")],
            "hello",
            400,
        ),
        ("an unknown upload", &other, vec![at, kind], "hello", 404),
    ] {
        let answer = counter.tus(Method::PATCH, path, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(counter.offset(&url), 0, "{what}");
    }
    // A client whose HTTP knows no PATCH.
    let meant = ("x-http-method-override", "PATCH");
    let answer = counter.tus(Method::POST, &url, &[at, kind, sum, meant], b"hello");
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (204, "5")
    );
    let gone = counter.create(5);
    assert_eq!(counter.tus(Method::DELETE, &gone, &[], b"").status, 204);
    for method in [Method::HEAD, Method::DELETE] {
        assert_eq!(counter.tus(method, &gone, &[], b"").status, 410);
    }
    assert_eq!(counter.patch(&gone, 0, b"hello").status, 410);
}

fn closed(counter: &Counter) {
    let submit = format!("{}/submit", counter.path);
    let open = counter.create(6);
    let refused = counter.ask(Method::POST, &submit, &[], b"");
    assert_eq!(
        (refused.status.as_u16(), refused.json()["reason"].as_str()),
        (409, Some("attachments_unfinished"))
    );
    assert_eq!(counter.tus(Method::DELETE, &open, &[], b"").status, 204);
    assert_eq!(
        counter.ask(Method::POST, &submit, &[], b"").status.as_u16() / 100,
        2
    );
    let headers = [("upload-length", "1"), ("upload-metadata", PICTURE)];
    let late = counter.tus(Method::POST, &counter.attachments(), &headers, b"");
    assert_eq!(late.status, 403);
}

#[test]
fn pages_of_other_origins_may_send_when_the_file_of_forms_says_so() {
    let counter = Counter::new(Setup::up().start());
    let url = counter.create(5);
    let preflight = |origin| {
        let asks = ("access-control-request-method", "PATCH");
        let origin = ("origin", origin);
        counter.ask(Method::OPTIONS, &url, &[origin, asks], b"")
    };
    let refused = preflight("https://shop.example");
    assert_eq!(refused.header("access-control-allow-origin"), "");
    let file = counter.node.data().join("demo/submissions.toml");
    let text = fs::read_to_string(&file).expect("the demo's file");
    let origins = "origins = [\"https://shop.example\"]\n";
    fs::write(&file, format!("{origins}{text}")).expect("it can be written");
    for instance in counter.node.instances("api/submissions") {
        let pid = instance["pid"].as_u64().expect("a number") as u32;
        crate::harness::kill(pid, rustix::process::Signal::KILL);
    }
    let allowed = counter.node.wait("the new file", |_| {
        let answer = preflight("https://shop.example");
        (answer.header("access-control-allow-origin") == "https://shop.example").then_some(answer)
    });
    assert_eq!(allowed.status, 204);
    let sent = allowed.header("access-control-allow-headers");
    for name in ["upload-offset", "tus-resumable", "correlation-id"] {
        assert!(sent.contains(name), "{name}");
    }
    assert!(
        allowed
            .header("access-control-allow-methods")
            .contains("PATCH")
    );
    assert_eq!(
        preflight("https://evil.example").header("access-control-allow-origin"),
        ""
    );
    let shop = ("origin", "https://shop.example");
    let head = counter.tus(Method::HEAD, &url, &[shop], b"");
    assert!(
        head.header("access-control-expose-headers")
            .contains("upload-offset")
    );
}
