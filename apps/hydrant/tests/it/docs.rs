//! The pages that people read: their commands are run as they stand there, and print what the page
//! says that they print.
//!
//! A page is read from top to bottom. Of its fenced blocks these count:
//!
//! - `sh test`: run in the page's terminal; has to succeed, or to end with N as `sh test exit=N`.
//! - `sh test retry`: run again until it succeeds and prints what it should.
//! - `sh test background`: run in a terminal of its own, in the same folder, which stays open until
//!   the page ends.
//! - `toml test file=NAME`, in any language: written to a file; `append=NAME`: put behind what is
//!   there, after an empty line.
//! - `text` behind one of them: what it prints. `…` stands for any part of a line, a line with
//!   nothing else for any number of lines; how wide a gap is does not matter. What is printed in
//!   the background has to begin somewhere with these lines.
//!
//! A comment `<!-- sh test` … `-->` is such a block too, which readers do not see.
//!
//! Each page has a folder of its own, which is its `HOME` too, and its own ports, which stand for
//! 8080 and 8081, and for those of further nodes; where it speaks of ZooKeeper and Redis, these are
//! started for it, and stand for 2181 and 6379.

mod compare;
mod page;
mod terminal;

use std::path::{Path, PathBuf};

use hydrant_harness::{MariaDb, Redis, ZooKeeper};

use crate::harness::is_there;
use page::{Block, Page};
use terminal::Desk;

#[test]
fn readme() {
    check("README.md", &["python3"]);
}

#[test]
fn first_steps() {
    check("docs/guide/first-steps.md", &[]);
}

#[test]
fn any_web_server() {
    check("docs/guide/any-web-server.md", &["python3", "node"]);
}

#[test]
fn write_a_service() {
    if are_built() {
        check("docs/guide/write-a-service.md", &[]);
    }
}

#[test]
fn submissions() {
    check("docs/guide/submissions.md", &[]);
}

#[test]
fn coordinate() {
    if are_built() {
        check("docs/guide/coordinate.md", &[]);
    }
}

#[test]
fn routing() {
    check("docs/guide/routing.md", &["python3"]);
}

#[test]
fn resilience() {
    check("docs/guide/resilience.md", &["python3"]);
}

#[test]
fn coming_from() {
    check("docs/guide/coming-from.md", &["python3"]);
}

#[test]
fn tls() {
    check("docs/guide/tls.md", &["openssl", "curl"]);
}

#[test]
fn rules() {
    check("docs/guide/rules.md", &["python3"]);
}

#[test]
fn operate() {
    check("docs/guide/operate.md", &["python3"]);
}

#[test]
fn logs() {
    check("docs/guide/logs.md", &["python3", "sha256sum"]);
}

#[test]
fn mobile() {
    check("docs/guide/mobile.md", &[]);
}

#[test]
fn submissions_client() {
    check("docs/guide/submissions-client.md", &[]);
}

#[test]
fn experiments() {
    check("docs/guide/experiments.md", &["diff", "seq", "sed"]);
}

#[test]
fn keys() {
    check("docs/guide/keys.md", &[]);
}

#[test]
fn content() {
    check("docs/guide/content.md", &[]);
}

#[test]
fn from_one_machine_to_many() {
    let zookeeper = ZooKeeper::start(hydrant_harness::zookeeper::Options::default());
    let redis = Redis::single(hydrant_harness::redis::Options::default());
    let mariadb = MariaDb::start(hydrant_harness::mariadb::Options::default());
    let (zookeeper, redis, mariadb) = match (zookeeper, redis, mariadb) {
        (Ok(zookeeper), Ok(redis), Ok(mariadb)) => (zookeeper, redis, mariadb),
        (Err(missing), ..) | (_, Err(missing), _) | (.., Err(missing)) => {
            hydrant_harness::skipped(missing);
            return;
        }
    };
    mariadb.set_password("a password of yours");
    let port = |address: &str| {
        address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
    };
    let port = |addresses: Vec<String>| port(&addresses[0]).expect("an address has a port");
    let given = [
        (2181, port(zookeeper.addresses())),
        (6379, port(redis.addresses())),
        (3306, mariadb.address().port()),
    ];
    check_with(
        "docs/guide/from-one-machine-to-many.md",
        &["python3"],
        &given,
    );
}

#[test]
fn flags() {
    check("docs/guide/flags.md", &[]);
}

/// A guide that is not tested here, or that nobody finds, is as good as none.
#[test]
fn every_guide_is_tested_and_found() {
    let readme = read("README.md");
    let tests = include_str!("docs.rs");
    for entry in std::fs::read_dir(root().join("docs/guide")).expect("the guides are there") {
        let name = entry.expect("an entry").file_name();
        let path = format!("docs/guide/{}", name.to_str().expect("a plain name"));
        assert!(readme.contains(&format!("({path})")), "{path} in README.md");
        assert!(tests.contains(&format!("\"{path}\"")), "{path} here");
    }
}

#[test]
fn every_link_leads_somewhere() {
    for path in pages() {
        let text = read(&path);
        let folder = root().join(&path);
        let folder = folder.parent().expect("a page is in a folder");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            let leads = target.starts_with("http") || folder.join(file).exists();
            assert!(leads, "{path}: {target}");
        }
    }
}

/// Whether the workspace has built the programs that the guides build.
fn are_built() -> bool {
    let mut missing = terminal::BINARIES.map(terminal::binary).into_iter();
    match missing.find(|binary| !binary.is_file()) {
        None => true,
        Some(binary) => {
            println!("SKIPPED: {} is not built", binary.display());
            false
        }
    }
}

/// Runs a page.
fn check(path: &str, needed: &[&str]) {
    check_with(path, needed, &[]);
}

/// Runs a page with servers that stand for those on the ports that it names.
fn check_with(path: &str, needed: &[&str], given: &[(u16, u16)]) {
    for program in ["bash", "curl"].iter().chain(needed) {
        if !is_there(program) {
            println!("SKIPPED: {program} is not here");
            return;
        }
    }
    let page = Page::parse(path, &read(path));
    assert!(
        page.steps.len() > 1,
        "{path} has nothing that can be tested"
    );
    let mut desk = Desk::new(root(), given);
    for step in &page.steps {
        let outcome = match &step.block {
            Block::File(file) => desk.write(file),
            Block::Run(run) => desk.run(run),
        };
        if let Err(why) = outcome {
            panic!("{path}:{}: {why}\n{}", step.line, desk.background_output());
        }
    }
}

/// The pages whose links are checked, relative to the root of the repository.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/guide"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter(|name| name.ends_with(".md"));
        pages.extend(names.map(|name| format!("{folder}/{name}")));
    }
    pages
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.join("../..").canonicalize().expect("the root is there")
}
