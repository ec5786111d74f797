//! The contract suite, on one server, on an ensemble of three, and with everything that protects.

use crate::support::{ENSEMBLE, Engine, SECURE, SINGLE};

mod on_one_server {
    use super::*;
    hydrant_ports::coordination_contract!(if_there Engine::open(SINGLE.as_ref()));
}

mod on_three_servers {
    use super::*;
    hydrant_ports::coordination_contract!(if_there Engine::open(ENSEMBLE.as_ref()));
}

mod with_tls_user_and_access_lists {
    use super::*;
    hydrant_ports::coordination_contract!(if_there Engine::open(SECURE.as_ref()));
}
