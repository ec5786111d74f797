//! Instances that do worse than the others of their service: every second they are compared by what the
//! last ten have shown, and the worst are taken out for a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::ejection::{Outlier, Standing};
use crate::peer::Nearness;
use crate::service::{Instance, Service};
use crate::snapshot::Snapshot;

/// How often an instance is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The most instances that are looked at in one go: nobody waits for it.
const AT_A_TIME: usize = 512;
/// Fewer requests in ten seconds say nothing about an instance.
const ENOUGH: u64 = 20;
/// One that fails a larger share of its requests, and so many times the share of the others, is out.
const FAILS: f64 = 0.1;
const FAILS_MORE: f64 = 3.0;
/// One that takes so many times what the one in the middle of the others takes, and so much more, is out.
const SLOWER: f64 = 3.0;
const SLOWER_BY: Duration = Duration::from_millis(20);
/// With less than one instance in so many left, all are used.
const PANIC: usize = 3;

/// Looks at all services, a few at a time.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    began: Option<Moment>,
    services: VecDeque<Arc<Service>>,
}

/// What the last ten seconds have shown of an instance.
#[derive(Clone, Copy, Debug)]
struct Record<'s> {
    instance: &'s Instance,
    requests: u64,
    failures: u64,
    /// Nanoseconds; 0 when it has answered nothing yet.
    latency: f64,
    is_out: bool,
}

impl Judge {
    /// Goes on where it was.
    pub(crate) fn go_on(&mut self, snapshot: &Snapshot, now: Moment) {
        if self.services.is_empty() {
            if self.began.is_some_and(|began| now.since(began) < EVERY) {
                return;
            }
            self.began = Some(now);
            self.services.extend(snapshot.services().cloned());
        }
        let mut looked_at = 0;
        while looked_at < AT_A_TIME
            && let Some(service) = self.services.pop_front()
        {
            looked_at += service.instances.len() + 1;
            judge(&service, now);
        }
    }
}

/// Takes out of a service whatever is much worse than the rest, and says what has come and gone.
pub(crate) fn judge(service: &Service, now: Moment) {
    for nearness in Nearness::ALL {
        let near = |instance: &&Arc<Instance>| {
            instance.is_candidate() && instance.reach.nearness() == Some(nearness)
        };
        let records = service.instances.iter().filter(near);
        let records = records.map(|instance| Record::of(instance, now)).collect();
        judge_alike(service, records, now);
    }
    let candidates = service.instances.iter().filter(|i| i.is_candidate());
    panic_if_few_are_left(service, candidates.map(|i| &**i).collect(), now);
    for instance in &service.instances {
        tell(service, instance, now);
    }
}

/// Compares instances that are equally near, the one that fails most first, until half are out.
fn judge_alike(service: &Service, mut records: Vec<Record<'_>>, now: Moment) {
    let all = records.len();
    let mut out = records.iter().filter(|record| record.is_out).count();
    records.retain(|record| !record.is_out && record.requests >= ENOUGH);
    records.sort_unstable_by(|a, b| b.failing().total_cmp(&a.failing()));
    let mut rest = Rest::of(&records);
    for record in &records {
        if (out + 1) * 2 > all {
            return;
        }
        rest.requests -= record.requests;
        rest.failures -= record.failures;
        match record.compared_with(&rest) {
            Some(outlier) => {
                record.instance.live.ejection().exclude(outlier, now);
                record.say(service, outlier);
                rest.instances -= 1;
                out += 1;
            }
            None => {
                rest.requests += record.requests;
                rest.failures += record.failures;
            }
        }
    }
}

/// Those that one is compared with.
#[derive(Debug)]
struct Rest {
    instances: usize,
    requests: u64,
    failures: u64,
    /// Of the one in the middle.
    latency: f64,
}

impl Rest {
    fn of(records: &[Record<'_>]) -> Self {
        let mut latencies: Vec<_> = records.iter().map(|record| record.latency).collect();
        latencies.sort_unstable_by(f64::total_cmp);
        Self {
            instances: records.len(),
            requests: records.iter().map(|record| record.requests).sum(),
            failures: records.iter().map(|record| record.failures).sum(),
            latency: latencies
                .get(records.len() / 2)
                .copied()
                .unwrap_or_default(),
        }
    }
}

impl<'s> Record<'s> {
    fn of(instance: &'s Arc<Instance>, now: Moment) -> Self {
        let live = &instance.live;
        Self {
            instance,
            requests: live.used_slots().map(|slot| slot.rate.sum(now)).sum(),
            failures: live.used_slots().map(|slot| slot.failures.sum(now)).sum(),
            latency: live.mean_latency(),
            is_out: live.is_ejected(now),
        }
    }

    fn failing(&self) -> f64 {
        (self.failures as f64 / self.requests.max(1) as f64).min(1.0)
    }

    fn compared_with(&self, rest: &Rest) -> Option<Outlier> {
        if rest.requests == 0 {
            return None;
        }
        let usual = rest.failures as f64 / rest.requests as f64;
        if self.failing() > FAILS && self.failing() > FAILS_MORE * usual {
            return Some(Outlier::Failing);
        }
        let slow = self.latency > SLOWER * rest.latency
            && self.latency > rest.latency + SLOWER_BY.as_nanos() as f64;
        // Of two that differ the fast one may as well be the one that does nothing.
        (slow && rest.latency > 0.0 && rest.instances > 2).then_some(Outlier::Slow)
    }

    fn say(&self, service: &Service, outlier: Outlier) {
        let failing_percent = (self.failing() * 100.0) as u64;
        let latency_ms = (self.latency / 1e6) as u64;
        tracing::debug!(service = %service.id, instance = %self.instance.info.id, ?outlier,
            failing_percent, latency_ms, "an instance is much worse than the others");
    }
}

/// The few that are left could not carry all: those that are out for what they did are used too.
fn panic_if_few_are_left(service: &Service, candidates: Vec<&Instance>, now: Moment) {
    let standing = |instance: &&Instance| instance.live.ejection().true_standing(now);
    let refusing = |standing: &Standing| matches!(standing, Standing::Refusing { .. });
    let usable = candidates
        .iter()
        .map(standing)
        .filter(|standing| !refusing(standing));
    let (all, left) = usable.fold((0, 0), |(all, left), standing| {
        (all + 1, left + usize::from(standing.is_in()))
    });
    let panics = left * PANIC < all;
    for instance in &candidates {
        instance.live.ejection().pardon(panics);
    }
    if service.live.panics(panics) != panics {
        if panics {
            tracing::warn!(service = %service.id, left, all,
                "so many instances are out that all of them are used");
        } else {
            tracing::info!(service = %service.id, left, all, "those that are out are passed over again");
        }
    }
}

/// A line when an instance is found to be out, and one when it is back.
fn tell(service: &Service, instance: &Instance, now: Moment) {
    let ejection = instance.live.ejection();
    let standing = ejection.true_standing(now);
    let (service, id) = (&service.id, &instance.info.id);
    match (ejection.told(!standing.is_in()), standing.is_in()) {
        (true, true) => {
            tracing::info!(%service, instance = %id, "an instance is back in the choice");
        }
        (false, false) => {
            let why = standing.as_str();
            tracing::warn!(%service, instance = %id, why, "an instance is out of the choice");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use hydrant_contracts as contracts;
    use hydrant_contracts::{InstanceState, PathPrefix};

    use super::*;
    use crate::balance::{Chooser, Tried, pick};
    use crate::endpoint::EndpointId;
    use crate::instance::InFlight;
    use crate::priority::Priority;
    use crate::table::Table;

    const START: Moment = Moment::from_nanos(100_000_000_000);
    const ENDPOINT: EndpointId = EndpointId::from_number(1);

    fn service(instances: u16) -> Arc<Service> {
        let service: contracts::ServiceId = "api/t".parse().unwrap();
        let instance = |number: u16| contracts::Instance {
            id: format!("t-{number}").parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            server: "one".into(),
            address: ([127, 0, 0, 1], number + 1).into(),
            http2: false,
            methods: Vec::new(),
            prefixes: vec![PathPrefix::new(&service, "/api/t/", true).unwrap()],
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
            repeatable_paths: Vec::new(),
            service: service.clone(),
        };
        let instances: Vec<_> = (0..instances).map(instance).collect();
        let table = Table::of_one_server(&instances);
        let snapshot = Snapshot::empty(1).next(&table, START);
        Arc::clone(snapshot.service(&service).unwrap())
    }

    fn after(seconds: u64) -> Moment {
        START.after(Duration::from_secs(seconds))
    }

    /// Forty requests, of which one in so many fails.
    fn serve(service: &Service, at: usize, takes_ms: u64, failing: Option<u32>, now: Moment) {
        for number in 0..40 {
            let live = &*service.instances[at].live;
            let request = InFlight::begin(live, 0, ENDPOINT, now);
            let fails = failing.is_some_and(|one_in| number % one_in == 0);
            let status = if fails { 500 } else { 200 };
            request.answered(status, now.after(Duration::from_millis(takes_ms)));
        }
    }

    fn out(service: &Service, now: Moment) -> Vec<usize> {
        let all = service.instances.iter().enumerate();
        let out = all.filter(|(_, instance)| instance.live.is_ejected(now));
        out.map(|(at, _)| at).collect()
    }

    /// How many of a thousand requests each gets.
    fn shares(service: &Service, now: Moment) -> Vec<usize> {
        let chooser = Chooser {
            worker: 0,
            now,
            priority: Priority::Normal,
        };
        let (mut shares, mut rng) = (
            vec![0; service.instances.len()],
            fastrand::Rng::with_seed(1),
        );
        for _ in 0..1000 {
            let groups = [&*service.instances, &[], &[]];
            let picked = pick(&groups, &Tried::default(), chooser, &mut rng).unwrap();
            let is_it = |instance: &Arc<Instance>| Arc::ptr_eq(instance, picked.instance);
            shares[service.instances.iter().position(is_it).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn one_that_fails_often_is_out_and_comes_back_with_a_growing_share() {
        let service = service(4);
        (0..4).for_each(|at| serve(&service, at, 5, (at == 2).then_some(4), START));
        judge(&service, after(1));
        assert_eq!(out(&service, after(1)), [2]);
        assert_eq!(shares(&service, after(1))[2], 0);
        assert_eq!(out(&service, after(12)), [2]);
        assert_eq!(out(&service, after(14)), [0; 0], "its time is over");
        let early = shares(&service, after(14))[2];
        let later = shares(&service, after(30))[2];
        assert!(early > 0 && early < 120, "{early} at first");
        assert!(later > 180, "{later} in the end");
        // The same again keeps it out for longer.
        (0..4).for_each(|at| serve(&service, at, 5, (at == 2).then_some(4), after(30)));
        judge(&service, after(31));
        assert_eq!(out(&service, after(31 + 23)), [2]);
        assert_eq!(out(&service, after(31 + 25)), [0; 0]);
    }

    #[test]
    fn one_that_is_much_slower_is_out() {
        let service = service(4);
        (0..4).for_each(|at| serve(&service, at, if at == 1 { 200 } else { 30 }, None, START));
        judge(&service, after(1));
        assert_eq!(out(&service, after(1)), [1]);
    }

    #[test]
    fn a_little_worse_or_little_known_is_not_out() {
        let little_slower = service(4);
        (0..4).for_each(|at| {
            serve(
                &little_slower,
                at,
                if at == 1 { 15 } else { 3 },
                None,
                START,
            )
        });
        judge(&little_slower, after(1));
        assert_eq!(out(&little_slower, after(1)), [0; 0], "by less than 20 ms");
        let all_fail = service(4);
        (0..4).for_each(|at| serve(&all_fail, at, 5, Some(if at == 1 { 2 } else { 4 }), START));
        judge(&all_fail, after(1));
        assert_eq!(out(&all_fail, after(1)), [0; 0], "the others fail too");
        let unknown = service(2);
        serve(&unknown, 0, 5, None, START);
        for _ in 0..10 {
            let request = InFlight::begin(&*unknown.instances[1].live, 0, ENDPOINT, START);
            request.answered(500, START);
        }
        judge(&unknown, after(1));
        assert_eq!(out(&unknown, after(1)), [0; 0], "ten requests say nothing");
    }

    #[test]
    fn at_most_half_are_taken_out() {
        let service = service(5);
        (0..5).for_each(|at| {
            serve(
                &service,
                at,
                5,
                (at < 3).then_some(1 + at as u32 / 2),
                START,
            )
        });
        // The two that are well have had ten times as much.
        (0..20).for_each(|at| serve(&service, 3 + at % 2, 5, None, START));
        judge(&service, after(1));
        assert_eq!(out(&service, after(1)).len(), 2);
    }

    #[test]
    fn with_too_few_left_all_are_used_until_enough_are_back() {
        let service = service(4);
        for at in 0..3 {
            (0..5).for_each(|_| service.instances[at].live.silent(0, START));
        }
        assert_eq!(shares(&service, START), [0, 0, 0, 1000]);
        judge(&service, START);
        assert!(service.live.is_panicking());
        assert!(shares(&service, START).iter().all(|share| *share > 100));
        assert_eq!(
            out(&service, START),
            [0, 1, 2],
            "it is still said that they are out"
        );
        judge(&service, after(1));
        assert!(!service.live.is_panicking(), "they are back");
        // One that takes no connection is not used in any need.
        (0..3).for_each(|at| service.instances[at].live.eject(after(1)));
        judge(&service, after(1));
        assert_eq!(shares(&service, after(1)), [0, 0, 0, 1000]);
    }
}
