//! TLS between nodes: each proves with a certificate of the fleet which server it stands on.
//!
//! The files are read again when they change, so that certificates and authorities are replaced
//! without a restart: connections that are open go on, new ones use what is new.

mod by_name;
mod client_certificate;
mod files;
mod public;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use hydrant_contracts::ServerName;
use hydrant_runtime::with_causes;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName as TlsName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream, client};

use crate::stream::Stream;
use files::{Changes, read_certificates, read_key, read_roots};

pub use files::FileError;
pub(crate) use public::Front;
pub use public::{CertificateFiles, ClientCertificates, MinimumVersion, PublicTls, PublicTlsError};

/// Behind the name of a server, the name in its certificate.
const SUFFIX: &str = ".servers.hydrant";

/// Where the proofs of a node lie, in PEM form. A change of the files is noticed within seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The server of this node: its certificate is for `{server}.servers.hydrant`.
    pub server: ServerName,
    /// The authorities of the fleet: one, or more while one replaces the other.
    pub ca: PathBuf,
    /// The certificate of this node, and what links it to the authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
}

impl PeerTls {
    fn paths(&self) -> Vec<PathBuf> {
        vec![self.ca.clone(), self.certificate.clone(), self.key.clone()]
    }
}

/// Why the proofs of a node can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds something else.
    #[error("{0}; `hydrant ca issue` makes it anew")]
    File(#[from] FileError),
    /// The certificate is of another server.
    #[error(
        "{} is not for the server {server}: it has not the name {server}.servers.hydrant; \
         `hydrant ca issue {server}` makes one that has",
        path.display()
    )]
    OtherServer {
        /// The file.
        path: PathBuf,
        /// The server of this node.
        server: ServerName,
    },
    /// The certificate is not of the fleet, or its time is over.
    #[error("{} is not accepted by {}", path.display(), ca.display())]
    NotOfTheFleet {
        /// The certificate.
        path: PathBuf,
        /// The authorities.
        ca: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Certificate and key do not fit together.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    OtherKey {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// What is spoken on a connection between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// The proofs in use.
#[derive(Debug)]
pub(crate) struct Tls {
    files: PeerTls,
    loaded: ArcSwap<Loaded>,
    changes: Changes,
}

#[derive(Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files and checks them against each other.
    pub(crate) fn load(files: &PeerTls) -> Result<Self, TlsError> {
        Ok(Self {
            changes: Changes::since_now(files.paths()),
            loaded: ArcSwap::from_pointee(Loaded::read(files)?),
            files: files.clone(),
        })
    }

    /// Reads the files again if they have changed. With something wrong in them, what was read
    /// before stays in use.
    pub(crate) fn refresh(&self) {
        if !self.changes.are_there(self.files.paths()) {
            return;
        }
        match Loaded::read(&self.files) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!(server = %self.files.server, "new certificates are in use between nodes");
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(%error, "changed certificates are not used; those before stay in use");
            }
        }
    }

    /// The server's side of a handshake. The client has proved to be a node of the fleet.
    pub(crate) async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Protocol)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.loaded.load().server));
        let tls = acceptor.accept(tcp).await?;
        let protocol = match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((Stream::Tls(Box::new(TlsStream::Server(tls))), protocol))
    }

    /// The client's side of a handshake: the other side has proved to be the node of `server`.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        server: &ServerName,
        protocol: Protocol,
    ) -> io::Result<Stream> {
        let connector = {
            let loaded = self.loaded.load();
            TlsConnector::from(Arc::clone(match protocol {
                Protocol::Http1 => &loaded.http1,
                Protocol::Http2 => &loaded.http2,
            }))
        };
        let name = tls_name(server).ok_or(io::ErrorKind::InvalidInput)?;
        let mut tls = connector.connect(name, tcp).await?;
        accepted(&mut tls).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    }
}

impl Loaded {
    fn read(files: &PeerTls) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(read_roots(&files.ca)?);
        let chain = read_certificates(&files.certificate)?;
        check_name(files, &chain)?;
        check_chain(files, &chain, &roots, &provider)?;
        let key = read_key(&files.key)?;
        Ok(Self {
            server: server_config(files, &chain, &key, &roots, &provider)?,
            http1: client_config(files, &chain, &key, &roots, &provider, b"http/1.1")?,
            http2: client_config(files, &chain, &key, &roots, &provider, b"h2")?,
        })
    }
}

fn check_name(files: &PeerTls, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    let is_ours = |server: &str| server == files.server.as_str();
    let named = chain
        .first()
        .is_some_and(|own| servers_of(own).iter().any(|server| is_ours(server)));
    match named {
        true => Ok(()),
        false => Err(TlsError::OtherServer {
            path: files.certificate.clone(),
            server: files.server.clone(),
        }),
    }
}

/// Others would refuse it: better to hear it here.
fn check_chain(
    files: &PeerTls,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), TlsError> {
    let verify = || {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let (Some((own, links)), Some(name)) = (chain.split_first(), tls_name(&files.server))
        else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        verifier.verify_server_cert(own, links, &name, &[], UnixTime::now())
    };
    let refused = |source| TlsError::NotOfTheFleet {
        path: files.certificate.clone(),
        ca: files.ca.clone(),
        source,
    };
    verify().map(|_| ()).map_err(refused)
}

fn server_config(
    files: &PeerTls,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let make = || {
        let fleet =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(NodesOnly(fleet)))
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    };
    make().map_err(|source| other_key(files, source))
}

fn client_config(
    files: &PeerTls,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let make = || {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(roots))
            .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    };
    make().map_err(|source| other_key(files, source))
}

fn other_key(files: &PeerTls, source: rustls::Error) -> TlsError {
    TlsError::OtherKey {
        key: files.key.clone(),
        certificate: files.certificate.clone(),
        source,
    }
}

fn tls_name(server: &ServerName) -> Option<TlsName<'static>> {
    TlsName::try_from(format!("{server}{SUFFIX}")).ok()
}

/// The servers that a certificate names.
fn servers_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let names = certificate.valid_dns_names();
    names
        .filter_map(|name| name.strip_suffix(SUFFIX))
        .filter(|name| name.parse::<ServerName>().is_ok())
        .map(str::to_owned)
        .collect()
}

/// Of those who hold a certificate of the fleet, only its nodes.
struct NodesOnly(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for NodesOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodesOnly")
    }
}

impl ClientCertVerifier for NodesOnly {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        links: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(own, links, now)?;
        match servers_of(own).is_empty() {
            false => Ok(verified),
            true => Err(rustls::CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Waits until the other side has accepted our certificate. In TLS 1.3 that is a step behind the
/// handshake as this side sees it; a request that was sent meanwhile would be lost.
async fn accepted(tls: &mut client::TlsStream<TcpStream>) -> io::Result<()> {
    poll_fn(|cx| {
        let read = Pin::new(&mut *tls).poll_read(cx, &mut ReadBuf::new(&mut []));
        match read {
            // It sends session tickets as soon as it has accepted.
            Poll::Pending if tls.get_ref().1.tls13_tickets_received() > 0 => Poll::Ready(Ok(())),
            read => read,
        }
    })
    .await
}
