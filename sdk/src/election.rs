use hydrant_contracts::Error;
use hydrant_contracts::proto::{
    CampaignEvent, CampaignRequest, ELECTION_CAMPAIGN_SPEC, ELECTION_KEEP_ALIVE_SPEC,
    ELECTION_OBSERVE_SPEC, ObserveEvent, ObserveRequest, campaign_event,
};

use crate::client::Hydrant;
use crate::seat::{Claim, Contest, Mark, Seat, SeatEvent, Stamp, TTL};
use crate::watching::Watching;

/// The leadership of an election, for as long as it lasts. Dropping it resigns.
///
/// By its own clock this process stops leading before the node may let another one lead; and what
/// it writes [under](crate::State::under) its leadership is refused as soon as another one leads,
/// whatever the clocks say.
pub struct Leadership(Seat);

impl Leadership {
    /// Higher than that of every earlier leader of the same election.
    pub fn epoch(&self) -> u64 {
        self.stamp().epoch()
    }

    /// Whether it is over. Reads the clock, so that a process which was stopped knows at once.
    pub fn is_lost(&self) -> bool {
        self.stamp().is_over()
    }

    /// Resolves when it is over.
    pub async fn lost(&self) {
        self.stamp().over().await;
    }

    /// Gives it up.
    pub fn resign(self) {}

    pub(crate) fn stamp(&self) -> &Stamp {
        self.0.stamp()
    }
}

impl Hydrant {
    /// Stands for election and waits to be elected. Dropping the future withdraws.
    ///
    /// Elections are the service's own: `sources` of `service/mobile` is not `sources` of another.
    /// While the node is away it goes on waiting.
    ///
    /// # Errors
    ///
    /// If the node refuses the candidacy for good, as with a wrong token.
    pub async fn campaign(&self, election: &str) -> Result<Leadership, Error> {
        let claim = Claim {
            mark: Mark::Election(election.into()),
            spec: ELECTION_CAMPAIGN_SPEC,
            keep_alive: ELECTION_KEEP_ALIVE_SPEC,
            request: CampaignRequest {
                election: election.into(),
                candidate: self.own_name(),
                ttl_ms: TTL.as_millis() as u32,
                ..Default::default()
            },
        };
        claim.wait::<CampaignEvent>(self).await.map(Leadership)
    }

    /// Watches who leads an election of the own service.
    pub fn observe(&self, election: &str) -> Observation {
        let request = ObserveRequest {
            election: election.into(),
            ..Default::default()
        };
        Observation(Watching::new(self.clone(), ELECTION_OBSERVE_SPEC, request))
    }

    /// How this process names itself to people.
    pub fn own_name(&self) -> String {
        match &self.config().instance {
            Some(instance) => instance.to_string(),
            None => format!("pid-{}", std::process::id()),
        }
    }
}

/// Who leads an election, as it changes.
pub struct Observation(Watching<ObserveRequest, ObserveEvent>);

/// Who leads an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// As it named itself: usually an instance id.
    pub name: String,
    /// The epoch under which it leads.
    pub epoch: u64,
}

impl Observation {
    /// Who leads now, and then, each time it changes, who leads from then on; `None` while nobody
    /// does. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If the node refuses the watch for good.
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        let event = self.0.next().await?;
        Ok(Some(Leader {
            name: event.leader,
            epoch: event.epoch,
        })
        .filter(|leader| !leader.name.is_empty()))
    }
}

impl Contest for CampaignEvent {
    fn into_seat_event(self) -> Option<SeatEvent> {
        Some(match self.event? {
            campaign_event::Event::Joined(joined) => SeatEvent::Joined {
                lease_id: joined.lease_id,
                ttl_ms: joined.ttl_ms,
            },
            campaign_event::Event::Elected(elected) => SeatEvent::Taken {
                epoch: elected.epoch,
            },
            campaign_event::Event::Lost(lost) => SeatEvent::Lost {
                reason: lost.reason,
            },
        })
    }
}
