//! The receipt: what each hop has put on record, chained by hash, so that anyone can check it.

use sha2::{Digest as _, Sha256};

use crate::proto::Hop;

/// The hash of what a hop puts on record: of the hash before (empty at the first), the hop's kind, its time in
/// milliseconds since 1970, and the record, each followed by a line feed; in hex.
pub(crate) fn hash(before: &str, kind: &str, at_unix_ms: i64, record: &str) -> String {
    let mut sha256 = Sha256::new();
    for part in [before, kind, &at_unix_ms.to_string(), record] {
        sha256.update(part.as_bytes());
        sha256.update(b"\n");
    }
    hex(&sha256.finalize())
}

/// A hop behind another, of which only the hash is needed.
pub(crate) fn hop(before: &str, kind: &str, at_unix_ms: i64, record: String) -> Hop {
    Hop {
        kind: kind.to_owned(),
        at_unix_ms,
        hash: hash(before, kind, at_unix_ms, &record),
        record,
        ..Default::default()
    }
}

/// Bytes in small hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of a text, in hex.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf '\naccepted\n7\n{}\n' | sha256sum` says it.
    #[test]
    fn a_hash_is_what_other_tools_say() {
        let expected = "6ba98432809105f50a60dcbe2fafaf78829770bc150c6203cf7730f9d03de4b6";
        assert_eq!(hash("", "accepted", 7, "{}"), expected);
    }

    #[test]
    fn whatever_is_changed_changes_all_hashes_behind() {
        let first = hop("", "accepted", 7, "{}".into());
        let second = hop(&first.hash, "submitted", 8, "{}".into());
        for other in [
            hash("", "accepted", 8, "{}"),
            hash("", "submitted", 7, "{}"),
            hash("", "accepted", 7, "{} "),
            hash("x", "accepted", 7, "{}"),
        ] {
            assert_ne!(other, first.hash);
            assert_ne!(hash(&other, "submitted", 8, "{}"), second.hash);
        }
    }
}
