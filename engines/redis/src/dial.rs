//! Connections: TCP, with or without TLS, and the first words to a Redis server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address::Address;
use crate::config::{Login, Tls};
use crate::error::Failure;

/// Opens connections, all with the same certificates and limits.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    patience: Duration,
}

/// A connection that many requests share. It ends when its last clone is dropped.
#[derive(Clone)]
pub(crate) struct Line {
    connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    pub(crate) async fn ask(&self, command: &redis::Cmd) -> Result<redis::Value, RedisError> {
        let mut connection = self.connection.clone();
        connection
            .send_packed_command(command)
            .await?
            .extract_error()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    /// A connection is made within `patience` or not at all.
    pub(crate) fn new(tls: Option<&Tls>, patience: Duration) -> Result<Self, Failure> {
        let tls = tls.map(client_config).transpose()?;
        Ok(Self {
            tls: tls.map(Arc::new),
            patience,
        })
    }

    pub(crate) async fn line(&self, address: &Address, login: &Login) -> Result<Line, Failure> {
        self.within(address, async {
            let stream = self.stream(address).await?;
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(1024);
            let greeting = greeting(login);
            let made = MultiplexedConnection::new_with_config(&greeting, stream, config).await;
            let (connection, driver) = made.map_err(|error| Failure::of(address, &error))?;
            let driver = tokio::spawn(driver).abort_handle();
            Ok(Line {
                connection,
                _driver: Arc::new(Driver(driver)),
            })
        })
        .await
    }

    pub(crate) async fn subscription(
        &self,
        address: &Address,
        login: &Login,
        channels: &[String],
    ) -> Result<PubSub, Failure> {
        self.within(address, async {
            let stream = self.stream(address).await?;
            let subscribe = async {
                let mut subscription = PubSub::new(&greeting(login), stream).await?;
                subscription.subscribe(channels).await?;
                Ok(subscription)
            };
            subscribe
                .await
                .map_err(|error: RedisError| Failure::of(address, &error))
        })
        .await
    }

    async fn within<T>(
        &self,
        address: &Address,
        connect: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let patience = self.patience;
        timeout(patience, connect).await.unwrap_or_else(|_| {
            Err(Failure::passing(format!(
                "Redis at {address} did not answer within {patience:?}"
            )))
        })
    }

    async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, Failure> {
        let at = (address.host.as_str(), address.port);
        let stream = TcpStream::connect(at).await.map_err(|error| {
            Failure::passing(format!("can't connect to Redis at {address}: {error}"))
        })?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(address.host.clone()).map_err(|_| {
            Failure::lasting(format!(
                "`{address}` has no name that a certificate can have: write a DNS name or an IP address"
            ))
        })?;
        let connected = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = connected.map_err(|error| tls_failure(address, &error))?;
        Ok(Box::new(stream))
    }
}

/// A certificate that is refused stays refused; anything else may be a server that goes down.
fn tls_failure(address: &Address, error: &std::io::Error) -> Failure {
    let below = error.get_ref().and_then(|below| below.downcast_ref());
    match below {
        Some(rustls::Error::InvalidCertificate(_)) => Failure::lasting(format!(
            "the certificate of Redis at {address} is not accepted: {error}; check `tls.ca`, and the names in the certificate"
        )),
        Some(rustls::Error::InvalidMessage(_)) => Failure::lasting(format!(
            "Redis at {address} does not speak TLS: take `tls` out, or name its TLS port ({error})"
        )),
        _ => Failure::passing(format!("TLS with Redis at {address} failed: {error}")),
    }
}

fn greeting(login: &Login) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose());
    }
    info
}

fn client_config(tls: &Tls) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::lasting(format!("no version of TLS can be used: {error}")))?
        .with_root_certificates(roots(&tls.ca)?);
    let (certificate, key) = match (&tls.certificate, &tls.key) {
        (None, None) => return Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            return Err(Failure::lasting(
                "`tls.certificate` and `tls.key` belong together: write both or none",
            ));
        }
    };
    let chain = certificates("tls.certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key", key)?)
        .map_err(|error| not_pem("tls.key", key, &error))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| Failure::lasting(format!("certificate and key do not fit: {error}")))
}

fn roots(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca", path)? {
        let added = roots.add(certificate);
        added.map_err(|error| not_pem("tls.ca", path, &error))?;
    }
    Ok(roots)
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = read(name, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = read.map_err(|error| not_pem(name, path, &error))?;
    match found.is_empty() {
        true => Err(not_pem(name, path, &"it has no certificate")),
        false => Ok(found),
    }
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        let path = path.display();
        Failure::lasting(format!("can't read `{name}` {path}: {error}"))
    })
}

fn not_pem(name: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::lasting(format!("`{name}` {path} can't be used: {error}"))
}
