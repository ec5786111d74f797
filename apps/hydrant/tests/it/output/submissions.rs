//! What the commands of submissions say of themselves.

use crate::golden::Transcript;

const COMMANDS: [(&str, &[&str]); 3] = [
    (
        "submissions",
        &[
            "status",
            "backlog",
            "exposure",
            "parked",
            "retry",
            "drop",
            "primary",
            "failover",
            "reconcile",
        ],
    ),
    ("audit", &["explore", "list", "report", "verify"]),
    ("receipt", &["verify"]),
];

#[test]
fn help() {
    let mut transcript = Transcript::default();
    for (group, commands) in COMMANDS {
        transcript.run(&[], &[group, "--help"]);
        for command in commands {
            transcript.run(&[], &[group, command, "--help"]);
        }
    }
    transcript.check("submissions_help.txt");
}
