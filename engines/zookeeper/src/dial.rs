//! How an ensemble is reached, and why it is not.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hydrant_ports::EngineError;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zookeeper_client::{Client, TlsOptions};

use crate::config::{Config, Tls};
use crate::error::{Result, misconfigured, unavailable};
use crate::link::Dialer;

/// How long each server is looked at when none could be reached.
const LOOK: Duration = Duration::from_secs(2);

pub(crate) fn dialer(config: &Config, reads: Arc<AtomicU64>) -> Result<Dialer> {
    let mut connector = Client::connector();
    if let Some(credentials) = config.credentials()? {
        connector = connector.with_auth("digest", &credentials);
    }
    if let Some(tls) = &config.tls {
        connector = connector.with_tls(options(tls)?);
    }
    Ok(Dialer {
        connector,
        servers: config.servers.join(","),
        encrypted: config.tls.is_some(),
        access: config.access(),
        connect_timeout: config.connect_timeout.get(),
        request_timeout: config.limits.request_timeout.get(),
        in_flight: config.limits.in_flight,
        reads,
    })
}

fn options(tls: &Tls) -> Result<TlsOptions> {
    // Whoever comes first decides for the process; all of Hydrant wants the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let bad = |file: &std::path::Path, error| {
        misconfigured(format!("{} cannot be used for TLS", file.display())).caused_by(error)
    };
    let mut options = TlsOptions::new()
        .with_pem_ca(&read(&tls.ca)?)
        .map_err(|error| bad(&tls.ca, error))?;
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        options = options
            .with_pem_identity(&read(certificate)?, &read(key)?)
            .map_err(|error| bad(certificate, error))?;
    }
    if !tls.verify_host {
        // SAFETY: nothing here touches memory. The client marks it so because the host is not
        // verified then, which whoever wrote the configuration asked for.
        options = unsafe { options.with_no_hostname_verification() };
    }
    Ok(options)
}

fn read(file: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| misconfigured(format!("cannot read {}", file.display())).caused_by(error))
}

/// Why no server gave a session. The client does not say, so each server is looked at.
pub(crate) async fn diagnose(config: &Config) -> EngineError {
    let looks = config.servers.iter().map(|server| async move {
        let why = match timeout(LOOK, look(server, config.tls.as_ref())).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) => "can be reached, but gives no session: is there a quorum, and is it a port for clients?".to_owned(),
            Err(_) => format!("does not answer within {} s", LOOK.as_secs()),
        };
        format!("{server} {why}")
    });
    let whys = futures::future::join_all(looks).await;
    unavailable(format!(
        "no session with ZooKeeper within {}: {}",
        config.connect_timeout,
        whys.join("; ")
    ))
}

async fn look(server: &str, tls: Option<&Tls>) -> Result<(), String> {
    let stream = TcpStream::connect(server)
        .await
        .map_err(|error| format!("cannot be reached ({error})"))?;
    let Some(tls) = tls else { return Ok(()) };
    let config = handshake(tls).map_err(|error| format!("cannot be asked ({error})"))?;
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    let name =
        ServerName::try_from(host).map_err(|error| format!("has no valid name ({error})"))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    match connector.connect(name, stream).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("does not agree on TLS ({error})")),
    }
}

fn handshake(tls: &Tls) -> Result<rustls::ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&tls.ca)? {
        roots.add(certificate?)?;
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(match (&tls.certificate, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => builder.with_no_client_auth(),
    })
}
