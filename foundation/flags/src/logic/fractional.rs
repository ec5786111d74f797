//! `fractional`: a share of people for each variant, by a hash of who they are.

use hydrant_contracts::bucket::murmur3;
use serde_json::Value;

use super::budget::Stop;
use super::cbor;
use super::evaluate::Run;
use super::node::Node;
use super::value::{Shape, Val};

/// The sum of all weights stays within this.
const MAX_WEIGHT: u64 = i32::MAX as u64;

/// Which bytes are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The text of the key; by default the flag's key followed by the targeting key.
    #[default]
    V2,
    /// The deterministic CBOR of the key; by default the list of both.
    V3,
}

impl Form {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "v2" => Some(Self::V2),
            "v3" => Some(Self::V3),
            _ => None,
        }
    }
}

/// A distribution, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Fractional {
    form: Form,
    /// The key, or the first share when it turns out to be a list.
    first: Option<Node>,
    shares: Box<[Node]>,
    /// The same shares, when variants and weights are known: with the place up to which each one reaches.
    known: Option<Box<[(u64, Value)]>>,
}

impl Fractional {
    pub(crate) fn new(form: Form, first: Option<Node>, shares: Box<[Node]>) -> Self {
        let known = known(&shares);
        Self {
            form,
            first,
            shares,
            known,
        }
    }

    /// The variant for who asks; nothing when the key is missing, or a weight is none.
    pub(crate) fn evaluate<'a>(&'a self, data: &Val<'a>, run: &Run<'a>) -> Result<Val<'a>, Stop> {
        let first = match &self.first {
            Some(first) => Some(run.evaluate(first, data)?),
            None => None,
        };
        let (key, share) = match first {
            Some(value) if value.items().is_some() => (None, Some(value)),
            key => (key, None),
        };
        // Arguments are evaluated before the key is asked for: one that fails, fails for everybody.
        let computed = match &self.known {
            Some(known) if share.is_none() => {
                let hash = self.hash(key, data, run)?;
                return Ok(hash.map_or(Val::Null, |hash| choose_known(hash, known)));
            }
            _ => self.computed(share, data, run)?,
        };
        match (self.hash(key, data, run)?, computed) {
            (Some(hash), Some(shares)) => Ok(choose(hash, shares)),
            _ => Ok(Val::Null),
        }
    }

    fn hash(
        &self,
        key: Option<Val<'_>>,
        data: &Val<'_>,
        run: &Run<'_>,
    ) -> Result<Option<u32>, Stop> {
        match (self.form, key) {
            (Form::V2, Some(key)) => {
                let key = key.as_str().map(str::as_bytes);
                run.budget.take_bytes(key.map_or(0, <[u8]>::len))?;
                Ok(key.map(murmur3))
            }
            (Form::V3, Some(Val::Null)) => Ok(None),
            (Form::V3, Some(key)) => {
                let mut bytes = Vec::new();
                let written = cbor::write(&key, &mut bytes, &run.budget)?;
                Ok(written.map(|()| murmur3(&bytes)))
            }
            (form, None) => default_hash(form, data, run),
        }
    }

    /// The shares, each with the place up to which it reaches; `None` when one is none.
    fn computed<'a>(
        &'a self,
        first: Option<Val<'a>>,
        data: &Val<'a>,
        run: &Run<'a>,
    ) -> Result<Option<Vec<(u64, Val<'a>)>>, Stop> {
        let (mut shares, mut sum, mut sound) = (Vec::new(), 0, true);
        let rest = self.shares.iter().map(|share| run.evaluate(share, data));
        for share in first.into_iter().map(Ok).chain(rest) {
            match pair(&share?) {
                Some((variant, weight)) => {
                    sum += weight;
                    shares.push((sum, variant));
                }
                None => sound = false,
            }
        }
        Ok((sound && sum <= MAX_WEIGHT).then_some(shares))
    }
}

fn choose<'a>(hash: u32, shares: Vec<(u64, Val<'a>)>) -> Val<'a> {
    let bucket = bucket(hash, shares.last().map_or(0, |(sum, _)| *sum));
    let chosen = shares.into_iter().find(|(end, _)| bucket < *end);
    chosen.map_or(Val::Null, |(_, variant)| variant)
}

fn known(shares: &[Node]) -> Option<Box<[(u64, Value)]>> {
    let mut sum = 0;
    let mut known = Vec::with_capacity(shares.len());
    for share in shares {
        let Node::Constant(share) = share else {
            return None;
        };
        let (_, weight) = pair(&Val::from(share))?;
        sum += weight;
        known.push((sum, share.get(0)?.clone()));
    }
    (sum <= MAX_WEIGHT).then(|| known.into())
}

fn choose_known<'a>(hash: u32, known: &'a [(u64, Value)]) -> Val<'a> {
    let bucket = bucket(hash, known.last().map_or(0, |(sum, _)| *sum));
    let chosen = known.partition_point(|(end, _)| *end <= bucket);
    known
        .get(chosen)
        .map_or(Val::Null, |(_, variant)| Val::from(variant))
}

fn bucket(hash: u32, sum: u64) -> u64 {
    (u64::from(hash) * sum) >> 32
}

/// A share: what names the variant, and its weight, 1 unless it says another.
fn pair<'a>(share: &Val<'a>) -> Option<(Val<'a>, u64)> {
    let items = share.items()?;
    let variant = items.get(0).filter(is_variant)?;
    match items.len() {
        1 => Some((variant, 1)),
        2 => Some((variant, whole(&items.get(1)?)?)),
        _ => None,
    }
}

/// What the name of a variant can be made from.
fn is_variant(value: &Val<'_>) -> bool {
    !matches!(value.shape(), Shape::List | Shape::Object)
}

/// A weight: a whole number. Below 0 it is 0, since a roll-out may be computed.
fn whole(value: &Val<'_>) -> Option<u64> {
    match value.shape() {
        Shape::Number(number) if number.fract() == 0.0 => {
            Some(number.clamp(0.0, (MAX_WEIGHT + 1) as f64) as u64)
        }
        _ => None,
    }
}

/// The hash of the flag and of who asks, at the top of an expression: within a loop the data is the item.
fn default_hash(form: Form, data: &Val<'_>, run: &Run<'_>) -> Result<Option<u32>, Stop> {
    let (Val::Context, Some(who)) = (data, run.targeting_key()) else {
        return Ok(None);
    };
    run.budget.take_bytes(who.len())?;
    if form == Form::V3 {
        let mut bytes = Vec::with_capacity(run.flag_key.len() + who.len() + 16);
        cbor::write_pair(run.flag_key, who, &mut bytes, &run.budget)?;
        return Ok(Some(murmur3(&bytes)));
    }
    Ok(Some(hash_of_both(run.flag_key, who)))
}

/// Short keys, and that is nearly all, are joined on the stack.
fn hash_of_both(flag: &str, who: &str) -> u32 {
    let mut short = [0; 256];
    let length = flag.len() + who.len();
    match short.get_mut(..length) {
        Some(bytes) => {
            let (front, back) = bytes.split_at_mut(flag.len());
            front.copy_from_slice(flag.as_bytes());
            back.copy_from_slice(who.as_bytes());
            murmur3(bytes)
        }
        None => murmur3([flag, who].concat().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the C++ implementation's binding for Python, over UTF-8.
    #[test]
    fn other_characters_are_hashed_as_utf_8() {
        for (key, hash) in [
            ("größe", 3_822_294_591),
            ("flagüser", 2_989_390_641),
            ("日本", 3_302_619_458),
        ] {
            assert_eq!(murmur3(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn long_keys_hash_like_short_ones() {
        for length in [0, 1, 200, 255, 256, 257, 1000] {
            let who = "ü".repeat(length);
            assert_eq!(
                hash_of_both("flag", &who),
                murmur3(format!("flag{who}").as_bytes())
            );
        }
    }
}
