//! `cargo xtask tidy`: what the compiler does not check.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cargo;
use crate::rules::Rules;

/// Where engines may be named, besides the engines themselves and tests: the file of this name, and
/// its folder.
const ASSEMBLY: &str = "apps/hydrant/src/assembly";

/// From how many lines on a file is reported.
const LONG: usize = 600;

/// Checks the workspace, and tells everything that is wrong; true when nothing is.
pub fn run(root: &Path) -> io::Result<bool> {
    let metadata = metadata(root)?;
    let page = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let files = files(root)?;
    let mut wrong = directions(&metadata, root, &Rules::read(&page));
    let mut long = Vec::new();
    for file in &files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(file)
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(file)?;
        wrong.extend(leftovers(&name, &text));
        wrong.extend(named_engines(&name, &text));
        long.push((text.lines().count(), name));
    }
    report_long(long);
    for line in &wrong {
        println!("wrong: {line}");
    }
    println!("tidy: {} files, {} wrong", files.len(), wrong.len());
    Ok(wrong.is_empty())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    /// `null` for what the crate itself needs, `dev` for its tests, `build` for its build script.
    kind: Option<String>,
    /// Of a crate of the workspace.
    path: Option<PathBuf>,
}

fn metadata(root: &Path) -> io::Result<Metadata> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

/// The dependencies that go the wrong way.
fn directions(metadata: &Metadata, root: &Path, rules: &Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let from = folder(root, package.manifest_path.parent().unwrap_or(root));
        if !rules.knows(&from) {
            wrong.push(format!(
                "{} ({from}) has no row in ARCHITECTURE.md",
                package.name
            ));
        }
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else {
                continue;
            };
            let to = folder(root, path);
            // Tests may start what they need, but nothing hangs on a program.
            let in_tests = dependency.kind.as_deref() == Some("dev") && !to.starts_with("apps/");
            if !in_tests && !rules.allow(&from, &to) {
                wrong.push(format!(
                    "{from} depends on {to}; ARCHITECTURE.md does not allow it"
                ));
            }
        }
    }
    wrong
}

fn folder(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// All files of the repository that people write, as git knows them.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    const KINDS: &[&str] = &[
        "rs", "toml", "proto", "md", "sh", "yml", "json", "html", "css", "js",
    ];
    let listed = std::process::Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root)
        .output()?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let files = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| root.join(name));
    let written = |file: &PathBuf| {
        let kind = file.extension().and_then(|kind| kind.to_str());
        kind.is_some_and(|kind| KINDS.contains(&kind)) || file.ends_with(".ci/run")
    };
    Ok(files
        .filter(|file| written(file) && file.is_file())
        .collect())
}

/// Marks of work that is not finished.
fn leftovers(name: &str, text: &str) -> Vec<String> {
    // Put together, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let has_mark = |line: &str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.any(|word| marks.iter().any(|mark| mark == word))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| has_mark(line));
    lines
        .map(|(at, line)| format!("{name}:{}: {}", at + 1, line.trim()))
        .collect()
}

/// Places outside of the assembly that name an engine.
fn named_engines(name: &str, text: &str) -> Vec<String> {
    const ENGINES: &[&str] = &["hydrant_embedded", "hydrant_redis", "hydrant_zookeeper"];
    let assembles = |rest: &str| rest == ".rs" || rest.starts_with('/');
    let may = name.strip_prefix(ASSEMBLY).is_some_and(assembles)
        || name.starts_with("engines/")
        || name.contains("/tests/");
    if may || !name.ends_with(".rs") || name.starts_with("xtask/") {
        return Vec::new();
    }
    // What stands behind this line is for tests only.
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate();
    let naming = lines.filter(|(_, line)| ENGINES.iter().any(|engine| line.contains(engine)));
    naming
        .map(|(at, _)| format!("{name}:{}: only {ASSEMBLY} names engines", at + 1))
        .collect()
}

fn report_long(mut files: Vec<(usize, String)>) {
    files.retain(|(lines, name)| *lines > LONG && name.ends_with(".rs"));
    files.sort_unstable_by(|a, b| b.cmp(a));
    for (lines, name) in files {
        println!("long: {name} has {lines} lines");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_as_words_only() {
        let mark = ["TO", "DO"].concat();
        assert_eq!(leftovers("a.rs", &format!("x\n// {mark}: later")).len(), 1);
        assert!(leftovers("a.rs", &format!("{mark}RROW and autodo")).is_empty());
    }

    #[test]
    fn only_the_assembly_names_engines() {
        let text = "use hydrant_embedded::EmbeddedStore;";
        assert_eq!(named_engines("node/src/lib.rs", text).len(), 1);
        assert_eq!(named_engines(&format!("{ASSEMBLY}_not.rs"), text).len(), 1);
        assert!(named_engines(&format!("{ASSEMBLY}.rs"), text).is_empty());
        assert!(named_engines(&format!("{ASSEMBLY}/engines.rs"), text).is_empty());
        assert!(named_engines("node/tests/it/main.rs", text).is_empty());
        assert!(named_engines("node/src/a.rs", &format!("#[cfg(test)]\n{text}")).is_empty());
    }

    #[test]
    fn a_dependency_in_the_wrong_direction_is_found() {
        let rules = Rules::read("| `a` | x | – |\n| `b` | x | a |\n| `apps/c` | x | a |\n");
        let dependency = |kind: Option<&str>, to: &str| Dependency {
            kind: kind.map(Into::into),
            path: Some(Path::new("/w").join(to)),
        };
        let of = |from: &str, dependency| Metadata {
            packages: vec![Package {
                name: from.into(),
                manifest_path: Path::new("/w").join(from).join("Cargo.toml"),
                dependencies: vec![dependency],
            }],
        };
        let wrong = |metadata| directions(&metadata, Path::new("/w"), &rules).len();
        assert_eq!(wrong(of("b", dependency(None, "a"))), 0);
        assert_eq!(wrong(of("a", dependency(None, "b"))), 1);
        assert_eq!(wrong(of("a", dependency(Some("dev"), "b"))), 0);
        assert_eq!(wrong(of("a", dependency(Some("dev"), "apps/c"))), 1);
        assert_eq!(wrong(of("d", dependency(None, "a"))), 2, "no row");
    }
}
