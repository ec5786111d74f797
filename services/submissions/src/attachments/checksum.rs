//! `Upload-Checksum`: the hash that a client says its bytes have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The names of the hashes, as tus lists them.
pub(super) const ALGORITHMS: &str = "sha1,sha256";

/// What is taken of the bytes as they come, and what it has to be.
pub(super) struct Checksum {
    taken: Taken,
    expected: Vec<u8>,
}

enum Taken {
    Sha1(Sha1),
    Sha256(Box<Sha256>),
}

impl Checksum {
    /// Reads `sha1 BASE64` or `sha256 BASE64`; none if it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, hash) = text.trim().split_once(' ')?;
        let (taken, length) = match name {
            "sha1" => (Taken::Sha1(Sha1::new()), 20),
            "sha256" => (Taken::Sha256(Box::default()), 32),
            _ => return None,
        };
        let expected = STANDARD.decode(hash.trim()).ok()?;
        (expected.len() == length).then_some(Self { taken, expected })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.taken {
            Taken::Sha1(hash) => hash.update(bytes),
            Taken::Sha256(hash) => hash.update(bytes),
        }
    }

    /// Whether the bytes are those that the client meant.
    pub(super) fn fits(&self) -> bool {
        let taken = match &self.taken {
            Taken::Sha1(hash) => hash.clone().finalize().to_vec(),
            Taken::Sha256(hash) => hash.clone().finalize().to_vec(),
        };
        taken == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(text: &str, bytes: &[u8]) -> Option<bool> {
        let mut checksum = Checksum::parse(text)?;
        checksum.update(bytes);
        Some(checksum.fits())
    }

    /// As `printf hello | openssl sha1 -binary | base64` says it, and so for sha256.
    #[test]
    fn a_hash_is_what_other_tools_say() {
        let sha1 = "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=";
        let sha256 = "sha256 LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
        for text in [sha1, sha256] {
            assert_eq!(fits(text, b"hello"), Some(true), "{text}");
            assert_eq!(fits(text, b"hellO"), Some(false), "{text}");
        }
    }

    #[test]
    fn what_is_no_checksum_is_none() {
        for text in [
            "",
            "sha1",
            "md5 XUFAKrxLKna5cZ2REBfFkg==",
            "sha1 ?",
            "sha1 AAAA",
        ] {
            assert!(Checksum::parse(text).is_none(), "{text}");
        }
    }
}
