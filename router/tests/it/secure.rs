//! A router that speaks TLS with the outside, and clients that speak it with rustls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use hydrant_contracts::TokenKey;
use hydrant_router::{
    CertificateFiles, ClientCertificates, Config, Limits, MinimumVersion, Plain, PublicTls, Router,
    SecureConfig, Table,
};
use rcgen::CertificateParams;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::fleet::Authority;
use crate::raw::{Message, PATIENCE, SECRET, instance};

/// A certificate for these names.
pub fn names(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

pub fn tls(certificates: &[CertificateFiles]) -> PublicTls {
    PublicTls {
        certificates: certificates.to_vec(),
        minimum: MinimumVersion::Tls12,
        clients: None,
    }
}

pub fn with_clients(mut tls: PublicTls, ca: &Path, required: bool) -> PublicTls {
    tls.clients = Some(ClientCertificates {
        ca: ca.into(),
        required,
    });
    tls
}

pub fn config(tls: PublicTls) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        public: any,
        secure: Some(SecureConfig {
            listen: any,
            plain: Plain::Serve,
            tls,
        }),
        local: any,
        peer: None,
        workers: 1,
        key: TokenKey::new(&SECRET),
        limits: Limits::default(),
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    }
}

/// A router with one instance of `api/t`.
pub fn start(config: Config, backend: SocketAddr) -> Router {
    let router = Router::start(config).unwrap();
    router.publish(&Table::of_one_server(&[instance("t-0", backend)]));
    router
}

/// Versions of TLS.
pub type Versions = &'static [&'static rustls::SupportedProtocolVersion];
pub static NEW: Versions = &[&rustls::version::TLS13];
pub static OLD: Versions = &[&rustls::version::TLS12];

/// How a client speaks TLS.
pub struct Secure<'a> {
    pub authority: &'a Authority,
    pub own: Option<&'a CertificateFiles>,
    pub versions: Versions,
    pub alpn: &'a [&'a str],
}

impl<'a> Secure<'a> {
    pub fn new(authority: &'a Authority) -> Self {
        Self {
            authority,
            own: None,
            versions: rustls::DEFAULT_VERSIONS,
            alpn: &[],
        }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![certificate(own)];
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let alpn = self.alpn.iter();
        config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The handshake is done when this returns.
    pub fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<Client> {
        Client::connect(self.config(), address, name)
    }

    /// One request on a connection of its own.
    pub fn get(&self, address: SocketAddr, path: &str) -> std::io::Result<Message> {
        self.connect(address, "localhost")?.get(path)
    }
}

pub fn certificate(files: &CertificateFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.certificate).unwrap()
}

/// A connection under TLS.
pub struct Client {
    pub reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    pub fn connect(
        config: Arc<ClientConfig>,
        address: SocketAddr,
        name: &str,
    ) -> std::io::Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let session = ClientConnection::new(config, name.to_owned().try_into().unwrap());
        let session = session.map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    pub fn session(&self) -> &ClientConnection {
        &self.reader.get_ref().conn
    }

    /// What the other side has shown.
    pub fn shown(&self) -> CertificateDer<'static> {
        let shown = self.session().peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())?;
        self.reader.get_mut().flush()
    }

    pub fn head(&mut self) -> std::io::Result<String> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                return Ok(head);
            }
            head.push_str(&line);
        }
    }

    pub fn exactly(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// An answer with a length.
    pub fn answer(&mut self) -> std::io::Result<Message> {
        let mut message = Message {
            head: self.head()?,
            ..Message::default()
        };
        let length = message.header("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        message.body = self.exactly(length)?;
        Ok(message)
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Message> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))?;
        self.answer()
    }
}
