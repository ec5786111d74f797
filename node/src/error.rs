use std::io;
use std::path::PathBuf;

use hydrant_contracts::ServerName;
use hydrant_ports::EngineError;

use crate::identity::IdentityError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder, or a file in it, can't be used.
    #[error("cannot use {} in the data folder", path.display())]
    Data {
        /// The file or the folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A secret file can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The router does not start; says which address is in use.
    #[error(transparent)]
    Router(#[from] hydrant_router::StartError),
    /// The local API can't listen.
    #[error("the local API cannot listen on the loopback")]
    Api(#[source] io::Error),
    /// An engine does not do its work.
    #[error("the engine behind the port {port} is not ready")]
    Engine {
        /// The port, as `coordination`.
        port: &'static str,
        /// What it said.
        source: EngineError,
    },
    /// A living node has the name of this server.
    #[error(
        "another node is running as the server `{server}` ({holder}); stop it, or give this server a name of its own"
    )]
    NameTaken {
        /// The name.
        server: ServerName,
        /// The other node, for people.
        holder: String,
    },
    /// Logs and metrics can't be sent to other systems.
    #[error("the thread that sends logs and metrics cannot start")]
    Exports(#[source] io::Error),
    /// The supervisor can't take over or start the services.
    #[error("the supervisor cannot start")]
    Supervisor(#[source] io::Error),
}
