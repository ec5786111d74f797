//! The rules of traffic in coordination: all of them are one value, so that a change of several is one change with
//! one epoch, and no node ever goes by half of it. The value is never deleted: where it was and is not, it is lost,
//! and nodes go on with what they have.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_contracts::rules::{Change, RuleSet};
use hydrant_contracts::{Code, Error};
use hydrant_ports::coordination::MAX_VALUE;
use hydrant_ports::{Coordination, EngineError, ErrorKind, Expect, Key};

use crate::identity::invalid;
use crate::table::Table;

/// Below this the value stands.
pub(crate) const RULES: &str = "rules/";
const KEY: &str = "rules/current";

/// How often a change begins anew when others change the rules at the same time.
const ATTEMPTS: u32 = 10;

/// Where rules are changed.
pub(crate) struct Rules {
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) table: Arc<Table>,
}

/// Where the value stands.
pub(crate) fn key() -> Key {
    KEY.parse().expect("the key is valid")
}

/// Reads the value.
pub(crate) fn read(value: &[u8]) -> Result<RuleSet, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

/// The rules with which a node starts, so that no request is ever decided without them.
pub(crate) async fn first(coordination: &dyn Coordination) -> RuleSet {
    match coordination.get(&key()).await {
        Ok(None) => RuleSet::default(),
        Ok(Some(found)) => read(&found.value).unwrap_or_else(|error| {
            tracing::error!(
                error,
                "the rules can't be read; this node starts without any"
            );
            RuleSet::default()
        }),
        Err(error) => {
            tracing::warn!(%error, "coordination does not tell the rules; this node starts without any");
            RuleSet::default()
        }
    }
}

impl Rules {
    /// The rules as they are kept now.
    pub(crate) async fn kept(&self) -> Result<RuleSet, Error> {
        Ok(self.found().await?.0)
    }

    /// Changes the rules as `make` says, which is asked again when others change them at the same time. Returns the
    /// epoch from which it holds, and the changes.
    pub(crate) async fn change(
        &self,
        make: impl Fn(&RuleSet) -> Result<(RuleSet, Vec<Change>), Error>,
    ) -> Result<(u64, Vec<Change>), Error> {
        for _ in 0..ATTEMPTS {
            let (kept, expect) = self.found().await?;
            let (next, changes) = make(&kept)?;
            if changes.is_empty() {
                return Ok((kept.epoch, changes));
            }
            match self.coordination.put(&key(), value(&next)?, expect).await {
                Ok(_) => return Ok((next.epoch, changes)),
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = "others change the rules all the time";
        Err(Error::new(Code::Aborted, "rules_changing", message).mend("try again"))
    }

    /// What is kept, and what must still be there when it is written. A node remembers what coordination has lost.
    async fn found(&self) -> Result<(RuleSet, Expect), Error> {
        let found = self.coordination.get(&key()).await?;
        let served = self.table.view().rules.set;
        let Some(found) = found else {
            return Ok((RuleSet::clone(&served), Expect::Absent));
        };
        let kept = read(&found.value).map_err(unreadable)?;
        let expect = Expect::Revision(found.revision);
        match kept.epoch < served.epoch {
            true => Ok((RuleSet::clone(&served), expect)),
            false => Ok((kept, expect)),
        }
    }
}

fn value(rules: &RuleSet) -> Result<Bytes, Error> {
    let value = serde_json::to_vec(rules).map_err(|error| unreadable(error.to_string()))?;
    if value.len() > MAX_VALUE {
        let message = format!(
            "all rules together have {} bytes, and {MAX_VALUE} are the most",
            value.len()
        );
        let mend = "remove some: `hydrant rules remove NAME`";
        return Err(invalid("too_large", message).mend(mend));
    }
    Ok(value.into())
}

fn unreadable(error: String) -> Error {
    let message = format!("the kept rules can't be read: {error}");
    Error::from(EngineError::new(ErrorKind::Corrupt, message))
        .mend("a newer node may have written them: ask that one")
}
