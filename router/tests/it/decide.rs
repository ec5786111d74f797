//! Who may reach what, where a request goes, and that an explanation tells the truth.

use std::time::{Duration, Instant};

use hydrant_contracts::{
    Caller, Identity, Instance, InstanceState, Method, PathPrefix, RepeatablePath, ServiceId,
    TokenKey, header,
};
use hydrant_router::balance::{Chooser, Tried, choose};
use hydrant_router::decide::{Request, decide};
use hydrant_router::explain::{self, explain};
use hydrant_router::{
    EndpointId, ErrorKind, InFlight, Listener, Moment, Priority, Reason, Snapshot, Table,
};
use proptest::prelude::*;

/// A ready instance that answers on a port of its own, written `tier/service` and a number.
pub(crate) fn instance(service: &str, number: u16) -> Instance {
    let service: ServiceId = service.parse().unwrap();
    Instance {
        id: format!("{}-{}-{number}", service.tier, service.name)
            .parse()
            .unwrap(),
        version: "1.0.0".parse().unwrap(),
        server: "one".into(),
        address: ([127, 0, 0, 1], 10_000 + number).into(),
        http2: false,
        methods: Vec::new(),
        prefixes: vec![PathPrefix::new(&service, &format!("/{service}/"), true).unwrap()],
        state: InstanceState::Ready,
        detail: String::new(),
        since_unix_ms: 0,
        pid: 0,
        repeatable_paths: vec![
            RepeatablePath::new(&service, &format!("/{service}/safe/")).unwrap(),
        ],
        service,
    }
}

fn method(path: &str, idempotent: bool) -> Method {
    Method {
        path: path.parse().unwrap(),
        idempotent,
    }
}

fn page(prefix: &str) -> PathPrefix {
    PathPrefix {
        prefix: prefix.into(),
        strip: 0,
    }
}

fn snapshot(instances: &[Instance]) -> Snapshot {
    Snapshot::empty(1).next(&Table::of_one_server(instances), Moment::now())
}

fn service(id: &str) -> Caller {
    Caller::Known(Identity::Service(id.parse().unwrap()))
}

/// Where a GET goes: `service endpoint` and what is cut off, or the reason of the refusal.
fn where_to(snapshot: &Snapshot, listener: Listener, caller: &Caller, target: &str) -> String {
    let request = Request {
        listener,
        caller,
        method: b"GET",
        target: target.as_bytes(),
        server: None,
        to: None,
    };
    match decide(snapshot, &request) {
        Ok(route) => {
            let (cut, _) = route.split(target.as_bytes(), &route.endpoint.candidates[0]);
            let cut = String::from_utf8_lossy(cut).into_owned();
            format!("{} {} -{cut}", route.service.id, route.endpoint.name)
        }
        Err(refusal) => refusal.reason.as_str().into(),
    }
}

fn fleet() -> Snapshot {
    let mut node = instance("service/node", 1);
    node.methods = vec![method("hydrant.v1.Node/Health", true)];
    node.prefixes = ["/health", "/metrics", "/console"].map(page).into();
    let mut customers = instance("service/customers", 2);
    customers.methods = vec![method("shop.v1.Customers/Get", true)];
    let mut files = instance("api/files", 3);
    files.methods = vec![
        method("files.v1.Files/Get", false),
        method("health.v1.Health/Check", true),
    ];
    files.prefixes = vec![
        PathPrefix::new(&files.service, "/api/files/", true).unwrap(),
        PathPrefix::new(&files.service, "/api/files/raw/", false).unwrap(),
    ];
    let mut mobile = instance("api/mobile", 4);
    mobile.methods = vec![method("health.v1.Health/Check", true)];
    let mut starting = instance("api/starting", 5);
    starting.state = InstanceState::Starting;
    snapshot(&[
        node,
        customers,
        files,
        mobile,
        starting,
        instance("orchestration/signup", 6),
    ])
}

#[test]
fn every_caller_reaches_what_its_tier_may_call_and_nothing_else() {
    let snapshot = fleet();
    let outside = Caller::Outside;
    let operator = Caller::Known(Identity::Operator);
    let (api, orchestration, lowest) = (
        service("api/mobile"),
        service("orchestration/signup"),
        service("service/customers"),
    );
    let targets = [
        "/api/mobile/x",
        "/orchestration/signup/x",
        "/service/customers/x",
        "/service/node/hydrant.v1.Node/Health",
        "/shop.v1.Customers/Get",
        "/hydrant.v1.Node/Health",
        "/health",
        "/metrics",
        "/console/a",
    ];
    let (public, local) = (Listener::Public, Listener::Local);
    for (listener, caller, reached) in [
        (public, &outside, "+--------"),
        (public, &api, "+--------"),
        (public, &lowest, "+--------"),
        (public, &operator, "+--------"),
        (local, &outside, "+-----++-"),
        (local, &api, "-++++++++"),
        (local, &orchestration, "--+++++++"),
        (local, &lowest, "---+-++++"),
        (local, &operator, "+++++++++"),
    ] {
        let found: String = targets
            .iter()
            .map(
                |target| match where_to(&snapshot, listener, caller, target).as_str() {
                    "tier_refused" => '-',
                    reason if Reason::ALL.iter().any(|known| known.as_str() == reason) => '?',
                    _ => '+',
                },
            )
            .collect();
        assert_eq!(found, reached, "{listener:?} {caller}");
    }
}

#[test]
fn refusals_name_the_rule() {
    let snapshot = fleet();
    let refusal = |listener, caller: &Caller, target: &str| {
        let target = target.as_bytes();
        let request = Request {
            listener,
            caller,
            method: b"GET",
            target,
            server: None,
            to: None,
        };
        decide(&snapshot, &request)
            .unwrap_err()
            .message
            .into_owned()
    };
    let local = Listener::Local;
    for (message, part) in [
        (
            refusal(local, &service("service/a"), "/service/b/"),
            "service calls no other service",
        ),
        (
            refusal(local, &service("orchestration/a"), "/api/b/"),
            "orchestration calls service only",
        ),
        (
            refusal(local, &service("api/a"), "/api/b/"),
            "api calls orchestration and service only",
        ),
        (
            refusal(local, &Caller::Outside, "/service/b/"),
            "without a token",
        ),
        (
            refusal(local, &Caller::Outside, "/console"),
            "only /health and /metrics",
        ),
        (
            refusal(Listener::Public, &service("api/a"), "/service/b/"),
            "public listener",
        ),
        (
            refusal(Listener::Public, &service("api/a"), "/health"),
            "local listener only",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_longest_prefix_and_the_method_win() {
    let snapshot = fleet();
    let to = |target| where_to(&snapshot, Listener::Public, &Caller::Outside, target);
    for (target, expected) in [
        ("/api/files/a?b=/c", "api/files /api/files/ -/api/files"),
        ("/api/files/raw/a", "api/files /api/files/raw/ -"),
        ("/api/files/rawa", "api/files /api/files/ -/api/files"),
        (
            "/api/files/files.v1.Files/Get",
            "api/files files.v1.Files/Get -/api/files",
        ),
        ("/files.v1.Files/Get", "api/files files.v1.Files/Get -"),
        ("/health.v1.Health/Check", "ambiguous_method"),
        (
            "/api/mobile/health.v1.Health/Check",
            "api/mobile health.v1.Health/Check -/api/mobile",
        ),
        ("/api/files", "no_such_endpoint"),
        ("/api/nothing/x", "no_such_service"),
        ("/api", "no_such_service"),
        ("/api/", "no_such_service"),
        ("/api/Files/", "no_such_service"),
        ("/%61pi/files/", "no_such_endpoint"),
        ("/api/%66iles/", "no_such_service"),
        ("/", "no_such_endpoint"),
        ("/nothing.v1.Nothing/Get", "no_such_endpoint"),
        ("/healthy", "no_such_endpoint"),
        ("/api/starting/x", "no_instance"),
        ("/api/files/../mobile/", "bad_request"),
        ("/api/files/%2e%2e/mobile/", "bad_request"),
        ("/api/files//x", "bad_request"),
        ("*", "bad_request"),
        ("", "bad_request"),
    ] {
        assert_eq!(to(target), expected, "{target}");
    }
}

#[test]
fn only_requests_that_may_be_repeated_are_repeatable() {
    let snapshot = fleet();
    let repeatable = |method: &str, target: &str| {
        let (method, target) = (method.as_bytes(), target.as_bytes());
        let caller = &Caller::Outside;
        let request = Request {
            listener: Listener::Public,
            caller,
            method,
            target,
            server: None,
            to: None,
        };
        decide(&snapshot, &request).unwrap().repeatable
    };
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(repeatable(method, "/api/files/a"), "{method}");
    }
    for method in ["POST", "PATCH", "get", "PROPFIND"] {
        assert!(!repeatable(method, "/api/files/a"), "{method}");
    }
    assert!(
        repeatable("POST", "/api/files/health.v1.Health/Check"),
        "no side effects"
    );
    assert!(!repeatable("POST", "/api/files/files.v1.Files/Get"));
}

#[test]
fn connect_and_options_of_everything_are_refused() {
    let snapshot = fleet();
    let reason = |method: &[u8], target: &[u8]| {
        let caller = &Caller::Outside;
        decide(
            &snapshot,
            &Request {
                listener: Listener::Public,
                caller,
                method,
                target,
                server: None,
                to: None,
            },
        )
        .unwrap_err()
        .reason
    };
    assert_eq!(reason(b"CONNECT", b"host:443"), Reason::BadRequest);
    assert_eq!(reason(b"OPTIONS", b"*"), Reason::NoSuchEndpoint);
}

#[test]
fn versions_with_different_endpoints_get_their_own_requests() {
    let (mut old, mut new) = (instance("api/files", 1), instance("api/files", 2));
    old.methods = vec![method("files.v1.Files/Get", false)];
    new.methods = vec![
        method("files.v1.Files/Get", true),
        method("files.v2.Files/Get", true),
    ];
    new.prefixes = vec![PathPrefix::new(&new.service, "/api/files/", false).unwrap()];
    let snapshot = snapshot(&[old, new]);
    let route = |target: &'static str| {
        let (caller, target) = (&Caller::Outside, target.as_bytes());
        decide(
            &snapshot,
            &Request {
                listener: Listener::Public,
                caller,
                method: b"POST",
                target,
                server: None,
                to: None,
            },
        )
        .unwrap()
    };
    let both = route("/files.v1.Files/Get");
    assert_eq!(both.endpoint.candidates.len(), 2);
    assert!(
        !both.repeatable,
        "only one version says that it has no side effects"
    );
    assert_eq!(route("/files.v2.Files/Get").endpoint.candidates.len(), 1);
    let prefix = route("/api/files/a");
    let seen: Vec<_> = prefix
        .endpoint
        .candidates
        .iter()
        .map(|instance| prefix.split(b"/api/files/a", instance).1)
        .collect();
    assert_eq!(seen, [&b"/a"[..], b"/api/files/a"]);
}

#[test]
fn a_path_is_safe_when_every_version_says_so_and_goes_where_it_went() {
    let (mut old, mut new) = (instance("api/files", 1), instance("api/files", 2));
    let safe = |path| RepeatablePath::new(&old.service, path).unwrap();
    let (search, reports) = (safe("/api/files/search"), safe("/api/files/reports/"));
    new.repeatable_paths = vec![search.clone(), reports.clone()];
    old.repeatable_paths = vec![reports];
    let is_repeated = |instances: &[Instance], method: &[u8], target: &str| {
        let snapshot = snapshot(instances);
        let route = decide(
            &snapshot,
            &Request {
                listener: Listener::Public,
                caller: &Caller::Outside,
                method,
                target: target.as_bytes(),
                server: None,
                to: None,
            },
        )
        .unwrap();
        assert_eq!(route.endpoint.candidates.len(), instances.len());
        route.repeatable
    };
    let both = [old.clone(), new.clone()];
    assert!(is_repeated(&both, b"POST", "/api/files/reports/a/b?c=/d"));
    assert!(!is_repeated(&both, b"POST", "/api/files/search?a"));
    assert!(is_repeated(&both, b"GET", "/api/files/search"));
    assert!(is_repeated(&both[1..], b"PATCH", "/api/files/search?a"));
    assert!(!is_repeated(
        &both,
        b"POST",
        "/api/files/?/api/files/reports/"
    ));
    // A version that says nothing takes it away from all.
    old.repeatable_paths = Vec::new();
    assert!(!is_repeated(&[old, new], b"POST", "/api/files/reports/a"));
}

#[test]
fn a_prefix_outside_of_its_service_is_ignored() {
    let mut greedy = instance("api/greedy", 1);
    greedy.prefixes = vec![
        page("/"),
        page("/health"),
        page("/api/"),
        page("/api/other/"),
    ];
    let snapshot = snapshot(&[greedy, instance("api/other", 2)]);
    let to = |target| where_to(&snapshot, Listener::Local, &Caller::Outside, target);
    assert_eq!(to("/health"), "no_such_endpoint");
    assert_eq!(to("/api/other/x"), "api/other /api/other/ -/api/other");
    assert_eq!(to("/api/greedy/x"), "no_such_endpoint");
}

#[test]
fn what_is_known_of_an_instance_outlives_snapshots() {
    let now = Moment::now();
    let (one, two) = (instance("api/files", 1), instance("api/files", 2));
    let first = Snapshot::empty(1).next(&Table::of_one_server(&[one.clone(), two.clone()]), now);
    let service = first.service(&one.service).unwrap();
    let live = std::sync::Arc::clone(&service.instances[0].live);
    let request = InFlight::begin(std::sync::Arc::clone(&live), 0, EndpointId::default(), now);
    live.eject(now);
    let mut draining = one.clone();
    draining.state = InstanceState::Draining;
    let second = first.next(&Table::of_one_server(&[draining, two.clone()]), now);
    assert_eq!(second.in_flight(&one.id), 1);
    let kept = &second.service(&one.service).unwrap().instances[0].live;
    assert!(kept.is_ejected(now) && kept.key() == live.key());
    let third = second.next(&Table::of_one_server(std::slice::from_ref(&two)), now);
    assert_eq!(
        third.in_flight(&one.id),
        1,
        "gone, and not yet without requests"
    );
    drop(request);
    assert_eq!(third.in_flight(&one.id), 0);
    let mut moved = two.clone();
    moved.address = ([127, 0, 0, 1], 1).into();
    let fourth = third.next(&Table::of_one_server(&[moved]), now);
    let before = third.service(&two.service).unwrap().instances[0].live.key();
    assert_ne!(
        fourth.service(&two.service).unwrap().instances[0]
            .live
            .key(),
        before
    );
}

#[test]
fn a_service_that_lost_its_instances_is_remembered_for_a_time() {
    let now = Moment::now();
    let first = Snapshot::empty(1).next(&Table::of_one_server(&[instance("api/files", 1)]), now);
    let second = first.next(
        &Table::of_one_server(&[]),
        now.after(Duration::from_secs(60)),
    );
    let to = |snapshot| where_to(snapshot, Listener::Public, &Caller::Outside, "/api/files/a");
    assert_eq!(to(&second), "no_instance");
    let third = second.next(
        &Table::of_one_server(&[]),
        now.after(Duration::from_secs(3600)),
    );
    assert_eq!(to(&third), "no_such_service");
}

#[test]
fn a_hundred_thousand_instances_are_built_fast() {
    let instances: Vec<_> = (0..10_000)
        .flat_map(|service| (0..10).map(move |number| (service, number)))
        .map(|(service, number)| {
            let mut made = instance(&format!("api/s{service}"), number);
            made.methods = vec![method(&format!("s{service}.v1.S/Get"), true)];
            made
        })
        .collect();
    let start = Instant::now();
    let first = snapshot(&instances);
    let built = start.elapsed();
    let mut changed = instances.clone();
    changed[5].state = InstanceState::Draining;
    let start = Instant::now();
    let second = first.next(&Table::of_one_server(&changed), Moment::now());
    let rebuilt = start.elapsed();
    let caller = &Caller::Outside;
    let target = b"/api/s9999/s9999.v1.S/Get?x=1";
    let request = Request {
        listener: Listener::Public,
        caller,
        method: b"GET",
        target,
        server: None,
        to: None,
    };
    let start = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            decide(&second, &request).unwrap().endpoint.candidates.len(),
            10
        );
    }
    let decided = start.elapsed() / 1000;
    eprintln!("built in {built:?}, rebuilt in {rebuilt:?}, decided in {decided:?}");
    assert!(built < Duration::from_secs(30) && rebuilt < Duration::from_secs(15));
    assert!(decided < Duration::from_micros(200));
}

/// A fleet, what happened to it, and a request.
#[derive(Clone, Debug)]
struct Case {
    instances: Vec<(usize, InstanceState, bool)>,
    ejected: Vec<usize>,
    failed: Vec<usize>,
    busy: Vec<usize>,
    listener: Listener,
    caller: usize,
    target: usize,
    seed: u64,
}

const SERVICES: [&str; 4] = [
    "api/files",
    "api/mobile",
    "orchestration/signup",
    "service/node",
];
const TARGETS: [&str; 8] = [
    "/api/files/a?b",
    "/api/mobile/files.v1.Files/Get",
    "/files.v1.Files/Get",
    "/orchestration/signup/x",
    "/service/node/x",
    "/health",
    "/api/files/../x",
    "/api/none/",
];

fn case() -> impl Strategy<Value = Case> {
    let state = prop_oneof![
        4 => Just(InstanceState::Ready),
        1 => Just(InstanceState::Starting),
        1 => Just(InstanceState::Draining),
    ];
    let listener = prop_oneof![Just(Listener::Public), Just(Listener::Local)];
    let some = || proptest::collection::vec(0usize..8, 0..6);
    (
        proptest::collection::vec((0..SERVICES.len(), state, any::<bool>()), 0..8),
        (some(), some(), some()),
        listener,
        0usize..6,
        0..TARGETS.len(),
        any::<u64>(),
    )
        .prop_map(
            |(instances, (ejected, failed, busy), listener, caller, target, seed)| Case {
                instances,
                ejected,
                failed,
                busy,
                listener,
                caller,
                target,
                seed,
            },
        )
}

fn fleet_of(case: &Case) -> Vec<Instance> {
    let instances = case.instances.iter().enumerate();
    instances
        .map(|(number, (service, state, has_method))| {
            let mut made = instance(SERVICES[*service], number as u16);
            made.state = *state;
            if *has_method {
                made.methods = vec![method("files.v1.Files/Get", true)];
            }
            if made.service.name.as_str() == "node" {
                made.prefixes.push(page("/health"));
            }
            made
        })
        .collect()
}

/// Ejects, fails and loads instances as the case says; the last moment of it.
fn live_through(case: &Case, snapshot: &Snapshot, requests: &mut Vec<InFlight<Live>>) -> Moment {
    let now = Moment::now();
    let all: Vec<_> = snapshot
        .services()
        .flat_map(|service| service.instances.iter())
        .map(|instance| std::sync::Arc::clone(&instance.live))
        .collect();
    let pick = |at: &usize| all.get(*at).cloned();
    case.ejected
        .iter()
        .filter_map(pick)
        .for_each(|live| live.eject(now));
    for live in case.failed.iter().filter_map(pick) {
        for _ in 0..5 {
            let request = InFlight::begin(Live::clone(&live), 0, EndpointId::default(), now);
            request.failed(ErrorKind::Closed, now);
        }
    }
    for live in case.busy.iter().filter_map(pick) {
        let answered = InFlight::begin(Live::clone(&live), 0, EndpointId::default(), now);
        answered.answered(200, now.after(Duration::from_millis(3)));
        requests.push(InFlight::begin(live, 0, EndpointId::default(), now));
    }
    // Some trials of ejected instances are due, others are not.
    now.after(Duration::from_millis(case.seed % 200))
}

type Live = std::sync::Arc<hydrant_router::Live>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Explaining first and routing then, with the same chance, gives the same outcome.
    #[test]
    fn an_explanation_tells_what_routing_does(case in case()) {
        let snapshot = snapshot(&fleet_of(&case));
        let mut requests = Vec::new();
        let now = live_through(&case, &snapshot, &mut requests);
        let key = TokenKey::new(&[3; 32]);
        let callers = ["outside", "operator", "api/mobile", "orchestration/a", "service/a", "bad"];
        let token = match callers[case.caller] {
            "outside" => None,
            "operator" => Some(key.issue(&Identity::Operator)),
            "bad" => Some("h1.operator.AAAA".into()),
            id => Some(key.issue(&Identity::Service(id.parse().unwrap()))),
        };
        let asked = explain::Request {
            method: "GET".into(),
            path: TARGETS[case.target].into(),
            headers: token.clone().map(|token| (header::TOKEN.into(), token)).into_iter().collect(),
            listener: case.listener,
        };
        let chooser = Chooser { worker: 0, now, priority: Priority::Normal };
        let mut rng = fastrand::Rng::with_seed(case.seed);
        let explained = explain(&snapshot, &key, &asked, chooser, &mut rng);

        let mut rng = fastrand::Rng::with_seed(case.seed);
        let mut identities = hydrant_router::Identities::new();
        let token = token.as_deref().map(str::as_bytes);
        let routed = identities.resolve(&key, token).and_then(|who| {
            let request = Request {
                listener: case.listener,
                caller: &who.caller,
                method: b"GET",
                target: TARGETS[case.target].as_bytes(),
                server: None,
                to: None,
            };
            let route = decide(&snapshot, &request)?;
            Ok((route, choose(&route, &Tried::default(), chooser, &mut rng)?))
        });
        match routed {
            Ok((route, instance)) => {
                prop_assert_eq!(explained.refusal, None);
                prop_assert_eq!(explained.chosen.as_deref(), Some(instance.info.id.as_str()));
                let (_, seen) = route.split(TARGETS[case.target].as_bytes(), instance);
                prop_assert_eq!(explained.upstream_path.as_bytes(), seen);
                prop_assert!(explained.rule.contains(&*route.endpoint.name));
                prop_assert!(instance.info.state == InstanceState::Ready);
            }
            Err(refusal) => {
                prop_assert_eq!(explained.refusal, Some(refusal));
                prop_assert_eq!(explained.chosen, None);
            }
        }
    }

    #[test]
    fn any_bytes_are_decided_without_panic(
        target in proptest::collection::vec(any::<u8>(), 0..80),
        method in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let snapshot = fleet();
        let target = [&b"/api/files/"[..], &target].concat();
        for target in [&target[..], &target[11..]] {
            let caller = &Caller::Outside;
            let request = Request { listener: Listener::Public, caller, method: &method, target, server: None, to: None };
            if let Ok(route) = decide(&snapshot, &request) {
                let (_, seen) = route.split(target, &route.endpoint.candidates[0]);
                prop_assert!(seen.starts_with(b"/"));
            }
        }
    }
}

#[test]
fn statistics_add_up_and_prometheus_can_read_them() {
    let now = Moment::now();
    let (one, two) = (instance("api/files", 1), instance("api/files", 2));
    let snapshot = Snapshot::empty(2).next(&Table::of_one_server(&[one, two]), now);
    let service = snapshot.services().next().unwrap();
    for worker in 0..2 {
        let live = &*service.instances[0].live;
        let request = InFlight::begin(live, worker, EndpointId::default(), now);
        request.answered(200, now.after(Duration::from_millis(40)));
        let request = InFlight::begin(live, worker, EndpointId::default(), now);
        request.failed(ErrorKind::Timeout, now);
    }
    let stats = hydrant_router::stats::instances(&snapshot, &"api/*".parse().unwrap(), now);
    assert_eq!((stats[0].requests, stats[0].errors["timeout"]), (4, 2));
    assert!((39_000..41_000).contains(&stats[0].latency.p99_us));
    assert_eq!((stats[1].requests, stats[1].endpoints.len()), (0, 0));
    let text = hydrant_router::stats::prometheus(&snapshot, now);
    assert!(text.contains(
        "hydrant_instance_requests_total{tier=\"api\",service=\"files\",instance=\"api-files-1\",version=\"1.0.0\"} 4"
    ));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(
            series.starts_with("hydrant_") && series.ends_with('}'),
            "{line}"
        );
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

/// A client that hears of no service gives up; one that hears that none is ready asks again.
#[test]
fn a_service_that_is_expected_is_not_ready_rather_than_unknown() {
    let id: ServiceId = "api/late".parse().unwrap();
    let now = Moment::now();
    let asked_for = |first: &Snapshot| {
        let to = |snapshot| where_to(snapshot, Listener::Public, &Caller::Outside, "/api/late/x");
        let nothing = Table::of_one_server(&[]);
        let later = first.next(&nothing, now.after(Duration::from_secs(3600)));
        [to(first), to(&later)]
    };
    assert_eq!(asked_for(&Snapshot::empty(1)), ["no_such_service"; 2]);
    let expecting = Snapshot::expecting(1, vec![id], now);
    assert_eq!(asked_for(&expecting), ["no_instance"; 2]);
}
