//! By which rules the servers go: each node is asked, and answers for itself.

use std::time::Duration;

use futures::future::join_all;
use hydrant_contracts::proto::ServedRulesRequest;
use hydrant_contracts::{Code, Error};
use hydrant_runtime::Duration as Span;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::Api;
use crate::cli::ServerArg;
use crate::failure::Result;
use crate::servers::{Server, Servers};

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
    fn silent(server: String, trouble: String) -> Self {
        Self {
            server,
            epoch: None,
            trouble,
        }
    }

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
    let servers = Servers::of(api, &ServerArg::default()).await?;
    Ok(join_all(servers.asked.iter().map(ask)).await)
}

async fn ask(server: &Server) -> Served {
    let served = server.answer(async {
        let request = ServedRulesRequest::default();
        Ok(server.api.rules().served_rules(request).await?.into_owned())
    });
    let answer = served.await;
    match answer.outcome {
        Ok(served) => Served {
            server: answer.server,
            epoch: Some(served.epoch),
            trouble: served.trouble,
        },
        Err(error) => Served::silent(answer.server, error.message),
    }
}

/// Waits until every live server goes by an epoch, or a later one. Each is asked by itself, so that one that does
/// not answer keeps nobody else from being heard.
pub(super) async fn wait(api: &Api, epoch: u64, limit: Span) -> Result<Vec<Served>> {
    let end = Instant::now() + limit.get();
    let servers = Servers::of(api, &ServerArg::default()).await?;
    let waits = servers.asked.iter();
    let waits = waits.map(|server| wait_for(api, server, epoch, end));
    let served: Vec<_> = join_all(waits).await.into_iter().flatten().collect();
    let all = behind(&served, epoch).next().is_none();
    match all {
        true => Ok(served),
        false => Err(late(&served, epoch, limit).into()),
    }
}

/// What a server says last; `None` when it has left the fleet.
async fn wait_for(api: &Api, server: &Server, epoch: u64, end: Instant) -> Option<Served> {
    loop {
        let answer = tokio::time::timeout_at(end, ask(server)).await;
        let silent = |_| Served::silent(server.name.clone(), "no answer in time".into());
        let served = answer.unwrap_or_else(silent);
        if served.epoch.is_some_and(|served| served >= epoch) || Instant::now() >= end {
            return Some(served);
        }
        if served.epoch.is_none() && has_left(api, server).await {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn has_left(api: &Api, server: &Server) -> bool {
    let servers = Servers::of(api, &ServerArg::default()).await;
    servers.is_ok_and(|servers| servers.asked.iter().all(|there| there.name != server.name))
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
