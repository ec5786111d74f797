//! Coordination on a ZooKeeper ensemble.
