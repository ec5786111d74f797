//! Hostile requests through the router, nginx and HAProxy to a backend that keeps every byte. Nothing
//! that the router lets through may be read in two ways, each request has one answer, and each refusal
//! is a clean one. What the other two do shows what the field does.

mod cases;
mod check;
mod generate;
mod lenient;
mod reading;
mod recorder;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hydrant_contracts::PathPrefix;
use hydrant_harness::{Missing, ReverseProxy, is_soak, seed, skipped, wait_until};
use hydrant_router::{Limits, Router, Table};

use self::check::{ByCase, check, read_records};
use self::generate::{Case, path};
use self::recorder::Recorder;
use crate::raw::{PATIENCE, instance, router_with};

/// Cases under way at a time: most of their time is spent waiting for a proxy to give up.
const CLIENTS: usize = 24;

/// Ends what is never finished soon.
fn limits() -> Limits {
    let short = Duration::from_millis(400);
    Limits {
        head: short,
        send: short,
        client_idle: short,
        stream_idle: short,
        answer: PATIENCE,
        ..Limits::default()
    }
}

fn router(backend: SocketAddr) -> Router {
    let router = router_with(limits(), 2, &[]);
    let mut instance = instance("t-0", backend);
    instance.prefixes = vec![PathPrefix::new(&instance.service, "/api/t/", false).unwrap()];
    router.publish(&Table::of_one_server(&[instance]));
    router
}

/// Sends a case and a last request behind it, and reads to the end of the connection; `None` when it
/// does not end.
fn ask(address: SocketAddr, case: &Case) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut cuts = case.cuts.clone();
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts.into_iter().chain([case.bytes.len()]) {
        // It may be refused before all of it was sent.
        let _ = stream.write_all(&case.bytes[from..to]);
        from = to;
    }
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let _ = stream.shutdown(Shutdown::Both);
    match ended {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        // What came before a reset has come.
        _ => Some(answer),
    }
}

/// The cases, each with a request behind it that shows whether the connection is still in step.
fn all_cases(generated: usize) -> Vec<Case> {
    let mut rng = fastrand::Rng::with_seed(seed());
    let mut cases: Vec<_> = (0..generated)
        .map(|at| generate::case(at, &mut rng))
        .collect();
    cases.extend(cases::all(generated));
    for (number, case) in cases.iter_mut().enumerate() {
        let next = format!(
            "GET {}next HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
            path(number)
        );
        case.bytes.extend_from_slice(next.as_bytes());
    }
    cases
}

/// What each case was answered by one proxy.
fn ask_all(address: SocketAddr, cases: &[Case]) -> Vec<Option<Vec<u8>>> {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(vec![None; cases.len()]));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(at) else { return };
                    let answer = ask(address, case);
                    answers.lock().unwrap()[at] = answer;
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

/// What the backend read when all is settled: what was given up is closed.
fn settled(backend: &Recorder, wrong: &mut Vec<String>) -> ByCase {
    let halves = || {
        let mut halves = Vec::new();
        read_records(&backend.records(), &mut halves);
        halves
            .iter()
            .all(|wrong| !wrong.starts_with("half a request"))
    };
    wait_until(PATIENCE, halves);
    read_records(&backend.records(), wrong)
}

#[test]
fn nothing_that_is_let_through_is_read_in_two_ways() {
    let cases = all_cases(if is_soak() { 5_000 } else { 400 });
    let backend = Recorder::start();
    let router = router(backend.address);
    let answers = ask_all(router.public_addr(), &cases);
    let mut wrong = Vec::new();
    let mut records = settled(&backend, &mut wrong);
    let mut accepted = Vec::new();
    for (number, (case, answer)) in cases.iter().zip(&answers).enumerate() {
        let got = records.remove(&number).unwrap_or_default();
        let checked = match answer {
            Some(answer) => check(case, answer, got),
            None => Err("the connection does not end".into()),
        };
        accepted.push(checked.clone().unwrap_or(0) > 0);
        if let Err(what) = checked {
            wrong.push(told(case, &what, answer.as_deref().unwrap_or_default()));
        }
    }
    let passed = accepted.iter().filter(|accepted| **accepted).count();
    println!(
        "{passed} of {} cases had a request that passed",
        cases.len()
    );
    let theirs: Vec<_> = PEERS
        .iter()
        .filter_map(|(start, name)| passes_at(*start, name, &cases))
        .collect();
    compare(&cases, &accepted, &theirs);
    let shown = wrong
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n\n");
    assert!(wrong.is_empty(), "{} are wrong:\n{shown}", wrong.len());
    assert!(
        passed * 5 > cases.len(),
        "next to nothing passes: this proves little"
    );
}

type Start = fn(SocketAddr) -> Result<ReverseProxy, Missing>;

const PEERS: [(Start, &str); 2] = [
    (ReverseProxy::nginx, "nginx"),
    (ReverseProxy::haproxy, "HAProxy"),
];

/// Which cases a peer lets through. Prints what reaches its backend so that two readers understand it
/// differently.
fn passes_at(start: Start, name: &str, cases: &[Case]) -> Option<Vec<bool>> {
    let backend = Recorder::start();
    let proxy = start(backend.address).map_err(skipped).ok()?;
    let passes =
        |answer: Option<Vec<u8>>| answer.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200"));
    let answers = ask_all(proxy.address(), cases);
    let passed: Vec<bool> = answers.into_iter().map(passes).collect();
    let mut misread = Vec::new();
    read_records(&backend.records(), &mut misread);
    println!(
        "{name}: {} passed; {} times its backend could read in two ways what came",
        passed.iter().filter(|passed| **passed).count(),
        misread.len(),
    );
    Some(passed)
}

/// Prints where the router parts from all others.
fn compare(cases: &[Case], ours: &[bool], theirs: &[Vec<bool>]) {
    let alone = |passes: bool| -> Vec<&str> {
        let parts =
            |at: &usize| ours[*at] == passes && theirs.iter().all(|their| their[*at] != passes);
        let alone = (0..cases.len()).filter(parts);
        alone.map(|at| &*cases[at].name).collect()
    };
    if !theirs.is_empty() {
        for name in alone(true) {
            let case = cases.iter().find(|case| case.name == name).unwrap();
            let sent = String::from_utf8_lossy(&case.bytes)
                .escape_debug()
                .to_string();
            println!("the router alone lets through {name}: {sent}");
        }
        println!("the router alone refuses {:?}", alone(false));
    }
}

fn told(case: &Case, what: &str, answer: &[u8]) -> String {
    format!(
        "{}: {what}\n  sent     {}\n  answered {}",
        case.name,
        String::from_utf8_lossy(&case.bytes).escape_debug(),
        String::from_utf8_lossy(answer).escape_debug(),
    )
}
