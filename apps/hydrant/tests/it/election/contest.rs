//! A real node, the candidates, and whoever watches them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hydrant_sdk::{Config, Hydrant};
use rustix::process::Signal;
use tempfile::TempDir;

use super::candidate::{self, ELECTION, SERVICE};
use super::history::{Election, Event, History, Line, Moment, Read, now};
use crate::fleet::engines::Engines;
use crate::harness::{Node, Setup, kill};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after its election a candidate has surely looked for a fault.
const PASSED: Moment = 5_000_000_000;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Where a contest takes place.
pub enum Ground {
    /// A node with everything in it; `None` only between two nodes.
    Alone(Option<Node>),
    /// Nodes of several servers, and the engines that they share.
    Several {
        nodes: Vec<Node>,
        _engines: Box<Engines>,
    },
}

impl Ground {
    /// A node with everything built in.
    pub fn alone() -> Self {
        Self::Alone(Some(Setup::up().start()))
    }

    /// Three nodes on ZooKeeper and Redis; `None` where these are missing, which was said aloud.
    pub fn several() -> Option<Self> {
        let engines = Engines::start(1)?;
        let fleet = engines.fleet(Duration::from_secs(4));
        let mut nodes: Vec<Node> = ["one", "two", "three"]
            .map(|server| fleet.server(server, "a", "").spawn())
            .into();
        nodes.iter_mut().for_each(Node::wait_ready);
        Some(Self::Several {
            nodes,
            _engines: Box::new(engines),
        })
    }

    /// The node that a candidate talks to.
    fn node(&self, candidate: usize) -> &Node {
        match self {
            Self::Alone(node) => node.as_ref().expect("a node runs"),
            Self::Several { nodes, .. } => &nodes[candidate % nodes.len()],
        }
    }
}

/// Nodes and the processes that want to lead.
pub struct Contest {
    /// What is under way, for whoever reads a failure.
    pub label: String,
    ground: Ground,
    token: String,
    folder: TempDir,
    candidates: Vec<Candidate>,
    sender: Sender<Line>,
    receiver: Receiver<Line>,
    lines: Vec<Line>,
    /// The elections that were told.
    elections: Vec<Election>,
    observed: Arc<Mutex<Vec<(String, u64)>>>,
    runtime: tokio::runtime::Runtime,
    figures: Figures,
    random: fastrand::Rng,
}

/// A candidate's process; it is killed when this is dropped.
struct Candidate {
    name: &'static str,
    incarnation: u32,
    child: Child,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Contest {
    /// Starts four candidates.
    pub fn start(ground: Ground, random: fastrand::Rng) -> Self {
        let token = ground.node(0).json(&["token", SERVICE])["token"].clone();
        let (sender, receiver) = channel();
        let runtime = hydrant_harness::runtime();
        let mut contest = Self {
            label: "start".into(),
            ground,
            token: token.as_str().expect("a token").into(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            candidates: Vec::new(),
            sender,
            receiver,
            lines: Vec::new(),
            elections: Vec::new(),
            observed: Arc::default(),
            runtime,
            figures: Figures::default(),
            random,
        };
        contest.observe();
        for name in NAMES {
            let candidate = contest.spawn(name, 1);
            contest.candidates.push(candidate);
        }
        contest
    }

    fn url(&self, candidate: usize) -> String {
        format!("http://{}", self.ground.node(candidate).local())
    }

    fn fault_file(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    fn spawn(&self, name: &'static str, incarnation: u32) -> Candidate {
        let who = format!("{name}-{incarnation}");
        let place = NAMES.iter().position(|known| *known == name);
        let url = self.url(place.expect("one of the names"));
        let mut child = candidate::start(&who, &url, &self.token, &self.fault_file());
        let out = child.stdout.take().expect("its output is a pipe");
        let sender = self.sender.clone();
        Candidate {
            name,
            incarnation,
            child,
            reader: Some(std::thread::spawn(move || read_lines(out, &sender))),
        }
    }

    /// Notes whom the node calls the leader, as any process may see it.
    fn observe(&self) {
        let config = Config::new(&self.url(0), Some(&self.token)).expect("the node's URL");
        let hydrant = Hydrant::new(config).expect("the node's URL");
        let observed = self.observed.clone();
        self.runtime.spawn(async move {
            let mut observation = hydrant.observe(ELECTION);
            while let Ok(leader) = observation.next().await {
                if let Some(leader) = leader {
                    let told = (leader.name, leader.epoch);
                    observed.lock().expect("nobody panics with it").push(told);
                }
            }
        });
    }

    fn note(&mut self, line: Line) {
        if let Event::Elected { epoch, began, at } = line.event {
            self.elections.push(Election {
                who: line.who.clone(),
                epoch,
                began,
                at,
            });
        }
        self.lines.push(line);
    }

    /// Takes lines until `found` gives something.
    fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < end, "{}: {what}: not in time", self.label);
            if let Ok(line) = self.receiver.recv_timeout(Duration::from_millis(5)) {
                self.note(line);
                while let Ok(line) = self.receiver.try_recv() {
                    self.note(line);
                }
            }
        }
    }

    /// Takes lines for a time that the seed decides, in milliseconds.
    pub fn listen_for_ms(&mut self, range: Range<u64>) {
        let end = Instant::now() + Duration::from_millis(self.random.u64(range));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if let Ok(line) = self.receiver.recv_timeout(left) {
                self.note(line);
            }
        }
    }

    fn latest(&self) -> Option<&Election> {
        self.elections.iter().max_by_key(|election| election.epoch)
    }

    /// Waits until a living candidate leads, and lets it lead for a moment.
    pub fn someone_leads(&mut self) -> Election {
        self.wait("somebody leads", |contest| {
            contest.place(&contest.latest()?.who)
        });
        self.listen_for_ms(0..150);
        self.latest().expect("somebody led just now").clone()
    }

    /// Waits for a leader under a higher epoch, and notes how long after `since` it was elected.
    pub fn successor_of(&mut self, epoch: u64, figure: &'static str, since: Moment) {
        let next = self.wait("a new leader", |contest| {
            let mut elections = contest.elections.iter();
            elections.find(|next| next.epoch > epoch).cloned()
        });
        self.figures.add(figure, next.at.saturating_sub(since));
    }

    fn place(&self, who: &str) -> Option<usize> {
        self.candidates.iter().position(|one| one.who() == who)
    }

    fn pid(&self, who: &str) -> u32 {
        let place = self.place(who).expect("a living candidate");
        self.candidates[place].child.id()
    }

    /// Kills a leader and starts another process in its place; gives the moment of the kill.
    pub fn kill(&mut self, leader: &Election) -> Moment {
        let killed = now();
        kill(self.pid(&leader.who), Signal::KILL);
        self.bury(leader);
        killed
    }

    /// Waits for the end of a process that was killed, and starts another one in its place.
    pub fn bury(&mut self, dead: &Election) {
        let place = self.place(&dead.who).expect("a candidate");
        self.wait("the end of a killed process", |contest| {
            let ended = contest.candidates[place].child.try_wait();
            ended.expect("a child can be awaited")
        });
        let (name, incarnation) = (
            self.candidates[place].name,
            self.candidates[place].incarnation,
        );
        self.candidates[place] = self.spawn(name, incarnation + 1);
    }

    /// Stops a process; gives the moment.
    pub fn stop(&self, who: &str) -> Moment {
        let stopped = now();
        kill(self.pid(who), Signal::STOP);
        stopped
    }

    /// Lets a stopped process go on.
    pub fn resume(&self, who: &str) {
        kill(self.pid(who), Signal::CONT);
    }

    /// Some candidate that does not lead.
    pub fn someone_beside(&mut self, leader: &Election) -> String {
        let mut others: Vec<String> = self.candidates.iter().map(Candidate::who).collect();
        others.retain(|who| *who != leader.who);
        let chosen = self.random.usize(..others.len());
        others.swap_remove(chosen)
    }

    /// Waits until a process has stopped itself.
    pub fn wait_stopped(&mut self, who: &str) {
        let pid = self.pid(who);
        self.wait("the elected one stops", |_| is_stopped(pid).then_some(()));
    }

    /// Lays a fault into the way of the next one that is elected.
    pub fn arm(&self, fault: &str) {
        // Whole or not at all: a candidate may look at any moment.
        let draft = self.fault_file().with_extension("draft");
        fs::write(&draft, fault).expect("the file can be written");
        fs::rename(&draft, self.fault_file()).expect("the file can be renamed");
    }

    /// Waits until somebody was elected, under a higher epoch, and took the fault that lay in its
    /// way. It may be dead already, and the next one elected.
    pub fn struck(&mut self, epoch: u64, figure: &'static str, since: Moment) -> Election {
        let struck = self.wait("somebody elected takes the fault", |contest| {
            if let Some(passed) = contest.passed_by(epoch) {
                contest.kill(&passed);
            }
            let mut later = contest.elections.iter().filter(|one| one.epoch > epoch);
            let took = |one: &&Election| contest.fault_file().with_extension(&one.who).exists();
            later.find(took).cloned()
        });
        let taken = self.fault_file().with_extension(&struck.who);
        fs::remove_file(taken).expect("the file can be removed");
        self.figures.add(figure, struck.at.saturating_sub(since));
        struck
    }

    /// Who leads under a higher epoch and was elected just before the fault lay in its way: it
    /// would lead for ever, and nobody else be elected.
    fn passed_by(&self, epoch: u64) -> Option<Election> {
        let leader = self.latest().filter(|one| one.epoch > epoch)?;
        let is_past = now().saturating_sub(leader.at) > PASSED && self.fault_file().exists();
        let lives = self.place(&leader.who).is_some();
        (is_past && lives).then(|| leader.clone())
    }

    /// Kills the node and starts another one on its data; gives the moment of the kill.
    pub fn kill_node(&mut self) -> Moment {
        let Ground::Alone(node) = &mut self.ground else {
            panic!("this contest has several nodes");
        };
        let running = node.take().expect("a node runs");
        let killed = now();
        *node = Some(running.kill().start());
        killed
    }

    /// Ends the candidates, reads what is in the state, and gives all that was recorded.
    pub fn finish(mut self) -> (History, Figures) {
        self.someone_leads();
        // Who lost the seat last goes on writing for a while; that is to be seen, too.
        self.listen_for_ms(2500..2501);
        let mut candidates = std::mem::take(&mut self.candidates);
        for candidate in &mut candidates {
            candidate.end();
        }
        drop(candidates);
        while let Ok(line) = self.receiver.try_recv() {
            self.note(line);
        }
        let mut history = History::of(&self.lines);
        let config = Config::new(&self.url(0), Some(&self.token)).expect("the node's URL");
        let hydrant = Hydrant::new(config).expect("the node's URL");
        let read = self.runtime.block_on(state_of(&hydrant, &self.lines));
        history.reads.extend(read);
        history.observed = self.observed.lock().expect("nobody panics with it").clone();
        (history, self.figures)
    }
}

/// Every key that was written; one that is gone reads as revision 0.
pub async fn state_of(hydrant: &Hydrant, lines: &[Line]) -> Vec<Read> {
    let end = Instant::now() + PATIENCE;
    let (began, entries) = loop {
        let began = now();
        match hydrant.state().list("").await {
            Ok(entries) => break (began, entries),
            // It may just have been struck.
            Err(error) if error.retryable && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("the state can't be read: {error}"),
        }
    };
    let at = now();
    let mut keys: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for line in lines {
        if let Event::Sending { key, .. } = &line.event {
            keys.entry(key.clone()).or_default();
        }
    }
    for entry in entries {
        let value = String::from_utf8_lossy(&entry.value).into_owned();
        keys.insert(entry.key, (entry.revision, value));
    }
    let read = |(key, (revision, value))| Read {
        key,
        began,
        at,
        revision,
        value,
    };
    keys.into_iter().map(read).collect()
}

impl Candidate {
    fn who(&self) -> String {
        format!("{}-{}", self.name, self.incarnation)
    }

    /// Kills it, and waits until all that it told is read.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whole lines only: one that a kill has cut was not told.
pub fn read_lines(out: ChildStdout, sender: &Sender<Line>) {
    let mut out = BufReader::new(out);
    let mut text = String::new();
    while out.read_line(&mut text).is_ok_and(|bytes| bytes > 0) {
        // What the test runner prints itself is no event; it may stand before the first one.
        if let (true, Some(begin)) = (text.ends_with('\n'), text.find('{')) {
            match serde_json::from_str(&text[begin..]) {
                Ok(line) => {
                    let _ = sender.send(line);
                }
                Err(error) => eprintln!("not an event: {error}: {text}"),
            }
        }
        text.clear();
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    state.starts_with('T')
}

/// How long it took until there was a new leader, by what had happened to the old one.
#[derive(Default)]
pub struct Figures(BTreeMap<&'static str, Vec<Duration>>);

impl Figures {
    fn add(&mut self, name: &'static str, nanoseconds: u64) {
        let times = self.0.entry(name).or_default();
        times.push(Duration::from_nanos(nanoseconds));
        times.sort_unstable();
    }

    /// Prints median and maximum of each.
    pub fn print(&self) {
        for (name, times) in &self.0 {
            let median = times[times.len() / 2].as_millis();
            let most = times[times.len() - 1].as_millis();
            let count = times.len();
            println!("new leader after {name}: median {median} ms, max {most} ms ({count} times)");
        }
    }

    /// Fails if it ever took longer.
    pub fn assert_soon(&self, name: &str, limit: Duration) {
        let slowest = self.0.get(name).and_then(|times| times.last());
        assert!(
            slowest.is_some_and(|slowest| *slowest <= limit),
            "a new leader after {name} took {slowest:?}"
        );
    }
}
