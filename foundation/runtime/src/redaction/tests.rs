use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rules() -> Redaction {
    Redaction::default()
}

/// Texts with a secret in each, between `«` and `»`.
const SECRETS: &[&str] = &[
    // By name, however names and values are written.
    "password=«hunter2»",
    "password: «hunter2, correct horse»",
    "  - password: «hunter2 correct horse»\nuser: bob",
    "PASSWORD = «hunter2»",
    "user=bob db_password=«hun,ter;2»",
    "the passwd:\t«hunter2»",
    r#"{"user":"bob","passWord":"«hunter2»"}"#,
    r#"{"user":"bob","password" : "«hun\"ter 2»"}"#,
    r#"{"text":"{\"password\":\"«hunter 2»\",\"a\":1}"}"#,
    r#"{\"ssn\": \"«123456789»\"}"#,
    r#"{"cvv":«123»,"a":1}"#,
    r#"{"customerSSN":«123456789»}"#,
    "{\n  \"client-secret\":\n    \"«hunter2»\"\n}",
    r#"Login { user: "bob", password: "«hunter 2»" }"#,
    r#"Login { user: "bob", password: Some("«hunter 2»"), a: 1 }"#,
    r#"secrets: ["«one»", "two"], a: 1"#,
    r#"card: Card { number: «4111», valid: 1 }"#,
    r#"[("accept", "x"), ("authorization", "«Bearer hunter2»")]"#,
    r#"{'api_key': '«hunter2»'}"#,
    "api-key: «hunter2»",
    "X-Api-Key: «hunter2»",
    "API key: «hunter2»",
    "card number: «1234 »",
    "social security number: «123456789»",
    "GET /a?user=bob&token=«hunter2»&x=1",
    "GET /a?fields%5Bssn%5D=«123456789»&x=1",
    "GET /a?to=%2Fb%3Ftoken%3D«hunter2»%26x",
    "authorization: «Basic am9lOmh1bnRlcjI=»",
    "Authorization: «Digest username=bob, response=f00»\nhost: a",
    r"read: GET / HTTP/1.1\r\nCookie: «sid=hunter2; b=2»\r\nhost: a\r\n",
    r"read: \npassword=«hunter2» x",
    r"read: \nssn=«123456789» x",
    "set-cookie: «sid=hunter2; Path=/»\n",
    "run --password «hunter2» --user bob",
    "run --token '«hunter 2»' --user bob",
    "run --token=«hunter2» --user bob",
    "<user>bob</user><password>«hunter2»</password>",
    "line one\nline two\nsecret = «hunter2»\nline four",
    "private_key: |\n  «one\n  two»\nuser: bob",
    "iban=«DE89370400440532013000»",
    "Server=a;Pwd=«hunter2»",
    // By what it looks like.
    "the number is «078-05-1120».",
    "078 05 1120 is «078 05 1120»",
    "n=«078.05.1120»",
    "n=«078\u{2011}05\u{2011}1120»",
    "GET /a?q=«078%2D05%2D1120»",
    "card «4111111111111111»",
    "card «4111 1111 1111 1111»",
    "paid with «5555-5555-5555-4444».",
    "paid with «3782 822463 10005».",
    "12 «6011 1111 1111 1117» 34",
    "x«4012888888881881»y",
    "n«4111\u{a0}1111\u{a0}1111\u{a0}1111»",
    "GET /pay/«4111-1111-1111-1111»/x?b=%20«4111111111111111»",
    "GET /a?q=«4111+1111+1111+1111»",
    "GET /a?q=%20«4111%201111%201111%201111»",
    r#"{"note":«4111111111111111»}"#,
    r#"{"note":"\u00a0«4111111111111111»"}"#,
    "mail «bob.o'neil+x@example.com», please",
    "mail «jürgen@exämple.de»",
    "GET /a?to=«bob%40example.com»&x=1",
    "mysql://«bob:hunter2»@db:3306/x",
    "cannot reach https://«hunter2»@host/path",
    "redis://:«hunter2»@host",
    "got Bearer «abc.DEF-123»",
    "got bearer «abcdef0123456789»",
    "Basic «am9lOmh1bnRlcjI=»",
    "jwt «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk»",
    "AWS «AKIAIOSFODNN7EXAMPLE» x",
    "key «hyk_0123456789abcdefABCDEF»",
    "token of a service h: «h1.service/customers.c2VjcmV0LXNlY3JldA»",
    "«ghp_0123456789abcdefghijABCDEFGHIJ»",
    "-----BEGIN RSA PRIVATE KEY-----\n«MIIE\nabcd»\n-----END RSA PRIVATE KEY-----\nafter",
    "cut off: -----BEGIN PRIVATE KEY-----\n«MIIE\nabcd»",
    "Data([«104, 117, 110, 116, 101, 114, 50, 33»])",
];

fn split(text: &str) -> (String, Vec<&str>) {
    let secrets = text.split('«').skip(1);
    let secrets = secrets.map(|rest| rest.split('»').next().unwrap());
    (text.replace(['«', '»'], ""), secrets.collect())
}

#[test]
fn no_secret_of_the_corpus_is_shown() {
    let rules = rules();
    for marked in SECRETS {
        let (text, secrets) = split(marked);
        for shown in [rules.text(&text), rules.line(&text)] {
            assert!(shown.contains(MASK), "{text}\n{shown}");
            for secret in &secrets {
                let parts = secret.split(['\n', ' ']).filter(|part| part.len() > 2);
                for part in parts.chain([*secret]) {
                    assert!(!shown.contains(part), "{part} of\n{text} in\n{shown}");
                }
            }
        }
        let again = rules.text(&text).into_owned();
        assert_eq!(rules.text(&again), again, "once is enough: {text}");
    }
}

#[test]
fn what_stands_beside_a_secret_stays() {
    let rules = rules();
    for (text, shown) in [
        ("password=x user=bob", "password=[redacted] user=bob"),
        ("GET /a?token=x&b=1", "GET /a?token=[redacted]&b=1"),
        (r#"{"ssn":1,"a":2}"#, r#"{"ssn":[redacted],"a":2}"#),
        (r#"{"pin":"1","a":2}"#, r#"{"pin":[redacted],"a":2}"#),
        ("cookie: a=b\nhost: c", "cookie: [redacted]\nhost: c"),
        ("mysql://a:b@db/x", "mysql://[redacted]@db/x"),
        ("a 078-05-1120 b", "a [redacted] b"),
        ("a@b.com, c@d.org", "[redacted], [redacted]"),
    ] {
        assert_eq!(rules.text(text), shown);
    }
}

#[test]
fn what_is_no_secret_is_left_alone() {
    let rules = rules();
    for text in [
        "started on 127.0.0.1:8081 and 10.0.0.1:2181, 10.0.0.2:2181, 10.0.0.3:2181",
        "time 1732280000000 took 1732280000000000123 ns",
        "trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "id 0198c5f2-7c1e-7d3a-9b1e-3f6f1a2b3c4d, 2026-11-22T13:36:00.123456789Z",
        "hydrant_router::worker: refused: the service api/shop has no instance",
        "authentication failed, basic authentication is off; bearer authentication too",
        "phone 555-123-4567, zip 12345-6789, order 123456789",
        "GET /api/mobile/v1/init?platform=ios&version=7.2.1&slots=home",
        "a card of number 4111111111111112 fails its check; discarded: 5",
        "install left-pad@1.3.0 by user@localhost",
        "a password: None, token: null, secret=true",
        "Login {\n    password: None,\n}",
        "businessname=a, compass=north, keyboard: b",
        "Error { code: 5, text: \"x\" } [1, 2, 3]",
        "token::Kind and secret::store",
    ] {
        assert_eq!(rules.text(text), text);
    }
}

#[test]
fn a_name_counts_however_it_is_written() {
    let rules = Redaction::new(&["employee_no".into()], &[]).unwrap();
    for name in [
        "password",
        "PASSWORD",
        "dbPassword",
        "x-api-key",
        "X_API_KEY",
        "apiKey",
        "API KEY",
        "customer.ssn",
        "SSN",
        "customerSSN",
        "ssn_last4",
        "ssns",
        "card",
        "cardNumber",
        "card_no",
        "cvv2",
        "cvc",
        "iban",
        "set-cookie",
        "Authorization",
        "user[password]",
        "jwt",
        "EmployeeNo",
        "employee-no",
    ] {
        assert!(rules.is_secret_name(name), "{name}");
    }
    for name in [
        "",
        "user",
        "discard",
        "cardinal",
        "businessname",
        "session_id",
        "store_id",
        "key",
        "compass",
        "passed",
        "spin",
        "expand",
        "author",
        "message",
        "position",
        "opinion",
    ] {
        assert!(!rules.is_secret_name(name), "{name}");
    }
}

#[test]
fn documents_are_clean_however_deep() {
    let mut document = json!({
        "fields": {"card": 4111111111111111_u64, "note": 4111111111111111_u64, "n": 4111111111111111.0},
        "list": [{"ssn": 123456789, "ok": 12345}, "a@b.com", null, true],
        "secret": {"deep": [1, 2]},
        "c@d.com": "<b>\n",
        "password": null,
    });
    rules().document(&mut document);
    assert_eq!(
        document,
        json!({
            "fields": {"card": MASK, "note": MASK, "n": MASK},
            "list": [{"ssn": MASK, "ok": 12345}, MASK, null, true],
            "secret": MASK,
            MASK: "&lt;b&gt;\\u{a}",
            "password": null,
        })
    );
}

#[test]
fn operators_add_names_and_patterns() {
    let rules = Redaction::new(&["badge".into()], &["EMP-[0-9]{4}".into()]).unwrap();
    assert_eq!(
        rules.text("badge=7 EMP-1234"),
        "badge=[redacted] [redacted]"
    );
    for (name, pattern, why) in [
        ("a", "x", "3 to 64 letters"),
        ("a b!", "x", "not a name"),
        ("badge", "(", "is not a pattern: unclosed group"),
        ("badge", "x*", "also nothing"),
        ("badge", "x{1000}{1000}", "size limit"),
    ] {
        let error = Redaction::new(&[name.into()], &[pattern.into()]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn markup_and_what_steers_are_escaped() {
    let rules = rules();
    for (text, line) in [
        ("a\nb\r\u{1b}[2J\u{7}", "a\\u{a}b\\u{d}\\u{1b}[2J\\u{7}"),
        ("<script>", "&lt;script&gt;"),
        (
            "a\u{202e}b\u{2028}c\u{200b}\u{feff}\u{85}",
            "a\\u{202e}b\\u{2028}c\\u{200b}\\u{feff}\\u{85}",
        ),
        ("a\tb", "a b"),
        ("größe ✓", "größe ✓"),
    ] {
        assert_eq!(rules.line(text), line);
        assert_eq!(rules.line(line), line, "once is enough");
    }
}

proptest! {
    #[test]
    fn any_text_becomes_one_line(text in any::<String>()) {
        let line = rules_once().line(&text).into_owned();
        prop_assert!(!line.chars().any(escape::is_escaped), "{line:?}");
    }

    #[test]
    fn any_text_is_taken(parts in proptest::collection::vec(PART, 0..12)) {
        let text = parts.concat();
        let shown = rules_once().text(&text).into_owned();
        prop_assert!(!shown.contains("4111111111111111"), "{text:?}: {shown:?}");
    }

    #[test]
    fn a_card_is_found_wherever_it_stands(before in "[^0-9]{0,20}", after in "[^0-9]{0,20}") {
        let text = format!("{before} 4111-1111-1111-1111 {after}");
        prop_assert!(!rules_once().line(&text).contains("1111"), "{text:?}");
    }
}

/// What the rules look at, in any order.
const PART: &str = r#"(password|card|=|:|,|"|'|\\|\{|\[|\(|\)|\]|\}|<|>|%3D|%40|@|://|--| |\n|é|bob|a\.com|1, 2|078-05-1120| 4111111111111111 |-----BEGIN PRIVATE KEY-----|eyJhbGciOiJI\.)"#;

fn rules_once() -> &'static Redaction {
    Redaction::shared()
}

/// Prints what the rules cost; compile with optimizations to learn something.
#[test]
fn cost() {
    const LINES: [(&str, &str); 3] = [
        (
            "plain",
            "the leader of service mobile has published a revision and all instances follow",
        ),
        (
            "usual",
            "refused: the service api/shop has no instance on 10.0.0.1:8081, trace 4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        (
            "secret",
            "GET /pay?card=4111-1111-1111-1111&token=abc failed for bob@example.com",
        ),
    ];
    let rules = rules();
    for (name, line) in LINES {
        let begun = std::time::Instant::now();
        for _ in 0..20_000 {
            std::hint::black_box(rules.line(std::hint::black_box(line)));
        }
        println!("{name}: {} ns", begun.elapsed().as_nanos() / 20_000);
    }
}
