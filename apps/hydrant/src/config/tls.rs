//! `[tls]` of the configuration file: TLS with the outside.

use std::path::{Path, PathBuf};

use hydrant_router::{
    CertificateFiles, ClientCertificates, MinimumVersion, Plain, PublicTls, SecureConfig,
};
use serde::Deserialize;
use toml::Spanned;

use super::{Listen, Mistake};

/// `[tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    listen: Listen,
    #[serde(default)]
    plain: PlainText,
    redirect_port: Option<Spanned<u16>>,
    #[serde(default)]
    minimum: Minimum,
    client: Option<Spanned<Client>>,
    client_ca: Option<Spanned<PathBuf>>,
    #[serde(default, rename = "certificate")]
    certificates: Vec<Certificate>,
}

/// What becomes of requests in clear text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PlainText {
    #[default]
    Serve,
    Redirect,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Minimum {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients have to prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Client {
    Optional,
    Required,
}

/// `[[tls.certificate]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// `at` is where the table stands.
    pub(super) fn check(&self, at: usize) -> Result<(), Mistake> {
        if self.certificates.is_empty() {
            let message = "[tls] has no certificate: add a [[tls.certificate]] with `certificate` and \
                           `key`, the paths of two PEM files";
            return Err((at, message.into()));
        }
        match (&self.client, &self.client_ca) {
            (Some(client), None) => {
                let message = "`client` asks for certificates, and nobody says which: add client_ca = \
                               \"FILE\" with the authorities that are believed";
                return Err((client.span().start, message.into()));
            }
            (None, Some(ca)) => {
                let message = "`client_ca` is for certificates of clients, and none are asked for: add \
                               client = \"optional\" or \"required\"";
                return Err((ca.span().start, message.into()));
            }
            _ => {}
        }
        match &self.redirect_port {
            Some(port) if self.plain != PlainText::Redirect || *port.get_ref() == 0 => {
                let message = "`redirect_port` is the port of URLs to which clear text is sent: it goes \
                               with plain = \"redirect\", and is 1 to 65535";
                Err((port.span().start, message.into()))
            }
            _ => Ok(()),
        }
    }

    /// Paths that are relative in the file begin where it lies.
    pub(super) fn start_paths_at(&mut self, folder: &Path) {
        let certificates = self.certificates.iter_mut();
        let pairs = certificates.flat_map(|one| [&mut one.certificate, &mut one.key]);
        for path in pairs.chain(self.client_ca.as_mut().map(Spanned::get_mut)) {
            *path = folder.join(&*path);
        }
    }

    /// As the router takes it.
    pub(crate) fn config(&self) -> SecureConfig {
        let port = self.redirect_port.as_ref().map(|port| *port.get_ref());
        let clients = self.client.as_ref().zip(self.client_ca.as_ref());
        let certificates = self.certificates.iter().map(|one| CertificateFiles {
            certificate: one.certificate.clone(),
            key: one.key.clone(),
        });
        SecureConfig {
            listen: self.listen.0,
            plain: match self.plain {
                PlainText::Serve => Plain::Serve,
                PlainText::Redirect => Plain::Redirect(port),
            },
            tls: PublicTls {
                certificates: certificates.collect(),
                minimum: match self.minimum {
                    Minimum::Tls12 => MinimumVersion::Tls12,
                    Minimum::Tls13 => MinimumVersion::Tls13,
                },
                clients: clients.map(|(client, ca)| ClientCertificates {
                    ca: ca.get_ref().clone(),
                    required: *client.get_ref() == Client::Required,
                }),
            },
        }
    }
}
