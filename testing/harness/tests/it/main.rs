//! The servers start, are killed, and come back with their data; nothing is left behind.

mod redis;
mod zookeeper;
