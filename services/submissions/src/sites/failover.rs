//! The other database becomes the primary.
//!
//! Every step looks at how things are, does what comes next, and can be done twice; so whoever asks for it again, also
//! after a crash and through another process, goes on where it was.

use hydrant_records::{FAILOVER_ROLE, FenceRow, Following, RecordsError, Server, Standing};
use hydrant_sdk::Error;
use tokio::time::{Duration, sleep};

use super::record::{Record, Recorded};
use super::show::{self, Found, PROMOTED};
use super::{Site, Sites, checked_why, refused};
use crate::proto::{FailoverRequest, FailoverResponse, PlanFailoverRequest, PlanFailoverResponse};

/// The mark of a fence that has ended who wrote, and then of one behind which nothing came any more.
const RAISED: u64 = 0;
const SETTLED: u64 = 1;
/// A server of a cluster may order a commit behind a fence that it has not seen yet; it sees it within this time.
const SETTLE: Duration = Duration::from_secs(1);
/// How much longer than anybody may believe in the old primary is waited: for a commit that is on its way, and for
/// clocks of which one runs faster.
const MARGIN: Duration = Duration::from_secs(2);

/// Whether the old primary was reached, and has nothing that the new one lacks.
enum Old {
    Fenced,
    Away,
}

/// What a step found.
enum Step<T> {
    Done(T),
    Waiting(String),
}

impl Sites {
    /// What would be done, and what stands in its way.
    pub(super) async fn plan(
        &self,
        request: &PlanFailoverRequest,
    ) -> Result<PlanFailoverResponse, Error> {
        self.check_two()?;
        let recorded = self.recorded().await?.ok_or_else(undeclared)?;
        let to = match request.to.as_str() {
            "" => self.to_unless_said(&recorded.record),
            to => self.named(to)?.name.clone(),
        };
        let found = self.look().await;
        let blockers = match is_under_way(&recorded.record, &to) {
            true => Vec::new(),
            false => blockers(&recorded.record, &to, &found),
        };
        let old = found.iter().find(|one| one.name != to);
        let is_old_well = old.is_some_and(|old| old.told.is_ok());
        Ok(PlanFailoverResponse {
            now: show::message(Some(&recorded.record), &found).into(),
            steps: steps(&recorded.record, &to, is_old_well),
            costs: costs(&recorded.record, &to, is_old_well),
            to,
            blockers,
            ..Default::default()
        })
    }

    fn to_unless_said(&self, record: &Record) -> String {
        let mut others = self.tables().sites().iter();
        let other = others.find(|site| site.name != record.site);
        match other {
            Some(other) if record.ready => other.name.clone(),
            _ => record.site.clone(),
        }
    }

    /// Goes on as far as it goes now.
    pub(super) async fn failover(
        &self,
        request: &FailoverRequest,
    ) -> Result<FailoverResponse, Error> {
        self.check_two()?;
        checked_why(&request.author, &request.reason)?;
        self.named(&request.to)?;
        let _turn = self.turn.lock().await;
        let recorded = self.recorded().await?.ok_or_else(undeclared)?;
        if recorded.record.site == request.to && recorded.record.ready {
            return Ok(answer(&recorded.record, None));
        }
        let recorded = match is_under_way(&recorded.record, &request.to) {
            true => recorded,
            false => self.begin(recorded, request).await?,
        };
        self.go_on(recorded).await
    }

    /// From here on nobody who asks coordination writes.
    async fn begin(&self, was: Recorded, request: &FailoverRequest) -> Result<Recorded, Error> {
        let found = self.look().await;
        let blockers = blockers(&was.record, &request.to, &found);
        if !blockers.is_empty() {
            return Err(
                refused("not_now", blockers.join("; ")).mend("hydrant submissions failover --plan")
            );
        }
        let record = Record {
            epoch: was.record.epoch + 1,
            before: was.record.site.clone(),
            site: request.to.clone(),
            ready: false,
            since_ms: self.desk.clock.unix_ms(),
            author: request.author.clone(),
            reason: request.reason.clone(),
            ..was.record
        };
        tracing::warn!(to = %record.site, epoch = record.epoch, "the primary database is about to change");
        self.write(record, was.revision).await
    }

    async fn go_on(&self, recorded: Recorded) -> Result<FailoverResponse, Error> {
        let record = &recorded.record;
        let old = match self.shut_out(record).await? {
            Step::Done(old) => old,
            Step::Waiting(reason) => return Ok(answer(record, Some(reason))),
        };
        let site = self.named(&record.site)?;
        let mut server = site.records()?.server().await?;
        let standing = server.standing().await?;
        let fence = site.to_read()?.fence().await?;
        let has_all = fence.is_some_and(|row| row.epoch == record.epoch && row.mark >= SETTLED);
        if let Some(following) = &standing.follows {
            let drained = match old {
                Old::Fenced => has_come_over(record, following, has_all),
                Old::Away => drained(&mut server, following).await?,
            };
            if let Step::Waiting(reason) = drained {
                return Ok(answer(record, Some(reason)));
            }
        }
        let recorded = match matches!(old, Old::Fenced) && has_all {
            true => recorded,
            false => self.lacks_something(recorded).await?,
        };
        let row = fence_of(&recorded.record, PROMOTED);
        let raised = server.raise_fence(&row).await?;
        if raised != row {
            return Err(other_epoch(&raised));
        }
        server.promote().await?;
        self.end(recorded).await
    }

    /// Put on record before the fence tells that all has come over.
    async fn lacks_something(&self, was: Recorded) -> Result<Recorded, Error> {
        if was.record.unreconciled {
            return Ok(was);
        }
        let record = Record {
            unreconciled: true,
            ..was.record
        };
        self.write(record, was.revision).await
    }

    async fn end(&self, was: Recorded) -> Result<FailoverResponse, Error> {
        let record = Record {
            ready: true,
            before: String::new(),
            since_ms: self.desk.clock.unix_ms(),
            ..was.record
        };
        let written = self.write(record, was.revision).await?;
        let record = &written.record;
        tracing::warn!(site = %record.site, epoch = record.epoch, "another database is the primary");
        Ok(answer(record, None))
    }

    /// Fences a primary of old as soon as it answers again.
    pub(super) async fn watch_for_the_old(&self) -> Result<(), Error> {
        let tables = self.tables();
        let (Some(record), Some(old)) = (tables.record(), tables.other()) else {
            return Ok(());
        };
        if !record.ready || !record.unreconciled {
            return Ok(());
        }
        let row = old.to_read()?.fence().await?;
        if row.is_some_and(|row| row.epoch >= record.epoch) {
            return Ok(());
        }
        let mut server = old.records()?.server().await?;
        // What follows gets the fence from whom it follows.
        if server.standing().await?.follows.is_none() {
            server.raise_fence(&fence_of(&record, RAISED)).await?;
            tracing::warn!(
                site = old.name,
                epoch = record.epoch,
                "the primary of old is fenced"
            );
        }
        Ok(())
    }

    /// Nobody writes to the old primary any more: by its fence; or, where it is not reached, because all have stopped
    /// believing in it.
    async fn shut_out(&self, record: &Record) -> Result<Step<Old>, Error> {
        let mut sites = self.tables().sites().iter();
        let Some(old) = sites.find(|site| site.name != record.site) else {
            return Ok(Step::Done(Old::Away));
        };
        match fence_off(old, record).await {
            Ok(raised) if raised.epoch > record.epoch => Err(other_epoch(&raised)),
            Ok(_) => Ok(Step::Done(Old::Fenced)),
            Err(error) => {
                let known = self.tables().known_for(record.epoch);
                let wait = record.confirm() + MARGIN;
                if known >= wait {
                    return Ok(Step::Done(Old::Away));
                }
                let left = (wait - known).as_secs() + 1;
                let reason = format!(
                    "{} can't be fenced ({}): until nobody believes in it any more, {left} s",
                    old.name, error.message
                );
                Ok(Step::Waiting(reason))
            }
        }
    }
}

/// Ends who writes to a database, and waits until nothing can come behind that.
async fn fence_off(old: &Site, record: &Record) -> Result<FenceRow, Error> {
    let mut server = old.records()?.server().await?;
    let mut raised = server.raise_fence(&fence_of(record, RAISED)).await?;
    if raised.epoch == record.epoch && raised.mark < SETTLED {
        // So does who has another way in.
        if let Err(error) = server.close_to_writes().await {
            tracing::warn!(%error, site = old.name, "is fenced, and can't be made read-only");
        }
        sleep(SETTLE).await;
        raised = server.raise_fence(&fence_of(record, SETTLED)).await?;
    }
    Ok(raised)
}

/// The fence comes over behind everything that was committed before it.
fn has_come_over(record: &Record, following: &Following, has_all: bool) -> Step<()> {
    if has_all {
        return Step::Done(());
    }
    let site = &record.site;
    Step::Waiting(match following {
        _ if !following.error.is_empty() => format!(
            "{site} has not all of the old primary yet, and can't go on: {}; mend that, or stop the old \
             primary, whose rest is reconciled afterwards",
            following.error
        ),
        Following {
            receives: false, ..
        }
        | Following { applies: false, .. } => format!(
            "{site} has not all of the old primary yet, and has stopped following it: type START SLAVE \
             there, or stop the old primary, whose rest is reconciled afterwards"
        ),
        _ => format!("until {site} has all that the old primary has"),
    })
}

/// Does what it has heard, and hears no more.
async fn drained(server: &mut Server, following: &Following) -> Result<Step<()>, RecordsError> {
    server.stop_receiving(following).await?;
    let now = server.standing().await?.follows;
    Ok(match now {
        None => Step::Done(()),
        Some(now) if now.is_drained => Step::Done(()),
        Some(now) if !now.applies => Step::Waiting(format!(
            "it has not done all that it has heard, and has stopped: {}",
            now.error
        )),
        Some(_) => Step::Waiting("until it has done all that it has heard".into()),
    })
}

fn fence_of(record: &Record, mark: u64) -> FenceRow {
    FenceRow {
        site: record.site.clone(),
        epoch: record.epoch,
        mark,
    }
}

fn is_under_way(record: &Record, to: &str) -> bool {
    record.site == to && !record.ready
}

/// Why this database can't become the primary now.
fn blockers(record: &Record, to: &str, found: &[Found]) -> Vec<String> {
    let Some(target) = found.iter().find(|one| one.name == to) else {
        return vec![format!("there is no database {to}")];
    };
    if record.site == to {
        return Vec::new();
    }
    let told = match &target.told {
        Ok(told) => told,
        Err(error) => return vec![format!("{to} does not answer: {}", error.message)],
    };
    let mut blockers = Vec::new();
    if !told.standing.missing.is_empty() {
        blockers.push(missing(to, &told.standing));
    }
    // Nothing was written since the move from it began.
    if record.before == to {
        return blockers;
    }
    let fence = told.fence.as_ref();
    let is_of_it = fence.is_some_and(|row| {
        row.epoch == record.epoch && row.site == record.site && row.mark == PROMOTED
    });
    if told.standing.follows.is_none() {
        blockers.push(format!(
            "{to} follows nobody, so it lacks what {} has: let it follow, as the guide to two data centres says",
            record.site
        ));
    } else if !is_of_it {
        blockers.push(format!(
            "{to} has nothing of epoch {} of {} yet: wait until it has caught up, or build it anew from a copy",
            record.epoch, record.site
        ));
    }
    blockers
}

fn missing(to: &str, standing: &Standing) -> String {
    let privileges = standing.missing.join(", ");
    format!(
        "the user of {to} may not promote it; type at the primary: CREATE ROLE IF NOT EXISTS {FAILOVER_ROLE}; \
         GRANT {privileges} ON *.* TO {FAILOVER_ROLE}; GRANT {FAILOVER_ROLE} TO its user"
    )
}

fn steps(record: &Record, to: &str, is_old_well: bool) -> Vec<String> {
    if record.site == to && record.ready {
        return vec![format!("nothing: {to} is the primary")];
    }
    let (old, epoch) = match is_under_way(record, to) {
        true => (&record.before, record.epoch),
        false => (&record.site, record.epoch + 1),
    };
    let shut_out = match is_old_well {
        true => vec![
            format!("fence {old} and make it read-only: who writes there is ended and refused"),
            format!("wait until {to} has all that {old} has"),
        ],
        false => vec![
            format!(
                "wait {} s, until nobody believes in {old} any more, which does not answer",
                (record.confirm() + MARGIN).as_secs()
            ),
            format!("let {to} do what it has heard of {old}"),
        ],
    };
    let mut steps = vec![format!(
        "put on record that {to} is about to become the primary, under epoch {epoch}: from here on nothing \
         is written"
    )];
    steps.extend(shut_out);
    steps.push(format!(
        "end the replication to {to}, and let it take writes"
    ));
    steps.push(format!("put on record that {to} is the primary"));
    steps
}

fn costs(record: &Record, to: &str, is_old_well: bool) -> Vec<String> {
    if record.site == to && record.ready {
        return Vec::new();
    }
    match is_old_well {
        true => vec![
            "clients are told to try again for some seconds; nothing has to be reconciled".into(),
        ],
        false => vec![
            format!(
                "clients are told to try again for {} s and more",
                (record.confirm() + MARGIN).as_secs()
            ),
            "what the old primary has taken and not passed on is away until it answers again and \
             `hydrant submissions reconcile --apply` has brought it over"
                .into(),
        ],
    }
}

fn answer(record: &Record, waiting: Option<String>) -> FailoverResponse {
    FailoverResponse {
        done: waiting.is_none(),
        waiting: waiting.unwrap_or_default(),
        primary: record.message().into(),
        ..Default::default()
    }
}

fn undeclared() -> Error {
    refused(
        "not_declared",
        "no database was ever declared to be the primary",
    )
    .mend("hydrant submissions primary --set NAME -m 'the first one'")
}

fn other_epoch(raised: &FenceRow) -> Error {
    let message = format!(
        "a database has a fence of epoch {} for {}, which is farther than what is on record",
        raised.epoch, raised.site
    );
    refused("farther_fence", message).mend("ask again; another fail-over may be under way")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::show::Told;

    fn record() -> Record {
        Record {
            epoch: 3,
            site: "a".into(),
            ready: true,
            confirm_ms: 15_000,
            ..Record::default()
        }
    }

    fn found(follows: bool, fence: Option<(u64, &str, u64)>) -> Vec<Found> {
        let told = Told {
            standing: Standing {
                read_only: true,
                follows: follows.then(Following::default),
                ..Standing::default()
            },
            fence: fence.map(|(epoch, site, mark)| FenceRow {
                site: site.into(),
                epoch,
                mark,
            }),
        };
        vec![Found {
            name: "b".into(),
            address: String::new(),
            told: Ok(told),
        }]
    }

    #[test]
    fn only_who_follows_the_primary_of_now_takes_its_place() {
        let why = |found: Vec<Found>| blockers(&record(), "b", &found).join(" ");
        assert_eq!(why(found(true, Some((3, "a", PROMOTED)))), "");
        assert!(why(found(false, Some((3, "a", PROMOTED)))).contains("follows nobody"));
        assert!(why(found(true, Some((2, "a", PROMOTED)))).contains("nothing of epoch 3"));
        // A primary of old that was fenced off has this epoch, and not what was written in it.
        assert!(why(found(true, Some((3, "a", SETTLED)))).contains("nothing of epoch 3"));
        assert!(why(found(true, None)).contains("nothing of epoch 3"));
    }

    #[test]
    fn a_move_that_was_begun_can_be_taken_back() {
        let begun = Record {
            site: "c".into(),
            before: "b".into(),
            ready: false,
            ..record()
        };
        assert!(blockers(&begun, "b", &found(false, None)).is_empty());
    }
}
