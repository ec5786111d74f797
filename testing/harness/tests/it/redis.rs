//! Redis, in each of its forms.

use std::time::Duration;

use hydrant_harness::redis::{Options, Redis, User};
use hydrant_harness::{Missing, skipped, wait_until};

fn get(redis: &Redis, server: usize) -> Option<String> {
    let value = redis.cli(server, &["GET", "key"])?;
    Some(value.trim().to_owned())
}

fn keeps_its_data(redis: Result<Redis, Missing>) {
    let redis = match redis {
        Ok(redis) => redis,
        Err(missing) => return skipped(missing),
    };
    redis.cli(0, &["SET", "key", "value"]).expect("it answers");
    redis.kill(0);
    assert_eq!(get(&redis, 0), None);
    redis.restart(0);
    assert_eq!(get(&redis, 0).as_deref(), Some("value"));
}

fn guarded() -> Options {
    let user = User {
        name: "somebody".into(),
        password: "secret".into(),
        rules: "~some:* +get".into(),
    };
    Options {
        tls: true,
        users: vec![user],
        ..Options::default()
    }
}

#[test]
fn a_single_server_keeps_its_data() {
    keeps_its_data(Redis::single(Options::default()));
}

#[test]
fn a_single_server_with_tls_and_users_keeps_its_data() {
    keeps_its_data(Redis::single(guarded()));
}

#[test]
fn sentinels_give_the_mastership_to_the_replica() {
    fails_over(Redis::with_sentinel(Options::default()));
}

#[test]
fn sentinels_do_so_with_tls_and_users() {
    fails_over(Redis::with_sentinel(guarded()));
}

fn fails_over(redis: Result<Redis, Missing>) {
    let redis = match redis {
        Ok(redis) => redis,
        Err(missing) => return skipped(missing),
    };
    assert_eq!(redis.sentinels().len(), 3);
    assert_eq!(redis.master(), Some(0));
    redis.cli(0, &["SET", "key", "value"]).expect("it answers");
    let replicated = redis.cli(0, &["WAIT", "1", "5000"]);
    assert_eq!(replicated.as_deref().map(str::trim), Some("1"));
    redis.kill(0);
    let patience = Duration::from_secs(30);
    assert!(wait_until(patience, || redis.master() == Some(1)));
    assert_eq!(get(&redis, 1).as_deref(), Some("value"));
    redis.restart(0);
    let follows = || {
        let role = redis.cli(0, &["ROLE"]).unwrap_or_default();
        role.starts_with("slave")
    };
    assert!(wait_until(patience, follows), "the old master follows");
    assert_eq!(redis.master(), Some(1));
}

#[test]
fn a_cluster_comes_back_whole() {
    let redis = match Redis::cluster(Options::default()) {
        Ok(redis) => redis,
        Err(missing) => return skipped(missing),
    };
    assert_eq!(redis.addresses().len(), 3);
    let set = |server| redis.cli(server, &["SET", "key", "value"]).is_some();
    let owner = (0..3).find(|server| set(*server));
    let owner = owner.expect("one has the key's slot, others point to it");
    redis.kill(owner);
    redis.restart(owner);
    redis.wait_cluster();
    assert_eq!(get(&redis, owner).as_deref(), Some("value"));
}

#[test]
fn a_cluster_works_with_tls_and_users() {
    match Redis::cluster(guarded()) {
        Ok(redis) => redis.wait_cluster(),
        Err(missing) => skipped(missing),
    }
}
