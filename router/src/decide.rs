use hydrant_contracts::{Caller, Endpoint as EndpointPath, Identity, ServiceId, Tier};

use crate::path;
use crate::refusal::{Reason, Refusal, shown};
use crate::snapshot::{Bare, Endpoint, EndpointKind, Instance, Service, Snapshot};

/// Pages of the node that need no token, on the local listener.
const OPEN_PAGES: [&str; 2] = ["/health", "/metrics"];

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// For the outside: reaches the tier api only.
    Public,
    /// For the services of this server: reaches what the caller's tier may call.
    Local,
}

/// What the decision needs to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where it came in.
    pub listener: Listener,
    /// Who sent it, as proved by its token.
    pub caller: &'a Caller,
    /// The HTTP method.
    pub method: &'a [u8],
    /// The target in origin form: the path, and the query if there is one.
    pub target: &'a [u8],
}

/// Where a request goes. Which instance serves it, `balance` chooses among the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Route<'s> {
    /// The service that is addressed.
    pub service: &'s Service,
    /// The endpoint of it.
    pub endpoint: &'s Endpoint,
    /// The method was addressed without tier and service, so nothing is cut off.
    pub bare: bool,
    /// A repeat is safe: the HTTP method is idempotent, or the endpoint has no side effects.
    pub repeatable: bool,
}

impl<'s> Route<'s> {
    /// Splits the target into what is cut off and what `instance` sees.
    pub fn split<'t>(&self, target: &'t [u8], instance: &Instance) -> (&'t [u8], &'t [u8]) {
        let strip = if self.bare {
            0
        } else {
            self.endpoint.strip(instance)
        };
        target.split_at(strip.min(target.len()))
    }

    /// The instance gets the caller's token: only the node's own API, which checks it itself.
    pub fn forwards_token(&self) -> bool {
        self.service.is_node()
    }

    /// The same endpoint in a newer snapshot: between two attempts instances come and go.
    pub(crate) fn renewed<'n>(&self, snapshot: &'n Snapshot) -> Option<Route<'n>> {
        let service = snapshot.service(&self.service.id)?;
        let name = &*self.endpoint.name;
        let endpoint = match self.endpoint.kind {
            EndpointKind::Method => service.method(name),
            EndpointKind::Prefix => service.prefix(name.as_bytes()),
            EndpointKind::Page => None,
        };
        Some(Route {
            service,
            endpoint: endpoint?,
            bare: self.bare,
            repeatable: self.repeatable,
        })
    }

    /// The rule that led here, for people.
    pub fn rule(&self) -> String {
        let (service, name) = (&self.service.id, &self.endpoint.name);
        match self.endpoint.kind {
            EndpointKind::Method if self.bare => {
                format!("only {service} registered the method {name}")
            }
            EndpointKind::Method => format!("{service} registered the method {name}"),
            EndpointKind::Prefix => format!("{service} serves the prefix {name}"),
            EndpointKind::Page => format!("{name} is a page of the node"),
        }
    }
}

/// Finds the endpoint of a request and checks that the caller may call it. Takes no memory
/// unless it refuses.
pub fn decide<'s>(snapshot: &'s Snapshot, request: &Request<'_>) -> Result<Route<'s>, Refusal> {
    check_form(request)?;
    let path = path::checked(request.target)?;
    let (service, endpoint, bare) = match addressed(path) {
        Some((tier, name, rest)) => {
            permit(request, tier, name)?;
            let service = find_service(snapshot, tier, name)?;
            (service, find_endpoint(service, path, rest)?, false)
        }
        None => match snapshot.page(path) {
            Some((service, page)) => {
                permit_page(request, page)?;
                (&**service, page, true)
            }
            None => {
                let (service, method) = find_bare(snapshot, request, path)?;
                (service, method, true)
            }
        },
    };
    if endpoint.candidates.is_empty() {
        return Err(no_instance(&service.id));
    }
    Ok(Route {
        service,
        endpoint,
        bare,
        repeatable: endpoint.no_side_effects || is_idempotent(request.method),
    })
}

fn check_form(request: &Request<'_>) -> Result<(), Refusal> {
    if request.method == b"CONNECT" {
        let message = "the router is not a forward proxy: it has no CONNECT";
        return Err(Refusal::new(Reason::BadRequest, message));
    }
    if request.target == b"*" && request.method == b"OPTIONS" {
        let message = "`*` names no endpoint";
        let mend = "ask for the options of a path, as OPTIONS /api/mobile/";
        return Err(Refusal::new(Reason::NoSuchEndpoint, message).mend(mend));
    }
    Ok(())
}

/// Tier, service and the rest after the slash, of a path `/{tier}/{service}/{rest}`.
fn addressed(path: &[u8]) -> Option<(Tier, &[u8], &[u8])> {
    let (tier, rest) = split_slash(&path[1..]);
    let tier = Tier::ALL
        .into_iter()
        .find(|known| known.as_str().as_bytes() == tier)?;
    let (name, rest) = split_slash(rest);
    Some((tier, name, rest))
}

fn split_slash(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'/', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

/// Checks the tiers. Asked before the service is looked up, so that nobody learns what there is
/// in tiers that he may not call.
fn permit(request: &Request<'_>, tier: Tier, name: &[u8]) -> Result<(), Refusal> {
    let is_node = tier == Tier::Service && name == hydrant_contracts::NODE_SERVICE.as_bytes();
    let rule = match (request.listener, request.caller) {
        _ if tier == Tier::Api && request.listener == Listener::Public => return Ok(()),
        (Listener::Public, _) => "the public listener reaches the tier api only",
        (Listener::Local, Caller::Outside) if tier == Tier::Api => return Ok(()),
        (Listener::Local, Caller::Outside) => "without a token only the tier api can be called",
        (Listener::Local, Caller::Known(Identity::Operator)) => return Ok(()),
        (Listener::Local, Caller::Known(_)) if is_node => return Ok(()),
        (Listener::Local, Caller::Known(Identity::Service(from))) => {
            if from.tier.may_call(tier) {
                return Ok(());
            }
            tier_rule(from.tier)
        }
    };
    Err(refuse_tier(
        request,
        &format!("{tier}/{}", shown(name)),
        rule,
    ))
}

const fn tier_rule(from: Tier) -> &'static str {
    match from {
        Tier::Api => "api calls orchestration and service only",
        Tier::Orchestration => "orchestration calls service only",
        Tier::Service => "service calls no other service",
    }
}

fn permit_page(request: &Request<'_>, page: &Endpoint) -> Result<(), Refusal> {
    let rule = match (request.listener, request.caller) {
        (Listener::Public, _) => "pages of the node are on the local listener only",
        (Listener::Local, Caller::Known(_)) => return Ok(()),
        (Listener::Local, Caller::Outside) if OPEN_PAGES.contains(&&*page.name) => return Ok(()),
        (Listener::Local, Caller::Outside) => "without a token only /health and /metrics are open",
    };
    Err(refuse_tier(request, &page.name, rule))
}

fn refuse_tier(request: &Request<'_>, to: &str, rule: &'static str) -> Refusal {
    let message = format!("{} may not call {to}: {rule}", request.caller);
    let refusal = Refusal::new(Reason::TierRefused, message);
    match (request.listener, request.caller) {
        (Listener::Local, Caller::Outside) => {
            refusal.mend("send the header hydrant-token; HYDRANT_TOKEN has it in every service")
        }
        (Listener::Public, _) => refusal.mend("call it through an api service"),
        _ => refusal,
    }
}

fn find_service<'s>(
    snapshot: &'s Snapshot,
    tier: Tier,
    name: &[u8],
) -> Result<&'s Service, Refusal> {
    snapshot
        .service_named(tier, name)
        .map(|service| &**service)
        .ok_or_else(|| {
            let message = format!("no service {tier}/{} is registered", shown(name));
            Refusal::new(Reason::NoSuchService, message).mend("`hydrant list` shows what is")
        })
}

fn find_endpoint<'s>(
    service: &'s Service,
    path: &[u8],
    rest: &[u8],
) -> Result<&'s Endpoint, Refusal> {
    let method = std::str::from_utf8(rest)
        .ok()
        .and_then(|rest| service.method(rest));
    method.or_else(|| service.prefix(path)).ok_or_else(|| {
        if service.has_ready_instance() {
            no_such_endpoint(service, path)
        } else {
            no_instance(&service.id)
        }
    })
}

fn no_such_endpoint(service: &Service, path: &[u8]) -> Refusal {
    let message = format!("{} answers no path `{}`", service.id, shown(path));
    let refusal = Refusal::new(Reason::NoSuchEndpoint, message);
    let with_slash = [path, b"/"].concat();
    if service.prefix(&with_slash).is_some() {
        let mend = format!("its route ends in a slash: ask for {}", shown(&with_slash));
        return refusal.mend(mend);
    }
    refusal.mend(format!("`hydrant list {}` shows the service", service.id))
}

fn no_instance(service: &ServiceId) -> Refusal {
    let message = format!("no instance of {service} that answers this is ready");
    Refusal::new(Reason::NoInstance, message)
        .mend(format!("`hydrant list {service}` shows the state of each"))
}

fn find_bare<'s>(
    snapshot: &'s Snapshot,
    request: &Request<'_>,
    path: &[u8],
) -> Result<(&'s Service, &'s Endpoint), Refusal> {
    let method = std::str::from_utf8(&path[1..]).unwrap_or("");
    match snapshot.bare(method) {
        Some(Bare::One(service)) => {
            permit(
                request,
                service.id.tier,
                service.id.name.as_str().as_bytes(),
            )?;
            let found = service.method(method).map(|method| (&**service, method));
            found.ok_or_else(|| no_such_path(path))
        }
        Some(Bare::Ambiguous(services)) => Err(ambiguous(request, method, services)),
        None => Err(no_such_path(path)),
    }
}

fn ambiguous(request: &Request<'_>, method: &str, services: &[ServiceId]) -> Refusal {
    let message = match request.caller {
        Caller::Outside => format!("more than one service answers {method}"),
        Caller::Known(_) => {
            let names: Vec<_> = services.iter().take(5).map(ServiceId::to_string).collect();
            format!("{method} is answered by {}", names.join(" and "))
        }
    };
    let mend = format!("put the service before it, as /TIER/SERVICE/{method}");
    Refusal::new(Reason::AmbiguousMethod, message).mend(mend)
}

fn no_such_path(path: &[u8]) -> Refusal {
    let message = format!("nothing answers `{}`", shown(path));
    let text = std::str::from_utf8(path).unwrap_or("");
    let mend = match text.parse::<EndpointPath>() {
        Err(error) if path.len() > 1 => error.to_string(),
        _ => "an endpoint is written /TIER/SERVICE/PATH, as /api/mobile/v1/init".into(),
    };
    Refusal::new(Reason::NoSuchEndpoint, message).mend(mend)
}
