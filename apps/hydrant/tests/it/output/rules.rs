//! What `hydrant rules` prints.

use super::fake_url;
use crate::golden::Transcript;

const GOOD: &str = "[[rule]]\nname = \"canary\"\nservice = \"api/shop\"\nweights = { \"1.0.0\" = 90, \"1.1.0\" = 10 }\n";
const WRONG: &str =
    "[[rule]]\nname = \"canary\"\nservice = \"api/shop\"\nweigths = { \"1.0.0\" = 90 }\n";

#[test]
fn help() {
    let mut transcript = Transcript::default();
    transcript.run(&[], &["rules", "--help"]);
    for command in ["apply", "diff", "list", "show", "remove"] {
        transcript.run(&[], &["rules", command, "--help"]);
    }
    transcript.check("rules_help.txt");
}

#[test]
fn tables_and_json() {
    let url = fake_url();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    file("good.toml", GOOD);
    file("wrong.toml", WRONG);
    let mut transcript = Transcript::default();
    for line in [
        &["rules", "list"][..],
        &["rules", "show", "canary"],
        &["rules", "show", "none"],
        &["rules", "diff", "good.toml"],
        &["rules", "apply", "good.toml", "-m", "no complaints"],
        &[
            "rules",
            "apply",
            "good.toml",
            "-m",
            "no complaints",
            "--wait",
        ],
        &["rules", "apply", "good.toml"],
        &["rules", "apply", "wrong.toml", "-m", "no complaints"],
        &["rules", "apply", "missing.toml", "-m", "no complaints"],
        &["rules", "remove", "moved", "-m", "over"],
        &["--json", "rules", "list"],
        &["--json", "rules", "show", "canary"],
        &["--json", "rules", "diff", "good.toml"],
        &[
            "--json",
            "rules",
            "apply",
            "good.toml",
            "-m",
            "no complaints",
            "--wait",
        ],
        &["--json", "rules", "remove", "moved", "-m", "over"],
        &[
            "--json",
            "rules",
            "apply",
            "wrong.toml",
            "-m",
            "no complaints",
        ],
    ] {
        transcript.run_in_with(folder.path(), &["--url", &url.0], line);
    }
    transcript.check_without(&url.0, "rules.txt");
}
