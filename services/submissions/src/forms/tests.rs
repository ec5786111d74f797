use serde_json::json;

use super::*;

const SCHEMA: &str = r#"{"type": "object", "required": ["name"],
    "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}"#;

fn load(text: &str) -> Result<Forms, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submissions.toml");
    std::fs::write(folder.path().join("s.json"), SCHEMA).unwrap();
    std::fs::write(&path, text).unwrap();
    Forms::load(&path, Some("http://host")).map_err(|error| {
        let folder = format!("{}/", folder.path().display());
        error.to_string().replace(&folder, "")
    })
}

const CONSUMERS: &str = r#"
[consumers.shop]
kind = "rest"
url = "${HYDRANT_PUBLIC_URL}/x"
reference = "/id"
[consumers.shop2]
kind = "rest"
url = "http://x/"
reference = "/id"
[consumers.disk]
kind = "folder"
path = "out"
"#;

fn form(rest: &str) -> String {
    format!("{CONSUMERS}\n[forms.order]\nschema = \"s.json\"\n{rest}")
}

#[test]
fn the_demo_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = crate::install_demo(&folder.path().join("demo")).unwrap();
    let forms = Forms::load(&path, Some("http://127.0.0.1:8080")).unwrap();
    let demo = forms.form("demo").unwrap();
    assert_eq!(demo.deliver, ["demo-consumer", "demo-folder"]);
    assert!(demo.schema.mistakes(&json!({"name": "Ada"})).is_empty());
    assert_eq!(demo.schema.mistakes(&json!({})).len(), 1);
    let consumer = forms.consumer("demo-consumer").unwrap();
    let Place::Rest(rest) = &consumer.place else {
        panic!("the demo's first consumer gives the reference");
    };
    let url = rest.url.fixed_beginning();
    assert!(url.starts_with("http://127.0.0.1:8080/api/"), "{url}");
}

#[test]
fn a_mistake_of_fields_tells_the_place_and_not_the_value() {
    let forms = load(&form("deliver = [\"disk\"]")).unwrap();
    let schema = &forms.form("order").unwrap().schema;
    let canary = format!("{}!", "a".repeat(50_000));
    let mistakes = schema.mistakes(&json!({"name": canary}));
    assert_eq!(mistakes[0].pointer, "/name");
    assert!(!mistakes[0].message.contains("aaa"), "{mistakes:?}");
}

#[test]
fn each_mistake_of_the_file_says_what_is_wrong() {
    let consumers = |rest: &str| format!("{CONSUMERS}{rest}");
    for (text, expected) in [
        (
            "[form.x]".to_owned(),
            "submissions.toml:1:2: unknown field `form`",
        ),
        (form(""), "missing field `deliver`"),
        (form("deliver = []"), "1 to 8 consumers"),
        (form("deliver = [\"none\"]"), "`none`, which is no consumer"),
        (form("deliver = [\"disk\", \"disk\"]"), "`disk` twice"),
        (form("deliver = [\"disk\", \"shop\"]"), "it comes first"),
        (form("deliver = [\"shop\", \"shop2\"]"), "it comes first"),
        (
            form("deliver = [\"disk\"]\npatience = \"1h\""),
            "more than 25s",
        ),
        (
            form("deliver = [\"disk\"]\nmax_fields = \"1GB\""),
            "more than 1MB",
        ),
        (
            form(
                "deliver = [\"disk\"]\n[forms.order.attachments]\nmax_count = 0\nmax_size = \"1MB\"",
            ),
            "from 1 to 1000",
        ),
        (
            form(
                "deliver = [\"disk\"]\n[forms.order.attachments]\nmax_count = 1\nmax_size = \"1MB\"\ntypes = [\"png\"]",
            ),
            "image/*",
        ),
        (
            form("deliver = [\"disk\"]").replace("s.json", "none.json"),
            "has a schema that can't be used, none.json",
        ),
        (
            consumers("[consumers.\"A b\"]\nkind = \"folder\"\npath = \"x\""),
            "small letters",
        ),
        (
            consumers("[consumers.x]\nkind = \"fax\""),
            "unknown variant `fax`",
        ),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.starts_with("submissions.toml:"), "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
}
