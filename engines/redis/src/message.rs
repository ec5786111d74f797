//! What the scripts tell of a change: one line of words, and the value behind it.

use bytes::Bytes;
use hydrant_ports::state::Under;
use hydrant_ports::{EngineError, Key};

use crate::error::corrupt;
use crate::requests::{number_of, under};

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The partition's revision before it.
    pub(crate) before: u64,
    /// The key's revision, and the partition's, now.
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) under: Option<Under>,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Written with this value.
    Put(Bytes),
    /// Written with a value that is too large for a message.
    Large,
    /// The value of a large one, which comes later than its message. Not told by a script.
    Fetched(Bytes),
    /// Deleted, or its time is over.
    Removed,
}

pub(crate) fn parse(payload: &[u8]) -> Result<Message, EngineError> {
    let end = payload.iter().position(|byte| *byte == b'\n');
    let (line, rest) = payload.split_at(end.ok_or_else(|| corrupt("a message without a line"))?);
    let line = std::str::from_utf8(line).map_err(|_| corrupt("the line of a message"))?;
    let words: Vec<_> = line.split(' ').collect();
    let [kind, before, revision, mark, epoch, key, is_whole] = words[..] else {
        return Err(corrupt("the words of a message"));
    };
    let what = match (kind, is_whole) {
        ("P", "1") => What::Put(Bytes::copy_from_slice(&rest[1..])),
        ("P", "0") => What::Large,
        ("R", _) => What::Removed,
        _ => return Err(corrupt("the kind of a message")),
    };
    let mark = mark.strip_prefix('=');
    Ok(Message {
        before: number_of(before.as_bytes())?,
        revision: number_of(revision.as_bytes())?,
        key: key.parse()?,
        under: under(
            mark.ok_or_else(|| corrupt("the mark of a message"))?,
            epoch.as_bytes(),
        )?,
        what,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        "[!-.0-~]{1,9}(/[!-.0-~]{1,9}){0,3}"
            .prop_filter_map("'.' and '..' are no parts", |text| text.parse().ok())
    }

    fn message() -> impl Strategy<Value = Message> {
        let under = (key(), any::<u64>()).prop_map(|(mark, epoch)| Under { mark, epoch });
        let what = prop_oneof![
            any::<Vec<u8>>().prop_map(|value| What::Put(value.into())),
            Just(What::Large),
            Just(What::Removed),
        ];
        let under = proptest::option::of(under);
        (any::<u64>(), any::<u64>(), key(), under, what).prop_map(
            |(before, revision, key, under, what)| Message {
                before,
                revision,
                key,
                under,
                what,
            },
        )
    }

    /// As `told` of the scripts does.
    fn told(message: &Message) -> Vec<u8> {
        let (mark, epoch) = match &message.under {
            Some(under) => (under.mark.as_str(), format!("{:020}", under.epoch)),
            None => ("", "0".into()),
        };
        let (kind, is_whole, value) = match &message.what {
            What::Put(value) => ("P", 1, value.to_vec()),
            What::Large | What::Fetched(_) => ("P", 0, Vec::new()),
            What::Removed => ("R", 1, Vec::new()),
        };
        let (before, revision, key) = (message.before, message.revision, &message.key);
        let line = format!("{kind} {before} {revision} ={mark} {epoch} {key} {is_whole}\n");
        [line.into_bytes(), value].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_message_is_read_as_it_was_told(message in message()) {
            prop_assert_eq!(parse(&told(&message)).unwrap(), message);
        }

        #[test]
        fn nothing_panics(payload in any::<Vec<u8>>(), line in "[PR0-9 =a/\n]{0,40}") {
            let _ = parse(&payload);
            let _ = parse(line.as_bytes());
        }
    }
}
