//! What stands at a key: a line of JSON, and the body of the answer behind it.

use std::time::Duration;

use bytes::Bytes;
use hydrant_contracts::{Code, Error};
use serde::{Deserialize, Serialize};

use super::Times;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the request, as [`key::fingerprint`](super::key::fingerprint) makes it.
    pub(super) fingerprint: String,
    /// Times of the process that wrote it; another version may have others.
    lease_ms: u64,
    life_ms: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// A handler runs. The nonce tells its attempt from all others.
    Running { nonce: u64 },
    /// A handler failed: the same request may run again.
    Open,
    /// A handler refused: any request may use the key.
    Free,
    /// This is the outcome.
    Done(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    #[serde(skip)]
    pub(super) body: Bytes,
}

impl Record {
    pub(super) fn new(fingerprint: &str, times: Times, stage: Stage) -> Self {
        Self {
            fingerprint: fingerprint.into(),
            lease_ms: millis(times.lease),
            life_ms: millis(times.life(&stage)),
            stage,
        }
    }

    pub(super) fn life(&self) -> Duration {
        Duration::from_millis(self.life_ms)
    }

    /// What is left of the lease, when so much of the record's life is left: the store alone measures time,
    /// so the clocks of servers need not agree.
    pub(super) fn lease_left(&self, life_left: Option<Duration>) -> Duration {
        let age = life_left.map_or(Duration::ZERO, |left| self.life().saturating_sub(left));
        Duration::from_millis(self.lease_ms).saturating_sub(age)
    }

    pub(super) fn is_of(&self, attempt: u64) -> bool {
        matches!(self.stage, Stage::Running { nonce } if nonce == attempt)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        if let Stage::Done(outcome) = &self.stage {
            bytes.extend_from_slice(&outcome.body);
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (head, body) = bytes.split_at(end.ok_or_else(unreadable)?);
        let mut record: Self = serde_json::from_slice(head).map_err(|_| unreadable())?;
        if let Stage::Done(outcome) = &mut record.stage {
            outcome.body = Bytes::copy_from_slice(&body[1..]);
        }
        Ok(record)
    }
}

impl Times {
    fn life(self, stage: &Stage) -> Duration {
        match stage {
            // Only its revision is of use.
            Stage::Free => Duration::from_millis(1),
            _ => self.remembered.max(self.lease * 2),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unreadable() -> Error {
    let message = "what stands at this key in the state of the service can't be read";
    Error::new(Code::Internal, "broken_record", message)
        .mend("a newer version of the service may have written it; use a new key")
}
