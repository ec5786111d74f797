//! What goes with a request to somebody else: the headers that a definition names, secrets that stand in files,
//! and the authorities to which a server has to prove who it is.

mod header;
mod secret;
mod tls;

pub use header::{Credentials, CredentialsTable, Header, HeaderText, authorization, headers};
pub use secret::{SecretFile, UnusableSecret, line, text};
pub use tls::client_config;
