use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use hydrant_contracts as contracts;
use hydrant_contracts::{InstanceId, InstanceState, RepeatablePath, ServiceId, Version, ZoneName};

use crate::balance::{self, Chooser, Tried, Verdict};
use crate::clock::Moment;
use crate::endpoint::{EndpointId, ServiceLive};
use crate::instance::Live;
use crate::peer::{Nearness, Reach};
use crate::rule::{Compiled, ServiceRules};

/// A service and its endpoints.
#[derive(Debug)]
pub struct Service {
    /// Its tier and name.
    pub id: ServiceId,
    /// Every registered instance, ready or not, by id.
    pub instances: Box<[Arc<Instance>]>,
    /// What outlives this snapshot.
    pub live: Arc<ServiceLive>,
    methods: HashMap<Arc<str>, Endpoint>,
    /// The longest first.
    prefixes: Vec<Endpoint>,
    /// Pages of the node.
    pages: Vec<Endpoint>,
    gone_since: Option<Moment>,
    /// The rules of its traffic, if it has any.
    pub(crate) rules: Option<Arc<ServiceRules>>,
}

/// A registered instance and what the data path knows of it.
#[derive(Debug)]
pub struct Instance {
    /// What it registered.
    pub info: Arc<contracts::Instance>,
    /// How it is reached from here.
    pub reach: Reach,
    /// Where its server stands, as far as that is known.
    pub zone: Option<ZoneName>,
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
    pub idempotent: bool,
    /// The ready instances that answer it.
    pub candidates: Arc<Candidates>,
    /// Paths of a prefix where a repeat is safe.
    repeatable_paths: Box<[RepeatablePath]>,
    /// The candidates of each version, where a rule divides requests by version.
    by_version: Box<[(Version, Arc<Candidates>)]>,
    /// The candidates that rules want, where a rule pins requests to some or keeps them away from some.
    placed: Placed,
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

/// The ready instances that answer an endpoint, the nearest first.
#[derive(Debug, Default)]
pub struct Candidates {
    all: Box<[Arc<Instance>]>,
    /// Where those of each nearness end.
    ends: [usize; Nearness::ALL.len()],
}

/// Rules, and which of some candidates each wants.
type Placed = Arc<[(Arc<Compiled>, Arc<Candidates>)]>;

impl Candidates {
    fn new(instances: &[&Arc<Instance>]) -> Self {
        let mut all: Vec<_> = instances.iter().copied().cloned().collect();
        all.sort_by_key(|instance| instance.reach.nearness());
        let end_of = |nearness| {
            let until = |instance: &Arc<Instance>| instance.reach.nearness() <= Some(nearness);
            all.partition_point(until)
        };
        Self {
            ends: Nearness::ALL.map(end_of),
            all: all.into(),
        }
    }

    /// Whether any of them may be chosen, or could if it had less to do.
    pub(crate) fn is_well(&self, tried: &Tried, chooser: Chooser) -> bool {
        let mut all = self.all.iter();
        let is_well = |verdict| matches!(verdict, Verdict::Eligible | Verdict::Full);
        all.any(|instance| is_well(balance::verdict(instance, tried, chooser)))
    }

    /// Whether any of them may be chosen.
    pub(crate) fn has_room(&self, tried: &Tried, chooser: Chooser) -> bool {
        let mut all = self.all.iter();
        all.any(|instance| balance::verdict(instance, tried, chooser) == Verdict::Eligible)
    }

    /// By their nearness.
    pub fn groups(&self) -> Groups<'_> {
        let [server, zone, fleet] = self.ends;
        let all = &self.all;
        [&all[..server], &all[server..zone], &all[zone..fleet]]
    }
}

impl Deref for Candidates {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &[Arc<Instance>] {
        &self.all
    }
}

/// Candidates by their nearness, in the order of [`Nearness::ALL`].
pub type Groups<'s> = [&'s [Arc<Instance>]; Nearness::ALL.len()];

impl Service {
    /// A service of these instances, in the order of their ids. `before` is what it was.
    pub(crate) fn new(
        id: &ServiceId,
        instances: Vec<Arc<Instance>>,
        live: Arc<ServiceLive>,
        rules: Option<Arc<ServiceRules>>,
        before: Option<&Service>,
        now: Moment,
    ) -> Self {
        let mut service = Self {
            id: id.clone(),
            instances: instances.into(),
            live,
            methods: HashMap::new(),
            prefixes: Vec::new(),
            pages: Vec::new(),
            gone_since: None,
            rules,
        };
        if service.instances.is_empty() {
            let since = before.and_then(|service| service.gone_since);
            service.gone_since = since.or(Some(now));
            service.methods = before.map_or_else(HashMap::new, Service::unanswered);
        }
        service.add_endpoints();
        service
    }

    /// Since when it has had no instance.
    pub(crate) fn gone_since(&self) -> Option<Moment> {
        self.gone_since
    }

    /// A registered instance, by its id.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        let at = self
            .instances
            .binary_search_by(|instance| instance.info.id.cmp(id));
        at.ok().map(|at| &self.instances[at])
    }

    /// Its methods when no instance is left that answers them.
    fn unanswered(&self) -> HashMap<Arc<str>, Endpoint> {
        let nobody = Arc::<Candidates>::default();
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
        self.id.is_node()
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

    pub(crate) fn methods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.methods.keys()
    }

    pub(crate) fn has_methods_of(&self, other: &Service) -> bool {
        let mut methods = self.methods.keys();
        self.methods.len() == other.methods.len()
            && methods.all(|method| other.methods.contains_key(method))
    }

    /// The page that a path means: the page itself, or something below it.
    pub(crate) fn page(&self, path: &[u8]) -> Option<&Endpoint> {
        let is_below = |page: &&Endpoint| {
            let rest = path.strip_prefix(page.name.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || page.name.ends_with('/'))
        };
        self.pages.iter().find(is_below)
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
                draft.add(instance, own.len() - 1, method.idempotent);
            }
            for prefix in &instance.info.prefixes {
                let Some(kind) = prefix_kind(self.is_node(), &own, prefix) else {
                    continue;
                };
                let draft = drafts
                    .entry((kind, prefix.prefix.as_str()))
                    .or_insert_with(|| Draft::new(prefix.strip));
                draft.add(instance, prefix.strip, false);
                draft.keep_repeatable(&instance.info.repeatable_paths);
            }
        }
        let rules = self.rules.iter().flat_map(|rules| &rules.rules);
        let mut sets = CandidateSets {
            known: HashMap::new(),
            placed: HashMap::new(),
            placing: rules.filter(|rule| rule.has_place()).cloned().collect(),
            divided: self.rules.as_ref().is_some_and(|rules| rules.have_arms()),
        };
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
    idempotent: bool,
    /// What all versions call safe; `None` before the first is asked.
    repeatable_paths: Option<Vec<&'a RepeatablePath>>,
    ready: Vec<&'a Arc<Instance>>,
}

impl<'a> Draft<'a> {
    fn new(strip: usize) -> Self {
        Self {
            strip: Strip::Same(strip),
            idempotent: true,
            repeatable_paths: None,
            ready: Vec::new(),
        }
    }

    fn add(&mut self, instance: &'a Arc<Instance>, strip: usize, idempotent: bool) {
        if self.strip != Strip::Same(strip) {
            self.strip = Strip::ByInstance;
        }
        // Safe only if every version says so.
        self.idempotent &= idempotent;
        let listed_twice = self
            .ready
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, instance));
        if instance.is_candidate() && !listed_twice {
            self.ready.push(instance);
        }
    }

    /// As with methods: a path is safe only if every version says so.
    fn keep_repeatable(&mut self, of_instance: &'a [RepeatablePath]) {
        match &mut self.repeatable_paths {
            None => self.repeatable_paths = Some(of_instance.iter().collect()),
            Some(safe) => safe.retain(|path| of_instance.contains(path)),
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
            idempotent: self.idempotent,
            candidates: sets.share(&self.ready),
            by_version: sets.by_version(&self.ready),
            placed: sets.placed(&self.ready),
            repeatable_paths: self
                .repeatable_paths
                .iter()
                .flatten()
                .copied()
                .cloned()
                .collect(),
            strip: self.strip,
        }
    }
}

/// Most endpoints of a service have the same candidates: one list serves them all.
struct CandidateSets {
    known: HashMap<Vec<u64>, Arc<Candidates>>,
    placed: HashMap<Vec<u64>, Placed>,
    /// The rules that want some of them.
    placing: Vec<Arc<Compiled>>,
    /// A rule divides them by version.
    divided: bool,
}

impl CandidateSets {
    fn share(&mut self, instances: &[&Arc<Instance>]) -> Arc<Candidates> {
        let make = || Arc::new(Candidates::new(instances));
        Arc::clone(self.known.entry(keys(instances)).or_insert_with(make))
    }

    /// Those that each rule wants.
    fn placed(&mut self, instances: &[&Arc<Instance>]) -> Placed {
        if self.placing.is_empty() {
            return Placed::default();
        }
        let keys = keys(instances);
        if let Some(known) = self.placed.get(&keys) {
            return Arc::clone(known);
        }
        let placing = self.placing.clone().into_iter();
        let wanted = |rule: Arc<Compiled>| {
            let all = instances.iter().copied();
            let wanted: Vec<_> = all.filter(|instance| rule.wants(instance)).collect();
            let wanted = self.share(&wanted);
            (rule, wanted)
        };
        let placed: Placed = placing.map(wanted).collect();
        self.placed.insert(keys, Arc::clone(&placed));
        placed
    }

    /// Those of each version.
    fn by_version(&mut self, instances: &[&Arc<Instance>]) -> Box<[(Version, Arc<Candidates>)]> {
        if !self.divided {
            return Box::default();
        }
        let mut versions: BTreeMap<&Version, Vec<&Arc<Instance>>> = BTreeMap::new();
        for &instance in instances {
            let same = versions.entry(&instance.info.version).or_default();
            same.push(instance);
        }
        let versions = versions.into_iter();
        versions
            .map(|(version, instances)| (version.clone(), self.share(&instances)))
            .collect()
    }
}

fn keys(instances: &[&Arc<Instance>]) -> Vec<u64> {
    let instances = instances.iter();
    instances.map(|instance| instance.live.key()).collect()
}

impl Endpoint {
    fn with(&self, candidates: Arc<Candidates>) -> Self {
        Self {
            name: Arc::clone(&self.name),
            candidates,
            repeatable_paths: self.repeatable_paths.clone(),
            by_version: Box::default(),
            placed: Placed::default(),
            ..*self
        }
    }

    /// Whether a repeat of a request at `path` is safe, whatever its HTTP method.
    pub fn is_repeatable_at(&self, path: &[u8]) -> bool {
        self.idempotent || self.repeatable_paths.iter().any(|known| known.covers(path))
    }

    /// The candidates of a version, where a rule divides requests by version.
    pub(crate) fn of_version(&self, version: &Version) -> Option<&Candidates> {
        let mut versions = self.by_version.iter();
        let found = versions.find(|(known, _)| known == version);
        found.map(|(_, candidates)| &**candidates)
    }

    /// The candidates that a rule wants, where it wants some alone.
    pub(crate) fn wanted_by(&self, rule: &Arc<Compiled>) -> Option<&Candidates> {
        let mut placed = self.placed.iter();
        let found = placed.find(|(known, _)| Arc::ptr_eq(known, rule));
        found.map(|(_, wanted)| &**wanted)
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
