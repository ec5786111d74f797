//! In which bucket somebody falls: one function for flags, experiments and weights of versions, so that
//! they can agree; and the table that says who has which bucket.

mod table;

pub use table::{InvalidTable, SlotTable};

/// How many slots there are: one for each hundredth of a percent.
pub const SLOTS: u16 = 10_000;

/// One of the [`SLOTS`] slots that people fall into, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number; `None` from [`SLOTS`] on.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// Its number, below [`SLOTS`].
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The slot of a subject, as somebody's id, under a salt. Another salt is another draw.
///
/// It is [`murmur3`] over the UTF-8 of the salt, a colon, and the UTF-8 of the subject, scaled to the
/// slots by `(hash * 10000) >> 32`. A salt has no colon, so that no two pairs are the same bytes.
///
/// ```
/// use hydrant_contracts::bucket::slot;
/// assert_eq!(slot("checkout", "user-1").number(), 8146);
/// ```
pub fn slot(salt: &str, subject: &str) -> Slot {
    let hash = murmur3_of(&[salt.as_bytes(), b":", subject.as_bytes()]);
    Slot(((u64::from(hash) * u64::from(SLOTS)) >> 32) as u16)
}

/// MurmurHash3, x86, 32 bits, seed 0: fast, evenly spread, and the same in every language.
///
/// ```
/// assert_eq!(hydrant_contracts::bucket::murmur3(b"flag-user"), 2_410_693_464);
/// ```
pub fn murmur3(bytes: &[u8]) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let hash = blocks.iter().fold(0, |hash, block| mix(hash, *block));
    finish(hash, tail, bytes.len())
}

/// The same over parts that stand behind each other, without putting them together.
fn murmur3_of(parts: &[&[u8]]) -> u32 {
    let (mut hash, mut length) = (0, 0);
    let (mut open, mut filled) = ([0; 4], 0);
    for &byte in parts.iter().copied().flatten() {
        open[filled] = byte;
        filled += 1;
        length += 1;
        if filled == 4 {
            hash = mix(hash, open);
            filled = 0;
        }
    }
    finish(hash, &open[..filled], length)
}

fn mix(hash: u32, block: [u8; 4]) -> u32 {
    (hash ^ scramble(u32::from_le_bytes(block)))
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}

fn finish(mut hash: u32, tail: &[u8], length: usize) -> u32 {
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    hash ^= scramble(u32::from_le_bytes(last));
    hash ^= length as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn scramble(block: u32) -> u32 {
    block
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 100,000 ids as apps have them: numbers, UUIDs, addresses.
    fn ids() -> impl Iterator<Item = String> {
        let mut random = fastrand::Rng::with_seed(4);
        (0..100_000).map(move |n| match n % 3 {
            0 => format!("user-{n}"),
            1 => uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes())
                .into_uuid()
                .to_string(),
            _ => format!("person.{n}@example.com"),
        })
    }

    /// The published vectors: whoever follows in another language has to find these.
    #[test]
    fn slots_are_those_that_are_published() {
        for (salt, subject, expected) in VECTORS {
            assert_eq!(slot(salt, subject).number(), expected, "{salt}:{subject}");
        }
    }

    const VECTORS: [(&str, &str, u16); 8] = [
        ("", "", 1685),
        ("checkout", "user-1", 8146),
        ("checkout", "user-2", 9937),
        ("checkout", "", 344),
        ("experiment/new-checkout", "user-1", 3380),
        ("layer/checkout", "user-1", 628),
        ("holdout/everybody", "user-1", 595),
        ("experiment/new-checkout", "zoë@example.com", 2302),
    ];

    #[test]
    fn people_are_spread_evenly() {
        for salt in ["experiment/a", "experiment/b", "layer/a"] {
            let mut seen = [0.0; 100];
            for id in ids() {
                seen[usize::from(slot(salt, &id).number() / 100)] += 1.0;
            }
            // 99 degrees of freedom: one in a hundred thousand is above 172.
            let chi = chi_square(&seen, 1000.0);
            assert!(chi < 172.0, "{salt}: {chi}");
        }
    }

    #[test]
    fn two_salts_are_two_draws() {
        for (one, other) in [
            ("experiment/a", "experiment/b"),
            ("layer/a", "experiment/a"),
            ("holdout/a", "layer/a"),
        ] {
            let mut seen = [0.0; 100];
            for id in ids() {
                let tenth = |salt| usize::from(slot(salt, &id).number() / 1000);
                seen[tenth(one) * 10 + tenth(other)] += 1.0;
            }
            let chi = chi_square(&seen, 1000.0);
            assert!(chi < 172.0, "{one} and {other}: {chi}");
        }
    }

    fn chi_square(seen: &[f64], expected: f64) -> f64 {
        seen.iter()
            .map(|seen| (seen - expected).powi(2) / expected)
            .sum()
    }

    proptest! {
        #[test]
        fn parts_hash_as_the_whole(parts in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(murmur3_of(&slices), murmur3(&parts.concat()));
        }

        #[test]
        fn a_slot_is_one_of_the_slots(salt: String, subject: String) {
            prop_assert!(slot(&salt, &subject).number() < SLOTS);
        }
    }
}
