//! What a process tells about itself: one JSON object a line on standard error, or plain lines for
//! a person at a terminal. Whatever is told goes through one door: also what dependencies log, and
//! panics. There secrets are taken out ([`Redaction`]), and lines can't be forged.

mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Redaction;
use lines::{Form, Lines};

/// The variable that chooses levels, as `info,hydrant_router=debug`.
const LEVELS: &str = "HYDRANT_LOG";

/// Begins to log: JSON unless standard error is a terminal. Call once, first thing in `main`, or after
/// [`Redaction::share`].
pub fn start() {
    let levels = EnvFilter::try_from_env(LEVELS).unwrap_or_else(|_| EnvFilter::new("info"));
    let form = match std::io::stderr().is_terminal() {
        true => Form::Plain,
        false => Form::Json,
    };
    let lines = Lines::new(form, std::io::stderr, Redaction::shared());
    // A second call, as in tests, keeps the first subscriber.
    let begun = tracing_subscriber::registry()
        .with(levels)
        .with(lines)
        .try_init();
    if begun.is_ok() {
        std::panic::set_hook(Box::new(tell_of_panic));
    }
}

/// A panic is a line as any other. Where errors are not told, it stands there all the same.
fn tell_of_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("without a message");
    let place = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name();
    if !tracing::enabled!(target: "panic", tracing::Level::ERROR) {
        let message = Redaction::shared().line(message);
        eprintln!(
            "hydrant: panicked at {}: {message}",
            place.unwrap_or_default()
        );
        return;
    }
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(target: "panic", thread, place, trace, "panicked: {message}");
}

/// The lines of this process, beside standard error: JSON, without line breaks.
#[derive(Debug)]
pub struct Tap {
    /// The lines, in order.
    pub lines: mpsc::Receiver<String>,
    /// How many were left out since the start because they came faster than they were taken.
    pub missed: &'static AtomicU64,
}

static TAP: OnceLock<mpsc::Sender<String>> = OnceLock::new();
static MISSED: AtomicU64 = AtomicU64::new(0);

/// Opens the tap, for at most so many lines that wait. `None` when it was opened before: a process has one.
pub fn tap(waiting: usize) -> Option<Tap> {
    let (sender, lines) = mpsc::channel(waiting);
    TAP.set(sender).ok()?;
    Some(Tap {
        lines,
        missed: &MISSED,
    })
}

/// Hands a line to the tap, when it is open. Never waits.
fn pour(line: impl FnOnce() -> String) {
    let Some(sender) = TAP.get() else { return };
    if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(line()) {
        MISSED.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
