//! Where a page is followed: a folder, a terminal, and others in the background.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::compare::{is_part, is_whole};
use super::page::{self, Mode, Run};
use crate::golden::hydrant;
use crate::harness::{MARK, is_soak, kill, marked, pause};

/// How long a block may take on a busy machine, and how long one is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same in the long form, which builds.
const LONG_PATIENCE: Duration = Duration::from_secs(1800);

/// The ports that pages speak of: public, local and peer of up to three nodes.
const PORTS: [u16; 9] = [8080, 8081, 8082, 8180, 8181, 8182, 8280, 8281, 8282];

/// The programs that the guides build.
pub const BINARIES: [&str; 4] = ["greeter", "welcome", "prices", "orders"];

/// What they are built of. The workspace has built the same sources, and building them once more
/// takes minutes.
const SOURCES: [&str; 6] = [
    "build.rs",
    "proto/greet.proto",
    "src/main.rs",
    "src/bin/welcome.rs",
    "src/bin/prices.rs",
    "src/bin/orders.rs",
];

/// A binary of the workspace.
pub fn binary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_hydrant")).with_file_name(name)
}

pub struct Desk {
    folder: TempDir,
    ports: Ports,
    shell: Child,
    input: ChildStdin,
    /// The terminals in the background, and what they print.
    background: Vec<(Child, PathBuf)>,
    blocks: usize,
}

impl Desk {
    /// A new folder and a terminal in it. The reader has the repository beside it, as `hydrant`, and
    /// servers that run, `given` as pairs of the port that the page names and the one they have.
    pub fn new(root: PathBuf, given: &[(u16, u16)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = Ports::new(given);
        let tools = folder.path().join(".bin");
        fs::create_dir(&tools).expect("a folder for tools");
        symlink(&root, folder.path().join("hydrant")).expect("a link");
        // At a terminal curl shows no progress either.
        fs::write(folder.path().join(".curlrc"), "silent\nshow-error\n").expect("a file");
        tool(&tools.join("hydrant"), &hydrant_tool(&ports));
        tool(&tools.join("cargo"), &cargo_tool(&root));
        let mut shell = bash(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let input = shell.stdin.take().expect("it was asked for");
        Self {
            folder,
            ports,
            shell,
            input,
            background: Vec::new(),
            blocks: 0,
        }
    }

    /// Writes a file, in the folder where the terminal is.
    pub fn write(&mut self, file: &page::File) -> Result<(), String> {
        let text = self.ports.own(&file.text);
        let source = self.file("source");
        let text = if file.append {
            format!("\n{text}")
        } else {
            text
        };
        fs::write(&source, text).expect("a file");
        let (name, source) = (&file.name, source.display());
        let into = if file.append { ">>" } else { ">" };
        let script = format!("mkdir -p \"$(dirname {name})\" && cat {source} {into} {name}\n");
        match self.run_once(&script) {
            Ok((0, _)) => Ok(()),
            Ok((_, printed)) => Err(printed),
            Err(why) => Err(why),
        }
    }

    pub fn run(&mut self, run: &Run) -> Result<(), String> {
        if run.mode == Mode::Background {
            return self.run_behind(run);
        }
        let end = Instant::now() + patience();
        loop {
            let (status, printed) = self.run_once(&run.script)?;
            let expected = run.expected.as_deref();
            let is_expected = expected.is_none_or(|expected| is_whole(expected, &printed));
            if status == run.exit && is_expected {
                return Ok(());
            }
            if run.mode == Mode::Once || Instant::now() >= end {
                return Err(format!("exit code {status}\n{}", told(run, &printed)));
            }
            pause(Duration::from_millis(200));
        }
    }

    /// What was printed in the background.
    pub fn background_output(&self) -> String {
        let outputs = self.background.iter();
        outputs
            .map(|(_, path)| format!("--- background\n{}", self.printed(path)))
            .collect()
    }

    /// Runs a block in the terminal; gives its exit code and what it printed.
    fn run_once(&mut self, script: &str) -> Result<(i32, String), String> {
        let (output, status) = (self.file("output"), self.file("status"));
        let (shown, unfinished) = (output.display(), self.file("unfinished"));
        let script = format!(
            "{{\n{}\n}} >{shown} 2>&1 </dev/null\necho $? >{new} && mv {new} {}\n",
            self.ports.own(script),
            status.display(),
            new = unfinished.display()
        );
        self.blocks += 1;
        let sent = self.input.write_all(script.as_bytes());
        sent.map_err(|error| format!("the terminal is gone: {error}"))?;
        let end = Instant::now() + patience();
        loop {
            if let Ok(code) = fs::read_to_string(&status) {
                let code = code.trim().parse().expect("an exit code");
                return Ok((code, self.printed(&output)));
            }
            if Instant::now() >= end {
                let printed = self.printed(&output);
                return Err(format!("does not end\n{script}\n{printed}"));
            }
            pause(Duration::from_millis(5));
        }
    }

    fn run_behind(&mut self, run: &Run) -> Result<(), String> {
        let (_, folder) = self.run_once("pwd")?;
        let output = self.file("background");
        self.blocks += 1;
        let file = File::create(&output).expect("a file for the output");
        let errors = file.try_clone().expect("a second handle");
        let shell = bash(self.folder.path())
            .args(["-c", &self.ports.own(&run.script)])
            .current_dir(folder.trim_end())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .expect("bash starts");
        self.background.push((shell, output.clone()));
        let expected = run.expected.as_deref().unwrap_or("…");
        let end = Instant::now() + patience();
        while !is_part(expected, &self.printed(&output)) {
            if Instant::now() >= end {
                return Err(told(run, &self.printed(&output)));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.path().join(format!(".{}.{kind}", self.blocks))
    }

    /// What stands in a file, with the ports that the page speaks of.
    fn printed(&self, path: &Path) -> String {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        self.ports.of_the_page(&text)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        // Whoever starts others goes first; again until nobody is left.
        for _ in 0..50 {
            let left = marked(self.folder.path());
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| kill(pid, Signal::KILL));
            for (shell, _) in &mut self.background {
                let _ = shell.try_wait();
            }
            pause(Duration::from_millis(20));
        }
    }
}

fn patience() -> Duration {
    if is_soak() { LONG_PATIENCE } else { PATIENCE }
}

fn told(run: &Run, printed: &str) -> String {
    let expected = run.expected.as_deref().unwrap_or("");
    let script = &run.script;
    format!("--- commands\n{script}--- expected\n{expected}--- printed\n{printed}")
}

/// A shell that knows only what the reader's does.
fn bash(folder: &Path) -> Command {
    let mut command = Command::new("bash");
    let path = std::env::var("PATH").unwrap_or_default();
    for (name, _) in hydrant().get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    // The tools of Rust live below the real HOME.
    if let Some(home) = std::env::home_dir() {
        for (name, usual) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let set = std::env::var_os(name).unwrap_or_else(|| home.join(usual).into());
            command.env(name, set);
        }
    }
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env("PATH", format!("{}/.bin:{path}", folder.display()))
        .env(MARK, folder);
    command
}

/// `hydrant`, on the page's own ports.
fn hydrant_tool(ports: &Ports) -> String {
    let program = env!("CARGO_BIN_EXE_hydrant");
    let [public, local] = [":8080", ":8081"].map(|port| format!("127.0.0.1{}", ports.own(port)));
    format!(
        "if [ \"$1\" = up ]; then\n  shift\n  \
         exec {program} up --public {public} --local {local} \"$@\"\nfi\nexec {program} \"$@\"\n"
    )
}

/// `cargo`, which takes the binaries that the workspace has built of the same sources; in the long
/// form of the tests it builds.
fn cargo_tool(root: &Path) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").into());
    let root = root.display();
    let example = format!("{root}/examples/greeter");
    let build = if is_soak() {
        format!("{cargo} \"$@\"")
    } else {
        let same =
            SOURCES.map(|file| format!("{{ [ ! -e {file} ] || cmp {file} {example}/{file}; }} &&"));
        let built = BINARIES.map(|name| binary(name).display().to_string());
        format!(
            "{}\n  {cargo} tree --offline >/dev/null &&\n  \
             mkdir -p target/debug && cp -f {} target/debug",
            same.join("\n  "),
            built.join(" ")
        )
    };
    format!(
        "unset CARGO_TARGET_DIR\nif [ \"$1\" = build ]; then\n  \
         cp {root}/Cargo.lock . &&\n  {build}\nelse\n  exec {cargo} \"$@\"\nfi\n"
    )
}

fn tool(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}")).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it can be made to run");
}

/// The ports that stand for those of a page.
struct Ports(Vec<(u16, u16)>);

impl Ports {
    fn new(given: &[(u16, u16)]) -> Self {
        let own = PORTS.map(|named| (named, free_port()));
        Self(given.iter().copied().chain(own).collect())
    }

    /// The text with these ports instead of the page's.
    fn own(&self, text: &str) -> String {
        replace_ports(text, |port| Self::other(&self.0, port, |pair| pair))
    }

    /// The text with the page's ports instead of these.
    fn of_the_page(&self, text: &str) -> String {
        replace_ports(text, |port| {
            Self::other(&self.0, port, |(named, own)| (own, named))
        })
    }

    fn other(pairs: &[(u16, u16)], port: u16, turn: fn((u16, u16)) -> (u16, u16)) -> Option<u16> {
        let mut pairs = pairs.iter().copied().map(turn);
        pairs.find(|(from, _)| *from == port).map(|(_, to)| to)
    }
}

/// Replaces whole numbers behind colons, all at once: what stands for one port may be another.
fn replace_ports(text: &str, other: impl Fn(u16) -> Option<u16>) -> String {
    let mut parts = text.split(':');
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        let (digits, rest) = part.split_at(end);
        let port = digits.parse().ok().and_then(&other);
        let digits = port.map_or_else(|| digits.to_owned(), |port| port.to_string());
        replaced += &format!(":{digits}{rest}");
    }
    replaced
}

/// A port that nobody uses, below those that the system gives to whoever asks for any: so that
/// nobody takes it until the node does, and while it is started again.
fn free_port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16;
    loop {
        let at = begin.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + at.wrapping_mul(7919) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
