//! What flags have to be, by a model of its own: nothing here is of the program under test. It knows
//! one family of flags, and the tables of slots as they are published.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The flags that are changed.
pub const FLAGS: [&str; 5] = ["plain", "split", "ruled", "mixed", "spare"];
/// The flag with the experiment on it.
pub const TESTED: &str = "tested";
/// The experiment.
pub const EXPERIMENT: &str = "trial";
pub const VARIANTS: [&str; 3] = ["a", "b", "c"];
pub const PLATFORMS: [&str; 3] = ["ios", "android", "web"];
const SLOTS: u64 = 10_000;

/// How a flag decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    Off,
    Fixed(&'static str),
    Split([u64; 3]),
    /// One variant for a platform, for the others a split.
    Ruled(&'static str, &'static str, [u64; 3]),
}

/// The documents of one revision, as their author means them.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub flags: BTreeMap<&'static str, Model>,
    /// The weights of the arms in percent: the control, and two others.
    pub weights: [u64; 3],
    /// Stands in the configuration.
    pub count: u64,
    /// Which arm has which slots, side by side: as the document `allocation/…` tells.
    pub runs: Vec<(String, u64)>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Person {
    pub key: String,
    pub platform: &'static str,
}

impl World {
    pub fn first() -> Self {
        Self {
            flags: FLAGS.map(|flag| (flag, Model::Fixed("a"))).into(),
            weights: [100, 0, 0],
            count: 0,
            runs: Vec::new(),
        }
    }

    /// The document `flags/chaos`.
    pub fn flags_document(&self) -> String {
        let mut flags = serde_json::Map::new();
        for (name, model) in &self.flags {
            flags.insert((*name).to_owned(), model.definition(name));
        }
        let tested = Model::Fixed("a").definition(TESTED);
        flags.insert(TESTED.to_owned(), tested);
        json!({ "flags": flags }).to_string()
    }

    /// The document `experiment/trial`.
    pub fn experiment_document(&self) -> String {
        let [a, b, c] = self.weights;
        json!({
            "flag": TESTED, "state": "running", "control": "a",
            "arms": { "a": a, "b": b, "c": c },
        })
        .to_string()
    }

    /// The document `config/base`.
    pub fn config_document(&self) -> String {
        json!({ "values": { "count": self.count } }).to_string()
    }

    /// The variant that a flag has to have; `None` for a flag that is off.
    pub fn variant(&self, flag: &str, person: &Person) -> Option<&str> {
        if flag == TESTED {
            return Some(self.arm(&person.key));
        }
        match self.flags.get(flag)? {
            Model::Off => None,
            Model::Fixed(variant) => Some(variant),
            Model::Split(weights) => Some(share(flag, &person.key, weights)),
            Model::Ruled(platform, variant, _) if *platform == person.platform => Some(variant),
            Model::Ruled(_, _, weights) => Some(share(flag, &person.key, weights)),
        }
    }

    fn arm(&self, key: &str) -> &str {
        let text = format!("experiment/{EXPERIMENT}:{key}");
        let slot = (u64::from(murmur3(text.as_bytes())) * SLOTS) >> 32;
        let mut end = 0;
        let found = self.runs.iter().find(|(_, length)| {
            end += length;
            slot < end
        });
        &found.expect("the runs are all slots").0
    }

    /// What is wrong with the table, after the one before: the weights hold, and slots move between
    /// the control and another arm only, those of an arm that grows or of one that shrinks.
    pub fn check_table(&self, before: &Self) -> Result<(), String> {
        let (old, new) = (before.spread(), self.spread());
        if new.len() as u64 != SLOTS {
            return Err(format!("{} slots", new.len()));
        }
        for (at, arm) in VARIANTS.iter().enumerate() {
            let has = new.iter().filter(|of| of == &arm).count() as u64;
            if has != self.weights[at] * 100 {
                return Err(format!("{arm} has {has} slots, {} %", self.weights[at]));
            }
        }
        let grew = |arm: &str| {
            let at = VARIANTS.iter().position(|one| *one == arm).unwrap();
            self.weights[at].cmp(&before.weights[at])
        };
        for (slot, (was, is)) in old.iter().zip(&new).enumerate() {
            let is_right =
                was == is || (*was == "a" && grew(is).is_gt()) || (*is == "a" && grew(was).is_lt());
            if !is_right {
                return Err(format!("slot {slot} moved from {was} to {is}"));
            }
        }
        Ok(())
    }

    fn spread(&self) -> Vec<&str> {
        let run = |(arm, length): &'_ (String, u64)| vec![arm.clone(); *length as usize];
        let all: Vec<String> = self.runs.iter().flat_map(run).collect();
        all.iter()
            .map(|arm| *VARIANTS.iter().find(|one| *one == arm).expect("an arm"))
            .collect()
    }
}

impl Model {
    pub fn random(random: &mut fastrand::Rng) -> Self {
        let weights = [random.u64(0..5), random.u64(0..5), random.u64(1..5)];
        let variant = VARIANTS[random.usize(..3)];
        match random.u8(..5) {
            0 => Self::Off,
            1 => Self::Fixed(variant),
            2 | 3 => Self::Split(weights),
            _ => Self::Ruled(PLATFORMS[random.usize(..3)], variant, weights),
        }
    }

    fn definition(&self, flag: &str) -> Value {
        let split = |weights: &[u64; 3]| {
            let [a, b, c] = weights;
            json!({ "fractional": [["a", a], ["b", b], ["c", c]] })
        };
        let (default, targeting) = match self {
            Self::Off => ("a", None),
            Self::Fixed(variant) => (*variant, None),
            Self::Split(weights) => ("a", Some(split(weights))),
            Self::Ruled(platform, variant, weights) => {
                let holds = json!({ "==": [{ "var": "platform" }, platform] });
                let rule = json!({ "if": [holds, variant, split(weights)] });
                ("a", Some(rule))
            }
        };
        let value = |variant: &str| format!("{flag}-{variant}");
        let mut definition = json!({
            "state": if *self == Self::Off { "DISABLED" } else { "ENABLED" },
            "variants": { "a": value("a"), "b": value("b"), "c": value("c") },
            "defaultVariant": default,
        });
        if let Some(targeting) = targeting {
            definition["targeting"] = targeting;
        }
        definition
    }
}

/// flagd's `fractional`, second form: the hash of the flag's key and the person's, over the sum.
fn share(flag: &str, key: &str, weights: &[u64; 3]) -> &'static str {
    let hash = u64::from(murmur3(format!("{flag}{key}").as_bytes()));
    let at = (hash * weights.iter().sum::<u64>()) >> 32;
    let mut end = 0;
    for (variant, weight) in VARIANTS.iter().zip(weights) {
        end += weight;
        if at < end {
            return variant;
        }
    }
    unreachable!("it is below the sum")
}

/// MurmurHash3 for x86 with 32 bits and the seed 0, written down once more from its description.
fn murmur3(bytes: &[u8]) -> u32 {
    let scramble = |word: u32| {
        let word = word.wrapping_mul(0xcc9e2d51);
        word.rotate_left(15).wrapping_mul(0x1b873593)
    };
    let mut hash: u32 = 0;
    for chunk in bytes.chunks(4) {
        let word = chunk
            .iter()
            .rev()
            .fold(0, |word: u32, byte| (word << 8) | u32::from(*byte));
        hash ^= scramble(word);
        if chunk.len() == 4 {
            hash = hash
                .rotate_left(13)
                .wrapping_mul(5)
                .wrapping_add(0xe6546b64);
        }
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85ebca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2ae35);
    hash ^ (hash >> 16)
}

#[test]
fn the_oracle_hashes_as_it_is_published() {
    assert_eq!(murmur3(b"flag-user"), 2_410_693_464);
    // The published slots of experiments.
    for (text, slot) in [
        ("checkout:user-1", 8146),
        ("experiment/new-checkout:user-1", 3380),
    ] {
        assert_eq!(
            (u64::from(murmur3(text.as_bytes())) * SLOTS) >> 32,
            slot,
            "{text}"
        );
    }
}
