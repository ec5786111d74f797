use std::time::Duration;

use hydrant_contracts::Error;
use hydrant_contracts::proto::{
    KEPT_READ_KEPT_SPEC, KEPT_WRITE_KEPT_SPEC, ReadKeptRequest, ReadKeptResponse, WriteKeptRequest,
    WriteKeptResponse,
};

use crate::client::Hydrant;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a service keeps in coordination, on which the whole fleet agrees: a few small values that change seldom.
/// With several sites a majority decides, so a site that is cut off can neither read nor write one.
#[derive(Clone)]
pub struct Kept(Hydrant);

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptValue {
    /// The value, at most 16 KB.
    pub value: Vec<u8>,
    /// Grows with every write of this key; never 0.
    pub revision: u64,
}

impl Hydrant {
    /// What the own service keeps.
    pub fn kept(&self) -> Kept {
        Kept(self.clone())
    }
}

impl Kept {
    /// Reads a key as it is now: what was replaced before the question is never the answer.
    ///
    /// # Errors
    ///
    /// If the node, or a majority of coordination, does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<KeptValue>, Error> {
        let request = ReadKeptRequest {
            key: key.into(),
            ..Default::default()
        };
        let answer: ReadKeptResponse = self
            .0
            .node(KEPT_READ_KEPT_SPEC, request, Some(PATIENCE))
            .await?;
        let revision = answer.revision;
        Ok(answer.value.map(|value| KeptValue { value, revision }))
    }

    /// Writes a key only if it is at `revision`, where 0 means that it must not exist; returns its new revision.
    ///
    /// # Errors
    ///
    /// `aborted` when it is at another one; `invalid_argument` when the value is too large, or the service has too many
    /// keys; else if the node or coordination does not answer: then the write may have happened.
    pub async fn compare_and_put(
        &self,
        key: &str,
        revision: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<u64, Error> {
        let request = WriteKeptRequest {
            key: key.into(),
            value: value.into(),
            expected_revision: revision,
            ..Default::default()
        };
        let answer: WriteKeptResponse = self
            .0
            .node(KEPT_WRITE_KEPT_SPEC, request, Some(PATIENCE))
            .await?;
        Ok(answer.revision)
    }
}
