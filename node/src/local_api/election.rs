use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::Stream;
use hydrant_contracts::proto::{self, campaign_event};
use hydrant_contracts::{Code, Error};
use hydrant_ports::coordination::{Holder, SeatName};
use tokio::sync::watch;

use super::{LocalApi, checked_text, told};
use crate::identity::SeatKind;
use crate::leases;
use crate::seats::{DEFAULT_TTL, Told, Wish};

impl proto::Election for LocalApi {
    async fn campaign(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::CampaignRequest>,
    ) -> ServiceResult<ServiceStream<proto::CampaignEvent>> {
        let who = self.identify(&context)?;
        let wish = Wish {
            seat: self
                .authority
                .seat(&who, SeatKind::Election, request.election)?,
            holder: checked_text("candidate", request.candidate)?.into(),
            ttl: leases::ttl(request.ttl_ms, DEFAULT_TTL),
            wait: None,
        };
        let events = self.seats.compete(&who, wish)?;
        Response::ok(told(events, campaign_event))
    }

    async fn keep_alive(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        Response::ok(self.keep_lease_alive(&context, request.lease_id)?)
    }

    async fn observe(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ObserveRequest>,
    ) -> ServiceResult<ServiceStream<proto::ObserveEvent>> {
        let who = self.identify(&context)?;
        let seat = SeatName(self.authority.observed(&who, request.election)?);
        let permit = self.watches.take(&who)?;
        let holder = self.coordination.holder(&seat).await.map_err(Error::from)?;
        Response::ok(self.permitted(permit, observations(holder)))
    }
}

fn campaign_event(told: Told) -> proto::CampaignEvent {
    let event = match told {
        Told::Joined { lease_id, ttl_ms } => campaign_event::Joined {
            lease_id,
            ttl_ms,
            ..Default::default()
        }
        .into(),
        Told::Held { epoch } => campaign_event::Elected {
            epoch,
            ..Default::default()
        }
        .into(),
        Told::Lost { reason } => campaign_event::Lost {
            reason,
            ..Default::default()
        }
        .into(),
    };
    proto::CampaignEvent {
        event,
        ..Default::default()
    }
}

/// Who leads now, then every change. A slow observer skips what is history by now.
fn observations(
    mut holder: watch::Receiver<Option<Holder>>,
) -> impl Stream<Item = Result<proto::ObserveEvent, Error>> {
    holder.mark_changed();
    futures::stream::unfold(Some(holder), |holder| async {
        let mut holder = holder?;
        if holder.changed().await.is_err() {
            return Some((Err(closed()), None));
        }
        let event = observe_event(holder.borrow_and_update().as_ref());
        Some((Ok(event), Some(holder)))
    })
}

fn observe_event(holder: Option<&Holder>) -> proto::ObserveEvent {
    proto::ObserveEvent {
        leader: holder.map_or_else(String::new, |holder| holder.name.clone()),
        epoch: holder.map_or(0, |holder| holder.epoch),
        ..Default::default()
    }
}

fn closed() -> Error {
    Error::new(
        Code::Unavailable,
        "closed",
        "coordination tells no more of this election",
    )
}
