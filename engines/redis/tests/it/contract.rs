//! The contract suite on every kind of servers. A kill is one of all servers, by SIGKILL. Time passes
//! as it does on one kind; on the others the ends of keys are moved, which is as good and quicker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_ports::State;
use hydrant_ports::contract::Subject;
use hydrant_redis::{Mode, RedisState};

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
        match self.share.kind {
            Kind::Single => tokio::time::sleep(time).await,
            _ => tokio::task::block_in_place(|| self.move_ends(time)),
        }
    }
}

const MOVE_ENDS: &str = "
    local ends = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
    for index = 1, #ends, 2 do
        local moved = string.format('%.0f', ends[index + 1] - ARGV[2])
        redis.call('ZADD', KEYS[1], moved, ends[index])
        redis.call('PEXPIREAT', ARGV[1] .. ends[index], moved)
    end
    return #ends";

impl OnServers {
    /// Every partition is at one of the servers; the others refuse.
    fn move_ends(&self, time: Duration) {
        let servers = self.share.using.as_ref().expect("it is used");
        let prefix = &self.share.config.prefix;
        let ms = time.as_millis().to_string();
        let partitions = if servers.mode == Mode::Cluster { 16 } else { 1 };
        for partition in 0..partitions {
            let name = |what: &str| format!("{prefix}{{p{partition}}}:{what}");
            let (ends, entry) = (name("ends"), name("entry:"));
            let words = ["EVAL", MOVE_ENDS, "1", &ends, &entry, &ms];
            let mut moved = (0..servers.redis.addresses().len())
                .filter_map(|server| servers.redis.cli(server, &words));
            assert!(
                moved.next().is_some(),
                "no server has partition {partition}"
            );
        }
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
