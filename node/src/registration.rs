//! The instances that are registered with this node: each is an ephemeral key in coordination for
//! as long as its stream and its lease live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::{Code, Error, Identity, Instance, InstanceId, InstanceState};
use hydrant_ports::{EngineError, ErrorKind, Expect, Key};
use hydrant_runtime::{Backoff, Clock, Shutdown};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::identity::invalid;
use crate::leases::{Lease, Leases, gone};
use crate::session::{Presence, Sessions};
use crate::table::{Table, instance_key};
use crate::traffic::Traffic;

/// How long an instance may be silent when it does not ask for another time.
const DEFAULT_TTL: Duration = Duration::from_secs(6);

/// The longest that a drain waits.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// How often a drain looks whether the last request is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long the removal of an instance is tried when coordination does not answer. After that the
/// entry is gone with the node's session.
const REMOVE_WITHIN: Duration = Duration::from_secs(60);

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
    presence: Arc<Presence>,
    table: Arc<Table>,
    traffic: Arc<dyn Traffic>,
    leases: Leases,
    clock: Clock,
    server: String,
    /// The node's own ports: an instance there would send requests in a circle.
    own_ports: Vec<u16>,
    live: Mutex<HashMap<InstanceId, Arc<Registration>>>,
    shutdown: Shutdown,
}

struct Registration {
    key: Key,
    lease_id: String,
    owner: Identity,
    /// Held while the key is written, so that writes of one instance stay in order.
    held: tokio::sync::Mutex<Held>,
    replaced: watch::Sender<bool>,
}

struct Held {
    instance: Instance,
    /// It may have been written.
    begun: bool,
    /// Nothing is written any more.
    ended: bool,
}

/// What registrations need from the rest of the node.
pub(crate) struct Parts {
    pub(crate) presence: Arc<Presence>,
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
            presence: parts.presence,
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
        let registration = Arc::new(Registration::new(owner, &lease, instance)?);
        let (events, told) = mpsc::channel(8);
        let all = self.clone();
        self.shutdown
            .spawn(async move { all.hold(&registration, &lease, &events).await });
        Ok(told)
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
        let registration = self.live().get(id).cloned();
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
        let id = registration.held.lock().await.instance.id.clone();
        Ok(self.finished(&id, until).await)
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
        lease: &Lease,
        events: &mpsc::Sender<Result<Told, Error>>,
    ) {
        let mut sessions = self.presence.changes();
        let begun = match self.enter(registration).await {
            Ok(()) => self.put(registration).await,
            Err(error) => Err(error),
        };
        let last = match begun {
            Ok(()) => {
                let registered = Told::Registered {
                    lease_id: lease.id.clone(),
                    ttl_ms: lease.ttl_ms(),
                };
                let _ = events.send(Ok(registered)).await;
                self.live_on(registration, lease, events, &mut sessions)
                    .await
            }
            Err(error) => Some(Err(error)),
        };
        self.leave(registration).await;
        if let Some(last) = last {
            let _ = events.try_send(last);
        }
    }

    /// Waits for the end of a registration, and tells its owner of it.
    async fn live_on(
        &self,
        registration: &Registration,
        lease: &Lease,
        events: &mpsc::Sender<Result<Told, Error>>,
        sessions: &mut Sessions,
    ) -> Option<Result<Told, Error>> {
        let mut replaced = registration.replaced.subscribe();
        tokio::select! {
            () = events.closed() => None,
            () = self.shutdown.begun() => None,
            () = lease.silent() => Some(Err(silent(lease))),
            _ = replaced.wait_for(|replaced| *replaced) => Some(Ok(Told::Stop {
                reason: "a newer registration of this instance took over".into(),
            })),
            () = self.put_with_each_session(registration, sessions) => None,
        }
    }

    async fn put_with_each_session(&self, registration: &Registration, sessions: &mut Sessions) {
        while sessions.changed().await.is_ok() {
            self.put_again(registration).await;
        }
    }

    /// Takes the place of an older registration of the same instance, if there is one.
    async fn enter(&self, registration: &Arc<Registration>) -> Result<(), Error> {
        let id = registration.held.lock().await.instance.id.clone();
        let older = {
            let mut live = self.live();
            match live.get(&id) {
                Some(older) if older.owner != registration.owner => {
                    return Err(taken(&id, &older.owner));
                }
                _ => live.insert(id, registration.clone()),
            }
        };
        if let Some(older) = older {
            older.held.lock().await.ended = true;
            older.replaced.send_replace(true);
        }
        Ok(())
    }

    /// Removes what `enter` and `put` have made. A newer registration that took over has ended
    /// this one, and waits for the lock before it writes: its entry is never removed.
    async fn leave(&self, registration: &Arc<Registration>) {
        let mut held = registration.held.lock().await;
        let is_ours = held.begun && !held.ended;
        held.ended = true;
        if is_ours {
            let removed = self.remove(&registration.key);
            if tokio::time::timeout(REMOVE_WITHIN, removed).await.is_err() {
                tracing::warn!(key = %registration.key, "cannot remove an instance");
            }
        }
        let mut live = self.live();
        let place = live.get(&held.instance.id);
        if place.is_some_and(|now| Arc::ptr_eq(now, registration)) {
            live.remove(&held.instance.id);
        }
    }

    async fn remove(&self, key: &Key) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.presence.coordination.delete(key, Expect::Any).await {
            if error.kind != ErrorKind::Unavailable {
                tracing::warn!(%key, %error, "cannot remove an instance");
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn change(
        &self,
        registration: &Registration,
        state: InstanceState,
        detail: &str,
    ) -> Result<(), Error> {
        {
            let mut held = registration.held.lock().await;
            if held.instance.state != state {
                held.instance.since_unix_ms = self.clock.unix_ms();
            }
            held.instance.state = state;
            held.instance.detail = detail.chars().take(500).collect();
        }
        self.put(registration).await
    }

    /// Writes the instance as it is now, and returns when this node's router knows.
    async fn put(&self, registration: &Registration) -> Result<(), Error> {
        let revision = {
            let mut held = registration.held.lock().await;
            if held.ended {
                return Err(gone());
            }
            // Before the write: whoever asked for it may go away in its midst.
            held.begun = true;
            self.write(&registration.key, &held.instance).await?
        };
        self.table.shows(&registration.key, revision).await;
        Ok(())
    }

    async fn put_again(&self, registration: &Registration) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.put(registration).await {
            // Without a session there is nothing to write to; the next one brings us back here.
            if !error.retryable || self.presence.session().is_err() {
                return;
            }
            tracing::warn!(key = %registration.key, %error, "cannot register an instance again");
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn write(&self, key: &Key, instance: &Instance) -> Result<u64, EngineError> {
        let value = serde_json::to_vec(instance).map_err(|error| {
            EngineError::new(ErrorKind::Corrupt, "cannot write an instance").caused_by(error)
        })?;
        let session = self.presence.session()?;
        let put = || session.put_ephemeral(key, value.clone().into(), Expect::Any);
        match put().await {
            // A session of the past still owns it, as that of a node that was restarted.
            Err(error) if error.kind == ErrorKind::Conflict => {
                self.presence.coordination.delete(key, Expect::Any).await?;
                put().await
            }
            written => written,
        }
    }

    fn of_lease(&self, owner: &Identity, lease_id: &str) -> Result<Arc<Registration>, Error> {
        self.live()
            .values()
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

    fn live(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Registration>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    fn new(owner: &Identity, lease: &Lease, instance: Instance) -> Result<Self, Error> {
        let key = instance_key(&instance.service, instance.id.as_str())
            .map_err(|error| invalid("invalid_name", error.to_string()))?;
        Ok(Self {
            key,
            lease_id: lease.id.clone(),
            owner: owner.clone(),
            held: tokio::sync::Mutex::new(Held {
                instance,
                begun: false,
                ended: false,
            }),
            replaced: watch::Sender::new(false),
        })
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
