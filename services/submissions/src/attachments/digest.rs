//! The SHA-256 of a whole file, taken while it comes in pieces, by one process after another.

use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};

use crate::receipt::hex;

/// The hash of what came so far, to go on with.
#[derive(Clone, Default)]
pub(super) struct Running(Sha256);

impl Running {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Its state, as it is kept in a row.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Goes on from a state that was kept; none if it is not one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let state = bytes.try_into().ok()?;
        Sha256::deserialize(state).ok().map(Self)
    }

    /// The hash, in hex.
    pub(super) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::sha256_of;

    #[test]
    fn a_hash_goes_on_where_another_process_left_it() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for cut in [0, 1, 63, 64, 65, 500, 1000] {
            let mut first = Running::default();
            first.update(&bytes[..cut]);
            let mut second = Running::from_bytes(&first.to_bytes()).unwrap();
            second.update(&bytes[cut..]);
            assert_eq!(second.finish(), sha256_of(&bytes), "{cut}");
        }
    }

    #[test]
    fn what_is_no_state_is_none() {
        assert!(Running::from_bytes(b"").is_none());
        assert!(Running::from_bytes(&[0xff; 105]).is_none());
    }
}
