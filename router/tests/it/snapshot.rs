//! Snapshots that follow one another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_contracts::{Caller, Instance, InstanceState, Method};
use hydrant_router::decide::{Request, decide};
use hydrant_router::{Listener, Moment, Snapshot, Table};
use proptest::prelude::*;

use crate::balance::{server, table};
use crate::decide::instance;

/// What a snapshot says, for comparison.
fn told(snapshot: &Snapshot) -> Vec<String> {
    let services = snapshot.services().map(|service| {
        let instances = service.instances.iter().map(|instance| {
            let info = &instance.info;
            let nearness = instance.reach.nearness();
            format!("{} {} {:?} {nearness:?}", info.id, info.version, info.state)
        });
        let mut endpoints: Vec<_> = service
            .endpoints()
            .filter(|endpoint| !endpoint.candidates.is_empty())
            .map(|endpoint| {
                let ids = endpoint.candidates.iter().map(|i| i.info.id.as_str());
                format!("{}: {}", endpoint.name, ids.collect::<Vec<_>>().join(" "))
            })
            .collect();
        endpoints.sort();
        let instances: Vec<_> = instances.collect();
        format!(
            "{} {} {}",
            service.id,
            instances.join(", "),
            endpoints.join(", ")
        )
    });
    let mut all: Vec<_> = services.collect();
    for number in 0..4 {
        let target = format!("/s{number}.v1.S/Get");
        let request = Request {
            listener: Listener::Local,
            caller: &Caller::Known(hydrant_contracts::Identity::Operator),
            method: b"GET",
            target: target.as_bytes(),
            server: None,
            to: None,
        };
        let decided = decide(snapshot, &request).map(|route| route.service.id.to_string());
        all.push(format!(
            "{target} {:?}",
            decided.map_err(|refusal| refusal.reason)
        ));
    }
    all.sort();
    all
}

/// One change: of which service and instance, and to what.
type Step = (u16, u16, u8);

fn change(table: &mut Table, (service, number, to): Step) {
    let services = ["api/a", "api/b", "orchestration/a"];
    let mut made = instance(services[usize::from(service)], number);
    made.server = ["one", "two", "three", "four"][usize::from(number) % 4].into();
    let same = |other: &Arc<Instance>| (&other.service, &other.id) == (&made.service, &made.id);
    table.instances.retain(|other| !same(other));
    let method = |number| Method {
        path: format!("s{number}.v1.S/Get").parse().unwrap(),
        idempotent: true,
    };
    match to {
        0 => return,
        1 => made.state = InstanceState::Draining,
        2 => made.version = "2.0.0".parse().unwrap(),
        3 => made.methods = vec![method(0), method(service)],
        4 => made.methods = vec![method(3)],
        5 => made.address = ([127, 0, 0, 1], 9).into(),
        6 => {
            // Servers come and go.
            let name = &made.server;
            let known = table.servers.len();
            table.servers.retain(|server| server.name.as_str() != name);
            if table.servers.len() == known {
                table.servers.push(server(name, "a", 7));
            }
        }
        _ => {}
    }
    let at = table
        .instances
        .partition_point(|other| (&other.service, &other.id) < (&made.service, &made.id));
    table.instances.insert(at, Arc::new(made));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However a snapshot came about, it says what one says that was made at once.
    #[test]
    fn changes_one_by_one_lead_to_the_same_as_all_at_once(
        steps in proptest::collection::vec((0u16..3, 0u16..6, 0u8..9), 1..40),
        together in 1usize..4,
    ) {
        let (mut table, now) = (table([0; 4]), Moment::now());
        let mut snapshot = Snapshot::empty(1);
        for steps in steps.chunks(together) {
            for step in steps {
                change(&mut table, *step);
            }
            snapshot = snapshot.next(&table, now);
            let fresh = Snapshot::empty(1).next(&table, now);
            let with_instances = |all: Vec<String>| all.into_iter().filter(|line| line.contains("s-") || line.contains("-a-") || line.contains("-b-")).collect::<Vec<_>>();
            prop_assert_eq!(with_instances(told(&snapshot)), with_instances(told(&fresh)));
        }
    }
}

/// Equal instances that were read again are the same: nothing known of them is lost.
#[test]
fn instances_that_were_read_again_change_nothing() {
    let (first, again) = (table([2, 2, 0, 0]), table([2, 2, 0, 0]));
    let one = Snapshot::empty(1).next(&first, Moment::now());
    let two = one.next(&again, Moment::now());
    let id = "api/files".parse().unwrap();
    assert!(Arc::ptr_eq(
        one.service(&id).unwrap(),
        two.service(&id).unwrap()
    ));
    let mut fewer = again;
    fewer.instances.remove(0);
    let three = two.next(&fewer, Moment::now());
    assert_eq!(three.service(&id).unwrap().instances.len(), 3);
}

/// What is known of a server's node is kept as long as it is the same run of it.
#[test]
fn a_node_that_was_started_anew_is_not_judged_by_its_past() {
    let (mut table, now) = (table([0, 1, 0, 0]), Moment::now());
    let first = Snapshot::empty(1).next(&table, now);
    first.peer("two").unwrap().eject(now);
    let same = first.next(&table, now);
    assert!(same.peer("two").unwrap().is_ejected(now));
    let two = table
        .servers
        .iter()
        .position(|server| server.name.as_str() == "two");
    let mut anew = (*table.servers[two.unwrap()]).clone();
    anew.zone = "b".parse().unwrap();
    table.servers[two.unwrap()] = Arc::new(anew.clone());
    let moved = same.next(&table, now);
    assert!(
        moved.peer("two").unwrap().is_ejected(now),
        "only its zone is another"
    );
    anew.since_unix_ms += 1;
    table.servers[two.unwrap()] = Arc::new(anew);
    let next = moved.next(&table, now);
    assert!(!next.peer("two").unwrap().is_ejected(now));
    let keys = [&first, &next].map(|snapshot| snapshot.peer("two").unwrap().key());
    assert_ne!(keys[0], keys[1], "and its old connections are not used");
}

/// A thousand services of ten instances each, on four servers.
fn large() -> Table {
    let mut large = table([0; 4]);
    for service in 0..1000 {
        for number in 0..10 {
            let mut made = instance(&format!("api/s{service:03}"), number);
            made.server = ["one", "two", "three", "four"][usize::from(number) % 4].into();
            made.methods = (0..10)
                .map(|method| Method {
                    path: format!("s{service}.v1.S/Method{method}").parse().unwrap(),
                    idempotent: true,
                })
                .collect();
            large.instances.push(Arc::new(made));
        }
    }
    large
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    resident.unwrap_or_default() * 4096
}

#[test]
fn a_change_among_ten_thousand_instances_costs_one_service() {
    let mut table = large();
    let (before, start) = (resident(), Instant::now());
    let mut snapshot = Snapshot::empty(2).next(&table, Moment::now());
    let (built, held) = (start.elapsed(), resident().saturating_sub(before));
    let mut longest = Duration::ZERO;
    let start = Instant::now();
    for round in 0..100 {
        let at = round * 97 % table.instances.len();
        let mut changed = Instance::clone(&table.instances[at]);
        changed.state = InstanceState::Draining;
        table.instances[at] = Arc::new(changed);
        let begun = Instant::now();
        let next = snapshot.next(&table, Moment::now());
        longest = longest.max(begun.elapsed());
        let shared = next.services().filter(|service| {
            let before = snapshot.service(&service.id);
            before.is_some_and(|before| Arc::ptr_eq(before, service))
        });
        assert_eq!(shared.count(), 999);
        snapshot = next;
    }
    let each = start.elapsed() / 100;
    eprintln!(
        "10,000 instances: built in {built:?}, {} KiB; a change takes {each:?}, at most {longest:?}",
        held / 1024
    );
}
