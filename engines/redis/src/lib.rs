//! State on Redis: one server, a master with replicas that Sentinels watch over, or a cluster.
//!
//! # How it is kept
//!
//! Keys are split into partitions by a hash: 1, or 16 in a cluster. All of a partition has one hash
//! tag (`hydrant:{p0}:…`), so that a cluster keeps it in one slot and one script reaches it all:
//!
//! | key | what it is |
//! | --- | --- |
//! | `entry:KEY` | a hash: value, revision, and the mark and epoch it was written under; it expires by itself |
//! | `names` | a sorted set of the names of all entries, for lists |
//! | `ends` | a sorted set of the ends of those that have one, for telling watchers |
//! | `marks` | a hash of marks and their epochs: every partition has all |
//! | `counter` | the last revision |
//! | `changes` | the channel on which each change is told |
//!
//! Every request is one script, so one atomic step. A write checks its epoch against the partition's
//! own copy of the mark; `raise` writes all copies before it returns. A write under an epoch that is
//! higher than the copy raises all first, also when it is then refused for another reason.
//! A revision is the server's time in microseconds, or one more than the last where that is higher:
//! so it grows across a fail-over too, if the servers' clocks differ by less than a fail-over takes.
//!
//! # When an answer is lost
//!
//! A read and a `raise` are sent again. A put or delete is not: it fails with `Unavailable`, and may
//! have happened. What a server refused without doing it (it loads its data, it is not the master any
//! more, its slot is on the move) is asked again within `request_timeout`. While a server has been
//! away for longer than that, requests fail at once, and it is tried with growing waits, at most 2 s.
//! While a slot of a cluster is moved, its partition may not answer.
//!
//! # Watches
//!
//! Each script publishes what it changed, with the partition's revision before and after. An engine
//! listens on one connection, and subscribes before it lists. A message whose "before" is not what was
//! heard last, or a revision that no message has brought for a whole round of `compare`, means that
//! messages were lost: what is there is compared with what was told, and the difference is told. So a
//! watcher is told each change once, or, of those it missed, the last one of each key. In each round
//! the engine also lets the servers forget and announce keys whose time is over: at most 256 a
//! partition and round.
//!
//! # What Redis can lose
//!
//! A master acknowledges before its replicas have a write, and it acknowledges before its own disk has
//! it unless it is told otherwise. So a fail-over, and a crash with `appendfsync everysec`, can take
//! back writes that this engine has acknowledged, marks among them. The window is made small:
//!
//! - **A write waits for a replica** (`wait_replicas`, 1) if one is connected, at most for
//!   `replica_timeout` (500 ms). If none confirms, it is acknowledged nevertheless and counted
//!   ([`Counts::unconfirmed_writes`]); with `require_replicas` it fails with `Unavailable` instead. What
//!   one replica has confirmed is lost only when another is promoted, or that one is lost too.
//! - **`raise` is stricter**: it fails if the connected replicas do not confirm it, so nobody learns
//!   that it leads by a mark that only one server knows. With no replica connected there is nobody to
//!   wait for. Which replicas are connected is asked every `compare` (1 s): one that came less than
//!   that ago is not waited for.
//! - **A fail-over is noticed** when the server behind a partition is another process or has another
//!   replication id, when a Sentinel names another master (all are asked every `compare`, and the newest
//!   answer of a majority counts: a message that one of them sends can't be missed), or when a
//!   partition's revision falls. Before anything else is asked of that server, this engine raises all
//!   marks again that it has seen (the last `remember`, 65,536), in a cluster also those that another
//!   master has, and then tells by [`failovers`](hydrant_ports::State::failovers). A restart of a server is taken for a fail-over too.
//! - **What an engine has seen, it does not unsee**: a write under an epoch that is lower than it has
//!   seen of the mark is refused without asking. A key under a lower epoch of the same mark than it has
//!   seen of that key (the last `remember` keys) is not shown: `get` fails with `Unavailable`, `list`
//!   leaves it out, watchers keep what they were told, until its leader writes it again.
//!
//! What remains: writes that no replica had confirmed are gone. Between a fail-over and the first
//! request or round of any engine that has seen a lost mark (at most `compare`, and what it takes to
//! connect), another engine that has not seen it lets through writes of a superseded leader, and shows
//! older values. If no engine is left that has seen it, this lasts until the mark's holder raises it
//! again. A master that is cut off from its Sentinels together with some of its clients acknowledges
//! their writes until it learns of the new one: set `min-replicas-to-write 1` there, then it refuses
//! them after `min-replicas-max-lag`.
//!
//! # The servers
//!
//! Redis 7 or newer. `appendonly yes`, or the engine warns; with `appendfsync always` a crash of a
//! server loses nothing, with `everysec` the last second. `maxmemory-policy noeviction` (or one of the
//! `volatile-…`): a server that drops any key when it is full would drop marks, and is refused.
//!
//! The user needs these rules, with the prefix as configured:
//!
//! ```text
//! ~hydrant:* &hydrant:* -@all +@read +@write +@connection +@pubsub +eval +evalsha +info +wait +time
//! +cluster|slots +acl|dryrun
//! ```
//!
//! The default user may be off, but must have all permissions (`user default off ~* &* +@all`): Redis
//! replays its append-only file with the permissions of that user, and drops the transactions that it
//! lacks one for, without an error (<https://github.com/redis/redis/issues/14541>). The engine asks
//! whether that is so (`acl|dryrun`), and refuses such a server.

mod address;
mod config;
mod core;
mod dial;
mod error;
mod keeper;
mod message;
mod names;
mod requests;
mod seen;
mod server;
mod state;
mod topology;
mod view;
mod watcher;

pub use config::{Config, Mode, Secret, Tls};
pub use state::RedisState;

/// What has happened since the engine was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that the connected replicas did not confirm in time.
    pub unconfirmed_writes: u64,
    /// Reads that were refused since the key had been seen under a higher epoch.
    pub hidden_reads: u64,
    /// How often messages were found to be lost, and all was compared.
    pub lost_messages: u64,
    /// How often changes were subscribed to.
    pub subscriptions: u64,
}
