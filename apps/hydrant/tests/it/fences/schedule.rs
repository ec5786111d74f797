//! Which faults there are, when, and for how long: the seed decides all of it.

use super::holder::SEATS;

/// Until when the faults of a schedule begin, in milliseconds.
const BEGIN: u64 = 600;
/// The shortest time of a fault.
const SHORTEST: u64 = 50;
/// The longest time that a holder suffers: twice what it may be silent.
const HOLDER: u64 = 1000;
/// The longest time that a server suffers: more than a node's session lives.
const SERVER: u64 = 1700;

/// What happens. Numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGSTOP of the process that holds the seat, then SIGCONT.
    StopHolder(usize),
    /// SIGKILL of it, and another process.
    KillHolder(usize),
    /// SIGSTOP of a node, then SIGCONT.
    StopNode(usize),
    /// SIGKILL of a node; another one comes when the schedule is over.
    KillNode(usize),
    /// A node's connections to the registry are reset, and new ones refused.
    CutRegistry(usize),
    /// Nothing moves between a node and the registry, and nothing is closed.
    HoldRegistry(usize),
    /// A node's connections to the state are reset, and new ones refused.
    CutState(usize),
    /// Nothing moves between a node and the state, and nothing is closed.
    HoldState(usize),
    /// SIGKILL of a server of the registry; it comes back when the schedule is over.
    KillRegistry(usize),
    /// SIGSTOP of a server of the registry, then SIGCONT.
    StopRegistry(usize),
    /// SIGKILL of the state's server; it comes back on its data.
    KillState,
    /// SIGSTOP of the state's server, then SIGCONT.
    StopState,
}

/// What there is to strike.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    pub nodes: usize,
    /// The servers of the registry; 0 where it is a part of the node.
    pub registry: usize,
}

/// A fault and its time, in milliseconds from the begin of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub begin: u64,
    pub end: u64,
}

/// The faults of one schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub faults: Vec<Planned>,
}

impl Schedule {
    /// Draws two to six faults, no two of which strike the same thing.
    pub fn draw(seed: u64, reach: Reach) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults: Vec<Planned> = Vec::new();
        for _ in 0..random.usize(2..=6) {
            let fault = draw(&mut random, reach);
            let begin = random.u64(0..BEGIN);
            let end = begin + fault.length(random.f64());
            if faults.iter().all(|one| !one.fault.strikes_with(fault)) {
                faults.push(Planned { fault, begin, end });
            }
        }
        Self { seed, faults }
    }

    /// The begins and ends in the order of time, as `(at, place, begins)`.
    pub fn steps(&self) -> Vec<(u64, usize, bool)> {
        let places = self.faults.iter().enumerate();
        let mut steps: Vec<_> = places
            .flat_map(|(place, one)| [(one.begin, place, true), (one.end, place, false)])
            .collect();
        steps.sort_unstable_by_key(|(at, place, begins)| (*at, !begins, *place));
        steps
    }
}

fn draw(random: &mut fastrand::Rng, reach: Reach) -> Fault {
    let node = random.usize(..reach.nodes);
    let seat = random.usize(..SEATS.len());
    let apart = reach.registry > 0;
    match random.u8(..100) {
        lot if !apart => match lot {
            ..55 => Fault::StopHolder(seat),
            55..88 => Fault::KillHolder(seat),
            88..95 => Fault::StopNode(node),
            _ => Fault::KillNode(node),
        },
        ..28 => Fault::StopHolder(seat),
        28..46 => Fault::KillHolder(seat),
        46..58 => Fault::StopNode(node),
        58..62 => Fault::KillNode(node),
        62..69 => Fault::CutRegistry(node),
        69..77 => Fault::HoldRegistry(node),
        77..82 => Fault::CutState(node),
        82..88 => Fault::HoldState(node),
        88..90 => Fault::KillRegistry(random.usize(..reach.registry)),
        90..94 => Fault::StopRegistry(random.usize(..reach.registry)),
        94..97 => Fault::KillState,
        _ => Fault::StopState,
    }
}

impl Fault {
    /// What is the same for two faults that would undo each other.
    fn thing(self) -> (u8, usize) {
        match self {
            Self::StopHolder(seat) | Self::KillHolder(seat) => (0, seat),
            Self::StopNode(node) | Self::KillNode(node) => (1, node),
            Self::CutRegistry(node) | Self::HoldRegistry(node) => (2, node),
            Self::CutState(node) | Self::HoldState(node) => (3, node),
            // Two of three servers away is another test.
            Self::KillRegistry(_) | Self::StopRegistry(_) => (4, 0),
            Self::KillState | Self::StopState => (5, 0),
        }
    }

    /// How long it takes, for a lot between 0 and 1. Long ones are rare.
    fn length(self, lot: f64) -> u64 {
        let longest = match self {
            Self::StopHolder(_) | Self::KillHolder(_) => HOLDER,
            _ => SERVER,
        };
        SHORTEST + (lot * lot * (longest - SHORTEST) as f64) as u64
    }

    fn strikes_with(self, other: Self) -> bool {
        self.thing() == other.thing()
    }

    /// Its name without numbers, for people.
    pub fn kind(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_seed_draws_the_same_again_and_all_is_drawn() {
    let reach = Reach {
        nodes: 3,
        registry: 3,
    };
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..500 {
        let schedule = Schedule::draw(seed, reach);
        let again = format!("{:?}", Schedule::draw(seed, reach));
        assert_eq!(format!("{schedule:?}"), again);
        for one in &schedule.faults {
            assert!(one.begin < one.end && one.end < BEGIN + SERVER, "{one:?}");
            kinds.insert(one.fault.kind());
        }
    }
    assert_eq!(kinds.len(), 12, "{kinds:?}");
}
