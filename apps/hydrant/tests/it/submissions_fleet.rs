//! What the submissions of two data centres stand on: a pair of Galera with an arbitrator, a server that follows
//! it, two object stores, ZooKeeper and Redis, a web service and a server of SFTP that get them; and two servers
//! with our nodes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hydrant_harness::node::{Fleet, Setup};
use hydrant_harness::{Galera, MariaDb, SeaweedFs, Sshd, WireMock, skipped};
use tempfile::TempDir;

use crate::fleet::engines::{Engines, program};
use crate::harness::Node;

pub const SESSION: Duration = Duration::from_secs(4);
/// What the consumers are called.
pub const CONSUMERS: [&str; 2] = ["shop", "archive"];

/// What submissions are kept in, apart from the record of migrations.
const TABLES: [&str; 9] = [
    "submissions",
    "submission_hops",
    "submission_steps",
    "submission_uploads",
    "submission_pieces",
    "submission_loose",
    "submission_copies",
    "audit_events",
    "audit_seals",
];

/// The servers behind our nodes, and what our nodes are told of them.
pub struct Parts {
    pub galera: Galera,
    /// Follows the second server of the pair.
    pub secondary: MariaDb,
    /// The object stores, one for each data centre.
    pub objects: [SeaweedFs; 2],
    pub sshd: Sshd,
    pub shop: WireMock,
    pub engines: Engines,
    fleet: Fleet,
    folder: TempDir,
}

impl Parts {
    /// Starts all of them. Says aloud what is missing.
    pub fn start() -> Option<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::thread::scope(|scope| {
            // Java takes its time, and so does Galera.
            let tables = scope.spawn(|| {
                let galera = Galera::pair()?;
                let secondary = galera.node(1).secondary(10)?;
                Ok((galera, secondary))
            });
            let shop = scope.spawn(|| WireMock::start(target));
            let engines = Engines::start(1);
            let objects = (SeaweedFs::start(target), SeaweedFs::start(target));
            let sshd = Sshd::start().map_err(skipped).ok();
            let tables = tables.join().expect("the database starts");
            let (galera, secondary) = tables
                .map_err(|missing: hydrant_harness::Missing| skipped(missing))
                .ok()?;
            let shop = shop.join().expect("the shop starts")?;
            let (Some(near), Some(far)) = objects else {
                return None;
            };
            let engines = engines?;
            let parts = Self {
                galera,
                secondary,
                objects: [near, far],
                sshd: sshd?,
                shop,
                fleet: Fleet::new(program(), &engines.tables(SESSION)),
                engines,
                folder: tempfile::tempdir().expect("a folder"),
            };
            parts.write_forms();
            Some(parts)
        })
    }

    /// The server of a data centre, 0 or 1. Both use the pair of Galera, each the server that is near.
    pub fn server(&self, centre: usize) -> Setup {
        let engines = self.engines.tables(SESSION) + &self.galera.table(centre);
        self.server_with(centre, &engines)
    }

    /// The same with other engines for all but the objects.
    pub fn server_with(&self, centre: usize, engines: &str) -> Setup {
        let near = &self.objects[centre];
        let far = &self.objects[1 - centre];
        let names = ["a", "b"];
        let tables = format!(
            "{engines}\n[objects]\n{}\n[objects.far]\n{}\n",
            near.lines(names[centre]),
            far.lines(names[1 - centre])
        );
        let (server, services) = (["one", "two"][centre], self.services());
        self.fleet
            .server_with(server, names[centre], &tables, &services)
    }

    /// Both servers, once all their services are there.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes_of([0, 1].map(|centre| self.server(centre)))
    }

    /// The same of servers that were [set up](Self::server_with).
    pub fn nodes_of(&self, servers: [Setup; 2]) -> Vec<Node> {
        let mut nodes = servers.map(Setup::spawn);
        nodes.iter_mut().for_each(Node::wait_ready);
        for node in &nodes {
            node.wait("all services are there", |node| {
                let is_ready = |one: &&serde_json::Value| one["state"] == "ready";
                (node.instances("*").iter().filter(is_ready).count() >= 6).then_some(())
            });
        }
        nodes.into()
    }

    /// Kills ZooKeeper and Redis.
    pub fn stop_engines(&self) {
        self.engines.zookeeper.kill_all();
        self.engines.redis.kill_all();
    }

    /// Starts them again, with what they had.
    pub fn restart_engines(&self) {
        self.engines.redis.restart_all();
        self.engines.zookeeper.restart_all();
    }

    fn services(&self) -> String {
        let forms = self.folder.path().join("submissions.toml");
        let service = |tier: &str, name: &str, builtin: &str| {
            format!(
                "[[service]]\nname = \"{name}\"\ntier = \"{tier}\"\nversion = \"1.0.0\"\nsdk = true\n\
                 command = [{:?}, \"builtin\", \"{builtin}\"]\nenv = {{ HYDRANT_SUBMISSIONS = {forms:?} }}\n\n",
                program()
            )
        };
        service("service", "submissions", "service-submissions")
            + &service("api", "submissions", "api-submissions")
            + &service("orchestration", "delivery", "delivery")
    }

    /// What may be sent, and where it goes. Waits are short, so that a short run has many.
    fn write_forms(&self) {
        let (sshd, waits) = (&self.sshd, "{ first = \"200ms\", most = \"2s\" }");
        let flow = format!(
            "lease = \"5s\"\nbackoff = {waits}\nbreaker = {{ failures = 5, first = \"200ms\", most = \"2s\" }}\n"
        );
        let [shop, archive] = CONSUMERS;
        let text = format!(
            "[forms.demo]\nschema = \"demo.schema.json\"\npatience = \"2s\"\ndeliver = [\"{shop}\", \"{archive}\"]\n\n\
             [forms.demo.attachments]\nmax_count = 10\nmax_size = \"100MB\"\ntypes = [\"image/*\"]\n\n\
             [consumers.{shop}]\nkind = \"rest\"\nurl = \"{}\"\nreference = \"/order\"\ntimeout = \"3s\"\n{flow}\n\
             [consumers.{archive}]\nkind = \"sftp\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
             host_key = \"{}\"\nkey = {{ file = {:?} }}\nfolder = {:?}\ntimeout = \"3s\"\n{flow}",
            self.shop.orders(),
            sshd.address().port(),
            sshd.user(),
            sshd.fingerprint(),
            sshd.key(),
            sshd.files()
        );
        let path = |name: &str| self.folder.path().join(name);
        fs::write(path("submissions.toml"), text).expect("a file");
        let schema = include_str!("../../../../services/submissions/demo/demo.schema.json");
        fs::write(path("demo.schema.json"), schema).expect("a file");
    }

    /// Waits until the server that follows has what the pair has, row by row; tells how many rows.
    pub fn check_secondary(&self) -> usize {
        let pair = self.galera.node(0);
        let sums = || {
            let both = [pair, &self.secondary].map(|server| sums(server, "CHECKSUM TABLE "));
            both[0].is_some() && both[0] == both[1]
        };
        let caught_up = hydrant_harness::wait_until(hydrant_harness::READY, sums);
        let shown = self.secondary.sql("SHOW SLAVE STATUS").unwrap_or_default();
        assert!(caught_up, "the server that follows has other rows: {shown}");
        let counted = TABLES.map(|table| {
            let count = format!("SELECT COUNT(*) FROM hydrant.{table}");
            self.secondary
                .sql(&count)
                .expect("an answer")
                .trim()
                .parse()
                .expect("a number")
        });
        counted.iter().sum()
    }
}

fn sums(server: &MariaDb, ask: &str) -> Option<String> {
    let tables = TABLES.map(|table| format!("hydrant.{table}")).join(", ");
    server.sql(&format!("{ask}{tables}"))
}

/// The public listeners.
pub fn publics(nodes: &[Node]) -> Vec<SocketAddr> {
    nodes.iter().map(Node::public).collect()
}
