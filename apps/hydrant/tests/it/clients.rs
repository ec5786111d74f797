//! Clients that nobody of this project wrote call services of the SDK through the router.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign;
use crate::harness::{Node, Setup, kill};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const PROGRAM: &str = "hydrant-example-registration";

const SIGN_UP: &str = "registration.v1.Registration/SignUp";
/// A method that the clients know, and the service does not.
const FORGET: &str = "registration.v1.Registration/Forget";
const FIND: &str = "registration.v1.Customers/Find";
const SEND: &str = "registration.v1.Confirmations/Send";
const WATCH: &str = "hydrant.v1.Registry/Watch";

#[test]
fn connect_and_grpc_clients_of_npm_get_answers_and_the_right_errors() {
    let (Some(scripts), Some(stage)) = (foreign::npm(), Stage::start()) else {
        return;
    };
    let node = |script: &str, arguments: &[&str]| {
        let mut command = Command::new("node");
        command.arg(scripts.join(script)).args(arguments);
        command.arg(stage.descriptors());
        command
    };
    let connect = |protocol| Client::connect(protocol, node("connect.mjs", &[protocol]));
    stage.talk(&mut [
        connect("connect"),
        connect("connect-json"),
        connect("connect-h2"),
        Client::grpc("grpc of connect-es", node("connect.mjs", &["grpc"])).sends_any_header(),
        Client::grpc("grpc-js", node("grpc.mjs", &[])),
    ]);
}

#[test]
fn a_grpc_client_of_pypi_gets_answers_and_the_right_errors() {
    let (Some(scripts), Some(stage)) = (foreign::pypi(), Stage::start()) else {
        return;
    };
    let mut command = Command::new("python3");
    command
        .arg(scripts.join("grpc_client.py"))
        .arg(stage.descriptors())
        .env("PYTHONPATH", &scripts);
    stage.talk(&mut [Client::grpc("grpcio", command)]);
}

/// The example, with a service in every tier, and what clients have to know to call it.
struct Stage {
    node: Node,
    folder: TempDir,
}

impl Stage {
    /// Starts the example. When it is not built, that is said aloud.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_hydrant")).with_file_name(PROGRAM);
        if !program.is_file() {
            println!("SKIPPED: {} is not built", program.display());
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        describe(folder.path());
        let node = Setup::node(&example(&program)).start();
        node.wait("the example is ready", |node| {
            let instances = node.instances("*");
            let ready = instances.iter().filter(|one| one["state"] == "ready");
            (ready.count() == 7).then_some(())
        });
        Some(Self { node, folder })
    }

    fn descriptors(&self) -> PathBuf {
        self.folder.path().join("descriptors.binpb")
    }

    fn token(&self, service: &str) -> String {
        let made = self.node.json(&["token", service]);
        made["token"].as_str().expect("a token").to_owned()
    }

    /// All that clients can meet, each of them. What breaks the fleet comes last.
    fn talk(&self, clients: &mut [Client]) {
        for client in &mut *clients {
            self.is_answered(client);
            self.is_refused_by_services(client);
            self.is_refused_by_the_router(client);
            self.is_sent_a_stream(client);
        }
        self.stop_the_customers(clients);
        self.take_the_confirmations_away(clients);
    }

    fn is_answered(&self, client: &mut Client) {
        let email = format!("{}@example.com", client.name.replace(' ', "-"));
        let sign_up = json!({ "name": "Ada", "email": email });
        let first = client.call(self.public(SIGN_UP, &sign_up)).answer();
        assert_eq!(first["is_new"], true, "{first}");
        let token = self.token("api/somebody");
        let find = self.local(FIND, &json!({ "email": email }), &token);
        let found = client.call(find).answer();
        assert_eq!(found["customer"]["id"], first["customer_id"], "{found}");
        let again = client.call(self.public(SIGN_UP, &sign_up)).answer();
        assert_eq!(again["customer_id"], first["customer_id"], "{again}");
        assert_ne!(again["is_new"], true, "{again}");
    }

    fn is_refused_by_services(&self, client: &mut Client) {
        let nobody = json!({ "name": "", "email": "nobody" });
        let (code, message) = client.call(self.public(SIGN_UP, &nobody)).error();
        assert_eq!(code, "invalid_argument", "{message}");
        assert!(message.contains("200 characters"), "{message}");
        let token = self.token("orchestration/somebody");
        let find = self.local(FIND, &json!({ "email": "nobody" }), &token);
        let (code, message) = client.call(find).error();
        assert_eq!(code, "not_found", "{message}");
        assert_eq!(message, "nobody has this address");
    }

    fn is_refused_by_the_router(&self, client: &mut Client) {
        let empty = json!({});
        let (code, message) = client.call(self.public(FORGET, &empty)).error();
        assert_eq!(code, "unimplemented", "{message}");
        let rule = "the public listener reaches the tier api only";
        let (code, message) = client.call(self.public(FIND, &empty)).error();
        assert_eq!(code, "permission_denied", "{message}");
        assert!(message.contains(rule), "{message}");
        let token = self.token("service/somebody");
        let (code, message) = client.call(self.local(FIND, &empty, &token)).error();
        assert_eq!(code, "permission_denied", "{message}");
        assert!(message.contains("service calls no other"), "{message}");
        let wrong = self.local(FIND, &empty, "h1.operator.forged");
        let (code, message) = client.call(wrong).error();
        assert_eq!(code, "unauthenticated", "{message}");
    }

    /// The first message of a stream without an end arrives when it is sent.
    fn is_sent_a_stream(&self, client: &mut Client) {
        let token = self.token("service/somebody");
        let began = Instant::now();
        let watch = self.local(WATCH, &json!({ "pattern": "customers" }), &token);
        let first = client.call(watch).answer();
        let text = first.to_string();
        assert!(text.contains("\"customers\""), "{text}");
        println!(
            "{}: a stream began after {:?}",
            client.name,
            began.elapsed()
        );
    }

    /// Servers that are stopped take requests and never answer.
    fn stop_the_customers(&self, clients: &mut [Client]) {
        let pids: Vec<_> = self.node.instances("customers").iter().map(pid).collect();
        assert_eq!(pids.len(), 2);
        for pid in &pids {
            kill(*pid, Signal::STOP);
        }
        let token = self.token("api/somebody");
        for client in clients {
            let Some((name, value)) = client.timeout else {
                continue;
            };
            let mut find = self.local(FIND, &json!({ "email": "nobody" }), &token);
            find.headers[name] = value.into();
            let began = Instant::now();
            let (code, message) = client.call(find).error();
            let took = began.elapsed();
            println!("{}: a deadline of 300 ms ended after {took:?}", client.name);
            assert_eq!(code, "deadline_exceeded", "{}: {message}", client.name);
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        for pid in &pids {
            kill(*pid, Signal::CONT);
        }
    }

    fn take_the_confirmations_away(&self, clients: &mut [Client]) {
        self.node.json(&["scale", "service/confirmations", "0"]);
        let token = self.token("orchestration/somebody");
        let send = json!({ "customer_id": "c-1", "email": "ada@example.com" });
        for client in clients {
            let (code, message) = client.call(self.local(SEND, &send, &token)).error();
            assert_eq!(code, "unavailable", "{}: {message}", client.name);
            assert!(message.contains("service/confirmations"), "{message}");
        }
    }

    fn public(&self, method: &'static str, message: &Value) -> Call {
        Call::new(self.node.public(), method, message)
    }

    fn local(&self, method: &'static str, message: &Value, token: &str) -> Call {
        let mut call = Call::new(self.node.local(), method, message);
        call.headers["hydrant-token"] = token.into();
        call
    }
}

/// The example's own configuration, with the program that this build has made.
fn example(program: &Path) -> String {
    let path = Path::new(ROOT).join("examples/registration/hydrant.toml");
    let text = std::fs::read_to_string(path).expect("the example is there");
    let written = format!("target/release/{PROGRAM}");
    assert!(text.contains(&written));
    text.replace(&written, &program.to_string_lossy())
}

/// Compiles what clients know: the example's file, as a newer version of it would be, and ours.
fn describe(folder: &Path) {
    let proto = Path::new(ROOT).join("examples/registration/proto/registration.proto");
    let text = std::fs::read_to_string(proto).expect("the example is there");
    let newer = text.replace(
        "service Registration {",
        "service Registration { rpc Forget(SignUpRequest) returns (SignUpResponse);",
    );
    assert_ne!(text, newer);
    std::fs::write(folder.join("registration.proto"), newer).expect("the folder can be written");
    let ours = Path::new(ROOT).join("foundation/contracts/proto");
    let mut compiler = protox::Compiler::new([folder, &ours]).expect("the folders are there");
    let described = compiler
        .include_imports(true)
        .open_files(["registration.proto", "hydrant/v1/registry.proto"])
        .expect("the files compile")
        .encode_file_descriptor_set();
    std::fs::write(folder.join("descriptors.binpb"), described).expect("it can be written");
}

fn pid(instance: &Value) -> u32 {
    instance["pid"].as_u64().expect("a process id") as u32
}

/// A call of one method.
struct Call {
    address: SocketAddr,
    method: &'static str,
    message: Value,
    headers: Value,
}

impl Call {
    fn new(address: SocketAddr, method: &'static str, message: &Value) -> Self {
        Self {
            address,
            method,
            message: message.clone(),
            headers: json!({}),
        }
    }
}

/// What came back: `{"answer"}`, or `{"code", "message"}`.
struct Outcome(Value);

impl Outcome {
    fn answer(self) -> Value {
        assert!(self.0["answer"].is_object(), "{}", self.0);
        self.0["answer"].clone()
    }

    /// The code, in the words of the protocols, and the message.
    fn error(self) -> (String, String) {
        let text = |name: &str| self.0[name].as_str().unwrap_or_default().to_owned();
        assert!(self.0["answer"].is_null(), "{}", self.0);
        (snake_case(&text("code")), text("message"))
    }
}

/// `NOT_FOUND` and `NotFound` as `not_found`.
fn snake_case(code: &str) -> String {
    let is_shouted = code.chars().all(|letter| !letter.is_ascii_lowercase());
    let mut snake = String::new();
    for letter in code.chars() {
        if letter.is_ascii_uppercase() && !is_shouted && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// A process that calls what it is told to.
struct Client {
    name: &'static str,
    /// It addresses services by a prefix; others know the method alone.
    prefixed: bool,
    /// How it tells a deadline of 300 ms, when it lets us say so without keeping it itself.
    timeout: Option<(&'static str, &'static str)>,
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn connect(name: &'static str, command: Command) -> Self {
        let mut client = Self::grpc(name, command);
        client.prefixed = true;
        client.timeout = Some(("connect-timeout-ms", "300"));
        client
    }

    fn grpc(name: &'static str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        Self {
            name,
            prefixed: false,
            timeout: None,
            calls: child.stdin.take().expect("a pipe"),
            answers: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    fn sends_any_header(mut self) -> Self {
        self.timeout = Some(("grpc-timeout", "300m"));
        self
    }

    /// Calls, and waits for the outcome; the client itself gives up after 20 s.
    fn call(&mut self, call: Call) -> Outcome {
        let prefix = if self.prefixed {
            prefix(call.method)
        } else {
            ""
        };
        let line = json!({
            "base": format!("http://{}{prefix}", call.address),
            "method": call.method,
            "message": call.message,
            "headers": call.headers,
        });
        writeln!(self.calls, "{line}").expect("the client runs");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("the client runs");
        let answer = serde_json::from_str(&answer);
        Outcome(answer.unwrap_or_else(|_| panic!("{} gave no answer to {line}", self.name)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service that answers a method, as clients of Connect write it into their base URL.
fn prefix(method: &str) -> &'static str {
    match method.split_once('/') {
        Some(("registration.v1.Registration", _)) => "/api/registration",
        Some(("registration.v1.Customers", _)) => "/service/customers",
        Some(("registration.v1.Confirmations", _)) => "/service/confirmations",
        _ => "/service/node",
    }
}
