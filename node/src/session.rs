//! The node's own presence in coordination: one session at a time, opened again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::ServerName;
use hydrant_ports::coordination::{Coordination, Session, SessionState};
use hydrant_ports::{EngineError, ErrorKind};
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::watch;

/// How long an engine on another machine waits for a silent node.
const SESSION_TTL: Duration = Duration::from_secs(10);

/// The session of the moment, or that there is none.
pub(crate) type Sessions = watch::Receiver<Option<Arc<dyn Session>>>;

/// The node's session. What hung on a lost one must be put again by whoever put it.
pub(crate) struct Presence {
    pub(crate) coordination: Arc<dyn Coordination>,
    /// The server, as the owner of its sessions.
    owner: ServerName,
    current: watch::Sender<Option<Arc<dyn Session>>>,
}

impl Presence {
    pub(crate) async fn open(
        coordination: Arc<dyn Coordination>,
        owner: &ServerName,
    ) -> Result<Self, EngineError> {
        let session = coordination
            .open_session(owner.as_str(), SESSION_TTL)
            .await?;
        Ok(Self {
            coordination,
            owner: owner.clone(),
            current: watch::Sender::new(Some(session.into())),
        })
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

    /// Opens the session again as often as it is lost. Ends with the node.
    pub(crate) async fn keep(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                () = self.lost() => {}
            }
            tracing::warn!("the session with coordination is lost");
            self.current.send_replace(None);
            tokio::select! {
                () = shutdown.begun() => return,
                session = self.open_again() => self.current.send_replace(Some(session)),
            };
            tracing::info!("there is a session with coordination again");
        }
    }

    /// Gives up all that the session holds.
    pub(crate) async fn close(&self) {
        let session = self.current.send_replace(None);
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn lost(&self) {
        if let Ok(session) = self.session() {
            lost(&*session).await;
        }
    }

    async fn open_again(&self) -> Arc<dyn Session> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            let opened = self
                .coordination
                .open_session(self.owner.as_str(), SESSION_TTL);
            match opened.await {
                Ok(session) => return session.into(),
                Err(error) => tracing::warn!(%error, "cannot open a session with coordination"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }
}

/// Resolves when `session` is lost. An engine that tells no more has lost it, too.
pub(crate) async fn lost(session: &dyn Session) {
    let mut state = session.state();
    let _ = state.wait_for(|state| *state == SessionState::Lost).await;
}
