//! `cargo xtask test`: builds the binaries, runs every test, counts.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::{cargo, tools};

/// What a test prints, at the beginning of a line, when something that it needs is not there.
const SKIPPED: &str = "SKIPPED: ";

/// Which form of the tests runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Short,
    /// The tests that have a long form run it.
    Long,
}

/// Runs the tests; tells whether all is well.
pub fn run(root: &Path, arguments: &[&str], form: Form) -> io::Result<bool> {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let require_all = in_ci || arguments.contains(&"--require-all");
    let filters = arguments
        .iter()
        .filter(|argument| **argument != "--require-all");
    let filters: Vec<&str> = filters.copied().collect();
    tools::install_missing();
    if !build(root)? {
        println!("0 passed, 1 failed, 0 skipped");
        return Ok(false);
    }
    let counts = test(root, &filters, form)?;
    Ok(counts.close(require_all))
}

/// Builds every binary: scenario tests start them.
fn build(root: &Path) -> io::Result<bool> {
    let status = cargo()
        .args(["build", "--workspace", "--bins"])
        .current_dir(root)
        .status()?;
    Ok(status.success())
}

fn test(root: &Path, filters: &[&str], form: Form) -> io::Result<Counts> {
    let mut command = cargo();
    command
        .args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ])
        .args(filters)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if form == Form::Long {
        command.env("HYDRANT_SOAK", "1");
    }
    let mut child = command.spawn()?;
    let mut report = Report {
        // A long run is for its figures.
        shows_all: form == Form::Long,
        ..Report::default()
    };
    let output = child
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("no output"))?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        if let Some(line) = report.line(&String::from_utf8_lossy(&line)) {
            println!("{line}");
        }
    }
    let all_well = child.wait()?.success();
    Ok(report.counts(all_well))
}

/// How many tests ended how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    /// With what was missing.
    skipped: Vec<String>,
}

impl Counts {
    /// Prints the closing line; tells whether all is well.
    fn close(self, require_all: bool) -> bool {
        for reason in &self.skipped {
            println!("skipped: {reason}");
        }
        let skipped = self.skipped.len() as u64;
        let (failed, skipped) = if require_all {
            (self.failed + skipped, 0)
        } else {
            (self.failed, skipped)
        };
        println!("{} passed, {failed} failed, {skipped} skipped", self.passed);
        failed == 0
    }
}

/// Reads what `cargo test` prints, and leaves out what tests that passed have printed, unless all is shown.
#[derive(Default)]
struct Report {
    shows_all: bool,
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
    /// Within the output of tests that passed.
    in_successes: bool,
    /// The test whose output is read, and whether it has already said that it was skipped.
    test: String,
    counted: bool,
}

impl Report {
    /// Takes a line; gives it back when a person should see it.
    fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        if let Some(test) = stdout_of(line) {
            self.test = test.to_owned();
            self.counted = false;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.add(counts);
        } else if let Some(reason) = line.strip_prefix(SKIPPED) {
            self.skip(reason);
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        (self.shows_all || !self.in_successes).then_some(line)
    }

    fn skip(&mut self, reason: &str) {
        // Only what a test that passed has printed: a failed one has failed.
        if self.in_successes && !self.counted {
            self.counted = true;
            self.skipped.push(format!("{}: {reason}", self.test));
        }
    }

    /// Adds the counts of a line as `ok. 3 passed; 0 failed; 0 ignored; 0 measured; …`.
    fn add(&mut self, line: &str) {
        let count = |what: &str| {
            let mut parts = line.split([';', '.']).map(str::trim);
            parts
                .find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }

    fn counts(mut self, all_well: bool) -> Counts {
        // It did not build, or a test took its whole process down: no line tells of that.
        if !all_well && self.failed == 0 {
            self.failed = 1;
        }
        let ignored = (0..self.ignored).map(|_| "ignored in the code".to_owned());
        let passed = self.passed - (self.skipped.len() as u64).min(self.passed);
        self.skipped.extend(ignored);
        Counts {
            passed,
            failed: self.failed,
            skipped: self.skipped,
        }
    }
}

/// The name of the test in the line `---- NAME stdout ----`.
fn stdout_of(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, all_well: bool) -> (Counts, Vec<&str>) {
        let mut report = Report::default();
        let shown = text.lines().filter_map(|line| report.line(line)).collect();
        (report.counts(all_well), shown)
    }

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- b stdout ----
connecting
SKIPPED: npm is not here
SKIPPED: said twice

successes:
    a
    b

failures:

---- c stdout ----
SKIPPED: and then it failed
panicked

failures:
    c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn skipped_tests_are_counted_once_and_not_as_passed() {
        let (counts, shown) = read(OUTPUT, false);
        assert_eq!((counts.passed, counts.failed), (1, 1));
        assert_eq!(counts.skipped, ["b: npm is not here"]);
        assert!(shown.contains(&"panicked") && !shown.contains(&"connecting"));
    }

    #[test]
    fn the_counts_of_all_binaries_add_up() {
        let line = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let (counts, _) = read(&format!("{line}\n{line}\n"), true);
        assert_eq!(
            (counts.passed, counts.failed, counts.skipped.len()),
            (6, 0, 2)
        );
    }

    #[test]
    fn what_does_not_build_has_failed() {
        let (counts, _) = read("", false);
        assert_eq!((counts.passed, counts.failed), (0, 1));
        assert!(!counts.close(false));
    }

    #[test]
    fn where_all_is_required_a_skipped_test_has_failed() {
        let skipped = || Counts {
            passed: 2,
            failed: 0,
            skipped: vec!["b: no npm".into()],
        };
        assert!(skipped().close(false));
        assert!(!skipped().close(true));
    }
}
