//! The node's own presence in coordination: one session at a time, opened again when it is lost,
//! and the name of its server under it.

use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::Server;
use hydrant_ports::coordination::{Coordination, Session, SessionState};
use hydrant_ports::{Change, EngineError, ErrorKind, Watch};
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::StartError;
use crate::servers::{Name, Refused};

/// Nodes that lost their sessions together, as with an engine that was restarted, do not come back
/// in the same moment: each waits up to this long.
const JITTER: Duration = Duration::from_millis(250);

/// How often a node that has withdrawn looks whether the name of its server is free again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long a node that starts waits for an engine that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The session of the moment, or that there is none.
pub(crate) type Sessions = watch::Receiver<Option<Arc<dyn Session>>>;

/// How the node stands with coordination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is a session, and the engine answers.
    Present,
    /// There is none, or the engine does not answer. What the session held may still be there.
    Away {
        /// Since when.
        since: Instant,
    },
    /// Another node has the name of this server. This one opens no session until it is free.
    Withdrawn {
        /// Which one.
        holder: String,
    },
}

/// The node's session. What hung on a lost one must be put again by whoever put it.
pub(crate) struct Presence {
    pub(crate) coordination: Arc<dyn Coordination>,
    server: Server,
    name: Name,
    ttl: Duration,
    current: watch::Sender<Option<Arc<dyn Session>>>,
    standing: watch::Sender<Standing>,
}

impl Presence {
    /// Opens the first session and takes the name of the server, which the incarnation `before` gives over, if
    /// there is one. `ttl` is how long an engine on
    /// another machine waits for a silent node.
    pub(crate) async fn open(
        coordination: Arc<dyn Coordination>,
        server: Server,
        before: Option<String>,
        ttl: Duration,
    ) -> Result<Self, StartError> {
        let engine = |source| StartError::Engine {
            port: "coordination",
            source,
        };
        let presence = Self {
            name: Name::new(&server, before).map_err(engine)?,
            coordination,
            server,
            ttl,
            current: watch::Sender::new(None),
            standing: watch::Sender::new(Standing::Present),
        };
        match presence.open_first().await {
            Ok(session) => presence.current.send_replace(Some(session)),
            Err(Refused::Engine(error)) => return Err(engine(error)),
            Err(Refused::Taken(holder)) => {
                return Err(StartError::NameTaken {
                    server: presence.server.name,
                    holder,
                });
            }
        };
        Ok(presence)
    }

    /// Which process of this server this is.
    pub(crate) fn incarnation(&self) -> &str {
        self.name.incarnation()
    }

    /// The session, or `Unavailable` while there is none.
    pub(crate) fn session(&self) -> Result<Arc<dyn Session>, EngineError> {
        self.current.borrow().clone().ok_or_else(|| {
            EngineError::new(
                ErrorKind::Unavailable,
                "the node has lost its session with coordination and is opening another",
            )
        })
    }

    /// Changes whenever a session is lost or opened.
    pub(crate) fn changes(&self) -> Sessions {
        self.current.subscribe()
    }

    /// How the node stands with coordination now, and when that changes.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Opens the session again as often as it is lost. Ends with the node.
    pub(crate) async fn keep(&self, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.keep_on() => {}
        }
    }

    async fn keep_on(&self) {
        loop {
            let holder = self.until_replaced().await;
            self.withdraw(holder).await;
            self.free_name().await;
            tracing::info!(server = %self.server.name, "the name of this server is free again");
        }
    }

    /// Gives up all that the session holds.
    pub(crate) async fn close(&self) {
        let session = self.current.send_replace(None);
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// Keeps a session until another node has the name; tells which.
    async fn until_replaced(&self) -> String {
        loop {
            if let Ok(session) = self.session() {
                tokio::select! {
                    () = self.lost(&*session) => {}
                    holder = self.guard_name(&*session) => return holder,
                }
                tracing::warn!("the session with coordination is lost");
                self.current.send_replace(None);
                self.away();
            }
            match self.open_again().await {
                Ok(session) => self.current.send_replace(Some(session)),
                Err(holder) => return holder,
            };
            self.standing.send_replace(Standing::Present);
            tracing::info!("there is a session with coordination again");
        }
    }

    /// Leaves the name to the other node. This one routes on for its own server, but registers and
    /// elects nobody in the fleet.
    async fn withdraw(&self, holder: String) {
        tracing::error!(server = %self.server.name, holder,
            "another node has the name of this server; this one withdraws from the fleet");
        self.standing.send_replace(Standing::Withdrawn { holder });
        self.close().await;
    }

    /// Resolves when nobody who may live has the name.
    async fn free_name(&self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Ok(found) = self.coordination.get(self.name.key()).await
                && self.name.is_free(found.as_ref())
            {
                return;
            }
        }
    }

    /// Resolves when the session is lost, and notes meanwhile how it is.
    async fn lost(&self, session: &dyn Session) {
        let mut state = session.state();
        loop {
            let now = *state.borrow_and_update();
            match now {
                SessionState::Connected => {
                    self.standing.send_if_modified(|standing| {
                        let was_away = *standing != Standing::Present;
                        *standing = Standing::Present;
                        was_away
                    });
                }
                SessionState::Suspended => self.away(),
                SessionState::Lost => return,
            }
            // An engine that tells no more has lost it, too.
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn away(&self) {
        self.standing.send_if_modified(|standing| {
            let was_present = *standing == Standing::Present;
            if was_present {
                *standing = Standing::Away {
                    since: Instant::now(),
                };
            }
            was_present
        });
    }

    /// Watches the entry of this server, answers who asks for it, and resolves when another node
    /// has taken it.
    async fn guard_name(&self, session: &dyn Session) -> String {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let below = self.name.key().as_str().parse().expect("a key is a prefix");
        loop {
            match self.coordination.watch(&below).await {
                Ok(watch) => {
                    backoff.reset();
                    if let Some(holder) = self.until_taken(watch, session).await {
                        return holder;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot watch the entry of this server"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn until_taken(&self, mut watch: Watch, session: &dyn Session) -> Option<String> {
        loop {
            let entries = match watch.next().await? {
                Change::All(entries) => entries,
                Change::Put(entry) => vec![entry],
                Change::Removed(key) if key == *self.name.key() => {
                    // Not by this process, which lives.
                    match self.name.take(&*self.coordination, session).await {
                        Err(Refused::Taken(holder)) => return Some(holder),
                        Err(Refused::Engine(error)) => {
                            tracing::warn!(%error, "cannot put the entry of this server again");
                            return None;
                        }
                        Ok(()) => continue,
                    }
                }
                Change::Removed(_) => continue,
            };
            for entry in entries {
                let seen = self.name.sees(&entry, &*self.coordination, session);
                if let Some(holder) = seen.await {
                    return Some(holder);
                }
            }
        }
    }

    /// Tries until there is a session again, or another node has the name.
    async fn open_again(&self) -> Result<Arc<dyn Session>, String> {
        let mut backoff = Backoff::new(JITTER, Duration::from_secs(5));
        loop {
            tokio::time::sleep(backoff.next_wait()).await;
            match self.open_once().await {
                Ok(session) => return Ok(session),
                Err(Refused::Taken(holder)) => return Err(holder),
                Err(Refused::Engine(error)) => {
                    tracing::warn!(%error, "cannot open a session with coordination");
                }
            }
        }
    }

    /// An engine that does not answer for a moment, as while it elects a leader, does not end a
    /// node that has just begun.
    async fn open_first(&self) -> Result<Arc<dyn Session>, Refused> {
        let until = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match self.open_once().await {
                Err(Refused::Engine(error)) if is_passing(&error) && Instant::now() < until => {
                    tracing::warn!(%error, "coordination is not ready; trying again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                done => return done,
            }
        }
    }

    async fn open_once(&self) -> Result<Arc<dyn Session>, Refused> {
        let owner = self.server.name.as_str();
        let session = self.coordination.open_session(owner, self.ttl).await?;
        self.name.take(&*self.coordination, &*session).await?;
        Ok(session.into())
    }
}

/// Whether another try may help: it does not answer now, or the session did not live long enough.
fn is_passing(error: &EngineError) -> bool {
    matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Closed)
}

/// Resolves when `session` is lost. An engine that tells no more has lost it, too.
pub(crate) async fn lost(session: &dyn Session) {
    let mut state = session.state();
    let _ = state.wait_for(|state| *state == SessionState::Lost).await;
}
