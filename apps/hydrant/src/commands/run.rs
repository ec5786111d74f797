//! `hydrant run`: any web server as a service, unchanged.
//!
//! This process stands beside the server, which is its child: it tells the node how the server is,
//! starts it again when it ends, and takes it out of the routing tables before it stops it.

mod child;
mod node;
mod plan;
mod probe;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use clap::Args;
use hydrant_contracts::{InstanceId, InstanceState, ServiceName, Tier, Version};
use hydrant_node::process::Restarts;
use hydrant_runtime::{telemetry, termination_signal};
use hydrant_sdk::{Hydrant, Registration};
use tokio::time::{Instant, sleep};

use crate::cli::Global;
use crate::failure::{Failure, Result, system};
use child::Child;
use node::Node;
use plan::Plan;
use probe::Probe;

/// The exit code when the node stayed away: it may pass by itself.
const ABANDONED: u8 = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
The server gets its port in the variable PORT; `$PORT` in its arguments stands for it too. It has to
listen on 127.0.0.1. It also gets HYDRANT_URL, HYDRANT_TOKEN, HYDRANT_PUBLIC_URL and
HYDRANT_INSTANCE, by which it can call other services through the node.

Examples:
  hydrant run --service files --version 1.0.0 -- python3 -m http.server '$PORT'
  hydrant run --service shop --version 2.1.0 --tier service --health /healthz -- node server.js")]
pub(crate) struct RunArgs {
    /// The name of the service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: ServiceName,
    /// Its version, as 1.4.2
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Version,
    /// Its tier: api, orchestration or service
    #[arg(long, value_name = "TIER", default_value = "api")]
    pub(crate) tier: Tier,
    /// A path prefix that it answers, as /api/files/; may be repeated [default: /TIER/NAME/]
    #[arg(long = "route", value_name = "PREFIX")]
    pub(crate) routes: Vec<String>,
    /// Let it see the whole path; else the prefix is cut off
    #[arg(long)]
    pub(crate) keep_prefix: bool,
    /// A path where every request is safe to repeat, as /api/files/search; with a slash at its end all
    /// below it; may be repeated
    #[arg(long = "safe-to-repeat", value_name = "PATH")]
    pub(crate) repeatable_paths: Vec<String>,
    /// A path that it answers with 2xx or 3xx when it is well [default: its port accepts]
    #[arg(long, value_name = "PATH")]
    pub(crate) health: Option<String>,
    /// The port for it [default: any that is free]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The id of the instance [default: a new one]
    #[arg(long, value_name = "ID", env = "HYDRANT_INSTANCE", hide_env = true)]
    pub(crate) instance: Option<InstanceId>,
    /// How long it may take to stop before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) stop_timeout: hydrant_runtime::Duration,
    /// How long it goes on when the node is away
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        env = "HYDRANT_GRACE",
        hide_env = true
    )]
    pub(crate) grace: hydrant_runtime::Duration,
    /// The server and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Runs the server until this process is asked to end.
pub(crate) async fn run(global: &Global, args: RunArgs) -> Result<()> {
    telemetry::start();
    let plan = Plan::new(args)?;
    let node = Node::find(global, &plan.service).await?;
    plan.check_port_is_free().await?;
    // Before there is a server that an unheard signal would leave behind.
    let signal = listen_for_signals().await?;
    let child =
        Child::spawn(&plan, &node).map_err(|error| plan::cannot_start(&plan.command[0], &error))?;
    let hydrant = Hydrant::new(node.config()?)?;
    let registration = Registration::start(&hydrant, plan.registered_instance());
    let shim = Shim {
        probe: Probe::new(plan.port, plan.health.clone())?,
        waits: Restarts::new(),
        restarts: 0,
        plan,
        node,
        registration,
    };
    shim.run(child, signal).await
}

struct Shim {
    plan: Plan,
    node: Node,
    registration: Registration,
    probe: Probe,
    waits: Restarts,
    restarts: u32,
}

/// Why the server shall stop.
enum Stop {
    /// This process, or its instance, was asked to, as this says.
    Asked(String),
    /// The node was away for too long.
    Abandoned,
    /// The node refuses the instance for good.
    Refused(hydrant_contracts::Error),
    /// Signals can't be awaited.
    Broken(std::io::Error),
}

impl Shim {
    async fn run(mut self, first: Child, signal: Signalled) -> Result<()> {
        let mut current = Some(first);
        let stop = tokio::select! {
            stop = stop_asked(&self.registration, &self.plan, signal) => stop,
            never = keep_running(
                &self.plan, &self.node, &self.registration, &self.probe,
                &mut self.waits, &mut self.restarts, &mut current,
            ) => match never {},
        };
        self.stop(current, stop).await
    }

    /// Out of the routing tables, the last requests done, SIGTERM, SIGKILL.
    async fn stop(&self, child: Option<Child>, stop: Stop) -> Result<()> {
        say(&match &stop {
            Stop::Asked(why) => {
                format!("{}: draining, then stopping it ({why})", self.plan.service)
            }
            Stop::Abandoned => format!(
                "the node was away for {}: stopping {}",
                self.plan.grace, self.plan.service
            ),
            Stop::Refused(error) => format!("the node refuses {}: {error}", self.plan.service),
            Stop::Broken(error) => format!("cannot await signals: {error}"),
        });
        if let Some(mut child) = child {
            tokio::select! {
                _ = self.registration.drain(self.plan.stop_timeout) => {}
                _ = child.ended() => {}
                // Asked twice means now.
                _ = termination_signal() => {}
            }
            child.stop(self.plan.stop_timeout).await;
        }
        match stop {
            Stop::Asked(_) => Ok(()),
            Stop::Abandoned => Err(Failure::Exit(ABANDONED)),
            Stop::Refused(error) => Err(Failure::Exit(error.exit_code())),
            Stop::Broken(error) => Err(system("cannot await signals", &error, "try again")),
        }
    }
}

/// Resolves when this process is asked to end.
type Signalled = Pin<Box<dyn Future<Output = std::io::Result<&'static str>>>>;

/// Signals are heard from the return of this on, also before the future is awaited.
async fn listen_for_signals() -> Result<Signalled> {
    let mut signal: Signalled = Box::pin(termination_signal());
    match poll_fn(|context| Poll::Ready(signal.as_mut().poll(context))).await {
        Poll::Pending => Ok(signal),
        Poll::Ready(Ok(_)) => Err(Failure::Exit(0)),
        Poll::Ready(Err(error)) => Err(system("cannot await signals", &error, "try again")),
    }
}

async fn stop_asked(registration: &Registration, plan: &Plan, signal: Signalled) -> Stop {
    let refused = async {
        match registration.registered().await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        signal = signal => match signal {
            Ok(signal) => Stop::Asked(signal.into()),
            Err(error) => Stop::Broken(error),
        },
        reason = registration.stop_requested() => Stop::Asked(format!("the node asks: {reason}")),
        () = registration.abandoned(plan.grace.get()) => Stop::Abandoned,
        error = refused => Stop::Refused(error),
    }
}

enum Never {}

/// Watches the server, and starts it again whenever it ends. Never returns; `current` is the
/// server that runs when the future is dropped.
async fn keep_running(
    plan: &Plan,
    node: &Node,
    registration: &Registration,
    probe: &Probe,
    waits: &mut Restarts,
    restarts: &mut u32,
    current: &mut Option<Child>,
) -> Never {
    loop {
        let started = Instant::now();
        let why = match current {
            Some(child) => tokio::select! {
                why = child.ended() => why,
                never = watch(plan, node, registration, probe) => match never {},
            },
            None => format!("cannot start `{}`", plan.command[0]),
        };
        if let Some(child) = current.take() {
            // What it left behind may hold its port.
            child.kill_group();
        }
        let wait = waits.wait_after(started.elapsed());
        let told = crash_text(&why, *restarts, wait);
        registration.report(InstanceState::Failing, told.as_str());
        say(&format!("{} {told}", plan.service));
        sleep(wait).await;
        *restarts += 1;
        *current = Child::spawn(plan, node)
            .inspect_err(|error| say(&format!("cannot start `{}`: {error}", plan.command[0])))
            .ok();
    }
}

fn crash_text(why: &str, restarts: u32, wait: Duration) -> String {
    let times = match restarts {
        0 => "ended for the first time".into(),
        1 => "started again once".into(),
        more => format!("started again {more} times"),
    };
    format!("{why}; {times}; next start in {:.1} s", wait.as_secs_f64())
}

/// Tells the node how the server is, as far as its port or its health path show.
async fn watch(plan: &Plan, node: &Node, registration: &Registration, probe: &Probe) -> Never {
    probe
        .first_good(|why| {
            registration.report(InstanceState::Starting, why);
            say(&format!("{} is not ready yet: {why}", plan.service));
        })
        .await;
    registration.report(InstanceState::Ready, "");
    // Who reads that it is ready may call it at once.
    registration.reported().await;
    plan.say_ready(node);
    loop {
        let why = probe.bad().await;
        registration.report(InstanceState::Failing, why.as_str());
        say(&format!("{} is failing: {why}", plan.service));
        probe.good().await;
        registration.report(InstanceState::Ready, "");
        say(&format!("{} is well again", plan.service));
    }
}

/// Tells a person at a terminal, or the log of a supervised service.
fn say(text: &str) {
    eprintln!("hydrant: {}", crate::output::printable(text));
}
