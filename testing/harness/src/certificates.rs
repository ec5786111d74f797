//! A certificate authority for one test, with a certificate for servers and one for clients.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Files with certificates and keys, all PEM.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`. The server's names are `localhost`, 127.0.0.1 and `names`.
    pub fn make(folder: &Path, names: &[String]) -> Self {
        let certificates = Self {
            folder: folder.to_owned(),
        };
        certificates.write(names).expect("certificates can be made");
        certificates
    }

    fn write(&self, names: &[String]) -> Result<(), rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        let key = KeyPair::generate()?;
        put(self.ca_pem(), &params.self_signed(&key)?.pem());
        let authority = Issuer::new(params, key);

        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend_from_slice(names);
        self.issue(&authority, "server", all)?;
        self.issue(&authority, "client", vec!["client".to_owned()])
    }

    fn issue(
        &self,
        authority: &Issuer<'_, KeyPair>,
        name: &str,
        names: Vec<String>,
    ) -> Result<(), rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        // Servers of one ensemble are each other's clients.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?.pem();
        let key = key.serialize_pem();
        put(self.folder.join(format!("{name}.pem")), &certificate);
        put(self.folder.join(format!("{name}.key")), &key);
        put(
            self.folder.join(format!("{name}-both.pem")),
            &(key + &certificate),
        );
        Ok(())
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The servers' certificate.
    pub fn server_pem(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The servers' key.
    pub fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// The servers' key and certificate in one file.
    pub fn server_both(&self) -> PathBuf {
        self.folder.join("server-both.pem")
    }

    /// The client's certificate.
    pub fn client_pem(&self) -> PathBuf {
        self.folder.join("client.pem")
    }

    /// The client's key.
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("client.key")
    }
}

fn put(path: PathBuf, text: &str) {
    fs::write(path, text).expect("a certificate can be written");
}
