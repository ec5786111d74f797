//! What only shows when all processes are looked at together. Every process of the service looks, so
//! that whichever is asked can tell, also while the state in which they keep their reports is away.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hydrant_sdk::{Error, Instance, Tier};

use crate::alarms::Alarms;
use crate::operations::OperationsDesk;
use crate::operations::status::Seen;

/// How a database is mended.
pub(crate) const DATABASE: &str = "see that it runs and takes writes, that the way to it is open, and that [records] of the \
     configuration file names it with a user and password that it takes; apps are answered meanwhile, \
     and nothing can be changed";
/// How a shared state is mended.
pub(crate) const STATE: &str = "see `hydrant health` for what it is, and that [state] of the configuration file names it; apps \
     are answered from memory meanwhile, and get nothing new";
const PUBLISHING: &str =
    "see why the shared state takes no writes: hydrant health, hydrant logs service/mobile";
const OTHER_TABLES: &str = "see that [records] of the configuration file names the right database; was it restored from a \
     backup, the next change is published";

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// For how long something is wrong before somebody is called, in milliseconds.
const PATIENCE: i64 = 10_000;

/// Looks as long as the process runs.
pub(crate) struct Watch {
    pub(crate) desk: Arc<OperationsDesk>,
}

impl Watch {
    pub(crate) async fn look_again_and_again(self) -> Result<(), Error> {
        let mut troubles = Troubles::default();
        loop {
            tokio::time::sleep(EVERY).await;
            let seen = self.desk.see().await;
            troubles.compare(&seen, self.desk.clock.unix_ms(), &self.desk.alarms);
        }
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
    for (part, mend) in [("database", DATABASE), ("state", STATE)] {
        if let Some(why) = seen.missing.get(part) {
            troubles.push(Trouble {
                name: part.into(),
                message: format!("the {part} does not answer as it should: {why}"),
                mend,
            });
        }
    }
    troubles.extend(unpublished(seen));
    troubles
}

/// Whether what is published is not what the tables have.
fn unpublished(seen: &Seen) -> Option<Trouble> {
    let (newest, published) = (seen.newest?, seen.published);
    let (message, mend) = match newest.cmp(&published) {
        Ordering::Equal => return None,
        Ordering::Greater => (
            format!("revision {newest} is made, and apps still get {published}"),
            PUBLISHING,
        ),
        Ordering::Less => (
            format!("apps get revision {published}, and the newest of the tables is {newest}"),
            OTHER_TABLES,
        ),
    };
    Some(Trouble {
        name: "publishing".into(),
        message,
        mend,
    })
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

#[cfg(test)]
mod tests {
    use hydrant_runtime::Clock;

    use super::*;

    fn names(alarms: &Alarms) -> Vec<String> {
        alarms.list().into_iter().map(|alarm| alarm.name).collect()
    }

    #[test]
    fn what_passes_calls_nobody_and_what_stays_does_until_it_is_well() {
        let (alarms, mut troubles) = (Alarms::new(Clock::system()), Troubles::default());
        let mut seen = Seen {
            newest: Some(5),
            published: 4,
            ..Seen::default()
        };
        troubles.compare(&seen, 0, &alarms);
        troubles.compare(&seen, PATIENCE - 1, &alarms);
        assert!(names(&alarms).is_empty());
        troubles.compare(&seen, PATIENCE, &alarms);
        assert_eq!(names(&alarms), ["publishing"]);
        seen.published = 5;
        troubles.compare(&seen, PATIENCE + 1, &alarms);
        assert!(names(&alarms).is_empty());
        // Tables that are older than what apps get.
        seen.newest = Some(0);
        seen.missing.insert("database", "it is read-only".into());
        for now in [0, PATIENCE] {
            troubles.compare(&seen, now, &alarms);
        }
        assert_eq!(names(&alarms), ["database", "publishing"]);
        assert!(alarms.list().iter().all(|alarm| !alarm.mend.is_empty()));
    }
}
