//! What one node does, three do together.

use std::time::Duration;

use hydrant_harness::node::Node;
use hydrant_sdk::{Config, Hydrant};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::echo;
use super::engines::Engines;
use crate::load::Load;

const SESSION: Duration = Duration::from_secs(2);

#[test]
fn three_nodes_are_one_fleet() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    is_one_fleet(&engines, false);
}

#[test]
fn three_nodes_are_one_fleet_with_mutual_tls() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    is_one_fleet(&engines, true);
}

fn is_one_fleet(engines: &Engines, tls: bool) {
    let mut nodes = Nodes::start(engines, tls);
    nodes.calls_cross_servers();
    nodes.tiers_hold_everywhere();
    if !tls {
        nodes.a_peer_is_believed_nothing();
    }
    nodes.state_is_shared();
    nodes.locks_are_shared();
    nodes.elections_are_shared();
    nodes.scaling_is_seen_everywhere();
    nodes.draining_fails_nothing();
}

/// Three servers, of which each has one service that no other has, and all have `api/door`.
struct Nodes {
    nodes: Vec<Node>,
    runtime: Runtime,
    client: reqwest::Client,
}

/// Which service runs on which server alone.
const PLACES: [(&str, &str, &str); 3] = [
    ("one", "a", "service/echo"),
    ("two", "a", "orchestration/plan"),
    ("three", "b", "api/alone"),
];

impl Nodes {
    fn start(engines: &Engines, tls: bool) -> Self {
        let mut fleet = engines.fleet(SESSION);
        if tls {
            fleet = fleet.with_tls();
        }
        let spawn = |(server, zone, service): (&str, &str, &str)| {
            let services = echo::table(service, server, 1) + &echo::table("api/door", server, 1);
            fleet.server(server, zone, &services).spawn()
        };
        let mut nodes: Vec<Node> = PLACES.map(spawn).into();
        for node in &mut nodes {
            node.wait_ready();
        }
        for node in &nodes {
            node.wait("all is listed", |node| {
                let mut all = node.instances("");
                all.retain(|one| one["state"] == "ready");
                (all.len() == 6).then_some(())
            });
        }
        let runtime = hydrant_harness::runtime();
        Self {
            nodes,
            runtime,
            client: reqwest::Client::new(),
        }
    }

    fn token(&self, who: &str) -> String {
        let told = self.nodes[0].json(&["token", who]);
        told["token"].as_str().unwrap().to_owned()
    }

    fn ask(&self, url: String, headers: &[(&str, &str)]) -> (StatusCode, String) {
        self.request(Method::GET, url, headers)
    }

    fn request(
        &self,
        method: Method,
        url: String,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        })
    }

    /// A token of one node is good at all others, whatever its service.
    fn calls_cross_servers(&self) {
        let token = self.token("api/door");
        for node in &self.nodes {
            for (server, _, service) in &PLACES[..2] {
                for method in [Method::GET, Method::POST] {
                    let url = format!("http://{}/{service}/who", node.local());
                    let is_get = method == Method::GET;
                    let (status, text) = self.request(method, url, &[("hydrant-token", &token)]);
                    assert_eq!(status, 200, "{service}: {text}");
                    assert_eq!(text, if is_get { server } else { "taken" });
                }
            }
            let (status, text) = self.ask(format!("http://{}/api/alone/who", node.public()), &[]);
            assert_eq!((status.as_u16(), text.as_str()), (200, "three"));
        }
    }

    fn tiers_hold_everywhere(&self) {
        for node in &self.nodes {
            let local = |service: &str| format!("http://{}/{service}/who", node.local());
            let as_service = self.token("service/echo");
            for service in ["orchestration/plan", "api/alone", "service/echo"] {
                let (status, text) = self.ask(local(service), &[("hydrant-token", &as_service)]);
                assert_eq!(status, 403, "a service calls {service}: {text}");
            }
            let public = format!("http://{}/service/echo/who", node.public());
            let (status, text) =
                self.ask(public, &[("hydrant-to", "x"), ("hydrant-server", "one")]);
            assert!(status.is_client_error(), "{status}: {text}");
            let (status, text) = self.ask(local("service/echo"), &[("hydrant-token", "h1.forged")]);
            assert!(status.is_client_error(), "{status}: {text}");
        }
    }

    /// The second node enforces the tiers itself, and sends to its own instances only.
    fn a_peer_is_believed_nothing(&self) {
        let [one, two, _] = &self.nodes[..] else {
            panic!("three nodes")
        };
        let id = |node: &Node, service: &str| {
            let found = node.instances(service);
            found[0]["instance"].as_str().unwrap().to_owned()
        };
        let (echo, plan) = (id(one, "service/echo"), id(one, "orchestration/plan"));
        let peer = |node: &Node, service: &str| {
            let text = std::fs::read_to_string(node.data().join("node.json")).unwrap();
            let told: serde_json::Value = serde_json::from_str(&text).unwrap();
            let address = told["peer"].as_str().expect("a peer listener").to_owned();
            format!("http://{address}/{service}/who")
        };
        let token = self.token("api/door");
        let as_service = self.token("service/echo");
        let (good, bad) = (("hydrant-token", &*token), ("hydrant-token", &*as_service));
        let to_echo = ("hydrant-to", &*echo);
        let to_plan = ("hydrant-to", &*plan);
        let (status, text) = self.ask(peer(one, "service/echo"), &[good, to_echo]);
        assert_eq!((status.as_u16(), &*text), (200, "one"));
        for (headers, what) in [
            (vec![bad, to_plan], "of a service"),
            (vec![to_plan], "without a token"),
        ] {
            let (status, text) = self.ask(peer(two, "orchestration/plan"), &headers);
            assert!(status.is_client_error(), "{what}: {status} {text}");
        }
        // Not on this server: not sent anywhere.
        let elsewhere = self.ask(peer(two, "service/echo"), &[good, to_echo]);
        assert_eq!(elsewhere.0, 503, "{}", elsewhere.1);
        let nobody = self.ask(peer(one, "service/echo"), &[good, ("hydrant-to", "nobody")]);
        assert_eq!(nobody.0, 503, "{}", nobody.1);
    }

    fn state_is_shared(&self) {
        let space = ["state", "--namespace", "service/notes"];
        for (number, node) in self.nodes.iter().enumerate() {
            let value = format!("from {number}");
            let put = node.run(&[&space[..], &["put", "kept", &value]].concat());
            assert!(
                put.status.success(),
                "{}",
                String::from_utf8_lossy(&put.stderr)
            );
            for other in &self.nodes {
                let got = other.run(&[&space[..], &["get", "kept"]].concat());
                assert_eq!(String::from_utf8_lossy(&got.stdout), value);
            }
        }
    }

    fn hydrant(&self, number: usize) -> Hydrant {
        let url = format!("http://{}", self.nodes[number].local());
        let token = self.token("service/contest");
        Hydrant::new(Config::new(&url, Some(&token)).unwrap()).unwrap()
    }

    fn locks_are_shared(&self) {
        let [one, two] = [0, 1].map(|number| self.hydrant(number));
        self.runtime.block_on(async {
            let first = one.lock("gate").await.unwrap();
            let refused = two.lock_within("gate", Duration::from_millis(300)).await;
            assert_eq!(refused.err().unwrap().reason, "deadline_exceeded");
            let waiting = tokio::spawn({
                let two = two.clone();
                async move { two.lock("gate").await }
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
            one.state()
                .under(&first)
                .put("gate", "first")
                .await
                .unwrap();
            let fence = first.fence();
            first.release();
            let second = waiting.await.unwrap().unwrap();
            assert!(second.fence() > fence, "{} after {fence}", second.fence());
            two.state()
                .under(&second)
                .put("gate", "second")
                .await
                .unwrap();
        });
    }

    fn elections_are_shared(&self) {
        let [one, two, three] = [0, 1, 2].map(|number| self.hydrant(number));
        self.runtime.block_on(async {
            let first = one.campaign("chief").await.unwrap();
            let standing = tokio::spawn({
                let two = two.clone();
                async move { two.campaign("chief").await }
            });
            let mut seen = three.observe("chief");
            let leads = |epoch| move |leader: &hydrant_sdk::Leader| leader.epoch == epoch;
            until(&mut seen, leads(first.epoch())).await;
            let epoch = first.epoch();
            first.resign();
            let second = standing.await.unwrap().unwrap();
            assert!(second.epoch() > epoch);
            until(&mut seen, leads(second.epoch())).await;
        });
    }

    fn scaling_is_seen_everywhere(&self) {
        for count in ["2", "1"] {
            self.nodes[0].json(&["scale", "service/echo", count]);
            for node in &self.nodes {
                node.wait("the number is seen", |node| {
                    let found = node.instances("service/echo");
                    (found.len().to_string() == count).then_some(())
                });
            }
        }
    }

    /// A node is told to stop while the others send to its instances.
    fn draining_fails_nothing(&mut self) {
        let loads = {
            let _inside = self.runtime.enter();
            let start = |node: &Node| {
                Load::start(node.public(), "/api/door/who", 4, Duration::from_millis(5))
            };
            [start(&self.nodes[0]), start(&self.nodes[1])]
        };
        self.nodes[0].wait("there is load", |_| (loads[0].good() > 50).then_some(()));
        let mut three = self.nodes.pop().expect("three nodes");
        three.signal(Signal::TERM);
        assert!(three.wait_ended().success());
        assert_eq!(three.started(), Vec::<u32>::new(), "nothing is left of it");
        for node in &self.nodes {
            node.wait("its instances are gone", |node| {
                (node.instances("api/door").len() == 2).then_some(())
            });
        }
        for load in loads {
            let outcome = self.runtime.block_on(load.finish());
            assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
            println!("{} requests through the drain", outcome.good);
        }
    }
}

async fn until(seen: &mut hydrant_sdk::Observation, is_it: impl Fn(&hydrant_sdk::Leader) -> bool) {
    let found = async {
        loop {
            if seen.next().await.unwrap().as_ref().is_some_and(&is_it) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.expect("the third server hears who leads");
}
