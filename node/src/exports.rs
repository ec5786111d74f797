//! Logs and metrics on their way to the systems where a company looks at them. What goes out waits in a
//! bounded box, and nobody waits for the box: when a receiver is slow or away, the oldest is left out,
//! counted and told.

mod graphite;
mod outbox;
mod splunk;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use hydrant_contracts::{Pattern, ServerName};
use hydrant_runtime::{Clock, Shutdown, telemetry};
use tokio::time::MissedTickBehavior;
use tracing::subscriber::NoSubscriber;

use crate::health::Health;
use crate::logs::{Followed, Follower, Logs};
use outbox::Outbox;
pub use splunk::collector_url;

/// How many of the node's own lines may wait to be put into the box.
const TAPPED: usize = 1024;
/// How often it is told that something was left out.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long the last lines may take when the node ends.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// Where logs and metrics go to, beside the node's own files and pages.
#[derive(Clone, Debug, Default)]
pub struct ExportsConfig {
    /// Metrics, to Graphite.
    pub graphite: Option<GraphiteConfig>,
    /// Logs, to an HTTP event collector.
    pub splunk: Option<SplunkConfig>,
}

/// A receiver of Graphite's plain text over TCP, as carbon has it.
#[derive(Clone, Debug)]
pub struct GraphiteConfig {
    /// `host:port`
    pub address: String,
    /// What all paths begin with.
    pub prefix: String,
    /// How often metrics are sent.
    pub interval: Duration,
}

/// An HTTP event collector as Splunk has it.
#[derive(Clone, Debug)]
pub struct SplunkConfig {
    /// The URL to which events are posted.
    pub url: String,
    /// The file with the token, read again for each post.
    pub token_file: PathBuf,
    /// The authorities of the collector's certificate, in PEM; those of the system without it.
    pub ca: Option<PathBuf>,
}

/// What was sent and what was not, by receiver.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    boxes: Vec<(&'static str, Arc<Outbox>)>,
    shutdown: Shutdown,
}

impl Exports {
    /// The boxes. Nothing is sent before [`Exports::start`].
    pub(crate) fn new(config: &ExportsConfig) -> Self {
        let graphite = config
            .graphite
            .as_ref()
            .map(|_| ("graphite", graphite::MOST_WAITING));
        let splunk = config
            .splunk
            .as_ref()
            .map(|_| ("splunk", splunk::MOST_WAITING));
        let boxes = graphite.into_iter().chain(splunk);
        Self {
            boxes: boxes
                .map(|(name, most)| (name, Outbox::new(most)))
                .collect(),
            shutdown: Shutdown::new(),
        }
    }

    fn get(&self, name: &str) -> Option<Arc<Outbox>> {
        let found = self.boxes.iter().find(|(known, _)| *known == name);
        found.map(|(_, outbox)| outbox.clone())
    }

    /// Begins to fill the boxes, and to empty them on a thread of their own.
    pub(crate) fn start(&self, config: &ExportsConfig, from: Sources) -> std::io::Result<()> {
        let shutdown = &self.shutdown;
        let mut senders: Vec<BoxFuture<'static, ()>> = Vec::new();
        if let (Some(graphite), Some(outbox)) = (&config.graphite, self.get("graphite")) {
            let paths = graphite::Paths::new(&graphite.prefix, &from.server);
            let sampled = sample(
                from.health,
                paths,
                from.clock,
                graphite.interval,
                outbox.clone(),
            );
            shutdown.spawn(until(shutdown.clone(), sampled));
            senders.push(Box::pin(graphite::send(graphite.address.clone(), outbox)));
        }
        if let (Some(splunk), Some(outbox)) = (&config.splunk, self.get("splunk")) {
            let events = splunk::Events::new(&from.server);
            let follower = from.logs.follow(Pattern::default());
            let services = of_services(follower, events.clone(), outbox.clone());
            shutdown.spawn(until(shutdown.clone(), services));
            if let Some(tap) = telemetry::tap(TAPPED) {
                let node = of_node(tap, events, outbox.clone());
                shutdown.spawn(until(shutdown.clone(), node));
            }
            senders.push(Box::pin(splunk::send(splunk.clone(), outbox)));
        }
        if senders.is_empty() {
            return Ok(());
        }
        shutdown.spawn(until(shutdown.clone(), self.clone().tell()));
        on_a_thread(senders)
    }

    /// Lets what waits go out, but not for long.
    pub(crate) async fn stop(&self) {
        self.shutdown.begin();
        self.shutdown.finished(STOP_WITHIN).await;
        let emptied = self.boxes.iter().map(|(_, outbox)| outbox.close());
        let all = join_all(emptied);
        let _ = tokio::time::timeout(STOP_WITHIN, all).await;
    }

    /// In Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        type Count = fn(&Outbox) -> u64;
        let families: [(&str, &str, &str, Count); 3] = [
            (
                "hydrant_export_sent_total",
                "counter",
                "Lines that a receiver took.",
                Outbox::sent,
            ),
            (
                "hydrant_export_dropped_total",
                "counter",
                "Lines that were left out.",
                Outbox::dropped,
            ),
            (
                "hydrant_export_waiting_bytes",
                "gauge",
                "What waits to be sent.",
                Outbox::waiting,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, count) in families.iter().filter(|_| !self.boxes.is_empty()) {
            // Writing to a string can't fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (to, outbox) in &self.boxes {
                let _ = writeln!(text, "{name}{{to=\"{to}\"}} {}", count(outbox));
            }
        }
        text
    }

    /// Says when a receiver takes nothing, when it does again, and how much was left out.
    async fn tell(self) {
        let mut told = vec![(0, None); self.boxes.len()];
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            for ((to, outbox), (dropped, trouble)) in self.boxes.iter().zip(&mut told) {
                let (now, why) = (outbox.dropped(), outbox.trouble());
                let left_out = now - *dropped;
                match &why {
                    Some(why) if left_out > 0 || trouble.as_ref() != Some(why) => {
                        tracing::warn!(to, left_out, why, "telemetry is not taken");
                    }
                    None if trouble.is_some() => {
                        tracing::info!(to, left_out, "telemetry is taken again");
                    }
                    None if left_out > 0 => tracing::warn!(to, left_out, "telemetry came too fast"),
                    _ => {}
                }
                (*dropped, *trouble) = (now, why);
            }
        }
    }
}

/// What goes out.
pub(crate) struct Sources {
    pub(crate) server: ServerName,
    pub(crate) logs: Logs,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Clock,
}

/// Works until the end, and then as far as it goes without waiting.
async fn until(shutdown: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = work => {}
        () = shutdown.begun() => {}
    }
}

async fn sample(
    health: Arc<Health>,
    paths: graphite::Paths,
    clock: Clock,
    interval: Duration,
    outbox: Arc<Outbox>,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (text, lines) = paths.lines(&health.metrics().await, clock.unix_ms() / 1000);
        outbox.push(text, lines);
    }
}

async fn of_services(mut follower: Follower, events: splunk::Events, outbox: Arc<Outbox>) {
    while let Some(followed) = follower.next().await {
        match followed {
            Followed::Line(line) => outbox.push(events.of_service(&line), 1),
            Followed::Missed(count) => outbox.leave_out(count),
        }
    }
}

async fn of_node(mut tap: telemetry::Tap, events: splunk::Events, outbox: Arc<Outbox>) {
    while let Some(line) = tap.lines.recv().await {
        outbox.leave_out(tap.missed.swap(0, std::sync::atomic::Ordering::Relaxed));
        if let Some(event) = events.of_node(&line) {
            outbox.push(event, 1);
        }
    }
}

/// A thread whose own lines go nowhere: what is logged about sending logs would have to be sent again.
fn on_a_thread(senders: Vec<BoxFuture<'static, ()>>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = move || {
        let _silent = tracing::subscriber::set_default(NoSubscriber::default());
        runtime.block_on(join_all(senders));
    };
    std::thread::Builder::new()
        .name("exports".into())
        .spawn(work)?;
    Ok(())
}
