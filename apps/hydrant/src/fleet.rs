//! What makes several servers a fleet: an authority that vouches for their nodes, and the key with
//! which all of them make and check tokens.

pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod credentials;
mod files;
#[cfg(test)]
mod tests;

use hydrant_contracts::ServerName;

/// The certificates of the authorities that nodes of the fleet believe.
const CA: &str = "ca.pem";
/// The key of the authority that signs.
const CA_KEY: &str = "ca.key";
/// While an authority takes over: its certificate, signed by the one before it.
const CROSS: &str = "cross.pem";
/// The certificate of a node, with what leads from it to an authority.
const NODE: &str = "node.pem";
/// The key of a node.
const NODE_KEY: &str = "node.key";
/// The key of tokens.
const TOKEN_KEY: &str = "token.key";

/// The name that the certificate of a server's node has.
fn node_name(server: &ServerName) -> String {
    format!("{server}.servers.hydrant")
}
