use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts as contracts;
use hydrant_contracts::{InstanceId, InstanceState, NODE_SERVICE, ServerName, ServiceId, Tier};

use crate::clock::Moment;
use crate::endpoint::{EndpointId, ServiceLive};
use crate::instance::Live;
use crate::peer::{Peer, Reach};
use crate::probe::ProbeQueue;
use crate::table::Table;
use crate::totals::Totals;

/// How long a service without any instance stays known, so that its callers hear that it will
/// come back rather than that it does not exist.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Where requests go: immutable, built whole from the registered instances, and swapped whole.
#[derive(Debug)]
pub struct Snapshot {
    /// By tier, then by name.
    services: [HashMap<Box<[u8]>, Arc<Service>>; Tier::ALL.len()],
    /// Methods that are addressed without tier and service.
    bare: HashMap<Arc<str>, Bare>,
    /// The node's own pages, as `/health`.
    pages: Vec<(Arc<Service>, Arc<str>)>,
    own: Option<ServerName>,
    /// The nodes of other servers.
    peers: HashMap<ServerName, Neighbour>,
    live: HashMap<InstanceId, Arc<Live>>,
    /// No longer registered, but not yet without requests.
    departed: HashMap<InstanceId, Arc<Live>>,
    shared: Arc<Shared>,
}

/// Another server of the fleet.
#[derive(Debug)]
struct Neighbour {
    peer: Arc<Peer>,
    /// Its node as an instance of `service/node`, for requests that ask it by its server's name.
    node: Option<Arc<Instance>>,
}

/// What all snapshots of a router share.
#[derive(Debug)]
struct Shared {
    workers: usize,
    probes: Arc<ProbeQueue>,
    totals: Totals,
}

/// A service and its endpoints.
#[derive(Debug)]
pub struct Service {
    /// Its tier and name.
    pub id: ServiceId,
    /// Every registered instance, ready or not, by id.
    pub instances: Vec<Arc<Instance>>,
    /// What outlives this snapshot.
    pub live: Arc<ServiceLive>,
    methods: HashMap<Arc<str>, Endpoint>,
    /// The longest first.
    prefixes: Vec<Endpoint>,
    /// Pages of the node.
    pages: Vec<Endpoint>,
    gone_since: Option<Moment>,
}

/// A registered instance and what the data path knows of it.
#[derive(Debug)]
pub struct Instance {
    /// What it registered.
    pub info: Arc<contracts::Instance>,
    /// How it is reached from here.
    pub reach: Reach,
    /// Its load, counters and ejection.
    pub live: Arc<Live>,
}

/// A method, or a prefix of paths, and who answers it.
#[derive(Debug)]
pub struct Endpoint {
    /// Its number, for counters.
    pub id: EndpointId,
    /// `package.Service/Method`, or the prefix.
    pub name: Arc<str>,
    /// Method, prefix or page.
    pub kind: EndpointKind,
    /// A repeat is safe, whatever the HTTP method.
    pub no_side_effects: bool,
    /// The ready instances that answer it.
    pub candidates: Arc<[Arc<Instance>]>,
    strip: Strip,
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// A Protobuf method.
    Method,
    /// A prefix of paths.
    Prefix,
    /// A page of the node, outside of any service's paths.
    Page,
}

/// How many bytes an endpoint cuts off the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strip {
    /// The same for all candidates.
    Same(usize),
    /// Versions differ: the chosen instance's registration tells.
    ByInstance,
}

/// Who answers a method that is addressed without tier and service.
#[derive(Debug)]
pub(crate) enum Bare {
    One(Arc<Service>),
    Ambiguous(Vec<ServiceId>),
}

impl Snapshot {
    /// A snapshot without instances, the first of a router of so many workers.
    pub fn empty(workers: usize) -> Self {
        Self {
            services: Default::default(),
            bare: HashMap::new(),
            pages: Vec::new(),
            own: None,
            peers: HashMap::new(),
            live: HashMap::new(),
            departed: HashMap::new(),
            shared: Arc::new(Shared {
                workers: workers.max(1),
                probes: Arc::default(),
                totals: Totals::new(workers.max(1)),
            }),
        }
    }

    /// The next snapshot. What this one knows of an instance that is still registered is kept.
    #[must_use]
    pub fn next(&self, table: &Table, now: Moment) -> Self {
        let mut next = Self {
            shared: Arc::clone(&self.shared),
            own: Some(table.own.clone()),
            peers: self.next_peers(table),
            ..Self::empty(1)
        };
        for (id, instances) in self.with_remembered(&table.instances) {
            next.add_service(self, id, instances, now);
        }
        next.departed = self.departing(&next);
        next
    }

    fn next_peers(&self, table: &Table) -> HashMap<ServerName, Neighbour> {
        let mut servers = table.servers.iter();
        let own = servers.find(|server| server.name == table.own);
        let own_zone = own.map(|own| &own.zone);
        let mut instances = table.instances.iter();
        let own_node = instances
            .find(|instance| is_node(&instance.service) && instance.server == table.own.as_str());
        let others = table
            .servers
            .iter()
            .filter(|server| server.name != table.own);
        let neighbours = others.filter_map(|server| {
            let before = self.peers.get(&server.name);
            let (workers, probes) = (self.shared.workers, &self.shared.probes);
            let known = before.map(|before| &before.peer);
            let peer = Peer::of(server, own_zone, known, workers, probes)?;
            let node = own_node.and_then(|own| self.node_behind(&peer, own, before));
            Some((server.name.clone(), Neighbour { peer, node }))
        });
        neighbours.collect()
    }

    /// The node of another server answers what this one does.
    fn node_behind(
        &self,
        peer: &Arc<Peer>,
        own: &contracts::Instance,
        before: Option<&Neighbour>,
    ) -> Option<Arc<Instance>> {
        let before = before.filter(|before| Arc::ptr_eq(&before.peer, peer));
        if let Some(node) = before.and_then(|before| before.node.as_ref()) {
            return Some(Arc::clone(node));
        }
        let info = contracts::Instance {
            id: format!("node-{}", peer.name.as_str().replace('.', "-"))
                .parse()
                .ok()?,
            server: peer.name.to_string(),
            address: peer.address(),
            ..own.clone()
        };
        Some(Arc::new(Instance {
            live: Live::new(info.address, self.shared.workers, None),
            info: Arc::new(info),
            reach: Reach::Peer(Arc::clone(peer)),
        }))
    }

    fn reach(&self, info: &contracts::Instance) -> Reach {
        let is_own = |own: &ServerName| own.as_str() == info.server;
        if self.own.as_ref().is_some_and(is_own) {
            return Reach::Own;
        }
        let peer = self.peers.get(info.server.as_str());
        peer.map_or(Reach::Unreachable, |neighbour| {
            Reach::Peer(Arc::clone(&neighbour.peer))
        })
    }

    /// The registered instances by service, and the services that had instances before.
    fn with_remembered<'a>(
        &'a self,
        instances: &'a [Arc<contracts::Instance>],
    ) -> BTreeMap<&'a ServiceId, Vec<&'a Arc<contracts::Instance>>> {
        let mut services: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut seen = HashSet::with_capacity(instances.len());
        for instance in instances
            .iter()
            .filter(|instance| seen.insert(&instance.id))
        {
            services
                .entry(&instance.service)
                .or_default()
                .push(instance);
        }
        for service in self.services() {
            services.entry(&service.id).or_default();
        }
        services
    }

    fn add_service(
        &mut self,
        previous: &Snapshot,
        id: &ServiceId,
        mut instances: Vec<&Arc<contracts::Instance>>,
        now: Moment,
    ) {
        instances.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let before = previous.service(id);
        let service = match before {
            Some(before) if !instances.is_empty() && self.is_made_of(before, &instances) => {
                Arc::clone(before)
            }
            _ => Arc::new(self.make_service(previous, id, &instances, now)),
        };
        let forgotten = |since: Moment| now.since(since) >= REMEMBERED;
        if service.gone_since.is_some_and(forgotten) {
            return;
        }
        for instance in &service.instances {
            self.live
                .insert(instance.info.id.clone(), Arc::clone(&instance.live));
        }
        self.add_bare_methods(&service);
        for page in &service.pages {
            self.pages
                .push((Arc::clone(&service), Arc::clone(&page.name)));
        }
        let by_name = &mut self.services[id.tier as usize];
        by_name.insert(id.name.as_str().as_bytes().into(), service);
    }

    fn is_made_of(&self, service: &Service, instances: &[&Arc<contracts::Instance>]) -> bool {
        let is_same = |(ours, theirs): (&Arc<Instance>, &&Arc<contracts::Instance>)| {
            ours.info == **theirs && ours.reach.is(&self.reach(theirs))
        };
        service.instances.len() == instances.len()
            && service.instances.iter().zip(instances).all(is_same)
    }

    fn make_service(
        &self,
        previous: &Snapshot,
        id: &ServiceId,
        instances: &[&Arc<contracts::Instance>],
        now: Moment,
    ) -> Service {
        let before = previous.service(id);
        let live = before.map_or_else(
            || ServiceLive::new(self.shared.workers),
            |service| Arc::clone(&service.live),
        );
        let instances = instances.iter().map(|info| {
            let reach = self.reach(info);
            Arc::new(Instance {
                live: self.live_of(previous, info, &reach),
                reach,
                info: Arc::clone(info),
            })
        });
        let mut service = Service {
            id: id.clone(),
            instances: instances.collect(),
            live,
            methods: HashMap::new(),
            prefixes: Vec::new(),
            pages: Vec::new(),
            gone_since: None,
        };
        if service.instances.is_empty() {
            let since = before.and_then(|service| service.gone_since);
            service.gone_since = since.or(Some(now));
            service.methods = before.map_or_else(HashMap::new, |before| before.unanswered());
        }
        service.add_endpoints();
        service
    }

    /// What is known of an instance, unless it has moved to another address or to another server.
    fn live_of(&self, previous: &Snapshot, info: &contracts::Instance, reach: &Reach) -> Arc<Live> {
        let near = matches!(reach, Reach::Own);
        let known = previous
            .live
            .get(&info.id)
            .or_else(|| previous.departed.get(&info.id));
        match known {
            Some(live) if live.address() == info.address && live.is_near() == near => {
                Arc::clone(live)
            }
            _ => {
                let probes = near.then(|| Arc::clone(&self.shared.probes));
                Live::new(info.address, self.shared.workers, probes)
            }
        }
    }

    fn add_bare_methods(&mut self, service: &Arc<Service>) {
        for method in service.methods.keys() {
            let claim = self.bare.get_mut(method);
            match claim {
                None => {
                    let one = Bare::One(Arc::clone(service));
                    self.bare.insert(Arc::clone(method), one);
                }
                Some(Bare::Ambiguous(ids)) => ids.push(service.id.clone()),
                Some(claim @ Bare::One(_)) => {
                    let Bare::One(first) = claim else { continue };
                    let ids = vec![first.id.clone(), service.id.clone()];
                    *claim = Bare::Ambiguous(ids);
                }
            }
        }
    }

    fn departing(&self, next: &Snapshot) -> HashMap<InstanceId, Arc<Live>> {
        self.live
            .iter()
            .chain(&self.departed)
            .filter(|(id, live)| {
                let kept = next
                    .live
                    .get(*id)
                    .is_some_and(|kept| Arc::ptr_eq(kept, live));
                !kept && live.in_flight() > 0
            })
            .map(|(id, live)| (id.clone(), Arc::clone(live)))
            .collect()
    }

    /// Every known service, those without instances too.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().flat_map(HashMap::values)
    }

    /// A service, by its id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.service_named(id.tier, id.name.as_str().as_bytes())
    }

    /// A service, by its name as it stands in a path.
    pub(crate) fn service_named(&self, tier: Tier, name: &[u8]) -> Option<&Arc<Service>> {
        self.services[tier as usize].get(name)
    }

    pub(crate) fn bare(&self, method: &str) -> Option<&Bare> {
        self.bare.get(method)
    }

    /// The page of the node that a path means: the page itself, or something below it.
    pub(crate) fn page(&self, path: &[u8]) -> Option<(&Arc<Service>, &Endpoint)> {
        let is_below = |name: &str| {
            let rest = path.strip_prefix(name.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || name.ends_with('/'))
        };
        let (service, name) = self.pages.iter().find(|(_, name)| is_below(name))?;
        let endpoint = service.pages.iter().find(|page| page.name == *name)?;
        Some((service, endpoint))
    }

    /// Requests at an instance over all workers, also of one that is no longer registered.
    pub fn in_flight(&self, id: &InstanceId) -> u64 {
        let of =
            |map: &HashMap<InstanceId, Arc<Live>>| map.get(id).map_or(0, |live| live.in_flight());
        of(&self.live) + of(&self.departed)
    }

    /// The node of another server.
    pub fn peer(&self, server: &str) -> Option<&Arc<Peer>> {
        self.peers.get(server).map(|neighbour| &neighbour.peer)
    }

    /// The node of another server, as an instance of `service/node`.
    pub(crate) fn node_of(&self, server: &str) -> Option<&Arc<Instance>> {
        self.peers.get(server)?.node.as_ref()
    }

    pub(crate) fn is_own_server(&self, server: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.as_str() == server)
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

impl Service {
    /// Its methods when no instance is left that answers them.
    fn unanswered(&self) -> HashMap<Arc<str>, Endpoint> {
        let nobody: Arc<[Arc<Instance>]> = Arc::new([]);
        let without = |(name, method): (&Arc<str>, &Endpoint)| {
            let candidates = Arc::clone(&nobody);
            (Arc::clone(name), method.with(candidates))
        };
        self.methods.iter().map(without).collect()
    }

    /// Whether any instance gets requests.
    pub fn has_ready_instance(&self) -> bool {
        self.instances
            .iter()
            .any(|instance| instance.is_candidate())
    }

    /// The node's own local API.
    pub fn is_node(&self) -> bool {
        is_node(&self.id)
    }

    /// A method, by `package.Service/Method`.
    pub fn method(&self, path: &str) -> Option<&Endpoint> {
        self.methods.get(path)
    }

    /// The endpoint with the longest prefix of `path` that a ready instance answers.
    pub fn prefix(&self, path: &[u8]) -> Option<&Endpoint> {
        let mut prefixes = self.prefixes.iter();
        prefixes.find(|endpoint| path.starts_with(endpoint.name.as_bytes()))
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.methods
            .values()
            .chain(&self.prefixes)
            .chain(&self.pages)
    }

    fn add_endpoints(&mut self) {
        let own = format!("/{}/", self.id);
        let mut drafts: HashMap<(EndpointKind, &str), Draft<'_>> = HashMap::new();
        for instance in &self.instances {
            for method in &instance.info.methods {
                let key = (EndpointKind::Method, method.path.as_str());
                // A method's path follows "/tier/service".
                let draft = drafts
                    .entry(key)
                    .or_insert_with(|| Draft::new(own.len() - 1));
                draft.add(instance, own.len() - 1, method.no_side_effects);
            }
            for prefix in &instance.info.prefixes {
                let Some(kind) = prefix_kind(self.is_node(), &own, prefix) else {
                    continue;
                };
                let draft = drafts
                    .entry((kind, prefix.prefix.as_str()))
                    .or_insert_with(|| Draft::new(prefix.strip));
                draft.add(instance, prefix.strip, false);
            }
        }
        let mut sets = CandidateSets::default();
        let mut endpoints: Vec<_> = drafts
            .into_iter()
            .map(|((kind, name), draft)| draft.finish(kind, name, &self.live, &mut sets))
            .collect();
        endpoints.sort_unstable_by(|a, b| (b.name.len(), &a.name).cmp(&(a.name.len(), &b.name)));
        for endpoint in endpoints {
            match endpoint.kind {
                EndpointKind::Method => {
                    self.methods.insert(Arc::clone(&endpoint.name), endpoint);
                }
                // A longer prefix that is not ready yet does not hide a shorter one that is.
                EndpointKind::Prefix if endpoint.candidates.is_empty() => {}
                EndpointKind::Prefix => self.prefixes.push(endpoint),
                EndpointKind::Page => self.pages.push(endpoint),
            }
        }
    }
}

fn is_node(service: &ServiceId) -> bool {
    service.tier == Tier::Service && service.name.as_str() == NODE_SERVICE
}

/// What a registered prefix is. One outside of its service's paths is ignored, unless it is a
/// page of the node.
fn prefix_kind(is_node: bool, own: &str, prefix: &contracts::PathPrefix) -> Option<EndpointKind> {
    let name = prefix.prefix.as_str();
    let cut_is_whole = prefix.strip == 0 || name.as_bytes().get(prefix.strip) == Some(&b'/');
    if !cut_is_whole {
        None
    } else if name.starts_with(own) {
        Some(EndpointKind::Prefix)
    } else if is_node && name.len() > 1 && name.starts_with('/') && prefix.strip == 0 {
        Some(EndpointKind::Page)
    } else {
        None
    }
}

/// An endpoint while its instances are gathered.
struct Draft<'a> {
    strip: Strip,
    no_side_effects: bool,
    ready: Vec<&'a Arc<Instance>>,
}

impl<'a> Draft<'a> {
    fn new(strip: usize) -> Self {
        Self {
            strip: Strip::Same(strip),
            no_side_effects: true,
            ready: Vec::new(),
        }
    }

    fn add(&mut self, instance: &'a Arc<Instance>, strip: usize, no_side_effects: bool) {
        if self.strip != Strip::Same(strip) {
            self.strip = Strip::ByInstance;
        }
        // Safe only if every version says so.
        self.no_side_effects &= no_side_effects;
        let listed_twice = self
            .ready
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, instance));
        if instance.is_candidate() && !listed_twice {
            self.ready.push(instance);
        }
    }

    fn finish(
        self,
        kind: EndpointKind,
        name: &str,
        live: &ServiceLive,
        sets: &mut CandidateSets,
    ) -> Endpoint {
        Endpoint {
            id: live.endpoint(name),
            name: name.into(),
            kind,
            no_side_effects: self.no_side_effects,
            candidates: sets.share(&self.ready),
            strip: self.strip,
        }
    }
}

/// Most endpoints of a service have the same candidates: one list serves them all.
#[derive(Default)]
struct CandidateSets(HashMap<Vec<u64>, Arc<[Arc<Instance>]>>);

impl CandidateSets {
    fn share(&mut self, instances: &[&Arc<Instance>]) -> Arc<[Arc<Instance>]> {
        let keys = instances
            .iter()
            .map(|instance| instance.live.key())
            .collect();
        let make = || {
            instances
                .iter()
                .map(|instance| Arc::clone(instance))
                .collect()
        };
        Arc::clone(self.0.entry(keys).or_insert_with(make))
    }
}

impl Endpoint {
    fn with(&self, candidates: Arc<[Arc<Instance>]>) -> Self {
        Self {
            name: Arc::clone(&self.name),
            candidates,
            ..*self
        }
    }

    /// Whether the instance is ready and answers it.
    pub fn has_candidate(&self, instance: &Instance) -> bool {
        let mut candidates = self.candidates.iter();
        candidates.any(|candidate| candidate.live.key() == instance.live.key())
    }

    /// How many bytes of the path are cut off before `instance` sees it.
    pub fn strip(&self, instance: &Instance) -> usize {
        match self.strip {
            Strip::Same(bytes) => bytes,
            Strip::ByInstance => {
                let mut prefixes = instance.info.prefixes.iter();
                prefixes
                    .find(|prefix| prefix.prefix == *self.name)
                    .map_or(0, |prefix| prefix.strip)
            }
        }
    }
}

impl Instance {
    /// Whether it takes new requests.
    pub fn is_ready(&self) -> bool {
        self.info.state == InstanceState::Ready
    }

    /// Whether it takes new requests and can be reached from here.
    pub fn is_candidate(&self) -> bool {
        self.is_ready() && !matches!(self.reach, Reach::Unreachable)
    }
}
