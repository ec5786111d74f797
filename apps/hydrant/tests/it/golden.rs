//! Files that hold what users see. `HYDRANT_UPDATE_GOLDEN=1` writes them anew: read the difference
//! before it is committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary, cut off from the environment of whoever runs the tests.
pub fn hydrant() -> Command {
    hydrant_harness::node::command(Path::new(env!("CARGO_BIN_EXE_hydrant")))
}

/// Runs command lines one after the other, and writes down what they show.
#[derive(Default)]
pub struct Transcript(String);

impl Transcript {
    /// Runs `hydrant` with the arguments of `line`, which are shown, and `hidden` ones before them.
    pub fn run(&mut self, hidden: &[&str], line: &[&str]) {
        let output = hydrant()
            .args(hidden)
            .args(line)
            .output()
            .expect("the binary starts");
        self.add(line, &output);
    }

    /// Runs `hydrant` with the arguments of `line` in a folder.
    pub fn run_in(&mut self, folder: &Path, line: &[&str]) {
        self.run_in_with(folder, &[], line);
    }

    /// The same with arguments before them that are not shown.
    pub fn run_in_with(&mut self, folder: &Path, hidden: &[&str], line: &[&str]) {
        let output = hydrant()
            .current_dir(folder)
            .args(hidden)
            .args(line)
            .output();
        self.add(line, &output.expect("the binary starts"));
    }

    fn add(&mut self, line: &[&str], output: &Output) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
        let _ = writeln!(self.0, "$ hydrant {}", line.join(" "));
        self.0 += &text(&output.stdout);
        let errors = text(&output.stderr);
        for line in errors.lines() {
            let _ = writeln!(self.0, "[stderr] {line}");
        }
        let code = output
            .status
            .code()
            .map_or("by a signal".into(), |code| code.to_string());
        let _ = writeln!(self.0, "[exit {code}]\n");
    }

    /// Compares all of it with a file, but for the URL of the node, which is another each time, and
    /// for the points in time.
    pub fn check_without(self, url: &str, name: &str) {
        Self(without_times(&self.0.replace(url, "http://NODE"))).check(name);
    }

    /// Compares all of it with the file `name` in tests/golden.
    pub fn check(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        if std::env::var_os("HYDRANT_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.0).expect("the golden file can be written");
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            self.0 == expected,
            "{} differs; look at it, and write it anew with HYDRANT_UPDATE_GOLDEN=1\n{}",
            path.display(),
            first_difference(&expected, &self.0)
        );
    }
}

/// Puts `TIME` for every time of this century that is written as `"2026-11-22T09:30:00.250Z"`.
fn without_times(text: &str) -> String {
    let mut parts = text.split("\"20");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("Z\"") {
            Some((time, rest)) if time.len() == 21 => result += &format!("\"TIME\"{rest}"),
            _ => result += &format!("\"20{part}"),
        }
    }
    result
}

fn first_difference(expected: &str, actual: &str) -> String {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (expected.next(), actual.next()) {
            (None, None) => break,
            (old, new) if old != new => {
                return format!("line {number}\n  file {old:?}\n  now  {new:?}");
            }
            _ => {}
        }
    }
    "they differ in line ends only".into()
}
