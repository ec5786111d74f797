use std::sync::Arc;

use hydrant_contracts::{Caller, Endpoint as EndpointPath, Identity, ServiceId, Tier};

use crate::balance::{Chooser, Tried};
use crate::path;
use crate::peer::Reach;
use crate::refusal::{Reason, Refusal, Unsent, shown};
use crate::rule::Ruled;
use crate::service::{Candidates, Endpoint, EndpointKind, Groups, Instance, Service};
use crate::snapshot::Snapshot;

/// Pages of the node that need no token, on the local listener.
const OPEN_PAGES: [&str; 2] = ["/health", "/metrics"];

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// For the outside: reaches the tier api only.
    Public,
    /// For the services of this server: reaches what the caller's tier may call.
    Local,
    /// For the nodes of other servers: reaches the instance on this server that they name, within
    /// what the caller's tier may call.
    Peer,
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
    /// The header `hydrant-server`: whose node is asked. It counts on the local listener, for what
    /// the node itself answers.
    pub server: Option<&'a [u8]>,
    /// The header `hydrant-to`: the instance that another node has chosen. It counts on the peer
    /// listener, and must be there.
    pub to: Option<&'a [u8]>,
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
    /// The one instance that it goes to, when the request names it.
    pub only: Option<&'s Arc<Instance>>,
    /// A repeat is safe: the HTTP method is idempotent, the endpoint is declared so, or the
    /// service says so of the path.
    pub repeatable: bool,
    /// The rule that decides over it.
    pub(crate) ruled: Option<Ruled<'s>>,
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

    /// The ready instances that may serve it, by their nearness.
    pub fn candidates(&self) -> Groups<'s> {
        match (self.only, self.pinned()) {
            (Some(only), _) => [std::slice::from_ref(only), &[], &[]],
            (None, Some(pinned)) => pinned.groups(),
            (None, None) => self.endpoint.candidates.groups(),
        }
    }

    /// The only candidates, where a rule pins the request to some and to nothing else.
    fn pinned(&self) -> Option<&'s Candidates> {
        let ruled = self.ruled.filter(|ruled| ruled.compiled.is_strict())?;
        self.endpoint.wanted_by(ruled.compiled)
    }

    /// The candidates that come first, of the version that the request belongs to where a rule says one.
    pub(crate) fn preferred(&self, tried: &Tried, chooser: Chooser) -> Groups<'s> {
        let ruled = self.ruled.filter(|_| self.only.is_none());
        let wanted = ruled.and_then(|ruled| self.endpoint.wanted_by(ruled.compiled));
        if let Some(wanted) = wanted.filter(|wanted| wanted.has_room(tried, chooser)) {
            return wanted.groups();
        }
        match ruled.and_then(|ruled| ruled.arm(self.endpoint, tried, chooser)) {
            Some((_, candidates)) => candidates.groups(),
            None => self.candidates(),
        }
    }

    /// How many instances may serve it.
    pub fn candidate_count(&self) -> usize {
        self.candidates().into_iter().map(<[_]>::len).sum()
    }

    /// The instance gets the caller's token: only the node's own API, which checks it itself.
    pub fn forwards_token(&self) -> bool {
        self.service.is_node()
    }

    /// The same endpoint in a newer snapshot: between two attempts instances come and go.
    pub(crate) fn renewed<'n>(&self, snapshot: &'n Snapshot) -> Option<Route<'n>> {
        if self.only.is_some() {
            return None;
        }
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
            only: None,
            repeatable: self.repeatable,
            ruled: (self.ruled).and_then(|ruled| ruled.renewed(service.rules.as_ref())),
        })
    }

    /// Goes to another path of the service, which is looked at as if it had been asked for. A rule says where to.
    pub(crate) fn rewrite(&mut self, target: &[u8], method: &[u8]) -> Result<(), Refusal> {
        let path = path::checked(target)?;
        let own = addressed(path).filter(|(tier, name, _)| {
            let id = &self.service.id;
            (id.tier, id.name.as_str().as_bytes()) == (*tier, *name)
        });
        let Some((_, _, rest)) = own else {
            return Err(no_such_path(path));
        };
        let endpoint = find_endpoint(self.service, path, rest)?;
        if endpoint.candidates.is_empty() {
            return Err(no_instance(&self.service.id));
        }
        self.endpoint = endpoint;
        self.bare = false;
        self.repeatable = is_idempotent(method) || endpoint.is_repeatable_at(path);
        Ok(())
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
    let found = find(snapshot, request);
    let (service, endpoint, bare) = match request.listener {
        Listener::Peer => found.map_err(of_another_node)?,
        _ => found?,
    };
    let only = match request.listener {
        Listener::Peer => Some(instance_asked_for(service, endpoint, request.to)?),
        Listener::Local if service.is_node() && endpoint.kind != EndpointKind::Page => {
            node_asked_for(snapshot, request.server)?
        }
        _ => None,
    };
    if only.is_none() && endpoint.candidates.is_empty() {
        return Err(no_instance(&service.id));
    }
    let is_repeatable = || endpoint.is_repeatable_at(path::split_query(request.target).0);
    Ok(Route {
        service,
        endpoint,
        bare,
        only,
        repeatable: is_idempotent(request.method) || is_repeatable(),
        ruled: None,
    })
}

/// The service, its endpoint, and whether the method stands without tier and service.
fn find<'s>(
    snapshot: &'s Snapshot,
    request: &Request<'_>,
) -> Result<(&'s Service, &'s Endpoint, bool), Refusal> {
    let path = path::checked(request.target)?;
    if let Some((tier, name, rest)) = addressed(path) {
        permit(request, tier, name)?;
        let service = find_service(snapshot, tier, name)?;
        return Ok((service, find_endpoint(service, path, rest)?, false));
    }
    if let Some((service, page)) = snapshot.page(path) {
        permit_page(request, page)?;
        return Ok((service, page, true));
    }
    let (service, method) = find_bare(snapshot, request, path)?;
    Ok((service, method, true))
}

/// What another node found, this one may not know yet, or not any more: nothing was sent.
fn of_another_node(refusal: Refusal) -> Refusal {
    match refusal.reason {
        Reason::NoSuchService
        | Reason::NoSuchEndpoint
        | Reason::AmbiguousMethod
        | Reason::NoInstance => {
            let reason = Reason::NoInstance;
            Refusal { reason, ..refusal }.unsent(Unsent::Unknown)
        }
        _ => refusal,
    }
}

/// The instance on this server that another node has chosen. A request that came from there goes
/// to no third server.
fn instance_asked_for<'s>(
    service: &'s Service,
    endpoint: &Endpoint,
    to: Option<&[u8]>,
) -> Result<&'s Arc<Instance>, Refusal> {
    let Some(to) = to else {
        let message = "the peer listener is for the nodes of other servers: hydrant-to is missing";
        let mend = "ask the local or the public listener";
        return Err(Refusal::new(Reason::BadRequest, message).mend(mend));
    };
    let mut own = service
        .instances
        .iter()
        .filter(|instance| matches!(instance.reach, Reach::Own));
    // Every server has one node, and others don't know what it calls itself.
    let asked =
        own.find(|instance| service.is_node() || instance.info.id.as_str().as_bytes() == to);
    let unsent = |why: Unsent, text: &str| {
        let message = format!("{} of {} {text}", shown(to), service.id);
        Refusal::new(Reason::NoInstance, message).unsent(why)
    };
    match asked {
        None => Err(unsent(Unsent::Unknown, "is not on this server")),
        Some(instance) if !instance.is_ready() => {
            Err(unsent(Unsent::NotReady, "takes no new requests"))
        }
        Some(instance) if !endpoint.has_candidate(instance) => {
            Err(unsent(Unsent::Unknown, "does not answer this"))
        }
        Some(instance) => Ok(instance),
    }
}

/// The node of the server that the request names; `None` when that is this one.
fn node_asked_for<'s>(
    snapshot: &'s Snapshot,
    server: Option<&[u8]>,
) -> Result<Option<&'s Arc<Instance>>, Refusal> {
    let Some(server) = server else {
        return Ok(None);
    };
    let name = std::str::from_utf8(server).unwrap_or("");
    if snapshot.is_own_server(name) {
        return Ok(None);
    }
    snapshot.node_of(name).map(Some).ok_or_else(|| {
        let message = format!("no server {} is in the fleet", shown(server));
        Refusal::new(Reason::NoSuchServer, message)
            .mend("`hydrant health` shows the servers that are")
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
        (_, Caller::Outside) if tier == Tier::Api => return Ok(()),
        (_, Caller::Outside) => "without a token only the tier api can be called",
        (_, Caller::Known(Identity::Operator)) => return Ok(()),
        (_, Caller::Known(_)) if is_node => return Ok(()),
        (_, Caller::Known(Identity::Service(from))) => {
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
        (Listener::Public | Listener::Peer, _) => {
            "pages of the node are on the local listener only"
        }
        (_, Caller::Known(_)) => return Ok(()),
        (_, Caller::Outside) if OPEN_PAGES.contains(&&*page.name) => return Ok(()),
        (_, Caller::Outside) => "without a token only /health and /metrics are open",
    };
    Err(refuse_tier(request, &page.name, rule))
}

fn refuse_tier(request: &Request<'_>, to: &str, rule: &'static str) -> Refusal {
    let message = format!("{} may not call {to}: {rule}", request.caller);
    let refusal = Refusal::new(Reason::TierRefused, message);
    match (request.listener, request.caller) {
        (Listener::Local | Listener::Peer, Caller::Outside) => {
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
    let id = match snapshot.bare(method) {
        [] => return Err(no_such_path(path)),
        [one] => one,
        services => return Err(ambiguous(request, method, services)),
    };
    permit(request, id.tier, id.name.as_str().as_bytes())?;
    let service = snapshot.service(id);
    let found = service.and_then(|service| Some((&**service, service.method(method)?)));
    found.ok_or_else(|| no_such_path(path))
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
