//! The servers of a database, in the order in which they are tried.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Address;

/// How long a server that was not well is tried after the others.
const SHUNNED: Duration = Duration::from_secs(10);

pub(crate) struct Servers {
    all: Vec<Server>,
    shunned: Mutex<Vec<Option<Instant>>>,
}

type Server = (String, u16);

impl Servers {
    pub(crate) fn of(address: &Address) -> Self {
        let all = match address {
            Address::Sqlite(_) => Vec::new(),
            Address::MariaDb { servers, .. } => servers.clone(),
        };
        Self {
            shunned: Mutex::new(vec![None; all.len()]),
            all,
        }
    }

    /// Whether there are several, which are then the servers of a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.all.len() > 1
    }

    /// Their numbers, hosts and ports: as the URL has them, those last that were not well a moment ago.
    pub(crate) fn in_order(&self) -> Vec<(usize, &str, u16)> {
        let shunned = self.shunned().clone();
        let is_shunned = |number: usize| shunned[number].is_some_and(|at| at.elapsed() < SHUNNED);
        let all = self.all.iter().enumerate();
        let mut all: Vec<_> = all
            .map(|(number, (host, port))| (number, host.as_str(), *port))
            .collect();
        all.sort_by_key(|(number, ..)| is_shunned(*number));
        all
    }

    /// This one is not well.
    pub(crate) fn shun(&self, number: usize) {
        self.shunned()[number] = Some(Instant::now());
    }

    fn shunned(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(servers: &Servers) -> Vec<usize> {
        let order = servers.in_order().into_iter();
        order.map(|(number, ..)| number).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_not_well_is_tried_last_for_a_while() {
        let address: Address = "mysql://u@a,b,c/d".parse().unwrap();
        let servers = Servers::of(&address);
        assert_eq!(numbers(&servers), [0, 1, 2]);
        servers.shun(0);
        assert_eq!(numbers(&servers), [1, 2, 0]);
        tokio::time::advance(SHUNNED / 2).await;
        servers.shun(1);
        assert_eq!(numbers(&servers), [2, 0, 1]);
        tokio::time::advance(SHUNNED / 2).await;
        assert_eq!(numbers(&servers), [0, 2, 1]);
    }
}
