//! What the router would do with a request, without sending it. It runs the very functions that
//! route: `decide` and the choice of `balance`.

use hydrant_contracts::{TokenKey, Version, header};

use crate::balance::{self, Chooser, Tried, Verdict};
use crate::decide::{self, Listener, Route};
use crate::identity::Identities;
use crate::peer::{Nearness, Reach};
use crate::priority::Priority;
use crate::refusal::Refusal;
use crate::retry::Plan;
use crate::rule;
use crate::service::{Groups, Instance};
use crate::snapshot::Snapshot;

/// A request that is only thought of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path, with its query if it has one.
    pub path: String,
    /// Its headers. Of these the token and the server that is asked count, and what rules look at.
    pub headers: Vec<(String, String)>,
    /// Where it would come in.
    pub listener: Listener,
}

/// What would happen to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// `None` when it would be forwarded.
    pub refusal: Option<Refusal>,
    /// Why this service, as "api/mobile serves the prefix /api/mobile/v1/".
    pub rule: String,
    /// The rules of its traffic, in the order in which they are asked.
    pub rules: Vec<RuleVerdict>,
    /// `tier/service`, `operator` or `outside`.
    pub caller: String,
    /// Every instance of the service, the ones that can't be chosen too.
    pub candidates: Vec<Candidate>,
    /// The id of the instance that would be taken now.
    pub chosen: Option<String>,
    /// What the instance would see as path and query.
    pub upstream_path: String,
    /// What a failure would do, in words.
    pub on_failure: String,
}

/// What a rule makes of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleVerdict {
    /// Its name.
    pub name: String,
    /// The first that matches decides.
    pub decides: bool,
    /// What it decides and why, or why it does not.
    pub verdict: String,
}

/// An instance of the service that is addressed.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub instance: String,
    /// Where it answers, on its server.
    pub address: String,
    /// Its server.
    pub server: String,
    /// Where its server stands; empty when that is not known.
    pub zone: String,
    /// How near it is, in words.
    pub nearness: &'static str,
    /// The version that it runs.
    pub version: String,
    /// Empty when it may be chosen; else why it is not.
    pub excluded: String,
    /// What instances are compared by: seconds of latency × (requests there + 1).
    pub load: f64,
    /// Requests that are there, of the worker that is asked.
    pub in_flight: u64,
    /// The latency that is expected of it, in microseconds.
    pub latency_us: u64,
    /// Requests that wait there for an answer, over all workers.
    pub waiting: u64,
    /// How many may; `None` as long as it has no queue.
    pub limit: Option<u64>,
}

/// Explains what `chooser` would do with a request now. The same `rng` makes the same choice as
/// in routing. Nothing is changed, not even the trial of an ejected instance is taken.
pub fn explain(
    snapshot: &Snapshot,
    key: &TokenKey,
    request: &Request,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Explanation {
    let mut identities = Identities::new();
    let who = match identities.resolve(key, request.header(header::TOKEN)) {
        Ok(who) => who,
        Err(refusal) => return Explanation::refused("nobody".into(), refusal),
    };
    let asked = decide::Request {
        listener: request.listener,
        caller: &who.caller,
        method: request.method.as_bytes(),
        target: request.path.as_bytes(),
        server: request.header(header::SERVER),
        to: None,
    };
    let asks = request.header(header::PRIORITY);
    let priority = Priority::of(asks, request.listener, &who.caller);
    let chooser = Chooser {
        priority,
        ..chooser
    };
    let mut route = match decide::decide(snapshot, &asked) {
        Ok(route) => route,
        Err(refusal) => return Explanation::refused(who.text.to_string(), refusal),
    };
    let asked = rule::Asked {
        host: request
            .header("host")
            .and_then(|host| std::str::from_utf8(host).ok()),
        method: request.method.as_bytes(),
        target: request.path.as_bytes(),
        caller: &who.caller,
        address: None,
        fields: request,
        bare: route.bare,
    };
    let judged = rule::judge(&mut route, &asked, rng);
    let judged = judged.and_then(|rewritten| rule::would_admit(&route, &asked).map(|()| rewritten));
    let rewritten = judged.as_ref().ok().and_then(Option::as_deref);
    let thought = Thought {
        route: &route,
        target: rewritten.unwrap_or(request.path.as_bytes()),
        chooser,
    };
    let mut explanation = thought.explanation(who.text.to_string(), rng);
    let chosen = explanation.chosen.as_ref();
    let chosen = chosen.and_then(|id| route.service.instance(&id.parse().ok()?));
    explanation.rules = rule::verdicts(&route, &asked, chosen.map(|chosen| &**chosen));
    match judged {
        Err(elsewhere) => explanation.instead(elsewhere),
        Ok(_) => explanation,
    }
}

impl rule::Fields for Request {
    fn any(&self, name: &str, accepts: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut headers = self.headers.iter();
        headers.any(|(known, value)| known.eq_ignore_ascii_case(name) && accepts(value.as_bytes()))
    }
}

impl Request {
    fn header(&self, wanted: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_bytes())
    }
}

impl Explanation {
    fn refused(caller: String, refusal: Refusal) -> Self {
        Self {
            rule: refusal.message.to_string(),
            rules: Vec::new(),
            refusal: Some(refusal),
            caller,
            candidates: Vec::new(),
            chosen: None,
            upstream_path: String::new(),
            on_failure: "nothing is sent, so nothing is repeated".into(),
        }
    }

    /// The router answers instead of an instance.
    fn instead(self, elsewhere: Refusal) -> Self {
        Self {
            rule: self.rule,
            rules: self.rules,
            ..Self::refused(self.caller, elsewhere)
        }
    }
}

/// A request that has a route.
struct Thought<'a> {
    route: &'a Route<'a>,
    /// The path and query that it goes on with.
    target: &'a [u8],
    chooser: Chooser,
}

impl Thought<'_> {
    fn explanation(&self, caller: String, rng: &mut fastrand::Rng) -> Explanation {
        let (route, tried) = (self.route, Tried::default());
        let preferred = route.preferred(&tried, self.chooser);
        let picked = balance::pick(&preferred, &tried, self.chooser, rng);
        let chosen = picked.map(|picked| picked.instance);
        let arm = (route.ruled).and_then(|ruled| ruled.arm(route.endpoint, &tried, self.chooser));
        let arm = arm.map(|(version, _)| version);
        let refusal = chosen
            .is_none()
            .then(|| balance::none_left(route, &tried, self.chooser));
        let instances = match &route.only {
            Some(only) => std::slice::from_ref(*only),
            None => &route.service.instances,
        };
        let upstream_path = chosen.map_or(String::new(), |instance| {
            let (_, seen) = route.split(self.target, instance);
            String::from_utf8_lossy(seen).into_owned()
        });
        Explanation {
            rule: route.rule(),
            rules: Vec::new(),
            caller,
            candidates: instances
                .iter()
                .map(|instance| self.candidate(instance, arm, &preferred))
                .collect(),
            chosen: chosen.map(|instance| instance.info.id.to_string()),
            upstream_path,
            on_failure: on_failure(route, refusal.is_some()),
            refusal,
        }
    }

    fn candidate(
        &self,
        instance: &Instance,
        arm: Option<&Version>,
        preferred: &Groups<'_>,
    ) -> Candidate {
        let (live, Chooser { worker, now, .. }) = (&instance.live, self.chooser);
        let zone = instance.zone.as_ref();
        let nearness = instance.reach.nearness();
        Candidate {
            instance: instance.info.id.to_string(),
            address: live.address().to_string(),
            server: instance.info.server.clone(),
            zone: zone.map(ToString::to_string).unwrap_or_default(),
            nearness: nearness.map_or("unreachable", Nearness::as_str),
            version: instance.info.version.to_string(),
            excluded: exclusion(self.route, instance, arm, preferred, self.chooser),
            load: live.load(worker, now) / 1e9,
            in_flight: live.in_flight_of(worker),
            latency_us: live.expected_latency(worker, now).as_micros() as u64,
            waiting: live.waiting(),
            limit: live.limit(),
        }
    }
}

/// `arm` is the version that a rule sends the request to.
fn exclusion(
    route: &Route<'_>,
    instance: &Instance,
    arm: Option<&Version>,
    preferred: &Groups<'_>,
    chooser: Chooser,
) -> String {
    let mut preferred = preferred.iter().copied().flatten();
    let is_preferred = preferred.any(|one| one.live.key() == instance.live.key());
    if !instance.is_ready() {
        format!("its state is {}", instance.info.state.as_str())
    } else if matches!(instance.reach, Reach::Unreachable) {
        let server = &instance.info.server;
        format!("the node of its server {server} is not known here")
    } else if route.only.is_none() && !route.endpoint.has_candidate(instance) {
        format!("its version does not answer {}", route.endpoint.name)
    } else {
        match balance::verdict(instance, &Tried::default(), chooser) {
            Verdict::Eligible if arm.is_some_and(|arm| *arm != instance.info.version) => {
                "a rule sends the request to another version".into()
            }
            Verdict::Eligible if !is_preferred => "a rule sends the request elsewhere".into(),
            verdict => verdict.as_str().into(),
        }
    }
}

fn on_failure(route: &Route<'_>, refused: bool) -> String {
    let others = route.candidate_count().saturating_sub(1);
    let plan = Plan::of(route);
    let repeat = if refused {
        return "nothing is sent; instances that refuse are asked again within 5 seconds".into();
    } else if let Some(retry) = route.retry() {
        let unsafe_too = match route.repeatable {
            true => "",
            false => ", and only before it was sent, since a repeat is not safe",
        };
        return format!("by a rule it is {retry}, within the retry budget{unsafe_too}");
    } else if others == 0 {
        return "there is no other instance: the failure is answered with 502 or 503".into();
    } else if route.repeatable {
        "any failure before the answer begins"
    } else {
        "a failure before the request was sent"
    };
    let limit = match others.min(plan.tries - 1) {
        1 => "once".to_owned(),
        limit => format!("at most {limit} times"),
    };
    format!("{repeat} is repeated at another instance, {limit}, within the retry budget")
}
