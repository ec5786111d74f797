use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// How `https://` is spoken: servers prove who they are to the authorities in the PEM file `ca`, or else to
/// those that the system trusts.
///
/// # Errors
///
/// If the file has none, or can't be read.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(path) => roots_of(path)?,
        None => system_roots(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be used: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let refuse = |error: &dyn fmt::Display| format!("the `ca` {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refuse(&error))? {
        let certificate = certificate.map_err(|error| refuse(&error))?;
        roots.add(certificate).map_err(|error| refuse(&error))?;
    }
    if roots.is_empty() {
        return Err(refuse(&"no certificate stands in it; it is a PEM file"));
    }
    Ok(roots)
}

/// Without any, `https://` fails and says so; all else goes on.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    roots
}
