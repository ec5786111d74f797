use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use hydrant_contracts::proto::{self, acquire_event};

use super::{LocalApi, checked_text, told};
use crate::identity::SeatKind;
use crate::leases;
use crate::seats::{DEFAULT_TTL, Told, Wish};

impl proto::Lock for LocalApi {
    async fn acquire(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::AcquireRequest>,
    ) -> ServiceResult<ServiceStream<proto::AcquireEvent>> {
        let who = self.identify(&context)?;
        let wait = Duration::from_millis(request.wait_ms.into());
        let wish = Wish {
            seat: self.authority.seat(&who, SeatKind::Lock, request.name)?,
            holder: checked_text("holder", request.holder)?.into(),
            ttl: leases::ttl(request.ttl_ms, DEFAULT_TTL),
            wait: (!wait.is_zero()).then_some(wait),
        };
        let events = self.seats.compete(&who, wish)?;
        Response::ok(told(events, acquire_event))
    }

    async fn keep_alive(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        Response::ok(self.keep_lease_alive(&context, request.lease_id)?)
    }
}

fn acquire_event(told: Told) -> proto::AcquireEvent {
    let event = match told {
        Told::Joined { lease_id, ttl_ms } => acquire_event::Joined {
            lease_id,
            ttl_ms,
            ..Default::default()
        }
        .into(),
        Told::Held { epoch } => acquire_event::Acquired {
            fence: epoch,
            ..Default::default()
        }
        .into(),
        Told::Lost { reason } => acquire_event::Lost {
            reason,
            ..Default::default()
        }
        .into(),
    };
    proto::AcquireEvent {
        event,
        ..Default::default()
    }
}
