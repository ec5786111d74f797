//! What `hydrant mobile` prints.

use super::FakeUrl;
use crate::fake_node;
use crate::golden::Transcript;

/// Groups of commands, with the commands in them.
const GROUPS: &[(&str, &[&str])] = &[
    ("flag", &["list", "show", "add", "set", "eval"]),
    (
        "experiment",
        &[
            "list",
            "show",
            "start",
            "stop",
            "set-weights",
            "report",
            "who",
        ],
    ),
    ("key", &["create", "list", "show", "revoke"]),
    ("config", &["list", "show", "explain", "diff", "set"]),
    (
        "content",
        &[
            "list",
            "show",
            "put",
            "type",
            "draft",
            "publish",
            "unpublish",
            "schedule",
            "preview",
            "explain",
        ],
    ),
    ("image", &["add", "list", "show", "remove"]),
];

const ALONE: &[&str] = &[
    "status", "get", "put", "delete", "apply", "export", "list", "history", "show", "diff",
    "revert",
];

#[test]
fn help() {
    let mut transcript = Transcript::default();
    transcript.run(&[], &["mobile", "--help"]);
    for (group, commands) in GROUPS {
        transcript.run(&[], &["mobile", group, "--help"]);
        for command in *commands {
            transcript.run(&[], &["mobile", group, command, "--help"]);
        }
    }
    for command in ALONE {
        transcript.run(&[], &["mobile", command, "--help"]);
    }
    transcript.check("mobile_help.txt");
}

/// What shows something, and takes no more than a name.
const PAGES: &[&[&str]] = &[
    &["status"],
    &["content", "list"],
    &["content", "explain", "home", "--locale", "de-AT"],
    &["image", "list"],
    &["experiment", "list"],
    &["experiment", "who", "user-22"],
    &["config", "list"],
    &["list"],
    &["history"],
];

#[test]
fn pages() {
    let url = FakeUrl::of(fake_node::start());
    let mut transcript = Transcript::default();
    let more: &[&[&str]] = &[
        &["status", "--check"],
        &["content", "show", "apples"],
        &["image", "show", "c125"],
        &["image", "show", "ffff"],
        &["experiment", "report", "price"],
    ];
    let lines: Vec<&[&str]> = PAGES.iter().chain(more).copied().collect();
    for line in &lines {
        transcript.run(&["--url", &url.0], &[&["mobile"], *line].concat());
    }
    for line in &lines {
        transcript.run(&["--url", &url.0], &[&["--json", "mobile"], *line].concat());
    }
    transcript.check_without(&url.0, "mobile.txt");
}

/// Before anybody has made anything.
#[test]
fn pages_without_anything() {
    let url = FakeUrl::of(fake_node::start_empty());
    let mut transcript = Transcript::default();
    let more: &[&[&str]] = &[&["flag", "list"], &["key", "list"]];
    for line in PAGES.iter().chain(more) {
        transcript.run(&["--url", &url.0], &[&["mobile"], *line].concat());
    }
    transcript.check_without(&url.0, "mobile_empty.txt");
}
