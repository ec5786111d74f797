//! Requests as they pass: who taps hears of them, and a share of them gets a line in the log.

use futures::Stream;
use futures::stream;
use hydrant_contracts::{Error, Pattern, proto};
use hydrant_router::{Heard, Passed, Tap};
use hydrant_runtime::Clock;
use hydrant_runtime::redaction::Redaction;

use crate::identity::invalid;

/// The longest beginning of a path that is asked for, in bytes.
const MAX_PREFIX: usize = 1024;

/// Which requests somebody who taps wants to hear of.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// `None` for all that is not the node's own.
    pattern: Option<Pattern>,
    path_prefix: String,
    failed: bool,
    slower_than_us: u64,
}

impl Wanted {
    pub(crate) fn of(request: &proto::TapRequest) -> Result<Self, Error> {
        if request.path_prefix.len() > MAX_PREFIX {
            let message = format!("the beginning of a path has at most {MAX_PREFIX} bytes");
            return Err(invalid("path_too_long", message));
        }
        let pattern = crate::local_api::pattern(&request.pattern)?;
        Ok(Self {
            pattern: Some(pattern).filter(|_| !request.pattern.is_empty()),
            path_prefix: request.path_prefix.clone(),
            failed: request.failed,
            slower_than_us: request.slower_than_us,
        })
    }

    fn means(&self, passed: &Passed) -> bool {
        self.means_service(passed)
            && passed.target.starts_with(&self.path_prefix)
            && (!self.failed || has_failed(passed))
            && micros(passed.duration) >= self.slower_than_us
    }

    fn means_service(&self, passed: &Passed) -> bool {
        let service = passed.service.as_ref();
        match &self.pattern {
            None => !is_the_nodes_own(passed),
            Some(pattern) => service.is_some_and(|service| pattern.matches_service(service)),
        }
    }
}

/// What services and people ask the node itself, all the time.
fn is_the_nodes_own(passed: &Passed) -> bool {
    let service = passed.service.as_ref();
    service.is_some_and(|service| service.is_node())
}

fn has_failed(passed: &Passed) -> bool {
    !passed.failure.is_empty() || passed.status >= 400 || passed.status == 0
}

/// What a tap hears of the requests that are wanted.
pub(crate) fn heard(
    tap: Tap,
    wanted: Wanted,
    clock: Clock,
) -> impl Stream<Item = proto::PassedRequest> + Send {
    stream::unfold((tap, wanted, clock), |(mut tap, wanted, clock)| async {
        loop {
            let request = match tap.next().await? {
                Heard::Passed(passed) if wanted.means(&passed) => told(&passed, &clock),
                Heard::Passed(_) => continue,
                Heard::Missed(missed) => proto::PassedRequest {
                    missed,
                    ..Default::default()
                },
            };
            return Some((request, (tap, wanted, clock)));
        }
    })
}

/// Writes a line for each request of the share that is told though nobody taps. What it must not
/// say is taken out as from every line.
pub(crate) async fn log(mut tap: Tap) {
    while let Some(heard) = tap.next().await {
        match heard {
            Heard::Passed(passed) if passed.is_sampled && !is_the_nodes_own(&passed) => {
                write(&passed);
            }
            Heard::Passed(_) => {}
            Heard::Missed(count) => {
                tracing::warn!(target: "hydrant::access", count, "requests passed too fast for the access log");
            }
        }
    }
}

fn write(passed: &Passed) {
    tracing::info!(
        target: "hydrant::access",
        method = passed.method,
        path = passed.target,
        host = passed.host,
        protocol = passed.protocol,
        status = passed.status,
        failure = some(passed.failure),
        service = passed.service.as_ref().map(tracing::field::display),
        endpoint = some(&passed.endpoint),
        instance = passed.instance.as_ref().map(tracing::field::display),
        version = passed.version.as_ref().map(tracing::field::display),
        server = some(&passed.server),
        attempts = passed.attempts,
        caller = some(&passed.caller),
        client = passed.client.map(tracing::field::display),
        bytes_in = passed.bytes_in,
        bytes_out = passed.bytes_out,
        duration_us = micros(passed.duration),
        trace_parent = some(&passed.trace_parent),
        correlation_id = some(&passed.correlation_id),
        "request"
    );
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn told(passed: &Passed, clock: &Clock) -> proto::PassedRequest {
    let clean = |text: &str| Redaction::shared().text(text).into_owned();
    let took_ms = i64::try_from(passed.duration.as_millis()).unwrap_or(i64::MAX);
    proto::PassedRequest {
        time_unix_ms: clock.unix_ms().saturating_sub(took_ms),
        method: passed.method.clone(),
        target: clean(&passed.target),
        host: clean(&passed.host),
        protocol: passed.protocol.into(),
        client: text(passed.client.as_ref()),
        caller: passed.caller.clone(),
        local: passed.local,
        service: text(passed.service.as_ref()),
        endpoint: passed.endpoint.clone(),
        instance: text(passed.instance.as_ref()),
        version: text(passed.version.as_ref()),
        instance_server: passed.server.clone(),
        attempts: passed.attempts,
        status: passed.status.into(),
        failure: passed.failure.into(),
        message: clean(&passed.message),
        bytes_in: passed.bytes_in,
        bytes_out: passed.bytes_out,
        answered_after_us: passed.answered_after.map_or(0, micros),
        duration_us: micros(passed.duration),
        trace_parent: passed.trace_parent.clone(),
        correlation_id: clean(&passed.correlation_id),
        ..Default::default()
    }
}

fn text(value: Option<&impl ToString>) -> String {
    value.map_or_else(String::new, ToString::to_string)
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wanted(pattern: &str) -> Wanted {
        let request = proto::TapRequest {
            pattern: pattern.into(),
            ..Default::default()
        };
        Wanted::of(&request).unwrap()
    }

    fn passed(service: &str, status: u16) -> Passed {
        Passed {
            service: service.parse().ok(),
            target: "/api/a/b?token=abc".into(),
            status,
            duration: Duration::from_millis(3),
            ..Passed::default()
        }
    }

    #[test]
    fn without_a_pattern_all_but_the_nodes_own_is_meant() {
        assert!(wanted("").means(&passed("api/a", 200)));
        assert!(wanted("").means(&passed("", 404)));
        assert!(!wanted("").means(&passed("service/node", 200)));
        assert!(wanted("node").means(&passed("service/node", 200)));
    }

    #[test]
    fn each_wish_leaves_out_the_rest() {
        let all = wanted("api/*");
        assert!(all.means(&passed("api/a", 200)) && !all.means(&passed("web/a", 200)));
        assert!(!all.means(&passed("", 404)));
        let path_prefix = "/api/b".to_owned();
        let elsewhere = Wanted {
            path_prefix,
            ..all.clone()
        };
        assert!(!elsewhere.means(&passed("api/a", 200)));
        let failed = Wanted {
            failed: true,
            ..all.clone()
        };
        let outcomes = [200, 304, 404, 503, 0].map(|status| failed.means(&passed("api/a", status)));
        assert_eq!(outcomes, [false, false, true, true, true]);
        let slow = Wanted {
            slower_than_us: 3_001,
            ..all
        };
        assert!(!slow.means(&passed("api/a", 200)));
    }

    #[test]
    fn secrets_are_not_told() {
        let told = told(&passed("api/a", 200), &Clock::default());
        assert!(!told.target.contains("abc"), "{}", told.target);
        assert!(told.target.starts_with("/api/a/b?token="));
    }
}
