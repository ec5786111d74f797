//! The leader's duty to see what only shows when all processes are looked at together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Error, Instance, Tier};

use crate::alarms::Alarms;
use crate::operations::OperationsDesk;
use crate::operations::status::Seen;
use crate::service::lead::{Duty, Term};

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// For how long something is wrong before somebody is called, in milliseconds.
const PATIENCE: i64 = 10_000;
/// What the names of its alarms begin with.
const NAMES: [&str; 4] = ["instance/", "database", "state", "publishing"];

/// Looks while it leads.
pub(crate) struct Watch {
    pub(crate) desk: Arc<OperationsDesk>,
    pub(crate) alarms: Alarms,
}

impl Duty for Watch {
    fn carry_out<'a>(&'a self, _term: &'a Term) -> BoxFuture<'a, Error> {
        let _to_the_next = HandingOver(&self.alarms);
        Box::pin(async move {
            let _to_the_next = _to_the_next;
            let mut troubles = Troubles::default();
            loop {
                tokio::time::sleep(EVERY).await;
                let seen = self.desk.see().await;
                troubles.compare(&seen, self.desk.clock.unix_ms(), &self.alarms);
            }
        })
    }
}

struct HandingOver<'a>(&'a Alarms);

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        NAMES.iter().for_each(|name| self.0.hand_over(name));
    }
}

/// What is wrong, and since when: most of it passes by itself before anybody has to know.
#[derive(Default)]
struct Troubles(BTreeMap<String, i64>);

struct Trouble {
    name: String,
    message: String,
    mend: &'static str,
}

impl Troubles {
    fn compare(&mut self, seen: &Seen, now: i64, alarms: &Alarms) {
        let troubles = troubles(seen);
        let is_there = |name: &String| troubles.iter().any(|trouble| trouble.name == *name);
        self.0.retain(|name, _| {
            let stays = is_there(name);
            if !stays {
                alarms.clear(name);
            }
            stays
        });
        for trouble in troubles {
            let since = *self.0.entry(trouble.name.clone()).or_insert(now);
            if now - since >= PATIENCE {
                alarms.raise_since(&trouble.name, since, &trouble.message, trouble.mend);
            }
        }
    }
}

fn troubles(seen: &Seen) -> Vec<Trouble> {
    let of_apps = |instance: &&Instance| instance.service.tier == Tier::Api;
    let mut troubles: Vec<Trouble> = seen
        .instances
        .iter()
        .filter(of_apps)
        .filter_map(|instance| lag(seen, instance))
        .collect();
    for part in ["database", "state"] {
        if let Some(why) = seen.missing.get(part) {
            troubles.push(Trouble {
                name: part.into(),
                message: format!("the {part} does not answer: {why}"),
                mend: "start it, or see whether the way to it is open; apps are answered meanwhile",
            });
        }
    }
    if seen.newest.is_some_and(|newest| newest > seen.published) {
        troubles.push(Trouble {
            name: "publishing".into(),
            message: format!(
                "revision {} is made, and apps still get {}",
                seen.newest.unwrap_or_default(),
                seen.published
            ),
            mend: "see why the shared state takes no writes: hydrant health, hydrant logs service/mobile",
        });
    }
    troubles
}

/// Whether a process is silent, or serves what is not the newest.
fn lag(seen: &Seen, instance: &Instance) -> Option<Trouble> {
    let id = &instance.id;
    let message = match seen.report(instance) {
        // Without the state nobody's report is seen.
        None if seen.missing.contains_key("state") => return None,
        None => format!("{id} does not report how it is"),
        Some(report) => {
            let revision = report.revision.unwrap_or(seen.published);
            if revision >= seen.published || report.refused_revision.is_some() {
                return None;
            }
            format!(
                "{id} answers from revision {revision}, and {} is published",
                seen.published
            )
        }
    };
    Some(Trouble {
        name: format!("instance/{id}"),
        message,
        mend: "restart it: it is not reached by what is published",
    })
}
