//! What the keys in Redis are called, and which partition they are in.

use crate::config::Mode;

/// How many partitions there are in a cluster. It is part of the format: with another number, keys
/// would be looked for in the wrong place.
const PARTITIONS: usize = 16;

/// The names of one partition. All have one hash tag, so a cluster keeps them in one slot, and one
/// script reaches them all.
pub(crate) struct Names {
    /// What the keys of entries begin with.
    pub(crate) entry: String,
    /// The sorted set of the names of all entries.
    pub(crate) names: String,
    /// The sorted set of the names of those that end, with their ends.
    pub(crate) ends: String,
    /// The hash of marks and their epochs.
    pub(crate) marks: String,
    /// The last revision.
    pub(crate) counter: String,
    /// What is written to see whether it can be.
    pub(crate) probe: String,
    /// The channel on which changes are told.
    pub(crate) channel: String,
    /// The cluster's slot.
    pub(crate) slot: u16,
}

pub(crate) fn partitions(mode: Mode, prefix: &str) -> Vec<Names> {
    let number = match mode {
        Mode::Single | Mode::Sentinel => 1,
        Mode::Cluster => PARTITIONS,
    };
    (0..number).map(|index| Names::new(prefix, index)).collect()
}

/// The partition of a key: by a hash that will never change.
pub(crate) fn partition_of(key: &str, partitions: usize) -> usize {
    usize::from(crc16(key.as_bytes())) % partitions
}

impl Names {
    fn new(prefix: &str, index: usize) -> Self {
        let tag = format!("p{index}");
        let name = |what: &str| format!("{prefix}{{{tag}}}:{what}");
        Self {
            entry: name("entry:"),
            names: name("names"),
            ends: name("ends"),
            marks: name("marks"),
            counter: name("counter"),
            probe: name("probe"),
            channel: name("changes"),
            slot: crc16(tag.as_bytes()) % 16384,
        }
    }

    pub(crate) fn entry_of(&self, key: &str) -> String {
        format!("{}{key}", self.entry)
    }
}

/// CRC-16/XMODEM, by which a Redis cluster makes a slot from a hash tag.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            let shifted = sum << 1;
            match sum & 0x8000 {
                0 => shifted,
                _ => shifted ^ 0x1021,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn partitions_spread_over_slots_and_keys_over_partitions() {
        let all = partitions(Mode::Cluster, "hydrant:");
        for third in 0..3 {
            let share = all.iter().filter(|names| names.slot / 5462 == third);
            let share = share.count();
            assert!((3..=8).contains(&share), "{share} of 16 in third {third}");
        }
        let mut keys = [0; PARTITIONS];
        for index in 0..1600 {
            keys[partition_of(&format!("api/mobile/key-{index}"), PARTITIONS)] += 1;
        }
        assert!(keys.iter().all(|count| *count > 50), "{keys:?}");
    }
}
