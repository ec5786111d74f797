//! How the databases stand; and which one is the first primary.

use futures::future::join_all;
use hydrant_records::{FenceRow, Server, Standing};
use hydrant_sdk::{Error, Fault};
use tokio::time::{Duration, timeout};

use super::record::Record;
use super::{Site, Sites, checked_why, refused};
use crate::proto::{self, DeclarePrimaryRequest, Follower, ShowSitesResponse};

/// How long a database may take to tell how it stands.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a process may believe who is the primary without asking again, when nobody says.
const CONFIRM: Duration = Duration::from_secs(15);
/// From here to there it may be set, in milliseconds.
const CONFIRM_RANGE: std::ops::RangeInclusive<u32> = 2_000..=120_000;
/// The mark of a fence whose site takes writes.
pub(super) const PROMOTED: u64 = 2;

/// A database as it was found.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) address: String,
    /// Or why it does not answer.
    pub(super) told: Result<Told, Error>,
}

pub(super) struct Told {
    pub(super) standing: Standing,
    pub(super) fence: Option<FenceRow>,
}

impl Sites {
    /// Who is the primary, and how each database stands.
    pub(super) async fn show(&self) -> Result<ShowSitesResponse, Error> {
        if !self.tables().has_two() {
            return Ok(ShowSitesResponse::default());
        }
        let recorded = self.recorded().await?;
        let sites = self.look().await;
        Ok(message(recorded.map(|one| one.record).as_ref(), &sites))
    }

    pub(super) async fn look(&self) -> Vec<Found> {
        join_all(self.tables().sites().iter().map(look_at)).await
    }

    /// Says for the first time who is the primary.
    pub(super) async fn declare(
        &self,
        request: &DeclarePrimaryRequest,
    ) -> Result<ShowSitesResponse, Error> {
        self.check_two()?;
        checked_why(&request.author, &request.reason)?;
        let confirm_ms = match request.confirm_ms {
            0 => CONFIRM.as_millis() as u64,
            ms if CONFIRM_RANGE.contains(&ms) => ms.into(),
            _ => {
                return Err(refused(
                    "bad_confirm",
                    "a belief is confirmed within 2 s to 120 s",
                ));
            }
        };
        let _turn = self.turn.lock().await;
        let site = self.named(&request.site)?;
        if let Some(known) = self.recorded().await? {
            let message = format!(
                "the primary is {} under epoch {} already",
                known.record.site, known.record.epoch
            );
            return Err(
                refused("declared_already", message).mend("hydrant submissions failover --plan")
            );
        }
        let mut server = site.records()?.server().await?;
        check_first(site, &server.standing().await?)?;
        let row = FenceRow {
            site: site.name.clone(),
            epoch: 1,
            mark: PROMOTED,
        };
        let raised = server.raise_fence(&row).await?;
        // A fence that is farther is of a coordination that was lost: its epochs go on.
        let record = Record {
            epoch: raised.epoch.max(1),
            site: site.name.clone(),
            ready: true,
            since_ms: self.desk.clock.unix_ms(),
            author: request.author.clone(),
            reason: request.reason.clone(),
            confirm_ms,
            ..Record::default()
        };
        let record = self.over(record, &raised, &mut server).await?;
        self.write(record, 0).await?;
        drop(_turn);
        self.show().await
    }

    /// Where the database has a fence of another time, the new one is above it.
    async fn over(
        &self,
        mut record: Record,
        raised: &FenceRow,
        server: &mut Server,
    ) -> Result<Record, Error> {
        if raised.epoch > 1 || raised.site != record.site {
            record.epoch = raised.epoch + 1;
            let row = FenceRow {
                site: record.site.clone(),
                epoch: record.epoch,
                mark: PROMOTED,
            };
            server.raise_fence(&row).await?;
        }
        Ok(record)
    }
}

fn check_first(site: &Site, standing: &Standing) -> Result<(), Error> {
    if standing.read_only || standing.follows.is_some() {
        let message = format!(
            "the database {} is read-only, or follows another one: it is no primary",
            site.name
        );
        return Err(refused("not_primary", message).mend("name the other one"));
    }
    Ok(())
}

async fn look_at(site: &Site) -> Found {
    let told = timeout(PATIENCE, ask(site)).await;
    let address = site.records().map(|records| records.address().to_string());
    Found {
        name: site.name.clone(),
        address: address.unwrap_or_default(),
        told: told.unwrap_or_else(|_| Err(silent())),
    }
}

async fn ask(site: &Site) -> Result<Told, Error> {
    let standing = site.records()?.server().await?.standing().await?;
    let fence = site.to_read()?.within(PATIENCE).fence().await?;
    Ok(Told { standing, fence })
}

fn silent() -> Error {
    let message = "it does not answer in time";
    Error::new(hydrant_sdk::Code::Unavailable, "silent", message).fault(Fault::Theirs)
}

pub(super) fn message(record: Option<&Record>, sites: &[Found]) -> ShowSitesResponse {
    ShowSitesResponse {
        has_two: true,
        primary: record.map(Record::message).into(),
        sites: sites.iter().map(site_message).collect(),
        ..Default::default()
    }
}

fn site_message(found: &Found) -> proto::Site {
    let mut site = proto::Site {
        name: found.name.clone(),
        address: found.address.clone(),
        ..Default::default()
    };
    match &found.told {
        Err(error) => site.failure = error.message.to_string(),
        Ok(told) => {
            site.read_only = told.standing.read_only;
            site.position = told.standing.position.clone();
            site.missing = told
                .standing
                .missing
                .iter()
                .map(|&name| name.to_owned())
                .collect();
            let follows = told.standing.follows.as_ref();
            site.follows = follows.map(follower).into();
            if let Some(fence) = &told.fence {
                site.fence_epoch = fence.epoch;
                site.fence_site = fence.site.clone();
            }
        }
    }
    site
}

fn follower(following: &hydrant_records::Following) -> Follower {
    Follower {
        host: following.host.clone(),
        receives: following.receives,
        applies: following.applies,
        seconds_behind: following.seconds_behind,
        error: following.error.clone(),
        ..Default::default()
    }
}
