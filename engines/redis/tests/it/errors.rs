//! What is wrong with a configuration or a server is said at once, and how to mend it.

use hydrant_harness::redis::{Options, User};
use hydrant_harness::{Redis, skipped};
use hydrant_ports::ErrorKind;
use hydrant_redis::{Config, Mode, RedisState, Secret};

use crate::servers::{Kind, PASSWORD, USER, share};

/// Connecting fails and says `expected`; no secret is told.
async fn fails(config: Config, expected: &str) {
    let started = std::time::Instant::now();
    let error = match RedisState::connect(config.clone()).await {
        Ok(_) => panic!("connected, and expected: {expected}"),
        Err(error) => error,
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let told = error.to_string();
    assert!(told.contains(expected), "`{told}` lacks `{expected}`");
    let shown = format!("{error:?} {config:?}");
    for secret in [PASSWORD, "not the password"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    println!("{:>6.1?}  {told}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_with_their_mend() {
    let Some(share) = share(Kind::TlsWithUsers).await else {
        return;
    };
    let good = || {
        let mut config = share.config.clone();
        // Long: what no repeat mends is told before.
        config.connect_timeout = "60s".parse().unwrap();
        config
    };

    let mut config = good();
    config.password = Some(Secret::new("not the password"));
    fails(config, "does not accept user and password").await;

    let mut config = good();
    config.password = None;
    fails(config, "`user` asks for a password too").await;

    let mut config = good();
    config.prefix = "elsewhere:".into();
    fails(config, "lacks a permission").await;

    let mut config = good();
    let other = tempfile::tempdir().unwrap();
    let strange = hydrant_harness::Certificates::make(other.path(), &[]);
    config.tls.as_mut().unwrap().ca = strange.ca_pem();
    fails(config, "check `tls.ca`").await;

    let mut config = good();
    let tls = config.tls.as_mut().unwrap();
    (tls.certificate, tls.key) = (None, None);
    fails(config, "write `tls.certificate` and `tls.key`").await;

    let mut config = good();
    config.tls = None;
    config.connect_timeout = "1s".parse().unwrap();
    fails(config, "does `tls` fit the server?").await;

    let mut config = good();
    config.tls.as_mut().unwrap().ca = other.path().join("nothing.pem");
    fails(config, "can't read `tls.ca`").await;

    let mut config = good();
    config.mode = Mode::Cluster;
    fails(config, "is not part of a cluster").await;

    let mut config = good();
    config.mode = Mode::Sentinel;
    config.master = Some("any".into());
    config.sentinel_user = config.user.clone();
    config.sentinel_password = config.password.clone();
    fails(config, "").await;

    let mut config = good();
    config.servers = vec!["127.0.0.1:1".into()];
    config.connect_timeout = "300ms".parse().unwrap();
    fails(config, "can't connect to Redis at 127.0.0.1:1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_kind_is_told() {
    let (Some(single), Some(sentinel), Some(cluster)) = (
        share(Kind::Single).await,
        share(Kind::Sentinel).await,
        share(Kind::Cluster).await,
    ) else {
        return;
    };
    let of = |share: &crate::servers::Share, mode| {
        let mut config = share.config.clone();
        config.mode = mode;
        config.servers.truncate(1);
        config.master = (mode == Mode::Sentinel).then(|| "hydrant".into());
        config
    };
    fails(of(&cluster, Mode::Single), "is part of a cluster").await;
    fails(of(&sentinel, Mode::Single), "is a Sentinel").await;
    fails(of(&single, Mode::Sentinel), "is not a Sentinel").await;
    let mut config = of(&sentinel, Mode::Sentinel);
    config.master = Some("other".into());
    fails(config, "knows no master `other`").await;
    let replica = {
        let using = sentinel.using.as_ref().unwrap();
        tokio::task::block_in_place(|| {
            let master = using.redis.master().expect("there is a master");
            using.redis.addresses()[1 - master].clone()
        })
    };
    let mut config = of(&sentinel, Mode::Single);
    config.servers = vec![replica];
    fails(config, "is a replica").await;
}

/// A server that would lose marks, or everything, is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_would_lose_data_is_refused() {
    let started = tokio::task::block_in_place(|| {
        Redis::single(Options {
            users: vec![User {
                name: USER.into(),
                password: "secret".into(),
                rules: "~* &* +@all".into(),
            }],
            ..Options::default()
        })
    });
    let redis = match started {
        Ok(redis) => redis,
        Err(missing) => return skipped(missing),
    };
    let cli = |words: &[&str]| tokio::task::block_in_place(|| redis.cli(0, words)).unwrap();
    let mut config = Config::new(Mode::Single, redis.addresses());
    config.user = Some(USER.into());
    config.password = Some(Secret::new("secret"));
    RedisState::connect(config.clone()).await.unwrap();

    cli(&["ACL", "SETUSER", "default", "reset"]);
    fails(config.clone(), "user default off ~* &* +@all").await;
    cli(&["ACL", "SETUSER", "default", "off", "~*", "&*", "+@all"]);
    RedisState::connect(config.clone()).await.unwrap();

    cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    fails(config, "maxmemory-policy noeviction").await;
}

#[test]
fn contradictions_are_told() {
    let told = |text: &str| {
        let mut config: Config = match hydrant_runtime::config::parse("h.toml".as_ref(), text) {
            Ok(config) => config,
            Err(error) => return error.to_string(),
        };
        config.relative_to("/etc/hydrant".as_ref());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let connected = runtime.block_on(RedisState::connect(config));
        connected.err().expect("it contradicts itself").to_string()
    };
    for (text, expected) in [
        ("servers = []", "no Redis server is named"),
        ("servers = ['a:1', 'b:1']", "mode = \"sentinel\""),
        ("mode = 'sentinel'\nservers = ['a:1']", "asks for `master`"),
        ("servers = ['a:1']\nmaster = 'm'", "`master` is for"),
        ("servers = ['a']", "write host:port"),
        ("servers = ['a:1']\nprefix = 'a{b'", "`prefix`"),
        ("servers = ['a:1']\nrequest_timeout = 2", "not a duration"),
        ("servers = ['a:1']\nreplica_timeout = '2s'", "shorter than"),
        ("servers = ['a:1']\nrequests = 0", "1 or more"),
        ("servers = ['a:1']\nanswer = 42", "unknown field `answer`"),
        (
            "servers = ['a:1']\npassword = 'x'\npassword_file = 'y'",
            "write one",
        ),
        ("servers = ['a:1']\npassword_file = 'pw'", "/etc/hydrant/pw"),
        (
            "servers = ['a:1']\ntls = { ca = 'ca.pem' }",
            "/etc/hydrant/ca.pem",
        ),
    ] {
        let told = told(text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}
