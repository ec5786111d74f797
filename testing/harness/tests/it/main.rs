//! The servers start, are killed, and come back with their data; the network's faults do what they
//! say; nothing is left behind.

mod left;
mod mariadb;
mod netns;
mod proxy;
mod redis;
mod zookeeper;
