use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::decide::Route;
use crate::ejection::{Outlier, Standing};
use crate::peer::{Nearness, Reach};
use crate::priority::Priority;
use crate::refusal::{Reason, Refusal, Unsent};
use crate::service::{Groups, Instance};

/// How long a request may try an instance that refused, before another may.
const TRIAL_LIMIT: Duration = Duration::from_secs(1);

/// What the load of an instance counts for, by its nearness, in the middle. Where requests queue,
/// latency and requests there grow together, so these are squares: an instance is left for one in
/// the zone when its requests wait about twice as long, and for one in another zone when they
/// wait about four times as long.
const HANDICAPS: [f64; Nearness::ALL.len()] = [1.0, 4.0, 16.0];
/// Each choice takes a power of the handicap between these, so that nowhere a little more load
/// turns all requests over.
const POWERS: (f64, f64) = (0.75, 1.5);
/// One choice in so many asks a farther instance of which nothing is known any more.
const EXPLORE: u32 = 128;
/// How often two are picked at random before all of a large group are looked at.
const SAMPLES: usize = 4;
/// The size of a group that is not large.
const SMALL: usize = 8;

/// The instances that one request was sent to, at most so many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    keys: [u64; Tried::MOST],
    len: usize,
}

impl Tried {
    /// The most instances that a request is sent to.
    pub const MOST: usize = 4;

    /// Notes an instance; it is never chosen again for this request.
    pub fn add(&mut self, instance: &Instance) {
        if self.len < Self::MOST {
            self.keys[self.len] = instance.live.key();
            self.len += 1;
        }
    }

    /// Whether the instance had its turn.
    pub fn contains(&self, instance: &Instance) -> bool {
        self.keys[..self.len].contains(&instance.live.key())
    }

    /// How many had their turn.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether this is the first try.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further instance may be tried.
    pub fn is_full(&self) -> bool {
        self.len == Self::MOST
    }
}

/// Who chooses, and when.
#[derive(Clone, Copy, Debug)]
pub struct Chooser {
    /// The worker, by whose own measurements instances are compared.
    pub worker: usize,
    /// The present.
    pub now: Moment,
    /// How much the request matters, when instances have nearly all that they can answer.
    pub priority: Priority,
}

/// Why an instance can't be chosen, or that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Among the candidates of choice.
    Eligible,
    /// It had this request already.
    Tried,
    /// As many requests wait there as it can answer, or as those of this priority may fill of it.
    Full,
    /// Its requests failed one after the other: taken when nothing better is left.
    Failing,
    /// It fails many more of its requests than the others, or takes much longer: taken when nothing
    /// better is left.
    Excluded {
        /// It takes longer.
        slow: bool,
    },
    /// It refuses connections.
    Refusing {
        /// Its next trial is due, so that a request may try it when nothing better is left.
        due: bool,
    },
    /// The node of its server refuses connections.
    PeerRefusing {
        /// Its next trial is due, as above.
        due: bool,
    },
    /// The node of its server kept silent about one request after the other: taken when nothing
    /// better is left.
    PeerFailing,
}

impl Verdict {
    fn is_eligible(self) -> bool {
        self == Verdict::Eligible
    }

    fn is_failing(self) -> bool {
        matches!(
            self,
            Verdict::Failing | Verdict::Excluded { .. } | Verdict::PeerFailing
        )
    }

    fn is_due_for_trial(self) -> bool {
        let due = [
            Verdict::Refusing { due: true },
            Verdict::PeerRefusing { due: true },
        ];
        due.contains(&self)
    }

    /// Why it is excluded, for people; empty when it is not.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Eligible => "",
            Verdict::Tried => "already tried",
            Verdict::Full => "full: as many requests wait there as it can answer",
            Verdict::Failing => Standing::Failing.as_str(),
            Verdict::Excluded { slow: false } => Standing::Excluded(Outlier::Failing).as_str(),
            Verdict::Excluded { slow: true } => Standing::Excluded(Outlier::Slow).as_str(),
            Verdict::Refusing { due } => Standing::Refusing { due }.as_str(),
            Verdict::PeerRefusing { .. } => "the node of its server refuses connections",
            Verdict::PeerFailing => {
                "the node of its server did not answer, one request after the other"
            }
        }
    }
}

/// What the choice makes of one instance.
pub fn verdict(instance: &Instance, tried: &Tried, chooser: Chooser) -> Verdict {
    let Chooser { now, worker, .. } = chooser;
    if tried.contains(instance) {
        return Verdict::Tried;
    }
    if let Reach::Peer(peer) = &instance.reach {
        match peer.standing(now) {
            Standing::In => {}
            Standing::Failing | Standing::Excluded(_) => return Verdict::PeerFailing,
            Standing::Refusing { due } => return Verdict::PeerRefusing { due },
        }
    }
    match instance.live.ejection().standing(now) {
        Standing::In if instance.live.has_room(worker, chooser.priority) => Verdict::Eligible,
        // What the node itself answers is never refused for load.
        Standing::In if instance.info.service.is_node() => Verdict::Eligible,
        Standing::In => Verdict::Full,
        Standing::Failing => Verdict::Failing,
        Standing::Excluded(outlier) => Verdict::Excluded {
            slow: outlier == Outlier::Slow,
        },
        Standing::Refusing { due } => Verdict::Refusing { due },
    }
}

/// Chooses an instance: of each nearness the less loaded of two that are picked at random, and of
/// these the least loaded, where those that are farther count for more than they have. Instances
/// that were tried or ejected are passed over; one that was ejected is tried when nothing better
/// is left and its trial is due. When none is left, or all have what they can answer, it refuses at
/// once: nothing waits here.
pub fn choose<'s>(
    route: &Route<'s>,
    tried: &Tried,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Result<&'s Arc<Instance>, Refusal> {
    let picked = pick(&route.preferred(tried, chooser), tried, chooser, rng);
    let chosen = picked
        .filter(|pick| !pick.is_trial || pick.claim(chooser.now))
        .map(|pick| pick.instance);
    chosen.ok_or_else(|| {
        let refusal = none_left(route, tried, chooser);
        for instance in route.candidates().into_iter().flatten() {
            instance.live.refused(chooser.worker, chooser.now);
        }
        refusal
    })
}

/// Whether one is left that is well and has room.
pub(crate) fn is_left(route: &Route<'_>, tried: &Tried, chooser: Chooser) -> bool {
    let mut all = route.candidates().into_iter().flatten();
    all.any(|instance| verdict(instance, tried, chooser).is_eligible())
}

/// What would be chosen; it changes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick<'s> {
    pub(crate) instance: &'s Arc<Instance>,
    /// It refused connections: this request may try whether it still does.
    pub(crate) is_trial: bool,
}

impl Pick<'_> {
    fn claim(&self, now: Moment) -> bool {
        let refusing = match &self.instance.reach {
            Reach::Peer(peer) => peer.live(),
            _ => &self.instance.live,
        };
        refusing.ejection().claim_trial(now, TRIAL_LIMIT)
    }
}

pub(crate) fn pick<'s>(
    groups: &Groups<'s>,
    tried: &Tried,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<Pick<'s>> {
    let found = |instance, is_trial| Pick { instance, is_trial };
    if let Some(instance) = pick_eligible(groups, tried, chooser, rng) {
        return Some(found(instance, false));
    }
    // Who has all that it can answer is well: nobody is sent to one that fails instead.
    if any_is_full(groups, tried, chooser) {
        return None;
    }
    let mut nearest = |wanted: fn(Verdict) -> bool| {
        let is = |instance: &Instance| wanted(verdict(instance, tried, chooser));
        groups
            .iter()
            .find_map(|group| pick_among(group, is, chooser, rng))
    };
    let failing = nearest(Verdict::is_failing).map(|instance| found(instance, false));
    failing.or_else(|| nearest(Verdict::is_due_for_trial).map(|instance| found(instance, true)))
}

fn any_is_full(groups: &Groups<'_>, tried: &Tried, chooser: Chooser) -> bool {
    let mut all = groups.iter().copied().flatten();
    all.any(|instance| verdict(instance, tried, chooser) == Verdict::Full)
}

/// The best of each group, and the best of these.
fn pick_eligible<'s>(
    groups: &Groups<'s>,
    tried: &Tried,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<&'s Arc<Instance>> {
    let bests = groups.map(|group| pick_in_group(group, tried, chooser, rng));
    let mut found = bests.iter().flatten();
    match (found.next(), found.next()) {
        (Some(only), None) => Some(only),
        (None, _) => None,
        _ => pick_across(&bests, chooser, rng),
    }
}

/// In constant time as long as most are eligible.
fn pick_in_group<'s>(
    group: &'s [Arc<Instance>],
    tried: &Tried,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<&'s Arc<Instance>> {
    let eligible = |instance: &Instance| verdict(instance, tried, chooser).is_eligible();
    // In a small group it costs less to look at all.
    let samples = if group.len() > SMALL { SAMPLES } else { 1 };
    let picked = (0..samples)
        .find_map(|_| pick_sampled(group, eligible, chooser, rng))
        .or_else(|| pick_among(group, eligible, chooser, rng))?;
    // Who has just come back gets a share that grows.
    match picked.live.ejection().share(chooser.now) {
        Some(share) if rng.f64() > share => {
            let settled = |instance: &Instance| {
                eligible(instance) && instance.live.ejection().share(chooser.now).is_none()
            };
            pick_among(group, settled, chooser, rng).or(Some(picked))
        }
        _ => Some(picked),
    }
}

/// The less loaded of two that are picked at random, if both are accepted.
fn pick_sampled<'s>(
    group: &'s [Arc<Instance>],
    accepts: impl Fn(&Instance) -> bool,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<&'s Arc<Instance>> {
    let (one, two) = match group.len() {
        0 => return None,
        1 => (0, 0),
        2 => (0, 1),
        n => {
            let one = rng.usize(..n);
            // Any but the first, each with the same probability.
            (one, (one + rng.usize(1..n)) % n)
        }
    };
    let (one, two) = (&group[one], &group[two]);
    (accepts(one) && accepts(two)).then(|| less_loaded(one, two, chooser, rng))
}

/// The best of several groups: the nearest, unless it is so slow or so busy that a farther one is
/// better in spite of its handicap. What is not known of the speed of one is assumed to be as
/// that of the nearest that is known. One choice in [`EXPLORE`] asks a farther one of which
/// nothing is known any more, so that it is noticed when those are faster.
fn pick_across<'s>(
    bests: &[Option<&'s Arc<Instance>>; Nearness::ALL.len()],
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<&'s Arc<Instance>> {
    let Chooser { worker, now, .. } = chooser;
    let mut farther = bests.iter().flatten().skip(1);
    if rng.u32(..EXPLORE) == 0
        && let Some(unknown) = farther.find(|far| far.live.is_forgotten(worker, now))
    {
        return Some(unknown);
    }
    let mut latencies = [0.0; Nearness::ALL.len()];
    let mut nearest = true;
    for (latency, best) in latencies.iter_mut().zip(bests) {
        let Some(best) = best else { continue };
        *latency = match nearest {
            // The nearest is forgiven a past slowness with time; the others are not taken on
            // hope, but when they are explored.
            true => best.live.latency(worker, now),
            false => best.live.last_latency(worker),
        };
        nearest = false;
    }
    let assumed = latencies.into_iter().find(|latency| *latency > 0.0);
    let power = POWERS.0 + (POWERS.1 - POWERS.0) * rng.f64();
    let costs = bests.iter().zip(latencies).zip(HANDICAPS);
    let costs = costs.filter_map(|((best, latency), handicap)| {
        let best = (*best)?;
        let latency = match latency > 0.0 {
            true => latency,
            false => assumed.unwrap_or(1.0),
        };
        let in_flight = best.live.in_flight_of(worker) as f64;
        Some((best, handicap.powf(power) * latency * (in_flight + 1.0)))
    });
    let (best, _) = costs.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
    Some(best)
}

/// The less loaded of two random ones among those that `accepts`, looking at all candidates.
fn pick_among<'s>(
    candidates: &'s [Arc<Instance>],
    accepts: impl Fn(&Instance) -> bool,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> Option<&'s Arc<Instance>> {
    let mut sample: [Option<&Arc<Instance>>; 2] = [None, None];
    let accepted = candidates.iter().filter(|instance| accepts(instance));
    for (seen, instance) in accepted.enumerate() {
        // A reservoir of two: each accepted one ends up in it with the same probability.
        let at = if seen < 2 { seen } else { rng.usize(..=seen) };
        if let Some(place) = sample.get_mut(at) {
            *place = Some(instance);
        }
    }
    match sample {
        [Some(one), Some(two)] => Some(less_loaded(one, two, chooser, rng)),
        [one, _] => one,
    }
}

fn less_loaded<'s>(
    one: &'s Arc<Instance>,
    two: &'s Arc<Instance>,
    chooser: Chooser,
    rng: &mut fastrand::Rng,
) -> &'s Arc<Instance> {
    let load = |instance: &Instance| instance.live.load(chooser.worker, chooser.now);
    let (load_of_one, load_of_two) = (load(one), load(two));
    let first = match load_of_one.total_cmp(&load_of_two) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => rng.bool(),
    };
    if first { one } else { two }
}

pub(crate) fn none_left(route: &Route<'_>, tried: &Tried, chooser: Chooser) -> Refusal {
    let (service, ready) = (&route.service.id, route.candidate_count());
    if any_is_full(&route.candidates(), tried, chooser) {
        return all_full(route, ready, chooser.priority);
    }
    if let Some(only) = route.only {
        return only_one_left(only);
    }
    let pin = route.ruled.filter(|ruled| ruled.compiled.is_strict());
    let pin = pin.and_then(|ruled| Some((ruled, ruled.compiled.kept.rule.pin.as_ref()?)));
    let message = if let Some((ruled, pin)) = pin {
        let name = &ruled.compiled.kept.rule.name;
        format!("the rule {name} pins it to {pin}, of which no instance of {service} takes it")
    } else if tried.is_empty() {
        format!("all {ready} ready instances of {service} refuse connections")
    } else {
        format!(
            "{} of {ready} ready instances of {service} were tried, and none is left",
            tried.len()
        )
    };
    Refusal::new(Reason::NoHealthyInstance, message)
        .mend(format!("`hydrant stats {service}` shows what fails"))
}

/// Told at once, before a queue builds.
fn all_full(route: &Route<'_>, ready: usize, priority: Priority) -> Refusal {
    let service = &route.service.id;
    let message = match priority {
        Priority::High => {
            format!(
                "the {ready} ready instances of {service} have all requests that they can answer"
            )
        }
        _ => format!(
            "the {ready} ready instances of {service} have nearly all requests that they can answer, \
             and the rest is for what matters more than {}",
            priority.as_str()
        ),
    };
    let refusal = Refusal::new(Reason::Overloaded, message).mend(format!(
        "come again later, or start more instances of {service}"
    ));
    match route.only {
        Some(_) => refusal.unsent(Unsent::Overloaded),
        None => refusal,
    }
}

/// The one that the request names takes it not.
fn only_one_left(only: &Instance) -> Refusal {
    if let Reach::Peer(peer) = &only.reach {
        let message = format!("the node of server {} does not answer", peer.name);
        return Refusal::new(Reason::NoHealthyInstance, message)
            .mend(format!("look at the node on {}", peer.name));
    }
    let message = format!("{} refuses connections", only.info.id);
    Refusal::new(Reason::NoHealthyInstance, message).unsent(Unsent::Refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hydrant_contracts as contracts;

    use super::*;
    use crate::endpoint::EndpointId;
    use crate::instance::{ErrorKind, InFlight, Live};

    fn candidates(count: u16) -> Vec<Arc<Instance>> {
        (0..count).map(candidate).collect()
    }

    fn candidate(number: u16) -> Arc<Instance> {
        candidate_of("api/web", number)
    }

    fn candidate_of(service: &str, number: u16) -> Arc<Instance> {
        let address = ([127, 0, 0, 1], number).into();
        let info = contracts::Instance {
            id: format!("i-{number}").parse().unwrap(),
            service: service.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            server: "one".into(),
            address,
            http2: false,
            methods: Vec::new(),
            prefixes: Vec::new(),
            state: contracts::InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
            repeatable_paths: Vec::new(),
        };
        let live = Live::new(address, 1, Some(Arc::default()));
        Arc::new(Instance {
            info: Arc::new(info),
            reach: Reach::Own,
            zone: None,
            live,
        })
    }

    fn chosen(
        candidates: &[Arc<Instance>],
        tried: &Tried,
        now: Moment,
        seed: u64,
    ) -> Option<usize> {
        let chooser = Chooser {
            worker: 0,
            now,
            priority: Priority::Normal,
        };
        let picked = pick(
            &[candidates, &[], &[]],
            tried,
            chooser,
            &mut fastrand::Rng::with_seed(seed),
        )?;
        candidates
            .iter()
            .position(|other| Arc::ptr_eq(other, picked.instance))
    }

    /// How often each is chosen out of a thousand times.
    fn shares(candidates: &[Arc<Instance>], now: Moment) -> BTreeMap<usize, usize> {
        let mut shares = BTreeMap::new();
        for seed in 0..1000 {
            let chosen = chosen(candidates, &Tried::default(), now, seed);
            chosen
                .into_iter()
                .for_each(|at| *shares.entry(at).or_default() += 1);
        }
        shares
    }

    fn serve(instance: &Instance, latency: Duration, now: Moment) {
        let request = InFlight::begin(&*instance.live, 0, EndpointId::default(), now);
        request.answered(200, now.after(latency));
    }

    fn fail(instance: &Instance, kind: ErrorKind, now: Moment) {
        InFlight::begin(&*instance.live, 0, EndpointId::default(), now).failed(kind, now);
    }

    #[test]
    fn equals_share_alike() {
        let shares = shares(&candidates(5), Moment::now());
        assert!(shares.len() == 5 && shares.values().all(|share| (140..260).contains(share)));
    }

    #[test]
    fn the_slow_and_the_busy_get_less() {
        let (candidates, now) = (candidates(2), Moment::now());
        serve(&candidates[0], Duration::from_millis(5), now);
        serve(&candidates[1], Duration::from_millis(50), now);
        let later = now.after(Duration::from_millis(60));
        assert_eq!(shares(&candidates, later), BTreeMap::from([(0, 1000)]));
        let busy: Vec<_> = (0..20)
            .map(|_| InFlight::begin(&*candidates[0].live, 0, EndpointId::default(), later))
            .collect();
        assert_eq!(shares(&candidates, later), BTreeMap::from([(1, 1000)]));
        drop(busy);
    }

    #[test]
    fn an_idle_instance_is_forgiven_its_slowness() {
        let (candidates, now) = (candidates(2), Moment::now());
        serve(&candidates[0], Duration::from_secs(1), now);
        let mut now = now.after(Duration::from_secs(1));
        for _ in 0..120 {
            serve(&candidates[1], Duration::from_millis(5), now);
            now = now.after(Duration::from_secs(1));
        }
        assert_eq!(shares(&candidates, now), BTreeMap::from([(0, 1000)]));
    }

    #[test]
    fn failing_fast_is_not_fast() {
        let (candidates, now) = (candidates(2), Moment::now());
        serve(&candidates[0], Duration::from_millis(50), now);
        fail(&candidates[1], ErrorKind::Closed, now);
        let later = now.after(Duration::from_millis(60));
        assert_eq!(shares(&candidates, later), BTreeMap::from([(0, 1000)]));
    }

    #[test]
    fn one_that_refuses_is_out_at_once_and_one_that_fails_again_and_again_too() {
        let (candidates, now) = (candidates(3), Moment::now());
        fail(&candidates[0], ErrorKind::Connect, now);
        (0..5).for_each(|_| fail(&candidates[1], ErrorKind::Closed, now));
        assert_eq!(shares(&candidates, now), BTreeMap::from([(2, 1000)]));
        // With nothing better left, one that only fails is better than one that refuses.
        let mut tried = Tried::default();
        tried.add(&candidates[2]);
        assert_eq!(chosen(&candidates, &tried, now, 1), Some(1));
        tried.add(&candidates[1]);
        assert_eq!(chosen(&candidates, &tried, now, 1), None);
        let due = now.after(Duration::from_millis(101));
        assert_eq!(
            chosen(&candidates, &tried, due, 1),
            Some(0),
            "its trial is due"
        );
    }

    #[test]
    fn what_is_not_its_fault_ejects_nobody() {
        let (candidates, now) = (candidates(1), Moment::now());
        for _ in 0..20 {
            fail(&candidates[0], ErrorKind::Local, now);
            // The caller gave it no time.
            fail(&candidates[0], ErrorKind::Timeout, now);
            drop(InFlight::begin(
                &*candidates[0].live,
                0,
                EndpointId::default(),
                now,
            ));
        }
        assert!(!candidates[0].live.is_ejected(now));
    }

    /// Two come for each that is answered, until the instance has a limit; tells when that is.
    fn crowd<'i>(instance: &'i Instance, now: &mut Moment) -> Vec<InFlight<&'i Live>> {
        for _ in 0..20 {
            serve(instance, Duration::from_millis(10), *now);
            *now = now.after(Duration::from_millis(20));
        }
        let mut waiting = std::collections::VecDeque::new();
        for _ in 0..200 {
            *now = now.after(Duration::from_millis(10));
            for _ in 0..2 {
                let live = &*instance.live;
                waiting.push_back(InFlight::begin(live, 0, EndpointId::default(), *now));
            }
            waiting.pop_front().unwrap().answered(200, *now);
        }
        waiting.into()
    }

    #[test]
    fn what_is_full_gets_no_more_and_nobody_is_sent_to_one_that_fails_instead() {
        let (candidates, mut now) = (candidates(2), Moment::from_nanos(1_000_000_000));
        (0..5).for_each(|_| fail(&candidates[1], ErrorKind::Closed, now));
        let waiting = crowd(&candidates[0], &mut now);
        (0..5).for_each(|_| fail(&candidates[1], ErrorKind::Closed, now));
        assert!(candidates[1].live.is_ejected(now));
        assert!(candidates[0].live.limit().is_some_and(|limit| limit < 200));
        assert_eq!(chosen(&candidates, &Tried::default(), now, 1), None);
        drop(waiting);
        assert_eq!(chosen(&candidates, &Tried::default(), now, 1), Some(0));
    }

    #[test]
    fn the_nodes_own_pages_are_never_refused_for_load() {
        let node = [candidate_of("service/node", 1)];
        let mut now = Moment::from_nanos(1_000_000_000);
        let _waiting = crowd(&node[0], &mut now);
        assert!(node[0].live.limit().is_some());
        assert_eq!(chosen(&node, &Tried::default(), now, 1), Some(0));
    }

    #[test]
    fn a_request_tries_no_instance_twice() {
        let (candidates, now) = (candidates(4), Moment::now());
        for seed in 0..100 {
            let mut tried = Tried::default();
            while let Some(at) = chosen(&candidates, &tried, now, seed) {
                assert!(!tried.contains(&candidates[at]));
                tried.add(&candidates[at]);
            }
            assert_eq!(tried.len(), 4);
        }
    }
}
