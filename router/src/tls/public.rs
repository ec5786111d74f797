//! TLS with the outside: certificates chosen by name, clients that may have to prove who they are.
//!
//! Files are read again when they change. What is wrong with a new one is said, and the one before
//! stays in use; the others are replaced all the same.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::by_name::ByName;
use super::client_certificate::described;
use super::files::{Changes, FileError, malformed, read_certificates, read_key, read_roots};
use crate::stream::Stream;

/// The most certificates of one listener.
const MAX_CERTIFICATES: usize = 10_000;
/// A certificate that is about to end is told of when less than a quarter of its time is left, and
/// no sooner than this.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
/// What names the certificate in messages and metrics, at most so many bytes.
const MAX_SHOWN: usize = 100;

/// How the outside is spoken with. A change of the files is noticed within seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicTls {
    /// At least one; the first is for clients that name no server, or one that no certificate has.
    pub certificates: Vec<CertificateFiles>,
    /// Older versions are refused.
    pub minimum: MinimumVersion,
    /// Whether clients prove who they are.
    pub clients: Option<ClientCertificates>,
}

/// A certificate, in PEM form: what links it to its authority stands behind it in the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate. It is for the names that stand in it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinimumVersion {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// Clients prove who they are with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that are believed, in PEM form.
    pub ca: PathBuf,
    /// Without one nobody comes in; else who has none comes in as before.
    pub required: bool,
}

/// Why TLS can't be spoken with the outside.
#[derive(Debug, thiserror::Error)]
pub enum PublicTlsError {
    /// A file can't be read, or holds something else.
    #[error("{0}; [tls] names a PEM file that the node may read")]
    File(#[from] FileError),
    /// Certificate and key do not fit together.
    #[error(
        "{} is not the key of {}; one [[tls.certificate]] names two that were made together",
        key.display(),
        certificate.display()
    )]
    OtherKey {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// No certificate is named, or too many.
    #[error(
        "[tls] has {0} certificates; it takes 1 to {MAX_CERTIFICATES}, each as a [[tls.certificate]]"
    )]
    Count(usize),
    /// The library refuses the settings.
    #[error("TLS cannot be spoken with these settings")]
    Settings(#[source] rustls::Error),
}

/// TLS of the public listener.
#[derive(Debug)]
pub(crate) struct Front {
    setup: PublicTls,
    loaded: ArcSwap<Loaded>,
    changes: Changes,
    provider: Arc<CryptoProvider>,
    /// Clients come back with them, whichever thread they meet.
    tickets: Arc<dyn ProducesTickets>,
}

#[derive(Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    certificates: Vec<Arc<Certificate>>,
    roots: Option<Arc<RootCertStore>>,
    /// What is wrong with files that have changed.
    problems: Vec<String>,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    /// In seconds since 1970.
    begins: i64,
    ends: i64,
}

impl Front {
    /// Reads the files and checks them against each other.
    pub(crate) fn load(setup: &PublicTls) -> Result<Self, PublicTlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tickets =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(PublicTlsError::Settings)?;
        let changes = Changes::since_now(setup.paths());
        let loaded = Loaded::read(setup, None, &provider, &tickets)?;
        loaded.warn();
        Ok(Self {
            setup: setup.clone(),
            loaded: ArcSwap::from_pointee(loaded),
            changes,
            provider,
            tickets,
        })
    }

    /// Reads the files again if they have changed. What is wrong with one leaves the one before in use.
    pub(crate) fn refresh(&self) {
        if !self.changes.are_there(self.setup.paths()) {
            return;
        }
        let before = self.loaded.load_full();
        let read = Loaded::read(&self.setup, Some(&before), &self.provider, &self.tickets);
        match read {
            Ok(loaded) => {
                loaded.warn();
                tracing::info!("changed certificates are in use for TLS with the outside");
                self.loaded.store(Arc::new(loaded));
            }
            Err(error) => tracing::warn!(%error, "changed certificates are not used"),
        }
    }

    /// The server's side of a handshake, with what an instance learns of the client's certificate.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Option<Box<str>>)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.loaded.load().server));
        let tls = acceptor.accept(tcp).await?;
        let certificates = tls.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first).map(described);
        Ok((Stream::Tls(Box::new(TlsStream::Server(tls))), certificate))
    }

    /// What people should know: files that are not used, certificates that are about to end.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let loaded = self.loaded.load();
        let ending = loaded
            .certificates
            .iter()
            .filter_map(|one| one.trouble(now()));
        loaded.problems.iter().cloned().chain(ending).collect()
    }

    /// Appends when each certificate ends, in Prometheus' text format.
    pub(crate) fn write_metrics(&self, out: &mut String) {
        const NAME: &str = "hydrant_tls_certificate_ends_seconds";
        let loaded = self.loaded.load();
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "# HELP {NAME} When a certificate of the public listener ends, in seconds since 1970.\n\
             # TYPE {NAME} gauge\n"
        );
        for (index, one) in loaded.certificates.iter().enumerate() {
            let name = one.shown();
            let _ = writeln!(
                out,
                "{NAME}{{certificate=\"{index}\",name=\"{name}\"}} {}",
                one.ends
            );
        }
        const PROBLEMS: &str = "hydrant_tls_unusable_files";
        let count = loaded.problems.len();
        let _ = write!(
            out,
            "# HELP {PROBLEMS} Changed files of TLS that can't be used; those before stay in use.\n\
             # TYPE {PROBLEMS} gauge\n{PROBLEMS} {count}\n"
        );
    }
}

impl PublicTls {
    fn paths(&self) -> Vec<PathBuf> {
        let certificates = self.certificates.iter();
        let pairs = certificates.flat_map(|files| [&files.certificate, &files.key]);
        let clients = self.clients.iter().map(|clients| &clients.ca);
        pairs.chain(clients).cloned().collect()
    }

    /// The first is preferred.
    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        match self.minimum {
            MinimumVersion::Tls12 => vec![&version::TLS13, &version::TLS12],
            MinimumVersion::Tls13 => vec![&version::TLS13],
        }
    }
}

impl Loaded {
    /// What can't be read is as it was `before`; at the start there is nothing before.
    fn read(
        setup: &PublicTls,
        before: Option<&Loaded>,
        provider: &Arc<CryptoProvider>,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, PublicTlsError> {
        let count = setup.certificates.len();
        if !(1..=MAX_CERTIFICATES).contains(&count) {
            return Err(PublicTlsError::Count(count));
        }
        let mut problems = Vec::new();
        let mut certificates = Vec::with_capacity(count);
        for (index, files) in setup.certificates.iter().enumerate() {
            let old = before.map(|before| Arc::clone(&before.certificates[index]));
            let read = Certificate::read(files, provider).map(Arc::new);
            certificates.push(or_before(read, old, &mut problems)?);
        }
        let roots = setup.clients.as_ref().map(|clients| {
            let old = before.and_then(|before| before.roots.clone());
            let read = read_roots(&clients.ca).map(Arc::new);
            or_before(read.map_err(PublicTlsError::from), old, &mut problems)
        });
        let roots = roots.transpose()?;
        let server = server_config(setup, &certificates, roots.as_ref(), provider, tickets)?;
        Ok(Self {
            server: Arc::new(server),
            certificates,
            roots,
            problems,
        })
    }

    fn warn(&self) {
        let ending = self
            .certificates
            .iter()
            .filter_map(|one| one.trouble(now()));
        for trouble in self.problems.iter().cloned().chain(ending) {
            tracing::warn!(%trouble, "TLS with the outside");
        }
    }
}

fn or_before<T>(
    read: Result<T, PublicTlsError>,
    before: Option<T>,
    problems: &mut Vec<String>,
) -> Result<T, PublicTlsError> {
    match (read, before) {
        (Err(error), Some(before)) => {
            problems.push(format!("{error}. What it had before stays in use"));
            Ok(before)
        }
        (read, _) => read,
    }
}

impl Certificate {
    fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, PublicTlsError> {
        let chain = read_certificates(&files.certificate)?;
        let key = read_key(&files.key)?;
        let unreadable = || malformed(&files.certificate, "certificate");
        let own = chain.first().ok_or_else(unreadable)?;
        let (_, read) = X509Certificate::from_der(own).map_err(|_| unreadable())?;
        let validity = read.validity();
        let (begins, ends) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let names = names(own);
        let key = CertifiedKey::from_der(chain, key, provider);
        let key = key.map_err(|source| PublicTlsError::OtherKey {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
            source,
        })?;
        Ok(Self {
            key: Arc::new(key),
            names,
            begins,
            ends,
        })
    }

    /// What people should know of it.
    fn trouble(&self, now: i64) -> Option<String> {
        let left = self.ends - now;
        let warn = (self.ends - self.begins) / 4;
        let warn = warn.min(WARN_BEFORE.as_secs() as i64);
        let name = self.shown();
        if left <= 0 {
            return Some(format!(
                "the certificate of {name} has ended, clients refuse it; put a new one in its place"
            ));
        }
        if self.begins > now {
            return Some(format!(
                "the time of the certificate of {name} has not begun, clients refuse it; \
                 is the clock of this server right?"
            ));
        }
        let hours = left / 3600;
        (left < warn).then(|| {
            format!("the certificate of {name} ends in {hours} h; put a new one in its place")
        })
    }

    /// Its first name, which needs no escape: it is one of DNS.
    fn shown(&self) -> &str {
        let first = self.names.first().map(String::as_str);
        first
            .filter(|name| name.len() <= MAX_SHOWN)
            .unwrap_or("no name")
    }
}

fn names(own: &CertificateDer<'_>) -> Vec<String> {
    let Ok(own) = webpki::EndEntityCert::try_from(own) else {
        return Vec::new();
    };
    own.valid_dns_names().map(str::to_owned).collect()
}

fn server_config(
    setup: &PublicTls,
    certificates: &[Arc<Certificate>],
    roots: Option<&Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, PublicTlsError> {
    let mut by_name = ByName::default();
    for certificate in certificates {
        by_name.add(&certificate.names, &certificate.key);
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&setup.versions())
        .map_err(PublicTlsError::Settings)?;
    let builder = match roots.zip(setup.clients.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((roots, clients)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(roots),
                Arc::clone(provider),
            );
            let verifier = match clients.required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| {
                PublicTlsError::Settings(rustls::Error::General(error.to_string()))
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    match setup.clients {
        None => config.ticketer = Arc::clone(tickets),
        // Who proves who it is does so each time: a ticket would outlive the certificate, and the
        // authority that is believed no longer.
        Some(_) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Ok(config)
}

/// In seconds since 1970.
fn now() -> i64 {
    UnixTime::now().as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(begins: i64, ends: i64) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let made = params.self_signed(&key).unwrap();
        let der = key.serialize_der().try_into().unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(vec![made.der().clone()], der, &provider);
        Certificate {
            key: Arc::new(key.unwrap()),
            names: names(made.der()),
            begins,
            ends,
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_told_in_time() {
        const DAY: i64 = 24 * 3600;
        let year = certificate(0, 365 * DAY);
        assert_eq!(year.trouble(300 * DAY), None);
        let soon = year.trouble(355 * DAY).unwrap();
        assert!(soon.contains("a.example ends in 240 h"), "{soon}");
        assert!(year.trouble(365 * DAY).unwrap().contains("has ended"));
        assert!(year.trouble(-1).unwrap().contains("has not begun"));
        let short = certificate(0, 6 * DAY);
        assert_eq!(
            short.trouble(4 * DAY),
            None,
            "one of six days is not told of all its life"
        );
        assert!(short.trouble(5 * DAY).is_some());
    }
}
