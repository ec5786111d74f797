//! The receipt: what each hop has put on record, chained by hash, so that anyone can check it.

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::proto::Hop;

/// The most hops that a receipt has.
const MAX_HOPS: usize = 1000;

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

/// A receipt as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    form: String,
    hops: Vec<FileHop>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHop {
    kind: String,
    at: i64,
    record: String,
    hash: String,
}

/// A receipt whose chain is whole.
#[derive(Debug)]
pub struct CheckedReceipt {
    /// The submission.
    pub id: String,
    /// Its form.
    pub form: String,
    /// Its hops, from the first.
    pub hops: Vec<CheckedHop>,
}

/// A hop of a receipt whose chain is whole.
#[derive(Debug)]
pub struct CheckedHop {
    /// What happened, as `accepted`.
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// What was put on record.
    pub record: Map<String, Value>,
    /// The hash, in hex.
    pub hash: String,
}

/// Checks a receipt, as `GET …/receipt` gave it, by itself alone: each hash is computed again. That it is whole
/// means that nothing in it was changed since the last of its hashes was written; who knows that hash from
/// elsewhere knows that the receipt is the one that was given.
///
/// # Errors
///
/// What is wrong with it, and at which hop.
pub fn check_receipt(text: &str) -> Result<CheckedReceipt, String> {
    let file: File = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("it is no receipt: line {line}, column {column}")
    })?;
    if file.hops.is_empty() || file.hops.len() > MAX_HOPS {
        return Err(format!("it has {} hops", file.hops.len()));
    }
    let mut before = String::new();
    let mut hops = Vec::new();
    for (number, hop) in file.hops.into_iter().enumerate() {
        let hop = hop.checked(&before);
        let hop = hop.map_err(|wrong| format!("hop {} {wrong}", number + 1))?;
        before.clone_from(&hop.hash);
        hops.push(hop);
    }
    let named = |name: &str| hops[0].record.get(name).and_then(Value::as_str);
    if named("id") != Some(&file.id) || named("form") != Some(&file.form) {
        return Err("it is of another submission than its first hop".into());
    }
    Ok(CheckedReceipt {
        id: file.id,
        form: file.form,
        hops,
    })
}

impl FileHop {
    fn checked(self, before: &str) -> Result<CheckedHop, String> {
        if hash(before, &self.kind, self.at, &self.record) != self.hash {
            return Err("was changed, or a hop before it is missing".into());
        }
        let record = serde_json::from_str(&self.record);
        Ok(CheckedHop {
            record: record.map_err(|_| "has a record that is no JSON object")?,
            kind: self.kind,
            at_unix_ms: self.at,
            hash: self.hash,
        })
    }
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

    fn receipt() -> Value {
        let record = serde_json::json!({"id": "7", "form": "demo"}).to_string();
        let first = hop("", "accepted", 7, record);
        let second = hop(&first.hash, "submitted", 8, "{}".into());
        let hops = [first, second].map(|hop| {
            serde_json::json!({"kind": hop.kind, "at": hop.at_unix_ms, "record": hop.record, "hash": hop.hash})
        });
        serde_json::json!({"id": "7", "form": "demo", "hops": hops})
    }

    #[test]
    fn a_receipt_is_checked_by_itself_alone() {
        let good = check_receipt(&receipt().to_string()).unwrap();
        assert_eq!((&*good.id, good.hops.len()), ("7", 2));
        let changed = |change: fn(&mut Value)| {
            let mut receipt = receipt();
            change(&mut receipt);
            check_receipt(&receipt.to_string()).unwrap_err()
        };
        let first = |receipt: &mut Value| receipt["hops"][0]["at"] = 8.into();
        assert!(changed(first).starts_with("hop 1 was changed"));
        let second = |receipt: &mut Value| receipt["hops"][1]["record"] = "{ }".into();
        assert!(changed(second).starts_with("hop 2 was changed"));
        let missing = |receipt: &mut Value| drop(receipt["hops"].as_array_mut().unwrap().remove(0));
        assert!(changed(missing).starts_with("hop 1"));
        assert!(changed(|receipt| receipt["id"] = "8".into()).contains("another submission"));
        assert!(changed(|receipt| receipt["hops"] = serde_json::json!([])).contains("0 hops"));
        assert!(changed(|receipt| receipt["x"] = 1.into()).contains("no receipt"));
    }
}
