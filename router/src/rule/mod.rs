//! Rules of traffic as requests meet them: compiled once for each service, asked in order, and the first that
//! matches decides. A service without rules costs a request one branch.

mod arms;
mod matching;
mod rate;
mod source;
mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::bucket::{SLOTS, Slot};
use hydrant_contracts::rules::{Else, HeaderChanges, KeptRule, Limit, Retry, Rule, RuleSet};
use hydrant_contracts::{ServiceId, Version};

use crate::balance::{Chooser, Tried};
use crate::clock::Moment;
use crate::counter::Count;
use crate::decide::Route;
use crate::refusal::{Reason, Refusal};
use crate::service::{Candidates, Endpoint, Instance};
use crate::worker::Worker;
use arms::Arms;
pub(crate) use matching::{Asked, Fields};
use rate::Limiter;
pub(crate) use verdict::verdicts;

/// The rules of all services.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) epoch: u64,
    by_service: HashMap<ServiceId, Arc<ServiceRules>>,
}

/// The rules of one service, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct ServiceRules {
    pub(crate) rules: Box<[Arc<Compiled>]>,
}

/// A rule and what is known of it beforehand.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) kept: KeptRule,
    /// Its path behind `/TIER/SERVICE`: a method may be addressed without that.
    path: Option<Box<str>>,
    pub(crate) arms: Option<Arms>,
    draw: Box<str>,
    share_draw: Box<str>,
    /// What it has let through, where it has a limit.
    limiter: Option<Arc<Limiter>>,
    live: Arc<RuleLive>,
}

/// What outlives a change of the rules: counts, one row for each worker.
#[derive(Debug)]
struct RuleLive {
    workers: Box<[Row]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    decided: Count,
    diverted: Count,
    limited: Count,
}

/// The rule that decides over a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ruled<'s> {
    pub(crate) compiled: &'s Arc<Compiled>,
    /// Where the request falls among the people; by chance, when it does not say whose it is.
    pub(crate) slot: Slot,
    /// It says whose it is.
    pub(crate) sticks: bool,
}

impl Rules {
    /// The rules of a newer set. What did not change is shared with these, and counts go on.
    pub(crate) fn next(&self, set: &RuleSet, workers: usize) -> Self {
        let mut by_service: HashMap<ServiceId, Vec<&KeptRule>> = HashMap::new();
        for kept in &set.rules {
            let rules = by_service.entry(kept.rule.service.clone()).or_default();
            rules.push(kept);
        }
        let compiled = by_service.into_iter().map(|(service, kept)| {
            let before = self.of(&service);
            let same = before.filter(|before| before.is_made_of(&kept));
            let rules = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(ServiceRules::new(
                    before.map(|rules| &**rules),
                    &kept,
                    workers,
                )),
            };
            (service, rules)
        });
        Self {
            epoch: set.epoch,
            by_service: compiled.collect(),
        }
    }

    /// The rules of a service, if it has any.
    pub(crate) fn of(&self, service: &ServiceId) -> Option<&Arc<ServiceRules>> {
        self.by_service.get(service)
    }

    /// The services that have other rules here than there.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a ServiceId> {
        let same = |service: &ServiceId| match (self.of(service), other.of(service)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let all = self.by_service.keys().chain(other.by_service.keys());
        all.filter(move |service| !same(service))
    }

    /// Every rule.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Compiled>> {
        self.by_service.values().flat_map(|rules| &rules.rules)
    }
}

impl ServiceRules {
    fn new(before: Option<&Self>, kept: &[&KeptRule], workers: usize) -> Self {
        let compile = |kept: &&KeptRule| {
            let name = kept.rule.name.as_str();
            let before = before.and_then(|before| before.named(name));
            let live = before.map_or_else(|| RuleLive::new(workers), |before| before.live.clone());
            Arc::new(Compiled::new(kept, limiter(kept, before), live))
        };
        Self {
            rules: kept.iter().map(compile).collect(),
        }
    }

    fn is_made_of(&self, kept: &[&KeptRule]) -> bool {
        let ours = self.rules.iter().map(|compiled| &compiled.kept);
        ours.eq(kept.iter().copied())
    }

    fn named(&self, name: &str) -> Option<&Arc<Compiled>> {
        let mut rules = self.rules.iter();
        rules.find(|compiled| compiled.kept.rule.name.as_str() == name)
    }

    /// Whether any of them divides requests by version.
    pub(crate) fn have_arms(&self) -> bool {
        self.rules.iter().any(|compiled| compiled.arms.is_some())
    }

    /// The first rule that matches decides.
    fn judge(&self, asked: &Asked<'_>, rng: &mut fastrand::Rng) -> Option<Ruled<'_>> {
        let mut rules = self.rules.iter();
        let compiled = rules.find(|compiled| compiled.mismatch(asked).is_none())?;
        let drawn = match &compiled.arms {
            None => Slot::new(0),
            Some(_) => compiled.slot(asked),
        };
        let by_chance = || Slot::new(rng.u16(..SLOTS));
        Some(Ruled {
            compiled,
            sticks: drawn.is_some(),
            slot: drawn.or_else(by_chance)?,
        })
    }
}

/// The rule's limit. One that did not change counts on.
fn limiter(kept: &KeptRule, before: Option<&Arc<Compiled>>) -> Option<Arc<Limiter>> {
    let limit = kept.rule.limit.as_ref()?;
    let same = before.filter(|before| before.kept.rule.limit.as_ref() == Some(limit));
    let counts = same.and_then(|before| before.limiter.clone());
    Some(counts.unwrap_or_else(|| Arc::new(Limiter::new(limit))))
}

impl Compiled {
    fn new(kept: &KeptRule, limiter: Option<Arc<Limiter>>, live: Arc<RuleLive>) -> Self {
        let rule = &kept.rule;
        let own = format!("/{}", rule.service).len();
        let path = rule.matches.path.as_deref();
        let salt = |salt: Option<&str>, kind: &str| match salt {
            Some(salt) => salt.into(),
            None => format!("{kind}/{}", rule.name).into(),
        };
        let share = rule
            .matches
            .users
            .as_ref()
            .and_then(|users| users.salt.as_ref());
        Self {
            path: path.and_then(|path| path.get(own..)).map(Into::into),
            arms: kept.slots.as_ref().and_then(Arms::new),
            draw: salt(rule.salt.as_ref().map(|salt| salt.as_str()), "rule"),
            share_draw: salt(share.map(|salt| salt.as_str()), "share"),
            kept: kept.clone(),
            limiter,
            live,
        }
    }

    /// Where somebody falls; `None` when the request does not say whose it is.
    fn slot(&self, asked: &Asked<'_>) -> Option<Slot> {
        source::slot(self.kept.rule.sticky.as_ref()?, &self.draw, asked)
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.kept.rule.timeout.map(|span| span.duration())
    }

    /// Whether it wants some instances alone.
    pub(crate) fn has_place(&self) -> bool {
        self.kept.rule.pin.is_some() || self.kept.rule.avoid.is_some()
    }

    /// Nothing gets its requests but what it wants.
    pub(crate) fn is_strict(&self) -> bool {
        let pin = self.kept.rule.pin.as_ref();
        pin.is_some_and(|pin| pin.otherwise == Else::Refuse)
    }

    /// Whether the instance is where it wants its requests.
    pub(crate) fn wants(&self, instance: &Instance) -> bool {
        let Rule { pin, avoid, .. } = &self.kept.rule;
        let (server, zone) = (&instance.info.server, instance.zone.as_ref());
        pin.as_ref().is_none_or(|pin| pin.covers(&instance.info))
            && !avoid
                .as_ref()
                .is_some_and(|avoid| avoid.covers(server, zone))
    }

    /// What is tried again, and how often.
    pub(crate) fn retry(&self) -> Option<&Retry> {
        self.kept.rule.retry.as_ref()
    }

    /// What changes in the head of a request.
    pub(crate) fn request_changes(&self) -> Option<&HeaderChanges> {
        Some(&self.kept.rule.request).filter(|changes| !changes.is_none())
    }

    /// What changes in the head of an answer.
    pub(crate) fn answer_changes(&self) -> Option<&HeaderChanges> {
        Some(&self.kept.rule.answer).filter(|changes| !changes.is_none())
    }

    /// How many requests it decided over, how many of them went to another instance than it wants, and how many were
    /// too many.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let rows = self.live.workers.iter();
        let counts = rows.map(|row| [&row.decided, &row.diverted, &row.limited].map(Count::get));
        counts.fold([0; 3], |[a, b, c], [d, e, f]| [a + d, b + e, c + f])
    }

    /// The answer to a request that comes too soon.
    fn too_many(&self, limit: &Limit, wait: Duration) -> Refusal {
        let message = format!("the rule {} lets through {limit}", self.kept.rule.name);
        Refusal::new(Reason::RateLimited, message)
            .mend("wait as long as Retry-After says")
            .retry_in(wait)
    }

    /// Its path, as a request that is addressed like this one has it.
    fn own_path(&self, asked: &Asked<'_>) -> Option<&str> {
        match asked.bare {
            true => self.path.as_deref(),
            false => self.kept.rule.matches.path.as_deref(),
        }
    }

    /// The path and query that take the place of those of the request.
    fn rewritten(&self, asked: &Asked<'_>) -> Option<Vec<u8>> {
        let to = self.kept.rule.rewrite.as_ref()?;
        let rest = asked.target.get(self.own_path(asked)?.len()..)?;
        Some([to.as_bytes(), rest].concat())
    }

    fn redirect(&self, asked: &Asked<'_>) -> Option<Refusal> {
        let redirect = self.kept.rule.redirect.as_ref()?;
        let target = String::from_utf8_lossy(asked.target);
        let own = self.own_path(asked);
        let location = redirect.location(&target, own.map_or(0, str::len));
        let by = format!("the rule {} sends it to {location}", self.kept.rule.name);
        Some(Refusal::redirect(redirect.status, location, by))
    }
}

impl RuleLive {
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers.max(1)).map(|_| Row::default()).collect(),
        })
    }
}

impl<'s> Ruled<'s> {
    /// The version that the request goes to, with its ready instances: its own, or when none of those is well, another
    /// by the weights. `None` where the rule does not divide, and when no version of it is well.
    pub(crate) fn arm(
        &self,
        endpoint: &'s Endpoint,
        tried: &Tried,
        chooser: Chooser,
    ) -> Option<(&'s Version, &'s Candidates)> {
        let arms = self.compiled.arms.as_ref()?;
        let well = |arm: usize| {
            let version = arms.version(arm);
            let candidates = endpoint.of_version(version)?;
            candidates
                .is_well(tried, chooser)
                .then_some((version, candidates))
        };
        let other = || {
            let other = arms.instead_of(self.slot, |arm| well(arm).is_some())?;
            well(other)
        };
        well(arms.of(self.slot)).or_else(other)
    }

    /// Whether the instance runs another version than the request's own, or is not where the rule wants it.
    pub(crate) fn diverts_to(&self, instance: &Instance) -> bool {
        let arms = self.compiled.arms.as_ref();
        arms.is_some_and(|arms| *arms.version(arms.of(self.slot)) != instance.info.version)
            || !self.compiled.wants(instance)
    }

    /// Counts a request that `worker` sends to an instance.
    pub(crate) fn count(&self, worker: usize, instance: &Instance) {
        let row = &self.compiled.live.workers[worker];
        row.decided.add(1);
        row.diverted.add(u64::from(self.diverts_to(instance)));
    }

    /// The same in newer rules: whoever had a version keeps it, unless the rule has moved him.
    pub(crate) fn renewed<'n>(&self, rules: Option<&'n Arc<ServiceRules>>) -> Option<Ruled<'n>> {
        let compiled = rules?.named(self.compiled.kept.rule.name.as_str())?;
        Some(Ruled {
            compiled,
            slot: self.slot,
            sticks: self.sticks,
        })
    }
}

/// Lets the rules of the route's service decide over a request. What comes is the path and query that it goes on
/// with, where they are others; else the answer that it gets instead, as one that sends the client elsewhere.
pub(crate) fn judge(
    route: &mut Route<'_>,
    asked: &Asked<'_>,
    rng: &mut fastrand::Rng,
) -> Result<Option<Vec<u8>>, Refusal> {
    let rules = route.service.rules.as_deref();
    let Some(rules) = rules.filter(|_| route.only.is_none()) else {
        return Ok(None);
    };
    route.ruled = rules.judge(asked, rng);
    let Some(compiled) = route.ruled.map(|ruled| ruled.compiled) else {
        return Ok(None);
    };
    if let Some(elsewhere) = compiled.redirect(asked) {
        return Err(elsewhere);
    }
    let rewritten = compiled.rewritten(asked);
    if let Some(target) = &rewritten {
        let name = &compiled.kept.rule.name;
        route.rewrite(target, asked.method).map_err(|refusal| {
            let message = format!("by the rule {name}: {}", refusal.message);
            let message = message.into();
            Refusal { message, ..refusal }
        })?;
    }
    route.repeatable |= compiled.retry().is_some_and(|retry| retry.non_idempotent);
    Ok(rewritten)
}

/// The same for a request that is there: whom `worker` answers itself is counted.
pub(crate) fn apply(
    route: &mut Route<'_>,
    asked: &Asked<'_>,
    worker: &Worker,
) -> Result<Option<Vec<u8>>, Refusal> {
    let judged = judge(route, asked, &mut worker.rng());
    let admitted = judged.and_then(|rewritten| admit(route, asked, worker).map(|()| rewritten));
    admitted.inspect_err(|_| {
        if let Some(ruled) = &route.ruled {
            ruled.compiled.live.workers[worker.index].decided.add(1);
        }
    })
}

/// Counts a request where a rule has a limit.
fn admit(route: &Route<'_>, asked: &Asked<'_>, worker: &Worker) -> Result<(), Refusal> {
    let Some((compiled, limit, limiter)) = limit_of(route) else {
        return Ok(());
    };
    let passed = limiter.pass(&limit.by, asked, Moment::now());
    passed.map_err(|wait| {
        compiled.live.workers[worker.index].limited.add(1);
        compiled.too_many(limit, wait)
    })
}

/// What would become of it now.
pub(crate) fn would_admit(route: &Route<'_>, asked: &Asked<'_>) -> Result<(), Refusal> {
    let Some((compiled, limit, limiter)) = limit_of(route) else {
        return Ok(());
    };
    let passes = limiter.peek(&limit.by, asked, Moment::now());
    passes.map_err(|wait| compiled.too_many(limit, wait))
}

fn limit_of<'s>(route: &Route<'s>) -> Option<(&'s Compiled, &'s Limit, &'s Limiter)> {
    let compiled: &'s Compiled = route.ruled?.compiled;
    let limit = compiled.kept.rule.limit.as_ref()?;
    Some((compiled, limit, compiled.limiter.as_deref()?))
}
