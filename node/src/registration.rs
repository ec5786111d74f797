//! The instances that are registered with this node: each is an ephemeral key in coordination for
//! as long as its stream and its lease live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use hydrant_contracts::{Code, Error, Identity, Instance, InstanceId, InstanceState, ServiceId};
use hydrant_ports::{EngineError, ErrorKind, Key};
use hydrant_runtime::{Clock, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::entries::{Entries, Written};
use crate::identity::invalid;
use crate::leases::{Lease, Leases, gone};
use crate::table::{Table, instance_key};
use crate::traffic::Traffic;

/// How long an instance may be silent when it does not ask for another time.
const DEFAULT_TTL: Duration = Duration::from_secs(6);

/// The longest that a drain waits.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// How often a drain looks whether the last request is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long a registration, or a change of one, waits for coordination. After that it is known to
/// this node alone for the time being.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// How long an instance of the node before this one is taken for there without having registered here.
const INHERITED_FOR: Duration = Duration::from_secs(10);

/// An instance that was registered with the node before this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inherited {
    /// The service that registered it; `None` for an operator.
    owner: Option<ServiceId>,
    instance: Instance,
}

/// What the owner of a registration is told.
pub(crate) enum Told {
    /// It is registered, and this node's router routes to it as its state says.
    Registered { lease_id: String, ttl_ms: u32 },
    /// It is asked to stop.
    Stop { reason: String },
}

pub(crate) type Events = mpsc::Receiver<Result<Told, Error>>;

/// Every registration of this node.
pub(crate) struct Registrations {
    entries: Arc<Entries>,
    table: Arc<Table>,
    traffic: Arc<dyn Traffic>,
    leases: Leases,
    clock: Clock,
    server: String,
    /// The node's own ports: an instance there would send requests in a circle.
    own_ports: Vec<u16>,
    /// Held while the table and coordination are told, so that both hear it in one order.
    live: Mutex<HashMap<InstanceId, Live>>,
    shutdown: Shutdown,
}

struct Registration {
    id: InstanceId,
    key: Key,
    lease_id: String,
    owner: Identity,
    replaced: watch::Sender<bool>,
}

/// The registration of an instance that counts, and what the instance is now.
struct Live {
    registration: Arc<Registration>,
    instance: Instance,
}

/// What has been told to the table and to coordination.
struct Telling {
    change: u64,
    written: Written,
}

/// What registrations need from the rest of the node.
pub(crate) struct Parts {
    pub(crate) entries: Arc<Entries>,
    pub(crate) table: Arc<Table>,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) leases: Leases,
    pub(crate) clock: Clock,
    pub(crate) server: String,
    pub(crate) own_ports: Vec<u16>,
    pub(crate) shutdown: Shutdown,
}

impl Registrations {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            entries: parts.entries,
            table: parts.table,
            traffic: parts.traffic,
            leases: parts.leases,
            clock: parts.clock,
            server: parts.server,
            own_ports: parts.own_ports,
            live: Mutex::default(),
            shutdown: parts.shutdown,
        }
    }

    /// The leases that registrations hold, together with all other ones of this node.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Registers an instance for as long as the answer is listened to and the lease is kept
    /// alive. An older registration of the same instance gives way.
    pub(crate) fn register(
        self: &Arc<Self>,
        owner: &Identity,
        mut instance: Instance,
        asked_ttl_ms: u32,
    ) -> Result<Events, Error> {
        self.check_address(&instance)?;
        instance.server.clone_from(&self.server);
        instance.since_unix_ms = self.clock.unix_ms();
        let lease = self
            .leases
            .grant(owner, crate::leases::ttl(asked_ttl_ms, DEFAULT_TTL))?;
        let registration = Arc::new(Registration::new(owner, lease.id.clone(), &instance)?);
        let (events, told) = mpsc::channel(8);
        let all = self.clone();
        self.shutdown
            .spawn(async move { all.hold(&registration, instance, &lease, &events).await });
        Ok(told)
    }

    /// Takes over what the node before has registered, until it registers here: its processes run on and notice in
    /// a moment. Returns when this node's router knows, and coordination, if it is there.
    pub(crate) async fn inherit(self: &Arc<Self>, before: Vec<Inherited>) {
        let mut tellings = Vec::new();
        for Inherited { owner, instance } in before {
            let owner = owner.map_or(Identity::Operator, Identity::Service);
            let entered = Registration::new(&owner, String::new(), &instance).and_then(|new| {
                let registration = Arc::new(new);
                let telling = self.enter(&registration, instance)?;
                Ok((registration, telling))
            });
            match entered {
                Ok((registration, telling)) => {
                    tellings.push(telling);
                    let all = self.clone();
                    self.shutdown
                        .spawn(async move { all.hold_inherited(&registration).await });
                }
                Err(error) => tracing::warn!(%error, "cannot take over a registration"),
            }
        }
        let heard = tellings.into_iter().map(|telling| self.heard(telling));
        for refused in join_all(heard).await.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %refused, "cannot take over a registration");
        }
    }

    async fn hold_inherited(&self, registration: &Arc<Registration>) {
        let mut replaced = registration.replaced.subscribe();
        tokio::select! {
            () = self.shutdown.begun() => {}
            _ = replaced.wait_for(|replaced| *replaced) => {}
            () = tokio::time::sleep(INHERITED_FOR) => {
                tracing::warn!(instance = %registration.id,
                    "registered with the node before, and not with this one");
                self.leave(registration);
            }
        }
    }

    /// What the next node is to take over.
    pub(crate) fn inheritance(&self) -> Vec<Inherited> {
        let all = self.live();
        let inherited = |live: &Live| Inherited {
            owner: match &live.registration.owner {
                Identity::Service(service) => Some(service.clone()),
                Identity::Operator => None,
            },
            instance: live.instance.clone(),
        };
        all.values().map(inherited).collect()
    }

    /// Changes the state of an instance; returns when this node's router knows.
    pub(crate) async fn report(
        &self,
        owner: &Identity,
        lease_id: &str,
        state: InstanceState,
        detail: &str,
    ) -> Result<(), Error> {
        let registration = self.of_lease(owner, lease_id)?;
        self.change(&registration, state, detail).await
    }

    /// Takes an instance out of the routing table and waits until its last request is done, at
    /// most for `timeout`. Returns how many are left.
    pub(crate) async fn drain(
        &self,
        owner: &Identity,
        lease_id: &str,
        timeout: Duration,
    ) -> Result<u64, Error> {
        let registration = self.of_lease(owner, lease_id)?;
        self.drain_registration(&registration, timeout).await
    }

    /// Drains an instance by its id, as the supervisor asks before it stops a process. Nothing is
    /// to be done for one that is not registered.
    pub(crate) async fn drain_instance(
        &self,
        id: &InstanceId,
        timeout: Duration,
    ) -> Result<u64, Error> {
        let registration = self.live().get(id).map(|live| live.registration.clone());
        match registration {
            Some(registration) => self.drain_registration(&registration, timeout).await,
            None => Ok(0),
        }
    }

    async fn drain_registration(
        &self,
        registration: &Registration,
        timeout: Duration,
    ) -> Result<u64, Error> {
        let until = Instant::now() + timeout.min(LONGEST_DRAIN);
        self.change(registration, InstanceState::Draining, "")
            .await?;
        Ok(self.finished(&registration.id, until).await)
    }

    /// Waits until no request is in flight: seen twice, since a request that was decided by the
    /// table before this one may just be about to be counted.
    async fn finished(&self, id: &InstanceId, until: Instant) -> u64 {
        let mut before = 1;
        loop {
            let in_flight = self.traffic.in_flight(id);
            if in_flight + before == 0 || Instant::now() >= until {
                return in_flight;
            }
            before = in_flight;
            tokio::time::sleep_until((Instant::now() + DRAIN_LOOK).min(until)).await;
        }
    }

    /// The life of a registration, from its first write to its removal.
    async fn hold(
        &self,
        registration: &Arc<Registration>,
        instance: Instance,
        lease: &Lease,
        events: &mpsc::Sender<Result<Told, Error>>,
    ) {
        let last = match self.begin(registration, instance).await {
            Ok(()) => {
                let registered = Told::Registered {
                    lease_id: lease.id.clone(),
                    ttl_ms: lease.ttl_ms(),
                };
                let _ = events.send(Ok(registered)).await;
                self.live_on(registration, lease, events).await
            }
            Err(error) => Some(Err(error)),
        };
        self.leave(registration);
        if let Some(last) = last {
            let _ = events.try_send(last);
        }
    }

    /// Enters the instance; returns when this node's router knows, and coordination if it is there.
    async fn begin(
        &self,
        registration: &Arc<Registration>,
        instance: Instance,
    ) -> Result<(), Error> {
        let telling = self.enter(registration, instance)?;
        self.heard(telling).await
    }

    /// Waits for the end of a registration, and tells its owner of it.
    async fn live_on(
        &self,
        registration: &Registration,
        lease: &Lease,
        events: &mpsc::Sender<Result<Told, Error>>,
    ) -> Option<Result<Told, Error>> {
        let mut replaced = registration.replaced.subscribe();
        tokio::select! {
            () = events.closed() => None,
            () = self.shutdown.begun() => None,
            () = lease.silent() => Some(Err(silent(lease))),
            _ = replaced.wait_for(|replaced| *replaced) => Some(Ok(Told::Stop {
                reason: "a newer registration of this instance took over".into(),
            })),
        }
    }

    /// Takes the place of an older registration of the same instance, if there is one.
    fn enter(
        &self,
        registration: &Arc<Registration>,
        instance: Instance,
    ) -> Result<Telling, Error> {
        let id = &registration.id;
        let mut all = self.live();
        if let Some(older) = all.get(id) {
            if older.registration.owner != registration.owner {
                return Err(taken(id, &older.registration.owner));
            }
            older.registration.replaced.send_replace(true);
        }
        let live = Live {
            registration: registration.clone(),
            instance,
        };
        let telling = self.tell(&live)?;
        all.insert(id.clone(), live);
        Ok(telling)
    }

    /// Removes what `enter` has made, unless a newer registration took over. What ends with the node ends with its
    /// session, unless another node takes it over.
    fn leave(&self, registration: &Arc<Registration>) {
        if self.shutdown.has_begun() {
            return;
        }
        let mut all = self.live();
        let now = all.get(&registration.id);
        if now.is_some_and(|now| Arc::ptr_eq(&now.registration, registration)) {
            all.remove(&registration.id);
            self.table.set_own(&registration.key, None);
            let _ = self.entries.set(&registration.key, None);
        }
    }

    async fn change(
        &self,
        registration: &Registration,
        state: InstanceState,
        detail: &str,
    ) -> Result<(), Error> {
        let telling = {
            let mut all = self.live();
            let now = all.get_mut(&registration.id);
            let live = now
                .filter(|now| std::ptr::eq(&*now.registration, registration))
                .ok_or_else(gone)?;
            if live.instance.state != state {
                live.instance.since_unix_ms = self.clock.unix_ms();
            }
            live.instance.state = state;
            live.instance.detail = detail.chars().take(500).collect();
            self.tell(live)?
        };
        self.heard(telling).await
    }

    /// Tells the table and coordination what an instance is now.
    fn tell(&self, live: &Live) -> Result<Telling, Error> {
        let value = serde_json::to_vec(&live.instance).map_err(|error| {
            EngineError::new(ErrorKind::Corrupt, "cannot write an instance").caused_by(error)
        })?;
        let (key, instance) = (&live.registration.key, Arc::new(live.instance.clone()));
        Ok(Telling {
            change: self.table.set_own(key, Some(instance)),
            written: self.entries.set(key, Some(value.into())),
        })
    }

    /// Waits until this node's router knows what was told, and coordination, if it is there. With
    /// it away the instance is routed on this server, and the other ones hear of it later.
    async fn heard(&self, telling: Telling) -> Result<(), Error> {
        telling
            .written
            .settled(WRITTEN_WITHIN)
            .await
            .map_err(elsewhere)?;
        self.table.shows(telling.change).await;
        Ok(())
    }

    fn of_lease(&self, owner: &Identity, lease_id: &str) -> Result<Arc<Registration>, Error> {
        self.live()
            .values()
            .map(|live| &live.registration)
            .find(|live| live.lease_id == lease_id && live.owner == *owner)
            .cloned()
            .ok_or_else(gone)
    }

    fn check_address(&self, instance: &Instance) -> Result<(), Error> {
        let address = instance.address;
        if !address.ip().is_loopback() || address.port() == 0 {
            let message = format!("{address} is not an address on the loopback of this server");
            return Err(invalid("invalid_address", message).mend("listen on 127.0.0.1"));
        }
        if self.own_ports.contains(&address.port()) {
            let message = format!("{address} is where the node itself listens");
            return Err(invalid("invalid_address", message));
        }
        Ok(())
    }

    fn live(&self) -> MutexGuard<'_, HashMap<InstanceId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    fn new(owner: &Identity, lease_id: String, instance: &Instance) -> Result<Self, Error> {
        let key = instance_key(&instance.service, instance.id.as_str())
            .map_err(|error| invalid("invalid_name", error.to_string()))?;
        Ok(Self {
            id: instance.id.clone(),
            key,
            lease_id,
            owner: owner.clone(),
            replaced: watch::Sender::new(false),
        })
    }
}

/// What a refusal of coordination means for who registers.
fn elsewhere(error: Error) -> Error {
    match error.code {
        Code::Aborted => Error::new(
            Code::AlreadyExists,
            "instance_exists",
            "an instance of this id is registered with the node of another server",
        )
        .mend("make another id"),
        _ => error,
    }
}

fn silent(lease: &Lease) -> Error {
    Error::new(
        Code::Aborted,
        "silent",
        format!("the registration has ended: {}", lease.silence()),
    )
    .mend("register again")
}

fn taken(id: &InstanceId, owner: &Identity) -> Error {
    Error::new(
        Code::AlreadyExists,
        "instance_exists",
        format!("the instance id {id} is in use by {owner}"),
    )
    .mend("make another id")
}
