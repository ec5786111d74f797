//! The credentials folder of a server, as `hydrant ca issue` makes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{ServerName, TokenKey};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::certificate::{Certificate, damaged, read_chain};
use super::{CA, NODE, NODE_KEY, TOKEN_KEY, files, node_name};
use crate::failure::{Failure, Result, wrong};
use crate::output;

/// How long before its end a certificate is complained about.
const COMPLAIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What proves a node to others, and whom it believes.
pub(crate) struct Proof {
    /// The authorities of the fleet.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// The node's certificate, and what leads from it to an authority.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The node's key.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(secret)")
    }
}

/// The credentials folder of `server`.
pub(crate) struct Credentials<'a> {
    folder: &'a Path,
    server: &'a ServerName,
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(folder: &'a Path, server: &'a ServerName) -> Self {
        Self { folder, server }
    }

    /// The key with which the whole fleet makes and checks tokens.
    pub(crate) fn token_key(&self) -> Result<TokenKey> {
        let path = self.path(TOKEN_KEY);
        let key = files::read_secret(&path, &self.mend())?;
        match <&[u8; 32]>::try_from(&key[..]) {
            Ok(key) => Ok(TokenKey::new(key)),
            Err(_) => Err(wrong(
                "damaged_file",
                format!(
                    "the key of tokens {} has {} bytes instead of 32",
                    path.display(),
                    key.len()
                ),
                "copy it from the folder of another server, or of the authority",
            )),
        }
    }

    /// What proves this server's node, checked: complete, of this server, from an authority that the
    /// folder names, and valid at `now`.
    pub(crate) fn proof(&self, now: UnixTime) -> Result<Proof> {
        let proof = Proof {
            authorities: read_chain(&self.path(CA), &self.mend())?,
            chain: read_chain(&self.path(NODE), &self.mend())?,
            key: self.key()?,
        };
        self.check_key(&proof)?;
        let checked = check_chain(&proof.authorities, &proof.chain, self.server, now);
        checked.map_err(|error| self.refusal(&proof, error))?;
        self.complain_of_its_end(&proof, now)?;
        Ok(proof)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        let path = self.path(NODE_KEY);
        let text = files::read_secret(&path, &self.mend())?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| damaged(&path, "key"))
    }

    fn check_key(&self, proof: &Proof) -> Result<()> {
        let (chain, key) = (proof.chain.clone(), proof.key.clone_key());
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(_) => Ok(()),
            Err(_) => Err(wrong(
                "other_key",
                format!(
                    "{} is not the key of the certificate beside it",
                    self.path(NODE_KEY).display()
                ),
                self.mend_anew(),
            )),
        }
    }

    /// Why a certificate is not good, with the mend.
    fn refusal(&self, proof: &Proof, error: rustls::Error) -> Failure {
        use CertificateError as E;
        let path = self.path(NODE);
        let shown = path.display();
        let rustls::Error::InvalidCertificate(error) = error else {
            return wrong(
                "bad_certificate",
                format!("{shown}: {error}"),
                self.mend_anew(),
            );
        };
        let day = |time: UnixTime| day(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        match error {
            E::ExpiredContext { not_after, .. } => wrong(
                "certificate_expired",
                format!(
                    "the certificate {shown}, or that of its authority, ended on {}",
                    day(not_after)
                ),
                self.mend_anew(),
            ),
            E::NotValidYetContext { not_before, .. } => wrong(
                "certificate_too_new",
                format!("the certificate {shown} begins on {}", day(not_before)),
                "set the clock of this machine",
            ),
            E::NotValidForName | E::NotValidForNameContext { .. } => {
                let read = Certificate::read(&proof.chain[0], &path);
                let names = read.map_or_else(|_| Vec::new(), |read| read.names);
                wrong(
                    "other_server",
                    format!(
                        "the certificate {shown} is of {}, and this server is `{}`",
                        names.join(" and "),
                        self.server
                    ),
                    format!(
                        "name the folder of {0} in [fleet] (`hydrant ca issue {0}` makes it), or mend [node] server",
                        self.server
                    ),
                )
            }
            E::UnknownIssuer | E::BadSignature => wrong(
                "other_authority",
                format!(
                    "the certificate {shown} is not from an authority in {}",
                    self.path(CA).display()
                ),
                format!("take both from one `hydrant ca issue {}`", self.server),
            ),
            error => wrong(
                "bad_certificate",
                format!("{shown}: {error}"),
                self.mend_anew(),
            ),
        }
    }

    fn complain_of_its_end(&self, proof: &Proof, now: UnixTime) -> Result<()> {
        let path = self.path(NODE);
        let end = Certificate::read(&proof.chain[0], &path)?.not_after;
        let left = u64::try_from(end)
            .unwrap_or(0)
            .saturating_sub(now.as_secs());
        if left < COMPLAIN.as_secs() {
            tracing::warn!(
                certificate = %path.display(),
                ends = day(end),
                mend = self.mend_anew(),
                "the certificate of this node ends soon"
            );
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn mend(&self) -> String {
        format!(
            "make the folder with `hydrant ca issue {}`, and name it as `credentials` in [fleet]",
            self.server
        )
    }

    fn mend_anew(&self) -> String {
        format!(
            "issue a new one with `hydrant ca issue {} --overwrite`",
            self.server
        )
    }
}

/// Checks a node's certificate as other nodes do, in both directions.
pub(super) fn check_chain(
    authorities: &[CertificateDer<'static>],
    chain: &[CertificateDer<'static>],
    server: &ServerName,
    now: UnixTime,
) -> std::result::Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let roots = Arc::new(roots);
    let (end, between) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let general = |error: &dyn fmt::Display| rustls::Error::General(error.to_string());
    let name = node_name(server).try_into();
    let name = name.map_err(|error: rustls::pki_types::InvalidDnsNameError| general(&error))?;
    let as_server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| general(&error))?;
    as_server.verify_server_cert(end, between, &name, &[], now)?;
    let as_client = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| general(&error))?;
    as_client.verify_client_cert(end, between, now)?;
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The day of a time in seconds since 1970: `2026-11-22`.
pub(crate) fn day(unix_s: i64) -> String {
    let time = output::time(unix_s.saturating_mul(1000));
    time.split('T').next().unwrap_or_default().to_owned()
}
