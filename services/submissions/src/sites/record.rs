//! Which database is the primary: one record in coordination, where a majority of the sites decides.

use std::time::Duration;

use hydrant_sdk::{Code, Error, Kept};
use serde::{Deserialize, Serialize};

use crate::proto::Primary;

const KEY: &str = "primary";

/// The record, with the revision that the next write expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) record: Record,
    pub(super) revision: u64,
}

/// Who is the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Grows with every change of the site.
    pub(super) epoch: u64,
    pub(super) site: String,
    /// Whether it takes writes, or is only about to.
    pub(super) ready: bool,
    /// Who was the primary before, while another is about to be: nobody has written since, so it can be it again.
    #[serde(default)]
    pub(super) before: String,
    pub(super) since_ms: i64,
    pub(super) author: String,
    pub(super) reason: String,
    /// How long a process may believe this: the same for all, and for who waits until nobody does any more.
    pub(super) confirm_ms: u64,
    /// There may be submissions in the former primary that have not come over.
    #[serde(default)]
    pub(super) unreconciled: bool,
}

impl Record {
    pub(super) fn confirm(&self) -> Duration {
        Duration::from_millis(self.confirm_ms)
    }

    pub(super) fn message(&self) -> Primary {
        Primary {
            epoch: self.epoch,
            site: self.site.clone(),
            ready: self.ready,
            since_unix_ms: self.since_ms,
            author: self.author.clone(),
            reason: self.reason.clone(),
            confirm_ms: u32::try_from(self.confirm_ms).unwrap_or(u32::MAX),
            unreconciled: self.unreconciled,
            ..Default::default()
        }
    }
}

/// Reads the record as it is now.
pub(super) async fn read(kept: &Kept) -> Result<Option<Recorded>, Error> {
    let Some(found) = kept.get(KEY).await? else {
        return Ok(None);
    };
    let record = serde_json::from_slice(&found.value).map_err(|_| unreadable())?;
    Ok(Some(Recorded {
        record,
        revision: found.revision,
    }))
}

/// Writes the record if it is still as it was read; 0 where there was none.
pub(super) async fn write(kept: &Kept, record: Record, revision: u64) -> Result<Recorded, Error> {
    let value = serde_json::to_vec(&record).map_err(|_| unreadable())?;
    let revision = kept.compare_and_put(KEY, revision, value).await?;
    Ok(Recorded { record, revision })
}

fn unreadable() -> Error {
    let message = "what coordination has on record of the primary can't be read by this version";
    Error::new(Code::DataLoss, "bad_record", message)
        .mend("start the version of the program that wrote it, or a newer one")
}
