//! The node loses its session with coordination while its services live on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_contracts::proto;
use hydrant_contracts::proto::__buffa::oneof::campaign_event::Event;
use hydrant_node::{Engines, Quotas};
use hydrant_ports::coordination::{Holder, Seat, SeatName, Session, SessionState};
use hydrant_ports::{Coordination, EngineError, Entry, Expect, Key, Prefix, Versioned, Watch};
use tokio::sync::watch;

use crate::support::{Server, next, register};

/// The engine behind it, whose sessions a test can end as a server would.
struct Losable {
    engine: Arc<dyn Coordination>,
    open: Arc<Mutex<Vec<Arc<dyn Session>>>>,
}

struct Shared(Arc<dyn Session>);

#[async_trait]
impl Session for Shared {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.0.state()
    }

    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError> {
        self.0.put_ephemeral(key, value, expect).await
    }

    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError> {
        self.0.take_seat(seat, holder).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl Coordination for Losable {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    async fn open_session(
        &self,
        owner: &str,
        ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError> {
        let session: Arc<dyn Session> = self.engine.open_session(owner, ttl).await?.into();
        self.open.lock().unwrap().push(session.clone());
        Ok(Box::new(Shared(session)))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError> {
        self.engine.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError> {
        self.engine.list(prefix).await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        self.engine.watch(prefix).await
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError> {
        self.engine.put(key, value, expect).await
    }

    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError> {
        self.engine.delete(key, expect).await
    }

    async fn holder(
        &self,
        seat: &SeatName,
    ) -> Result<watch::Receiver<Option<Holder>>, EngineError> {
        self.engine.holder(seat).await
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.engine.check().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_survive_a_lost_session_and_seats_do_not() {
    let open = Arc::new(Mutex::new(Vec::<Arc<dyn Session>>::new()));
    let sessions = open.clone();
    let server = Server::start_with(Quotas::default(), |engines| Engines {
        coordination: Arc::new(Losable {
            engine: engines.coordination,
            open: sessions,
        }),
        state: engines.state,
    })
    .await;
    let client = server.client("service/a");
    let mut registered = client
        .registry
        .register_instance(register("service/a", "a-1", 60_000))
        .await
        .unwrap();
    next!(registered).unwrap().unwrap();
    let campaign = |candidate: &str| {
        client.election.campaign(proto::CampaignRequest {
            election: "leader".into(),
            candidate: candidate.into(),
            ttl_ms: 60_000,
            ..Default::default()
        })
    };
    let mut leads = campaign("one").await.unwrap();
    assert!(matches!(next!(leads).unwrap(), Some(Event::Joined(_))));
    let Some(Event::Elected(first)) = next!(leads).unwrap() else {
        panic!("the only candidate leads");
    };
    let mut waits = campaign("two").await.unwrap();
    assert!(matches!(next!(waits).unwrap(), Some(Event::Joined(_))));

    let lost = open.lock().unwrap()[0].clone();
    lost.close().await;

    assert!(matches!(next!(leads).unwrap(), Some(Event::Lost(_))));
    // Who only stood in line goes on in the line of the next session.
    let Some(Event::Elected(second)) = next!(waits).unwrap() else {
        panic!("the second candidate leads now");
    };
    assert!(second.epoch > first.epoch);
    client.discovers(&["a-1"]).await;
    let of_the_past = lost.state();
    assert_eq!(*of_the_past.borrow(), SessionState::Lost);
    assert_eq!(open.lock().unwrap().len(), 2);
    drop(registered);
    client.discovers(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_leaves_nothing_behind() {
    let server = Server::start().await;
    let client = server.client("service/a");
    let mut registered = client
        .registry
        .register_instance(register("service/a", "a-1", 60_000))
        .await
        .unwrap();
    next!(registered).unwrap().unwrap();
    let mut watch = client.state.watch(Default::default()).await.unwrap();
    next!(watch).unwrap().unwrap();
    server.agent.stop().await;
    let left = server.engines.coordination.list(&"".parse().unwrap()).await;
    assert!(left.unwrap().is_empty());
    assert!(next!(registered).unwrap().is_none(), "the stream ends");
    assert!(next!(watch).unwrap().is_none(), "the watch ends");
}
