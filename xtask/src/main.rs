//! The project's own tasks: `cargo xtask TASK`.

mod bench;
mod engines;
mod rules;
mod test;
mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask TASK

  test [--require-all] [FILTER]
                        builds the binaries and runs every test; ends with one line
                        'N passed, N failed, N skipped'. With --require-all, or CI=true, a test
                        that is skipped because something is missing counts as failed.
  soak [FILTER]         as test, with the long forms of the tests that have one: `soak submissions`
  engines up [zookeeper] [redis] [mariadb] [--ensemble 3] [--sentinel | --cluster] [--tls]
                        real servers to play with, and the lines of the configuration file for
                        them, until Ctrl-C
  bench router [--work W1,W3,latency,memory] [--rounds N] [--seconds N] [--print]
                        the router beside nginx, HAProxy, Envoy and a relay of bytes: CPU time and system
                        calls per request, added latency, memory; all works when none are named. Writes
                        docs/benchmarks.md, unless it is only to print
  bench mobile          init beside nginx, bulk evaluation beside a flag server: CPU time, p99
  bench submissions     acknowledged submissions a second beside a bare loop of inserts, p99, replays
  tidy                  the direction of dependencies, leftovers, the length of files
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["test", rest @ ..] => test::run(&root(), rest, test::Form::Short),
        ["soak", rest @ ..] => test::run(&root(), rest, test::Form::Long),
        ["engines", "up", rest @ ..] => engines::up(rest),
        ["bench", "router", rest @ ..] => bench::router(&root(), rest)
            .map(|()| true)
            .map_err(std::io::Error::other),
        ["bench", "mobile"] => bench::mobile(&root())
            .map(|()| true)
            .map_err(std::io::Error::other),
        ["bench", "submissions"] => bench::submissions(&root())
            .map(|()| true)
            .map_err(std::io::Error::other),
        ["tidy"] => tidy::run(&root()),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The cargo that runs this task.
fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
