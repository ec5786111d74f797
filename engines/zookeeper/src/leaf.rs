//! What a leaf holds: the owner of the session that put it, and the value.
//!
//! ```text
//! 1 byte   the format, 1
//! 1 byte   the length of the owner's name; 0 for a kept key
//!          the owner's name
//!          the value
//! ```

use bytes::Bytes;

const FORMAT: u8 = 1;

/// The longest name of an owner, in bytes.
pub(crate) const MAX_OWNER: usize = 255;

pub(crate) fn encode(owner: &str, value: &[u8]) -> Vec<u8> {
    debug_assert!(owner.len() <= MAX_OWNER);
    let mut data = Vec::with_capacity(2 + owner.len() + value.len());
    data.extend([FORMAT, owner.len() as u8]);
    data.extend(owner.as_bytes());
    data.extend(value);
    data
}

/// The owner's name and the value; `None` for what this engine has not written.
pub(crate) fn decode(data: Vec<u8>) -> Option<(String, Bytes)> {
    let [FORMAT, length, rest @ ..] = data.as_slice() else {
        return None;
    };
    let length = usize::from(*length);
    let owner = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
    let value = Bytes::from(data).slice(2 + length..);
    Some((owner, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_comes_back() {
        for (owner, value) in [("", ""), ("one", ""), ("", "x"), ("one", "{}")] {
            let (read, bytes) = decode(encode(owner, value.as_bytes())).unwrap();
            assert_eq!((read.as_str(), &*bytes), (owner, value.as_bytes()));
        }
        for foreign in [
            &b""[..],
            b"\x01",
            b"\x02\x00",
            b"\x01\x05abc",
            b"\x01\x01\xff",
        ] {
            assert!(decode(foreign.to_vec()).is_none(), "{foreign:?}");
        }
    }
}
