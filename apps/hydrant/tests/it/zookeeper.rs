//! ZooKeeper fails in the ways that operators fear, while requests flow: no request fails, nothing
//! flaps, and what changed meanwhile is known everywhere soon afterwards.

mod changes;
mod faults;
mod outage;
mod paused;
mod reigns;
mod town;
