//! By which rules the servers go: each node is asked, and answers for itself.

use std::time::Duration;

use hydrant_contracts::proto::ServedRulesRequest;
use hydrant_contracts::{Code, Error};
use hydrant_runtime::Duration as Span;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::Api;
use crate::failure::Result;
use crate::servers::Servers;

/// How often the nodes are asked.
const POLL: Duration = Duration::from_millis(100);

/// What one server says.
#[derive(Debug, Serialize)]
pub(super) struct Served {
    server: String,
    /// Null when it does not answer.
    epoch: Option<u64>,
    /// Why it does not answer, or does not go by what it knows of.
    #[serde(skip_serializing_if = "String::is_empty")]
    trouble: String,
}

impl Served {
    /// For people, of one that does not go by an epoch.
    pub(super) fn note(&self, epoch: u64) -> String {
        let why = match (self.epoch, self.trouble.as_str()) {
            (None, trouble) => format!("does not answer: {trouble}"),
            (Some(served), "") => format!("goes by epoch {served}, and not yet by {epoch}"),
            (Some(served), trouble) => format!("goes by epoch {served}: {trouble}"),
        };
        format!("{} {why}", self.server)
    }
}

/// The servers that do not go by an epoch yet.
pub(super) fn behind(served: &[Served], epoch: u64) -> impl Iterator<Item = &Served> {
    served
        .iter()
        .filter(move |server| server.epoch.is_none_or(|served| served < epoch))
}

/// What every live server says.
pub(super) async fn by_all(api: &Api) -> Result<Vec<Served>> {
    let servers = Servers::of(api, &Default::default()).await?;
    let answers = servers.ask(|api| async {
        let served = api
            .rules()
            .served_rules(ServedRulesRequest::default())
            .await?;
        Ok(served.into_owned())
    });
    let served = answers
        .await
        .into_iter()
        .map(|answer| match answer.outcome {
            Ok(served) => Served {
                server: answer.server,
                epoch: Some(served.epoch),
                trouble: served.trouble,
            },
            Err(error) => Served {
                server: answer.server,
                epoch: None,
                trouble: error.message,
            },
        });
    Ok(served.collect())
}

/// Waits until every live server goes by an epoch, or a later one.
pub(super) async fn wait(api: &Api, epoch: u64, limit: Span) -> Result<Vec<Served>> {
    let end = Instant::now() + limit.get();
    loop {
        let served = by_all(api).await?;
        if behind(&served, epoch).next().is_none() {
            return Ok(served);
        }
        if Instant::now() >= end {
            return Err(late(&served, epoch, limit).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn late(served: &[Served], epoch: u64, limit: Span) -> Error {
    let notes: Vec<_> = behind(served, epoch)
        .map(|server| server.note(epoch))
        .collect();
    let message = format!(
        "epoch {epoch} is kept, and after {limit} not every server goes by it: {}",
        notes.join("; ")
    );
    Error::new(Code::DeadlineExceeded, "rules_not_served", message)
        .mend("each will as soon as it hears of it; see `hydrant health` and `hydrant rules list`")
}
