use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts as contracts;
use hydrant_contracts::rules::RuleSet;
use hydrant_contracts::{InstanceId, NODE_SERVICE, ServerName, ServiceId, Tier};

use crate::clock::Moment;
use crate::endpoint::ServiceLive;
use crate::fleet::Fleet;
use crate::instance::Live;
use crate::peer::{Peer, Reach};
use crate::probe::ProbeQueue;
use crate::rule::{Rules, ServiceRules};
use crate::service::{Endpoint, Instance, Service};
use crate::table::Table;
use crate::totals::Totals;

/// How long a service without any instance stays known, so that its callers hear that it will
/// come back rather than that it does not exist.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Where requests go: immutable, and swapped whole. The next one shares with it what did not
/// change, so that a change of one instance among thousands costs one service.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was made of.
    instances: Vec<Arc<contracts::Instance>>,
    /// By tier, then by name.
    services: [Arc<ByName>; Tier::ALL.len()],
    /// Methods that are addressed without tier and service, and the services that answer them.
    bare: Arc<HashMap<Arc<str>, Vec<ServiceId>>>,
    fleet: Arc<Fleet>,
    /// The nodes of other servers as instances of `service/node`, for requests that ask one by the
    /// name of its server.
    nodes: HashMap<ServerName, Arc<Instance>>,
    /// What the rules were compiled of.
    rule_set: Arc<RuleSet>,
    rules: Arc<Rules>,
    /// No longer registered, but not yet without requests.
    departed: HashMap<InstanceId, Arc<Live>>,
    shared: Arc<Shared>,
}

type ByName = HashMap<Arc<[u8]>, Arc<Service>>;

/// What all snapshots of a router share.
#[derive(Debug)]
struct Shared {
    workers: usize,
    /// Services that are known without instances: they are to have some.
    expected: Vec<ServiceId>,
    probes: Arc<ProbeQueue>,
    totals: Totals,
}

/// What two tables differ in: the services that a change touches, with their new instances.
type Touched<'a> = BTreeMap<&'a ServiceId, Vec<&'a Arc<contracts::Instance>>>;

impl Snapshot {
    /// A snapshot without instances, the first of a router of so many workers.
    pub fn empty(workers: usize) -> Self {
        Self::expecting(workers, Vec::new(), Moment::now())
    }

    /// The first of a router whose server is to have these services.
    pub fn expecting(workers: usize, expected: Vec<ServiceId>, now: Moment) -> Self {
        let mut first = Self {
            instances: Vec::new(),
            services: Default::default(),
            bare: Arc::default(),
            fleet: Arc::default(),
            nodes: HashMap::new(),
            rule_set: Arc::default(),
            rules: Arc::default(),
            departed: HashMap::new(),
            shared: Arc::new(Shared {
                workers: workers.max(1),
                expected: expected.clone(),
                probes: Arc::default(),
                totals: Totals::new(workers.max(1)),
            }),
        };
        for id in &expected {
            first.put_service(id, Vec::new(), now);
        }
        first
    }

    /// The next snapshot. What this one knows of an instance that is still registered is kept.
    #[must_use]
    pub fn next(&self, table: &Table, now: Moment) -> Self {
        let (workers, probes) = (self.shared.workers, &self.shared.probes);
        let fleet = self.fleet.next(table, workers, probes);
        let rules = match Arc::ptr_eq(&self.rule_set, &table.rules) {
            true => Arc::clone(&self.rules),
            false => Arc::new(self.rules.next(&table.rules, workers)),
        };
        let touched = match fleet.is(&self.fleet) {
            true => self.touched(&table.instances, &rules),
            false => self.all(&table.instances),
        };
        let mut next = Self {
            instances: table.instances.clone(),
            services: self.services.clone(),
            bare: Arc::clone(&self.bare),
            fleet: Arc::new(fleet),
            nodes: HashMap::new(),
            rule_set: Arc::clone(&table.rules),
            rules: Arc::clone(&rules),
            departed: self.still_departing(),
            shared: Arc::clone(&self.shared),
        };
        for (id, instances) in touched {
            next.put_service(id, instances, now);
        }
        next.forget_services(now);
        next.nodes = next.nodes_of_others(&self.nodes);
        next
    }

    /// The services whose instances or rules differ from those of this snapshot. An instance is known
    /// by its place in memory: what did not change is not even looked at.
    fn touched<'a>(
        &'a self,
        instances: &'a [Arc<contracts::Instance>],
        rules: &'a Rules,
    ) -> Touched<'a> {
        let (gone, come) = differing(&self.instances, instances);
        let mut touched: Touched<'a> = BTreeMap::new();
        let ruled = rules.differing(&self.rules);
        for id in ruled.filter(|id| self.service(id).is_some()) {
            touched.entry(id).or_default();
        }
        for instance in gone.iter().chain(come) {
            touched.entry(&instance.service).or_default();
        }
        let gone: HashSet<_> = gone.iter().map(|gone| (&gone.service, &gone.id)).collect();
        for (id, instances) in &mut touched {
            let before = self.service(id);
            let before = before.into_iter().flat_map(|before| &before.instances);
            let kept = before.map(|instance| &instance.info);
            instances.extend(kept.filter(|info| !gone.contains(&(*id, &info.id))));
        }
        for instance in come {
            touched.entry(&instance.service).or_default().push(instance);
        }
        touched
    }

    /// Every service, also those that had instances before.
    fn all<'a>(&'a self, instances: &'a [Arc<contracts::Instance>]) -> Touched<'a> {
        let mut all: Touched<'a> = BTreeMap::new();
        for service in self.services() {
            all.entry(&service.id).or_default();
        }
        for instance in instances {
            all.entry(&instance.service).or_default().push(instance);
        }
        all
    }

    fn put_service(
        &mut self,
        id: &ServiceId,
        mut instances: Vec<&Arc<contracts::Instance>>,
        now: Moment,
    ) {
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|a, b| a.id == b.id);
        let before = self.service(id).cloned();
        let rules = self.rules.of(id).cloned();
        let is_same = |before: &Arc<Service>| {
            same_rules(&before.rules, &rules) && self.is_made_of(before, &instances)
        };
        if before.as_ref().is_some_and(is_same) {
            return;
        }
        let before = before.as_deref();
        let service = self.make_service(before, id, &instances, now);
        self.note_departed(before, &service);
        if !before.is_some_and(|before| before.has_methods_of(&service)) {
            self.change_bare_methods(before, Some(&service));
        }
        let by_name = Arc::make_mut(&mut self.services[id.tier as usize]);
        by_name.insert(id.name.as_str().as_bytes().into(), Arc::new(service));
    }

    fn is_made_of(&self, service: &Service, instances: &[&Arc<contracts::Instance>]) -> bool {
        let is_same = |(ours, theirs): (&Arc<Instance>, &&Arc<contracts::Instance>)| {
            let reach = self.fleet.reach(&theirs.server);
            ours.info == **theirs
                && ours.reach.is(&reach)
                && ours.zone.as_ref() == self.fleet.zone(&reach)
        };
        service.instances.len() == instances.len()
            && service.instances.iter().zip(instances).all(is_same)
    }

    fn make_service(
        &self,
        before: Option<&Service>,
        id: &ServiceId,
        instances: &[&Arc<contracts::Instance>],
        now: Moment,
    ) -> Service {
        let live = before.map_or_else(
            || ServiceLive::new(self.shared.workers),
            |service| Arc::clone(&service.live),
        );
        let instances = instances.iter().map(|info| {
            let reach = self.fleet.reach(&info.server);
            let known = before.and_then(|before| before.instance(&info.id));
            Arc::new(Instance {
                live: self.live_of(known, info, &reach),
                zone: self.fleet.zone(&reach).cloned(),
                reach,
                info: Arc::clone(info),
            })
        });
        let rules = self.rules.of(id).cloned();
        Service::new(id, instances.collect(), live, rules, before, now)
    }

    /// What is known of an instance, unless it has moved to another address or to another server.
    fn live_of(
        &self,
        known: Option<&Arc<Instance>>,
        info: &contracts::Instance,
        reach: &Reach,
    ) -> Arc<Live> {
        let near = matches!(reach, Reach::Own);
        let known = known.map(|instance| &instance.live);
        match known.or_else(|| self.departed.get(&info.id)) {
            Some(live) if live.address() == info.address && live.is_near() == near => {
                Arc::clone(live)
            }
            _ => {
                let probes = near.then(|| Arc::clone(&self.shared.probes));
                Live::new(info.address, self.shared.workers, probes)
            }
        }
    }

    fn note_departed(&mut self, before: Option<&Service>, service: &Service) {
        let before = before.into_iter().flat_map(|before| &before.instances);
        for instance in before {
            let (id, live) = (&instance.info.id, &instance.live);
            let kept = service.instance(id);
            let is_kept = kept.is_some_and(|kept| Arc::ptr_eq(&kept.live, live));
            if !is_kept && live.in_flight() > 0 {
                self.departed.insert(id.clone(), Arc::clone(live));
            }
        }
        for instance in &service.instances {
            let departed = self.departed.get(&instance.info.id);
            if departed.is_some_and(|departed| Arc::ptr_eq(departed, &instance.live)) {
                self.departed.remove(&instance.info.id);
            }
        }
    }

    fn still_departing(&self) -> HashMap<InstanceId, Arc<Live>> {
        let mut departed = self.departed.clone();
        departed.retain(|_, live| live.in_flight() > 0);
        departed
    }

    fn change_bare_methods(&mut self, before: Option<&Service>, now: Option<&Service>) {
        let bare = Arc::make_mut(&mut self.bare);
        if let Some(before) = before {
            for method in before.methods() {
                if let Some(services) = bare.get_mut(method) {
                    services.retain(|id| *id != before.id);
                    if services.is_empty() {
                        bare.remove(method);
                    }
                }
            }
        }
        if let Some(now) = now {
            for method in now.methods() {
                let services = bare.entry(Arc::clone(method)).or_default();
                let at = services.partition_point(|id| *id < now.id);
                services.insert(at, now.id.clone());
            }
        }
    }

    fn forget_services(&mut self, now: Moment) {
        let is_over = |since: Moment| now.since(since) >= REMEMBERED;
        let forgotten: Vec<_> = self
            .services()
            .filter(|service| service.gone_since().is_some_and(is_over))
            .filter(|service| !self.shared.expected.contains(&service.id))
            .cloned()
            .collect();
        for service in forgotten {
            self.change_bare_methods(Some(&service), None);
            let by_name = Arc::make_mut(&mut self.services[service.id.tier as usize]);
            by_name.remove(service.id.name.as_str().as_bytes());
        }
    }

    /// The node of another server answers what this one does.
    fn nodes_of_others(
        &self,
        before: &HashMap<ServerName, Arc<Instance>>,
    ) -> HashMap<ServerName, Arc<Instance>> {
        let node = self.service_named(Tier::Service, NODE_SERVICE.as_bytes());
        let Some(own) = node.and_then(|node| node.instances.first()) else {
            return HashMap::new();
        };
        let node_behind = |peer: &Arc<Peer>| {
            let reach = Reach::Peer(Arc::clone(peer));
            let known = before.get(&peer.name);
            let instance = match known.filter(|known| known.reach.is(&reach)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(self.node_behind(peer, own, reach)?),
            };
            Some((peer.name.clone(), instance))
        };
        self.fleet.peers().filter_map(node_behind).collect()
    }

    fn node_behind(&self, peer: &Peer, own: &Instance, reach: Reach) -> Option<Instance> {
        let id = format!("node-{}", peer.name.as_str().replace('.', "-"));
        let info = contracts::Instance {
            id: id.parse().ok()?,
            server: peer.name.to_string(),
            address: peer.address(),
            ..contracts::Instance::clone(&own.info)
        };
        Some(Instance {
            live: Live::new(info.address, self.shared.workers, None),
            info: Arc::new(info),
            zone: Some(peer.zone.clone()),
            reach,
        })
    }

    /// Every known service, those without instances too.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().flat_map(|by_name| by_name.values())
    }

    /// A service, by its id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.service_named(id.tier, id.name.as_str().as_bytes())
    }

    /// A service, by its name as it stands in a path.
    pub(crate) fn service_named(&self, tier: Tier, name: &[u8]) -> Option<&Arc<Service>> {
        self.services[tier as usize].get(name)
    }

    /// The services that answer a method.
    pub(crate) fn bare(&self, method: &str) -> &[ServiceId] {
        self.bare.get(method).map_or(&[], Vec::as_slice)
    }

    /// The page of the node that a path means: the page itself, or something below it.
    pub(crate) fn page(&self, path: &[u8]) -> Option<(&Service, &Endpoint)> {
        let node = self.service_named(Tier::Service, NODE_SERVICE.as_bytes())?;
        Some((node, node.page(path)?))
    }

    /// Requests at an instance over all workers, also of one that is no longer registered.
    pub fn in_flight(&self, id: &InstanceId) -> u64 {
        let departed = self.departed.get(id);
        let registered = self.services().filter_map(|service| service.instance(id));
        registered
            .map(|instance| &instance.live)
            .chain(departed)
            .map(|live| live.in_flight())
            .sum()
    }

    /// The node of another server.
    pub fn peer(&self, server: &str) -> Option<&Arc<Peer>> {
        self.fleet.peer(server)
    }

    /// The node of another server, as an instance of `service/node`.
    pub(crate) fn node_of(&self, server: &str) -> Option<&Arc<Instance>> {
        self.nodes.get(server)
    }

    pub(crate) fn is_own_server(&self, server: &str) -> bool {
        self.fleet.is_own(server)
    }

    /// The epoch of the rules by which requests are decided.
    pub fn rules_epoch(&self) -> u64 {
        self.rules.epoch
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many workers count requests.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// The ejected instances, for the task that brings them back.
    pub fn probes(&self) -> &Arc<ProbeQueue> {
        &self.shared.probes
    }

    /// What the router counts beside the instances.
    pub fn totals(&self) -> &Totals {
        &self.shared.totals
    }
}

fn same_rules(one: &Option<Arc<ServiceRules>>, other: &Option<Arc<ServiceRules>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// What is left of both lists without what they begin and end with alike.
fn differing<'a, T>(before: &'a [Arc<T>], now: &'a [Arc<T>]) -> (&'a [Arc<T>], &'a [Arc<T>]) {
    let is_same = |(one, other): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other);
    let alike = before.iter().zip(now).take_while(is_same).count();
    let (before, now) = (&before[alike..], &now[alike..]);
    let ends = before.iter().rev().zip(now.iter().rev());
    let alike = ends.take_while(is_same).count();
    (&before[..before.len() - alike], &now[..now.len() - alike])
}
