//! The servers of the fleet, as a command asks them: all at once, each through the node that the
//! command talks to, and none for longer than a limit.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use hydrant_contracts::{Code, Error, ServerName, proto};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::cli::ServerArg;
use crate::failure::{Failure, Result, error_json};
use crate::output::{Output, Style, printable};

/// How long a server may take to answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The servers that a command asks.
pub(crate) struct Servers {
    pub(crate) asked: Vec<Server>,
    own: String,
}

/// The node of one server.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) api: Api,
}

/// What came of asking one server.
pub(crate) struct Answer<T> {
    pub(crate) server: String,
    pub(crate) zone: String,
    pub(crate) outcome: std::result::Result<T, Error>,
}

impl Servers {
    /// Every server of the fleet, by name, or the one that `only` names.
    pub(crate) async fn of(api: &Api, only: &ServerArg) -> Result<Self> {
        let request = proto::ServersRequest::default();
        let known = api.node().servers(request).await?.into_owned();
        let mut names: Vec<_> = known
            .servers
            .into_iter()
            .map(|server| (server.name, server.zone))
            .collect();
        if !names.iter().any(|(name, _)| *name == known.server) {
            names.push((known.server.clone(), known.zone));
        }
        names.sort();
        if let Some(only) = &only.server {
            names.retain(|(name, _)| name == only.as_str());
            if names.is_empty() {
                return Err(no_such_server(only).into());
            }
        }
        let asked = names.into_iter().map(|(name, zone)| Server {
            api: match name == known.server {
                true => api.clone(),
                false => api.of_server(&name),
            },
            name,
            zone,
        });
        Ok(Self {
            asked: asked.collect(),
            own: known.server,
        })
    }

    /// Whether there is only one to ask, so that nothing needs to tell servers apart.
    pub(crate) fn is_one(&self) -> bool {
        self.asked.len() == 1
    }

    /// Which of them is that of the node which the command talks to; the first when it is not
    /// among them.
    pub(crate) fn own(&self) -> usize {
        let own = self.asked.iter().position(|server| server.name == self.own);
        own.unwrap_or_default()
    }

    /// Asks all at once.
    pub(crate) async fn ask<'a, T, F>(&'a self, ask: impl Fn(&'a Api) -> F) -> Vec<Answer<T>>
    where
        F: Future<Output = Result<T>>,
    {
        join_all(
            self.asked
                .iter()
                .map(|server| server.answer(ask(&server.api))),
        )
        .await
    }
}

impl Server {
    /// What it answers, if it does in time.
    pub(crate) async fn answer<T>(&self, answer: impl Future<Output = Result<T>>) -> Answer<T> {
        let outcome = match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Error(error))) => Err(error),
            Ok(Err(_)) => Err(Error::new(Code::Internal, "no_answer", "it has no answer")),
            Err(_) => Err(late()),
        };
        Answer {
            server: self.name.clone(),
            zone: self.zone.clone(),
            outcome,
        }
    }
}

pub(crate) fn late() -> Error {
    let message = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
    Error::new(Code::DeadlineExceeded, "deadline_exceeded", message)
}

fn no_such_server(name: &ServerName) -> Error {
    let message = format!("no server {name} is in the fleet");
    Error::new(Code::NotFound, "no_such_server", message)
        .mend("see which there are: `hydrant health`")
}

/// Answers with the name of the server that gave them.
pub(crate) type ByServer<T> = Vec<(String, T)>;

/// Divides answers into those that are there, with their server, and the servers without one.
/// When nobody answered, the first that was asked says why.
pub(crate) fn heard<T>(answers: Vec<Answer<T>>) -> Result<(ByServer<T>, Vec<Unheard>)> {
    let (mut heard, mut unheard) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer.outcome {
            Ok(outcome) => heard.push((answer.server, outcome)),
            Err(error) => unheard.push(Unheard {
                server: answer.server,
                error,
            }),
        }
    }
    match unheard.len() {
        1.. if heard.is_empty() => Err(unheard.swap_remove(0).error.into()),
        _ => Ok((heard, unheard)),
    }
}

/// A server that did not answer.
#[derive(Debug)]
pub(crate) struct Unheard {
    pub(crate) server: String,
    pub(crate) error: Error,
}

impl Unheard {
    /// For people.
    pub(crate) fn note(&self) -> String {
        format!("{} does not answer: {}", self.server, self.error.message)
    }

    /// Tells on standard error, for commands whose output is a stream.
    pub(crate) fn warn(&self, output: &Output) {
        match output.json {
            true => {
                let mut document = error_json(&self.error);
                document["server"] = json!(self.server);
                eprintln!("{document}");
            }
            false => eprintln!("hydrant: {}", printable(&self.note())),
        }
    }
}

/// A server that did not answer as `--json` shows it.
#[derive(Serialize)]
pub(crate) struct ShownUnheard<'a> {
    server: &'a str,
    code: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Unheard> for ShownUnheard<'a> {
    fn from(unheard: &'a Unheard) -> Self {
        Self {
            server: &unheard.server,
            code: unheard.error.code.as_str(),
            reason: &unheard.error.reason,
            message: &unheard.error.message,
        }
    }
}

/// The servers that did not answer as a program reads them.
pub(crate) fn shown(unheard: &[Unheard]) -> Vec<ShownUnheard<'_>> {
    unheard.iter().map(ShownUnheard::from).collect()
}

/// Prints what people should know beside a table.
pub(crate) fn print_notes(notes: impl Iterator<Item = String>, output: &Output) -> Result<()> {
    for (number, note) in notes.enumerate() {
        let space = if number == 0 { "\n" } else { "" };
        let note = output.paint(Style::Bad, &printable(&note));
        output.text(&format!("{space}{note}\n"))?;
    }
    Ok(())
}
