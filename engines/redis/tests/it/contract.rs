//! The contract suite on every kind of servers. A kill is one of all servers, by SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_ports::State;
use hydrant_ports::contract::Subject;
use hydrant_redis::RedisState;

use crate::servers::{Kind, Share, share};

struct OnServers {
    share: Share,
    engine: Option<Arc<RedisState>>,
}

async fn open(kind: Kind) -> Option<OnServers> {
    let share = share(kind).await?;
    let engine = Some(share.connect().await);
    Some(OnServers { share, engine })
}

#[async_trait]
impl Subject<dyn State> for OnServers {
    fn engine(&self) -> Arc<dyn State> {
        self.engine.clone().expect("it is open between kills")
    }

    async fn kill_and_reopen(&mut self) {
        self.engine = None;
        self.share.kill_and_restart().await;
        self.engine = Some(self.share.connect().await);
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

mod single {
    use super::{Kind, open};
    hydrant_ports::state_contract!(if_there open(Kind::Single));
}

mod sentinel {
    use super::{Kind, open};
    hydrant_ports::state_contract!(if_there open(Kind::Sentinel));
}

mod cluster {
    use super::{Kind, open};
    hydrant_ports::state_contract!(if_there open(Kind::Cluster));
}

mod tls_with_users {
    use super::{Kind, open};
    hydrant_ports::state_contract!(if_there open(Kind::TlsWithUsers));
}
