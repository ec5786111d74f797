use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use hydrant_contracts::{
    Code, Error, Instance, InstanceId, InstanceState, PathPrefix, RepeatablePath, ServiceId,
    Version,
};
use hydrant_runtime::Clock;

use super::node::Node;
use super::{RunArgs, say};
use crate::failure::{Failure, Result, system, wrong};

/// What runs, checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) service: ServiceId,
    pub(super) version: Version,
    pub(super) instance: InstanceId,
    pub(super) prefixes: Vec<PathPrefix>,
    repeatable_paths: Vec<RepeatablePath>,
    pub(super) health: Option<String>,
    pub(super) port: u16,
    /// The port was named, so it may be in use.
    port_is_named: bool,
    pub(super) stop_timeout: Duration,
    pub(super) grace: hydrant_runtime::Duration,
    /// Never empty.
    pub(super) command: Vec<String>,
}

impl Plan {
    pub(super) fn new(args: RunArgs) -> Result<Self> {
        let service = ServiceId::new(args.tier, args.service);
        let prefixes = prefixes(&service, &args.routes, !args.keep_prefix)?;
        let repeatable_paths = repeatable_paths(&service, &args.repeatable_paths)?;
        if let Some(path) = args.health.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(wrong(
                "bad_health_path",
                format!("`{path}` is not a path"),
                "begin it with a slash, as --health /healthz",
            ));
        }
        let port = match args.port {
            Some(port) => port,
            None => free_port()?,
        };
        let with_port = |argument: String| argument.replace("$PORT", &port.to_string());
        Ok(Self {
            instance: args
                .instance
                .unwrap_or_else(|| InstanceId::generate(&service.name)),
            version: args.version,
            prefixes,
            repeatable_paths,
            health: args.health,
            port,
            port_is_named: args.port.is_some(),
            stop_timeout: args.stop_timeout.get(),
            grace: args.grace,
            command: args.command.into_iter().map(with_port).collect(),
            service,
        })
    }

    /// Else another server would be taken for the one that is started.
    pub(super) async fn check_port_is_free(&self) -> Result<()> {
        let taken =
            self.port_is_named && tokio::net::TcpStream::connect(self.address()).await.is_ok();
        if taken {
            return Err(wrong(
                "port_in_use",
                format!("another process listens on port {}", self.port),
                "stop it, or leave out --port to get one that is free",
            ));
        }
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(super) fn registered_instance(&self) -> Instance {
        Instance {
            id: self.instance.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
            server: String::new(),
            address: self.address(),
            http2: false,
            methods: Vec::new(),
            prefixes: self.prefixes.clone(),
            state: InstanceState::Starting,
            detail: String::new(),
            since_unix_ms: Clock::system().unix_ms(),
            pid: std::process::id(),
            repeatable_paths: self.repeatable_paths.clone(),
        }
    }

    /// Says what is registered where, and what to try.
    pub(super) fn say_ready(&self, node: &Node) {
        say(&format!(
            "{} {} is ready: instance {} on port {}",
            self.service, self.version, self.instance, self.port
        ));
        for prefix in &self.prefixes {
            match node.public_url.as_deref().filter(|_| self.is_public()) {
                Some(url) => say(&format!("try  curl {url}{}", prefix.prefix)),
                None => say(&format!(
                    "try  hydrant explain GET {}  (only services and the operator reach it)",
                    prefix.prefix
                )),
            }
        }
    }

    fn is_public(&self) -> bool {
        self.service.tier == hydrant_contracts::Tier::Api
    }
}

fn prefixes(service: &ServiceId, routes: &[String], strip: bool) -> Result<Vec<PathPrefix>> {
    if routes.is_empty() {
        let route = format!("/{service}/");
        return Ok(vec![PathPrefix::new(service, &route, strip)?]);
    }
    let prefix = |route: &String| {
        PathPrefix::new(service, route, strip).map_err(|error| -> Failure {
            Error::new(Code::InvalidArgument, "bad_route", error.to_string())
                .mend(format!("write it as --route /{service}/"))
                .into()
        })
    };
    routes.iter().map(prefix).collect()
}

fn repeatable_paths(service: &ServiceId, paths: &[String]) -> Result<Vec<RepeatablePath>> {
    let repeatable_path = |path: &String| {
        RepeatablePath::new(service, path).map_err(|error| -> Failure {
            Error::new(
                Code::InvalidArgument,
                "bad_repeatable_path",
                error.to_string(),
            )
            .mend(format!("write it as --safe-to-repeat /{service}/search"))
            .into()
        })
    };
    paths.iter().map(repeatable_path).collect()
}

/// A port that nobody listens on at this moment.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| system("cannot find a free port", &error, "name one with --port"))
}

/// The first start failed: most likely the command is wrong.
pub(super) fn cannot_start(program: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => wrong(
            "command_not_found",
            format!("there is no command `{program}`"),
            "give the server after `--`, as -- python3 -m http.server '$PORT'",
        ),
        io::ErrorKind::PermissionDenied => wrong(
            "command_not_executable",
            format!("`{program}` may not be executed"),
            format!("make it executable: chmod +x {program}"),
        ),
        _ => system(
            format!("cannot start `{program}`"),
            error,
            "check the command",
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn plan(line: &str) -> std::result::Result<Plan, Failure> {
        let words = "run --service files --version 1.0.0".split(' ');
        let line = Line::try_parse_from(words.chain(line.split(' '))).expect("parses");
        Plan::new(line.args)
    }

    #[test]
    fn a_plan_has_the_usual_route_and_the_port_in_the_command() {
        let plan = plan("--port 4000 -- server --listen=127.0.0.1:$PORT").unwrap();
        assert_eq!(plan.prefixes[0].prefix, "/api/files/");
        assert_eq!(plan.prefixes[0].strip, "/api/files".len());
        assert_eq!(plan.command, ["server", "--listen=127.0.0.1:4000"]);
        assert_eq!(plan.registered_instance().state, InstanceState::Starting);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_mend() {
        for (line, part) in [
            ("--route /api/other/ -- x", "--route /api/files/"),
            ("--route /files -- x", "--route /api/files/"),
            ("--health ok -- x", "--health /healthz"),
            (
                "--safe-to-repeat /search -- x",
                "--safe-to-repeat /api/files/search",
            ),
        ] {
            let Err(Failure::Error(error)) = plan(line) else {
                panic!("{line} is taken");
            };
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.mend.contains(part), "{}", error.mend);
        }
        let error =
            Line::try_parse_from(["run", "--service", "a", "--version", "1.0.0", "--tier", "x"]);
        assert!(error.err().unwrap().to_string().contains("orchestration"));
    }

    #[tokio::test]
    async fn a_named_port_must_be_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = plan(&format!("--port {port} -- x")).unwrap();
        assert!(plan.check_port_is_free().await.is_err());
        drop(listener);
        plan.check_port_is_free().await.unwrap();
    }
}
