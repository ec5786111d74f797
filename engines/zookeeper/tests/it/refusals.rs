//! What can't work is said clearly, and at once.

use std::time::Duration;

use hydrant_harness::Certificates;
use hydrant_ports::{Coordination, EngineError};
use hydrant_zookeeper::{Config, Password, Tls, ZookeeperCoordination};

use crate::support::{SECURE, SINGLE, chroot, config, put, secure};

async fn refused(mut config: Config) -> String {
    config.connect_timeout = "2s".parse().unwrap();
    let connected = ZookeeperCoordination::connect(config).await;
    whole(&connected.err().expect("it is refused"))
}

fn whole(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(below) = source {
        text.push_str(&format!(": {below}"));
        source = below.source();
    }
    println!("{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told() {
    // Without certificates: who shows the same one is the same creator, whatever the password.
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, format!("/refusals{}", chroot()));
    let mut good = config(shared.servers.addresses(), &chroot);
    good.user = Some("hydrant".into());
    good.password = Some(Password::new("secret"));
    let engine = ZookeeperCoordination::connect(good.clone()).await.unwrap();
    put(&engine, "a", "1").await;

    let mut wrong = good.clone();
    wrong.password = Some(Password::new("guess"));
    assert!(refused(wrong).await.contains("password or the access list"));
    let mut nobody = good.clone();
    (nobody.user, nobody.password) = (None, None);
    assert!(
        refused(nobody)
            .await
            .contains("password or the access list")
    );
    let mut other = good.clone();
    other.user = Some("other".into());
    assert!(refused(other).await.contains("password or the access list"));

    // The password may be in a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let mut by_file = good.clone();
    (by_file.password, by_file.password_file) = (None, Some(file));
    let engine = ZookeeperCoordination::connect(by_file).await.unwrap();
    put(&engine, "a", "2").await;
    engine.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_trusted_is_told() {
    let Some(shared) = SECURE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let good = secure(config(shared.servers.addresses(), &chroot), &shared.servers);
    let folder = tempfile::tempdir().unwrap();
    let others = Certificates::make(folder.path(), &[]);
    let mut wrong = good.clone();
    wrong.tls.as_mut().unwrap().ca = others.ca_pem();
    let text = refused(wrong).await;
    assert!(
        text.contains("does not agree on TLS (invalid peer certificate"),
        "{text}"
    );

    let mut missing = good.clone();
    missing.tls.as_mut().unwrap().ca = folder.path().join("missing.pem");
    assert!(refused(missing).await.contains("missing.pem"));

    let mut plain = good.clone();
    plain.tls = None;
    assert!(refused(plain).await.contains("gives no session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_is_told() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let _at_work = shared.at_work().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let since = std::time::Instant::now();
    let text = refused(config([nobody.to_string()], "/x")).await;
    assert!(text.contains("cannot be reached"), "{text}");
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_is_no_configuration_is_told() {
    type Case = (fn(&mut Config), &'static str);
    let cases: [Case; 8] = [
        (|config| config.servers.clear(), "`servers` is empty"),
        (|config| config.servers = vec!["host".into()], "host:port"),
        (|config| config.chroot = "x".into(), "not a chroot"),
        (
            |config| config.chroot = "/zookeeper/x".into(),
            "not a chroot",
        ),
        (
            |config| config.user = Some("me".into()),
            "needs a `password`",
        ),
        (|config| config.limits.in_flight = 0, "in_flight"),
        (
            |config| {
                config.tls = Some(Tls {
                    ca: "ca.pem".into(),
                    certificate: Some("client.pem".into()),
                    key: None,
                    verify_host: true,
                })
            },
            "go together",
        ),
        (
            |config| config.session.min = "10m".parse().unwrap(),
            "session.min",
        ),
    ];
    for (change, expected) in cases {
        let mut config = Config::new(["127.0.0.1:2181"]);
        change(&mut config);
        let text = refused(config).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_configuration_is_read_and_keeps_its_secret() {
    let text = r#"
        servers = ["10.0.0.1:2181", "10.0.0.2:2181"]
        chroot = "/fleet"
        user = "hydrant"
        password = "swordfish"
        connect_timeout = "3s"
        [session]
        own = "15s"
        [tls]
        ca = "ca.pem"
        [limits]
        value = "64KB"
        request_timeout = "500ms"
    "#;
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.session.own.get(), Duration::from_secs(15));
    assert_eq!(config.limits.value.get(), 64 << 10);
    assert!(config.tls.as_ref().unwrap().verify_host);
    assert!(!format!("{config:?}").contains("swordfish"));
    assert!(toml::from_str::<Config>("servers = []\nserver = 1").is_err());
}
