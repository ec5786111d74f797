//! Starts nodes of this crate's binary.

pub use hydrant_harness::node::Node;
pub use hydrant_harness::{MARK, is_soak, is_there, kill, marked, pause, seed};

use hydrant_harness::node;

/// How a node of this crate's binary is started.
pub struct Setup;

impl Setup {
    /// `hydrant up` on free ports and a new data folder.
    pub fn up() -> node::Setup {
        node::Setup::up(env!("CARGO_BIN_EXE_hydrant"))
    }

    /// `hydrant node` with the services of `text`, which is TOML, on free ports.
    pub fn node(text: &str) -> node::Setup {
        node::Setup::node(env!("CARGO_BIN_EXE_hydrant"), text)
    }
}
