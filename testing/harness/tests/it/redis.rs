//! Redis, in each of its forms.

use hydrant_harness::redis::{Options, Redis, User};
use hydrant_harness::skipped;

fn keeps_its_data(redis: &Redis, server: usize) {
    redis
        .cli(server, &["SET", "key", "value"])
        .expect("it answers");
    redis.kill(server);
    assert_eq!(redis.cli(server, &["GET", "key"]), None);
    redis.restart(server);
    let value = redis.cli(server, &["GET", "key"]).expect("it answers");
    assert_eq!(value.trim(), "value");
}

#[test]
fn a_single_server_keeps_its_data() {
    match Redis::single(Options::default()) {
        Ok(redis) => keeps_its_data(&redis, 0),
        Err(missing) => skipped(missing),
    }
}

#[test]
fn a_single_server_with_tls_and_users_keeps_its_data() {
    let user = User {
        name: "somebody".into(),
        password: "secret".into(),
        rules: "~some:* +get".into(),
    };
    let options = Options {
        tls: true,
        users: vec![user],
        ..Options::default()
    };
    match Redis::single(options) {
        Ok(redis) => keeps_its_data(&redis, 0),
        Err(missing) => skipped(missing),
    }
}
