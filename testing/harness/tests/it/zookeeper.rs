//! ZooKeeper, alone and as an ensemble.

use hydrant_harness::skipped;
use hydrant_harness::zookeeper::{Options, ZooKeeper};

#[test]
fn a_single_server_comes_back_after_a_kill() {
    let zookeeper = match ZooKeeper::start(Options::default()) {
        Ok(zookeeper) => zookeeper,
        Err(missing) => return skipped(missing),
    };
    assert_eq!(zookeeper.leader(), Some(0));
    zookeeper.kill(0);
    assert_eq!(zookeeper.leader(), None);
    zookeeper.restart(0);
    assert_eq!(zookeeper.leader(), Some(0));
}
