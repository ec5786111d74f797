//! Locks and elections whose holders are killed and stopped, on servers that are killed, stopped
//! and cut off: at every moment at most one fence's writes are accepted.
//!
//! A seed decides the faults of a schedule, their order and their length; the machine decides the
//! rest. Schedules run one after the other on the same servers. `HYDRANT_SEED=N` begins with the
//! schedule N, and those that follow have the numbers behind it; `HYDRANT_SOAK=1` runs 500.

mod apart;
mod arena;
mod holder;
mod schedule;
mod servers;

use apart::Apart;
use arena::{Arena, Judged};
use schedule::Schedule;
use servers::{Servers, Single};

use crate::election::checker::Numbering;
use crate::harness::{is_soak, seed};

/// How many schedules run on the same servers.
const ROUND: usize = 25;

#[test]
fn one_fence_is_accepted_at_a_time_on_one_server() {
    let rounds = if is_soak() { 4 } else { 1 };
    let schedules = if is_soak() { ROUND } else { 8 };
    contest(rounds, schedules, Numbering::OneForAll, || {
        Some(Single::start())
    });
}

#[test]
fn one_fence_is_accepted_at_a_time_on_three_servers() {
    let rounds = if is_soak() { 20 } else { 1 };
    contest(rounds, ROUND, Numbering::PerKey, Apart::start);
}

fn contest<S: Servers>(
    rounds: usize,
    schedules: usize,
    numbering: Numbering,
    start: impl Fn() -> Option<S>,
) {
    let mut seed = seed();
    println!("{} schedules", rounds * schedules);
    let mut judged = Judged::default();
    for _ in 0..rounds {
        let Some(servers) = start() else {
            return;
        };
        let reach = servers.reach();
        let mut arena = Arena::new(servers, numbering);
        for _ in 0..schedules {
            arena.run(&Schedule::draw(seed, reach));
            seed = seed.wrapping_add(1);
        }
        judged.join(arena.finish());
    }
    judged.print();
    let count = judged.wrong.len();
    assert_eq!(count, 0, "violations; each tells its HYDRANT_SEED");
    for (seat, taken) in &judged.taken {
        assert!(
            *taken > rounds * schedules,
            "{seat} was taken {taken} times"
        );
    }
    assert!(
        judged.refused > rounds * schedules,
        "stale writes were tried"
    );
}
