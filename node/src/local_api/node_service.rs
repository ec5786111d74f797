use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hydrant_contracts::{Code, Error, Identity, ServiceId, ServiceName, Tier, proto};

use super::{LocalApi, pattern};
use crate::identity::invalid;
use crate::passing::{self, Wanted};

/// How many lines of the past a caller gets when it names no number, and the most.
const TAIL: (u32, u32) = (200, 10_000);

/// The largest request head that is explained, in bytes.
const MAX_HEAD: usize = 64 * 1024;

impl proto::Node for LocalApi {
    async fn health(
        &self,
        context: RequestContext,
        _: ServiceRequest<'_, proto::HealthRequest>,
    ) -> ServiceResult<proto::HealthResponse> {
        self.identify(&context)?;
        Response::ok(self.health.read().await)
    }

    async fn servers(
        &self,
        context: RequestContext,
        _: ServiceRequest<'_, proto::ServersRequest>,
    ) -> ServiceResult<proto::ServersResponse> {
        self.identify(&context)?;
        Response::ok(self.health.servers())
    }

    async fn stats(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::StatsRequest>,
    ) -> ServiceResult<proto::StatsResponse> {
        self.identify(&context)?;
        Response::ok(proto::StatsResponse {
            instances: self.traffic.stats(&pattern(request.pattern)?),
            ..Default::default()
        })
    }

    async fn explain(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ExplainRequest>,
    ) -> ServiceResult<proto::ExplainResponse> {
        self.identify(&context)?;
        if request.bytes().len() > MAX_HEAD {
            let message = format!("a request head of more than {MAX_HEAD} bytes is not explained");
            return Err(invalid("head_too_large", message).into());
        }
        Response::ok(self.traffic.explain(&request.to_owned_message()))
    }

    async fn logs(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::LogsRequest>,
    ) -> ServiceResult<ServiceStream<proto::LogLine>> {
        let who = self.identify(&context)?;
        let pattern = pattern(request.pattern)?;
        let permit = self.watches.take(&who)?;
        let tail = match request.tail {
            0 => TAIL.0,
            tail => tail.min(TAIL.1),
        };
        let lines = self
            .supervision
            .logs(pattern, tail as usize, request.follow)
            .try_filter(move |line| std::future::ready(may_see(&who, line)));
        Response::ok(self.permitted(permit, lines))
    }

    async fn tap(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::TapRequest>,
    ) -> ServiceResult<ServiceStream<proto::PassedRequest>> {
        let who = self.identify(&context)?;
        self.authority
            .operator(&who, "see the requests of others")?;
        let wanted = Wanted::of(&request.to_owned_message())?;
        let permit = self.watches.take(&who)?;
        let tap = self.traffic.tap().into_iter();
        let clock = self.clock.clone();
        let heard = tap.map(move |tap| passing::heard(tap, wanted.clone(), clock.clone()));
        let heard = stream::iter(heard).flatten();
        Response::ok(self.permitted(permit, heard.map(Ok)))
    }

    async fn scale(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ScaleRequest>,
    ) -> ServiceResult<proto::ScaleResponse> {
        let who = self.identify(&context)?;
        self.authority.operator(&who, "scale a service")?;
        let service = self.supervised(request.service)?;
        let before = self.supervision.scale(&service, request.instances).await?;
        Response::ok(proto::ScaleResponse {
            before,
            after: request.instances,
            ..Default::default()
        })
    }

    async fn issue_token(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::IssueTokenRequest>,
    ) -> ServiceResult<proto::IssueTokenResponse> {
        let who = self.identify(&context)?;
        self.authority.operator(&who, "make tokens")?;
        let tier = Tier::try_from(request.tier.as_known().unwrap_or_default());
        let name: Result<ServiceName, _> = request.service.parse();
        let service = ServiceId::new(tier.map_err(Error::from)?, name.map_err(Error::from)?);
        Response::ok(proto::IssueTokenResponse {
            token: self.authority.issue(&service)?,
            ..Default::default()
        })
    }

    async fn measure(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::MeasureRequest>,
    ) -> ServiceResult<proto::MeasureResponse> {
        let Identity::Service(service) = self.identify(&context)? else {
            let message = "gauges are a service's: an operator has none".to_owned();
            return Err(invalid("not_a_service", message).into());
        };
        let request = request.to_owned_message();
        let ttl = Duration::from_millis(request.ttl_ms.into());
        self.health.gauges.take(&service, &request.gauges, ttl)?;
        Response::ok(proto::MeasureResponse::default())
    }
}

impl LocalApi {
    /// The supervised service that a person means by `tier/name`, or by a name that only one
    /// tier has.
    fn supervised(&self, text: &str) -> Result<ServiceId, Error> {
        let mut meant = self
            .supervision
            .services()
            .iter()
            .filter_map(service_id)
            .filter(|service| service.to_string() == text || service.name.as_str() == text)
            .collect::<Vec<_>>();
        match (meant.pop(), meant.pop()) {
            (Some(service), None) => Ok(service),
            (Some(one), Some(other)) => Err(invalid(
                "ambiguous_service",
                format!("{one} and {other} have this name"),
            )
            .mend("write TIER/NAME")),
            (None, _) => Err(not_supervised(text)),
        }
    }
}

fn service_id(service: &proto::SupervisedService) -> Option<ServiceId> {
    let tier = Tier::try_from(service.tier.as_known()?).ok()?;
    Some(ServiceId::new(tier, service.service.parse().ok()?))
}

/// A service sees its own lines only; they may tell what is nobody else's business.
fn may_see(who: &Identity, line: &proto::LogLine) -> bool {
    match who {
        Identity::Operator => true,
        Identity::Service(service) => line.service == service.to_string(),
    }
}

fn not_supervised(text: &str) -> Error {
    let text: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    Error::new(
        Code::NotFound,
        "not_supervised",
        format!("this node supervises no service `{text}`"),
    )
    .mend("`hydrant health` shows those that it does")
}
