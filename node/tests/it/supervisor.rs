//! The supervisor with real processes, and nodes that die.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hydrant_contracts::{Error, InstanceId, Pattern, ServiceId};
use hydrant_node::logs::{Followed, LogLine, Logs, LogsConfig, Stream};
use hydrant_node::process::{Tagged, with_variable};
use hydrant_node::supervisor::{
    Hooks, ProcessState, ServiceSpec, SupervisedProcess, Supervisor, SupervisorConfig,
};
use hydrant_runtime::Clock;

/// Where the test that plays a dying node finds its data folder.
const DYING_NODE: &str = "HYDRANT_TEST_DYING_NODE";
const PATIENCE: Duration = Duration::from_secs(20);

/// What the supervisor asked its node to do.
#[derive(Default)]
struct Asked {
    drained: Mutex<Vec<(InstanceId, bool)>>,
    kept: Mutex<Vec<(String, u32)>>,
}

#[async_trait]
impl Hooks for Asked {
    async fn drain(&self, instance: &InstanceId, _limit: Duration) {
        let alive = !processes_of(instance).is_empty();
        self.drained.lock().unwrap().push((instance.clone(), alive));
    }

    async fn ready(&self, _instance: &InstanceId) {}

    async fn keep_scale(&self, service: &ServiceId, instances: u32) -> Result<(), Error> {
        self.kept
            .lock()
            .unwrap()
            .push((service.to_string(), instances));
        Ok(())
    }
}

/// A supervisor on a folder, as a node has it.
struct Server {
    supervisor: Supervisor,
    logs: Logs,
    asked: Arc<Asked>,
}

impl Server {
    fn start(data: &Path, services: Vec<ServiceSpec>) -> Self {
        let asked = Arc::new(Asked::default());
        let logs = Logs::open(data, LogsConfig::default(), Clock::system()).unwrap();
        let config = SupervisorConfig {
            data: data.into(),
            grace: Duration::from_secs(30),
            local_url: "http://127.0.0.1:1".into(),
            public_url: "http://127.0.0.1:2".into(),
            issue_token: Arc::new(|service| format!("token of {service}")),
            hooks: asked.clone(),
            logs: logs.clone(),
            clock: Clock::system(),
        };
        let program = PathBuf::from("/bin/false");
        let supervisor = Supervisor::start(config, program, services).unwrap();
        Self {
            supervisor,
            logs,
            asked,
        }
    }

    fn processes(&self) -> Vec<SupervisedProcess> {
        let services = self.supervisor.status();
        services.into_iter().flat_map(|s| s.processes).collect()
    }

    fn pids(&self) -> BTreeSet<u32> {
        self.processes().iter().filter_map(|p| p.pid).collect()
    }

    fn texts(&self) -> Vec<String> {
        let lines = self.logs.tail(&Pattern::default(), 1000).unwrap();
        lines.iter().map(LogLine::text).collect()
    }

    fn drained(&self) -> Vec<(InstanceId, bool)> {
        self.asked.drained.lock().unwrap().clone()
    }
}

/// A service whose process is the shell with this script.
fn shell(id: &str, script: &str) -> ServiceSpec {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    let mut spec = ServiceSpec::new(id.parse().unwrap(), "1.0.0".parse().unwrap(), command);
    spec.sdk = true;
    spec.stop_timeout = Duration::from_secs(1);
    spec
}

fn processes_of(instance: &InstanceId) -> Vec<Tagged> {
    let mut found = with_variable("HYDRANT_INSTANCE");
    found.retain(|tagged| tagged.value == instance.as_str());
    found
}

/// Every process of services with this name.
fn processes_named(name: &str) -> Vec<Tagged> {
    let mut found = with_variable("HYDRANT_INSTANCE");
    found.retain(|tagged| tagged.value.starts_with(&format!("{name}-")));
    found
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn all_run(server: &Server, count: usize) -> bool {
    let processes = server.processes();
    processes.len() == count
        && processes
            .iter()
            .all(|process| process.state == ProcessState::Running)
}

#[tokio::test]
async fn a_killed_process_is_started_again() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), vec![shell("api/again", "exec sleep 1000")]);
    let first = server.processes()[0].clone();
    assert_eq!(first.state, ProcessState::Running);
    kill(first.pid.unwrap());
    until("another process", || {
        all_run(&server, 1) && server.processes()[0].pid != first.pid
    })
    .await;
    let second = server.processes()[0].clone();
    assert_eq!(second.restarts, 1);
    assert_eq!(second.last_exit.as_deref(), Some("killed by SIGKILL"));
    assert_ne!(second.instance, first.instance);
    server.supervisor.shutdown().await;
    assert_eq!(processes_named("again"), []);
}

#[tokio::test]
async fn a_crash_loop_is_slowed_down_and_shown() {
    let data = tempfile::tempdir().unwrap();
    let script = "echo '{\"level\":\"ERROR\",\"message\":\"no database\",\"code\":7}' >&2; exit 3";
    let missing = ServiceSpec {
        sdk: true,
        ..ServiceSpec::new(
            "api/missing".parse().unwrap(),
            "1.0.0".parse().unwrap(),
            vec!["/no/such/program".into()],
        )
    };
    let server = Server::start(data.path(), vec![shell("api/loop", script), missing]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    until("both wait", || {
        let processes = server.processes();
        processes
            .iter()
            .all(|p| p.state == ProcessState::BackingOff)
    })
    .await;
    let processes = server.processes();
    let last_exit = |index: usize| processes[index].last_exit.clone().unwrap();
    assert_eq!(last_exit(0), "exited with 3");
    assert!(last_exit(1).starts_with("cannot start `/no/such/program`"));
    for process in &processes {
        assert!((2..=8).contains(&process.restarts), "{process:?}");
        assert!(process.next_start.is_some(), "{process:?}");
    }
    until("its last words", || {
        let lines = server.logs.tail(&Pattern::default(), 1000).unwrap();
        lines.len() as u32 > processes[0].restarts
    })
    .await;
    let lines = server.logs.tail(&"loop".parse().unwrap(), 1).unwrap();
    assert_eq!(lines[0].level, "error");
    assert_eq!(lines[0].text(), "no database code=7");
    server.supervisor.shutdown().await;
}

#[tokio::test]
async fn scaling_down_drains_before_it_stops() {
    let data = tempfile::tempdir().unwrap();
    let script = "trap 'echo told to stop; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let server = Server::start(data.path(), vec![shell("api/scaled", script)]);
    let id: ServiceId = "api/scaled".parse().unwrap();
    let kept_pid = server.processes()[0].pid.unwrap();

    assert_eq!(server.supervisor.scale(&id, 3).await.unwrap(), 1);
    until("three are up", || {
        server.texts().iter().filter(|text| *text == "up").count() == 3
    })
    .await;
    assert_eq!(server.pids().len(), 3);

    assert_eq!(server.supervisor.scale(&id, 1).await.unwrap(), 3);
    until("one is left", || all_run(&server, 1)).await;
    assert_eq!(server.pids(), BTreeSet::from([kept_pid]));
    let drained = server.drained();
    assert_eq!(drained.len(), 2);
    assert!(drained.iter().all(|(_, alive)| *alive), "{drained:?}");
    until("both ended by themselves", || {
        let told = |text: &&String| *text == "told to stop";
        server.texts().iter().filter(told).count() == 2
    })
    .await;
    assert_eq!(
        *server.asked.kept.lock().unwrap(),
        [("api/scaled".to_string(), 3), ("api/scaled".to_string(), 1)]
    );

    let unknown = "api/unknown".parse().unwrap();
    assert_eq!(
        server
            .supervisor
            .scale(&unknown, 1)
            .await
            .unwrap_err()
            .exit_code(),
        3
    );
    assert_eq!(
        server
            .supervisor
            .scale(&id, 100_000)
            .await
            .unwrap_err()
            .exit_code(),
        2
    );
    server.supervisor.shutdown().await;
}

#[tokio::test]
async fn shutdown_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let stubborn = "trap '' TERM; sleep 1000 & while :; do sleep 1; done";
    let mut service = shell("api/stubborn", stubborn);
    service.instances = 2;
    service.stop_timeout = Duration::from_secs(60);
    let crashing = shell("api/crashing", "exit 1");
    let server = Server::start(data.path(), vec![service, crashing]);
    until("the children are up", || {
        processes_named("stubborn").len() >= 4
    })
    .await;
    let started = Instant::now();
    server.supervisor.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(processes_named("stubborn"), []);
    let drained = server.drained();
    let stubborn = |(instance, _): &&(InstanceId, bool)| instance.as_str().starts_with("stubborn");
    assert_eq!(drained.iter().filter(stubborn).count(), 2);
    assert_eq!(records(data.path()), 0);
    assert!(server.processes().is_empty());
    let raw = std::fs::read_dir(data.path().join("logs/raw")).unwrap();
    assert_eq!(raw.count(), 0);
}

fn records(data: &Path) -> usize {
    std::fs::read_dir(data.join("supervisor")).unwrap().count()
}

#[tokio::test]
async fn limits_reach_the_process() {
    let data = tempfile::tempdir().unwrap();
    let mut service = shell("api/limited", "ulimit -n; ulimit -d; exec sleep 1000");
    service.limits.open_files = Some(64);
    service.limits.memory = Some(64 << 20);
    let server = Server::start(data.path(), vec![service]);
    until("it told its limits", || server.texts().len() == 2).await;
    let texts = server.texts();
    assert_eq!(texts[0], "64");
    let has_cgroup = hydrant_node::process::Cgroups::prepare().is_ok();
    assert!(has_cgroup || texts[1] == "65536", "{texts:?}");
    server.supervisor.shutdown().await;
}

#[tokio::test]
async fn the_environment_is_what_services_are_promised() {
    let data = tempfile::tempdir().unwrap();
    let script = "echo $HYDRANT_URL $HYDRANT_PUBLIC_URL $HYDRANT_TOKEN $HYDRANT_GRACE $OWN; \
                  echo $HYDRANT_INSTANCE; exec sleep 1000";
    let mut service = shell("api/env", script);
    service.env.insert("OWN".into(), "mine".into());
    let server = Server::start(data.path(), vec![service]);
    until("it told", || server.texts().len() == 2).await;
    let instance = server.processes()[0].instance.clone().unwrap();
    assert_eq!(
        server.texts(),
        [
            "http://127.0.0.1:1 http://127.0.0.1:2 token of api/env 30s mine",
            instance.as_str()
        ]
    );
    server.supervisor.shutdown().await;
}

/// Not a test of its own: the node that `a_killed_nodes_processes_are_taken_over` kills.
#[tokio::test]
async fn a_dying_node() {
    let Ok(data) = std::env::var(DYING_NODE) else {
        return;
    };
    let server = Server::start(Path::new(&data), vec![orphaned()]);
    until("they run", || all_run(&server, 2)).await;
    std::fs::write(Path::new(&data).join("up"), "").unwrap();
    std::future::pending().await
}

fn orphaned() -> ServiceSpec {
    let mut spec = shell(
        "service/orphaned",
        "n=0; while :; do n=$((n+1)); echo line $n of $$; sleep 0.05; done",
    );
    spec.instances = 2;
    spec
}

/// Runs a node in a process of its own and kills it when its services run.
async fn leave_orphans(data: &Path) {
    let mut node = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "supervisor::a_dying_node", "--nocapture"])
        .env(DYING_NODE, data)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the node is up", || data.join("up").exists()).await;
    node.kill().unwrap();
    node.wait().unwrap();
}

#[tokio::test]
async fn a_killed_nodes_processes_are_taken_over() {
    let data = tempfile::tempdir().unwrap();
    leave_orphans(data.path()).await;
    // The other node's, by the records: tests run beside each other.
    let orphans = recorded_pids(data.path());
    assert_eq!(orphans.len(), 2);
    tokio::time::sleep(Duration::from_millis(300)).await;

    let server = Server::start(data.path(), vec![orphaned()]);
    assert!(all_run(&server, 2));
    assert_eq!(server.pids(), orphans);
    assert!(server.processes().iter().all(|process| process.adopted));
    no_line_is_missing(&server, &orphans).await;

    let killed = *orphans.first().unwrap();
    kill(killed);
    until("it is started again", || {
        all_run(&server, 2) && !server.pids().contains(&killed)
    })
    .await;
    server.supervisor.shutdown().await;
    assert!(orphans.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(records(data.path()), 0);
}

/// What they print is there from the first line on, once each, whoever was there to read it.
async fn no_line_is_missing(server: &Server, pids: &BTreeSet<u32>) {
    for pid in pids {
        let of_pid = |server: &Server| -> Vec<String> {
            let mut texts = server.texts();
            texts.retain(|text| text.ends_with(&format!(" of {pid}")));
            texts
        };
        until("it prints", || of_pid(server).len() > 15).await;
        for (index, text) in of_pid(server).iter().enumerate() {
            assert_eq!(*text, format!("line {} of {pid}", index + 1));
        }
    }
}

fn recorded_pids(data: &Path) -> BTreeSet<u32> {
    let record = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    std::fs::read_dir(data.join("supervisor"))
        .unwrap()
        .map(|entry| record(entry.unwrap().path()))
        .map(|record| record["process"]["pid"].as_u64().unwrap() as u32)
        .collect()
}

fn is_alive(pid: u32) -> bool {
    hydrant_node::process::ProcessId::of(pid).is_some()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_intent_without_a_process_is_never_a_second_copy() {
    let data = tempfile::tempdir().unwrap();
    leave_orphans(data.path()).await;
    let orphans = recorded_pids(data.path());
    // As if the node had died between the start of the processes and their records.
    for entry in std::fs::read_dir(data.path().join("supervisor")).unwrap() {
        let path = entry.unwrap().path();
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["process"] = serde_json::Value::Null;
        std::fs::write(&path, record.to_string()).unwrap();
    }
    let server = Server::start(data.path(), vec![orphaned()]);
    assert_eq!(server.pids(), orphans);
    assert_eq!(recorded_pids(data.path()), orphans);
    server.supervisor.shutdown().await;
    assert!(orphans.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn what_is_not_configured_any_more_is_stopped() {
    let data = tempfile::tempdir().unwrap();
    let gone = shell("api/gone", "exec sleep 1000");
    drop(Server::start(data.path(), vec![gone]));
    let pid = *recorded_pids(data.path()).first().unwrap();
    assert!(is_alive(pid));
    let server = Server::start(data.path(), vec![shell("api/stays", "exec sleep 1000")]);
    until("it is gone", || !is_alive(pid)).await;
    assert_eq!(server.drained().len(), 1);
    until("only the other is left", || all_run(&server, 1)).await;
    server.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_changed_service_is_replaced_and_an_unchanged_one_kept() {
    let data = tempfile::tempdir().unwrap();
    let kept = shell("api/kept", "exec sleep 1000");
    let before = shell("api/changed", "exec sleep 1000");
    let first = Server::start(data.path(), vec![before.clone(), kept.clone()]);
    let processes = first.processes();
    let (old, same) = (processes[0].pid.unwrap(), processes[1].pid.unwrap());
    drop(first);

    let mut after = before;
    after.env.insert("COLOUR".into(), "blue".into());
    let server = Server::start(data.path(), vec![after, kept]);
    until("the old one is replaced", || {
        all_run(&server, 2) && !server.pids().contains(&old)
    })
    .await;
    assert!(!is_alive(old));
    assert!(server.pids().contains(&same));
    assert_eq!(server.drained().len(), 1);
    server.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_follower_sees_lines_as_they_come() {
    let data = tempfile::tempdir().unwrap();
    let script = "printf 'caf\\303\\251 \\033[31mred\\033[0m \\007\\n'; exec sleep 1000";
    let mut service = shell("api/seen", script);
    service.instances = 0;
    let server = Server::start(data.path(), vec![service]);
    let mut follower = server.logs.follow("api/*".parse().unwrap());
    let mut other = server.logs.follow("service/*".parse().unwrap());
    let id = "api/seen".parse().unwrap();
    server.supervisor.scale(&id, 1).await.unwrap();
    let line = tokio::time::timeout(PATIENCE, follower.next())
        .await
        .unwrap();
    let Some(Followed::Line(line)) = line else {
        panic!("no line");
    };
    assert_eq!(line.message, "café red \\u{7}");
    server.supervisor.shutdown().await;
    drop(server);
    assert_eq!(other.next().await, None);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let logs = Logs::open(data.path(), LogsConfig::default(), Clock::system()).unwrap();
    let (service, instance) = ("api/fast".parse().unwrap(), "fast-1".parse().unwrap());
    let mut follower = logs.follow(Pattern::default());
    for _ in 0..5000 {
        logs.append(&service, &instance, Stream::Stdout, b"line")
            .unwrap();
    }
    let Some(Followed::Missed(missed)) = follower.next().await else {
        panic!("not told");
    };
    let mut seen = 0;
    while seen + missed < 5000 {
        assert!(matches!(follower.next().await, Some(Followed::Line(_))));
        seen += 1;
    }
}
