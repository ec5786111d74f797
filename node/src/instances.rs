//! The instances of the fleet, as they are shown to many readers while one writer changes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_contracts::{Instance, InstanceId, ServiceId};

/// The instances of one service, by id.
pub(crate) type OfService = BTreeMap<InstanceId, Arc<Instance>>;

/// The instances of the fleet by their service. Clones share what did not change between them, so
/// that a change of one instance among thousands copies one service.
#[derive(Clone, Default)]
pub(crate) struct Instances(Arc<BTreeMap<ServiceId, Arc<OfService>>>);

impl Instances {
    /// All, by service and then by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.0.values().flat_map(|service| service.values())
    }

    /// The services that have an instance.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&ServiceId, &Arc<OfService>)> {
        self.0.iter()
    }

    /// The instances of one service; `None` when it has none.
    pub(crate) fn of(&self, service: &ServiceId) -> Option<&Arc<OfService>> {
        self.0.get(service)
    }

    /// Puts what an instance is now, or removes it; tells whether that changed anything.
    pub(crate) fn set(
        &mut self,
        service: &ServiceId,
        id: &InstanceId,
        now: Option<&Arc<Instance>>,
    ) -> bool {
        let before = self.of(service).and_then(|service| service.get(id));
        if before == now {
            return false;
        }
        let services = Arc::make_mut(&mut self.0);
        let instances = Arc::make_mut(services.entry(service.clone()).or_default());
        match now {
            Some(now) => instances.insert(id.clone(), now.clone()),
            None => instances.remove(id),
        };
        if instances.is_empty() {
            services.remove(service);
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hydrant_contracts::InstanceState;

    use super::*;

    pub(crate) fn instance(service: &str, id: &str) -> Instance {
        Instance {
            id: id.parse().unwrap(),
            service: service.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            server: "one".into(),
            address: "127.0.0.1:4000".parse().unwrap(),
            http2: false,
            methods: vec![],
            prefixes: vec![],
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
            repeatable_paths: Vec::new(),
        }
    }

    fn set(instances: &mut Instances, service: &str, id: &str, is_there: bool) -> bool {
        let instance = Arc::new(instance(service, id));
        let now = is_there.then_some(&instance);
        instances.set(&service.parse().unwrap(), &id.parse().unwrap(), now)
    }

    #[test]
    fn a_change_copies_its_own_service_only() {
        let mut instances = Instances::default();
        set(&mut instances, "api/a", "a-1", true);
        set(&mut instances, "api/b", "b-1", true);
        let before = instances.clone();
        assert!(set(&mut instances, "api/b", "b-2", true));
        let (a, b) = ("api/a".parse().unwrap(), "api/b".parse().unwrap());
        let same = |service| {
            let (before, now) = (before.of(service).unwrap(), instances.of(service).unwrap());
            Arc::ptr_eq(before, now)
        };
        assert!(same(&a) && !same(&b));
        assert_eq!(before.iter().count(), 2);
        assert_eq!(instances.iter().count(), 3);
    }

    #[test]
    fn what_is_the_same_is_no_change_and_an_empty_service_is_gone() {
        let mut instances = Instances::default();
        assert!(set(&mut instances, "api/a", "a-1", true));
        assert!(!set(&mut instances, "api/a", "a-1", true));
        assert!(set(&mut instances, "api/a", "a-1", false));
        assert!(!set(&mut instances, "api/a", "a-1", false));
        assert_eq!(instances.services().count(), 0);
    }
}
