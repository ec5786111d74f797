//! Deterministic CBOR (RFC 8949, section 4.2), by which the third form of `fractional` hashes a key.

use serde_json::{Number, Value};

use super::budget::{Budget, Stop};
use super::value::{Shape, Val};

/// Appends a value. Whole numbers are integers however they are written, as far as 64 bits reach.
/// `None` for what has no fixed form.
pub(crate) fn write(
    value: &Val<'_>,
    out: &mut Vec<u8>,
    budget: &Budget,
) -> Result<Option<()>, Stop> {
    budget.take(1)?;
    match value {
        Val::Json(json) => return json_value(json, out, budget).map(Some),
        Val::Context | Val::Step(_) => return Ok(None),
        _ => {}
    }
    match value.shape() {
        Shape::Bool(bool) => out.push(0xF4 + u8::from(bool)),
        Shape::Number(number) => float(number, out),
        Shape::Text(value) => text(value, out, budget)?,
        Shape::List => return list(value, out, budget),
        Shape::Null | Shape::Object => out.push(0xF6),
    }
    Ok(Some(()))
}

/// The key that is hashed when a rule names none: the flag and who asks, as a list.
pub(crate) fn write_pair(
    flag: &str,
    who: &str,
    out: &mut Vec<u8>,
    budget: &Budget,
) -> Result<(), Stop> {
    head(4, 2, out);
    text(flag, out, budget)?;
    text(who, out, budget)
}

fn list(value: &Val<'_>, out: &mut Vec<u8>, budget: &Budget) -> Result<Option<()>, Stop> {
    let Some(items) = value.items() else {
        return Ok(None);
    };
    head(4, items.len() as u64, out);
    for item in (0..items.len()).filter_map(|index| items.get(index)) {
        if write(&item, out, budget)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

fn json_value(value: &Value, out: &mut Vec<u8>, budget: &Budget) -> Result<(), Stop> {
    budget.take(1)?;
    match value {
        Value::Null => out.push(0xF6),
        Value::Bool(bool) => out.push(0xF4 + u8::from(*bool)),
        Value::Number(value) => number(value, out),
        Value::String(value) => text(value, out, budget)?,
        Value::Array(items) => {
            head(4, items.len() as u64, out);
            items
                .iter()
                .try_for_each(|item| json_value(item, out, budget))?;
        }
        Value::Object(members) => {
            head(5, members.len() as u64, out);
            // By the bytes of the encoded key: shorter ones first.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
            for (key, member) in members {
                text(key, out, budget)?;
                json_value(member, out, budget)?;
            }
        }
    }
    Ok(())
}

fn text(value: &str, out: &mut Vec<u8>, budget: &Budget) -> Result<(), Stop> {
    head(3, value.len() as u64, out);
    out.extend_from_slice(value.as_bytes());
    budget.take_bytes(value.len())
}

fn number(number: &Number, out: &mut Vec<u8>) {
    match (number.as_u64(), number.as_i64()) {
        (Some(positive), _) => head(0, positive, out),
        (None, Some(negative)) => head(1, !(negative as u64), out),
        (None, None) => float(number.as_f64().unwrap_or(f64::NAN), out),
    }
}

fn float(number: f64, out: &mut Vec<u8>) {
    const MOST: f64 = 18_446_744_073_709_551_616.0;
    const LEAST: f64 = -9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (LEAST..MOST).contains(&number) {
        return if number < 0.0 {
            head(1, !(number as i64 as u64), out)
        } else {
            head(0, number as u64, out)
        };
    }
    if number.is_nan() {
        return out.extend([0xF9, 0x7E, 0x00]);
    }
    let single = number as f32;
    if f64::from(single) != number {
        out.push(0xFB);
        return out.extend(number.to_be_bytes());
    }
    match half(single) {
        Some(half) => {
            out.push(0xF9);
            out.extend(half.to_be_bytes());
        }
        None => {
            out.push(0xFA);
            out.extend(single.to_be_bytes());
        }
    }
}

/// The same number in 16 bits, if it fits there exactly.
fn half(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let (sign, mantissa) = ((bits >> 16) as u16 & 0x8000, bits & 0x7F_FFFF);
    let exponent = (bits >> 23 & 0xFF) as i32 - 127;
    match exponent {
        128 => (mantissa == 0).then_some(sign | 0x7C00),
        -14..=15 => (mantissa & 0x1FFF == 0)
            .then(|| sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16),
        // Below that, 16 bits have fewer and fewer digits.
        -24..=-15 => {
            let (whole, shift) = (mantissa | 0x80_0000, (-1 - exponent) as u32);
            (whole.trailing_zeros() >= shift).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}

/// The kind of an item and its size or value, in as few bytes as it needs.
fn head(major: u8, value: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match value {
        0..=23 => out.push(major | value as u8),
        24..=0xFF => out.extend([major | 24, value as u8]),
        0x100..=0xFFFF => {
            out.push(major | 25);
            out.extend((value as u16).to_be_bytes());
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.push(major | 26);
            out.extend((value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hex(value: &Value) -> String {
        let mut out = Vec::new();
        write(&Val::from(value), &mut out, &Budget::default())
            .unwrap()
            .unwrap();
        out.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The examples of RFC 8949, appendix A, as far as JSON has them; whole floats as integers.
    #[test]
    fn values_are_encoded_as_the_examples_of_the_standard() {
        for (value, bytes) in [
            (json!(0), "00"),
            (json!(23), "17"),
            (json!(24), "1818"),
            (json!(1000), "1903e8"),
            (json!(1_000_000), "1a000f4240"),
            (json!(1_000_000_000_000_u64), "1b000000e8d4a51000"),
            (json!(u64::MAX), "1bffffffffffffffff"),
            (json!(-1), "20"),
            (json!(-1000), "3903e7"),
            (json!(i64::MIN), "3b7fffffffffffffff"),
            (json!(-0.0), "00"),
            (json!(1.0), "01"),
            (json!(1.5), "f93e00"),
            (json!(5.960_464_477_539_063e-8), "f90001"),
            (json!(0.000_061_035_156_25), "f90400"),
            (json!(1.1), "fb3ff199999999999a"),
            (json!(3.402_823_466_385_288_6e38), "fa7f7fffff"),
            (json!(1.0e300), "fb7e37e43c8800759c"),
            (json!(-4.1), "fbc010666666666666"),
            (json!("ü"), "62c3bc"),
            (json!([1, [2, 3]]), "8201820203"),
            (json!({"bb": 1, "c": [null, true]}), "a2616382f6f562626201"),
        ] {
            assert_eq!(hex(&value), bytes, "{value}");
        }
    }
}
