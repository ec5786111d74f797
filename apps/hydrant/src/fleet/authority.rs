//! The certificate authority of a fleet: a folder that stays with the operator.
//!
//! | file | what |
//! | --- | --- |
//! | `ca.pem` | the authorities that nodes believe: the one that signs, and while it takes over, the one before it |
//! | `ca.key` | the key that signs |
//! | `cross.pem` | while it takes over: the new authority, signed by the old one |
//! | `token.key` | the key of tokens |
//!
//! An authority that takes over is signed by the one before it, and nodes show that signature beside
//! their own. So nodes that know only the old one believe nodes that have the new one already, and
//! servers change one after the other, in any order.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_contracts::ServerName;
use hydrant_runtime::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;

use super::certificate::{Certificate, damaged, public_key, read_chain};
use super::files::{self, Readers};
use super::{CA, CA_KEY, CROSS, NODE, NODE_KEY, TOKEN_KEY, node_name};
use crate::failure::{Failure, Result, system, wrong};

/// How far the clocks of servers may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(300);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority that can sign.
pub(crate) struct Authority {
    folder: PathBuf,
    /// Those that nodes believe; the one that signs is among them.
    believed: Vec<CertificateDer<'static>>,
    /// Which of them signs.
    signing: usize,
    key: KeyPair,
    clock: Clock,
}

/// What a server is given.
pub(crate) struct Wanted<'a> {
    pub(crate) server: &'a ServerName,
    /// The folder to put it into.
    pub(crate) folder: &'a Path,
    /// Addresses that the certificate names beside the server.
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) days: u32,
    /// Whether it may take the place of one that is there.
    pub(crate) overwrite: bool,
}

impl Authority {
    /// Makes a new one in `folder`, with the token key of `token_key`, or a new one.
    pub(crate) fn init(
        folder: &Path,
        days: u32,
        token_key: Option<&Path>,
        clock: Clock,
    ) -> Result<Self> {
        for name in [CA, CA_KEY, TOKEN_KEY] {
            if folder.join(name).exists() {
                return Err(wrong(
                    "exists",
                    format!(
                        "there is an authority in {} already: it has {name}",
                        folder.display()
                    ),
                    "use it with `hydrant ca issue SERVER`, replace it with `hydrant ca rotate`, or name another folder",
                ));
            }
        }
        let token_key = match token_key {
            Some(path) => given_token_key(path)?,
            None => random_key()?,
        };
        let (params, key) = new_authority(days, &clock)?;
        let certificate = params.self_signed(&key).map_err(|error| refused(&error))?;
        files::make_folder(folder)?;
        files::write(&folder.join(TOKEN_KEY), &token_key, Readers::Owner)?;
        files::write(
            &folder.join(CA_KEY),
            key.serialize_pem().as_bytes(),
            Readers::Owner,
        )?;
        files::write(&folder.join(CA), certificate.pem().as_bytes(), Readers::All)?;
        Self::open(folder, clock)
    }

    /// The one in `folder`.
    pub(crate) fn open(folder: &Path, clock: Clock) -> Result<Self> {
        let mend = "make an authority with `hydrant ca init`, or name its folder with --dir";
        let (ca, key) = (folder.join(CA), folder.join(CA_KEY));
        let believed = read_chain(&ca, mend)?;
        let text = files::read_secret(&key, mend)?;
        let text = String::from_utf8(text).map_err(|_| damaged(&key, "key"))?;
        let key = KeyPair::from_pem(&text).map_err(|_| damaged(&key, "key"))?;
        let own = key.subject_public_key_info();
        for (signing, certificate) in believed.iter().enumerate() {
            if public_key(certificate, &ca)? == own {
                return Ok(Self {
                    folder: folder.into(),
                    believed,
                    signing,
                    key,
                    clock,
                });
            }
        }
        Err(wrong(
            "other_key",
            format!(
                "{CA_KEY} is not the key of a certificate in {}",
                ca.display()
            ),
            "restore both from one copy",
        ))
    }

    /// Signs for a server, and fills its credentials folder. Returns what the certificate says.
    pub(crate) fn issue(&self, wanted: &Wanted<'_>) -> Result<Certificate> {
        let (node, folder) = (wanted.folder.join(NODE), wanted.folder);
        if node.exists() && !wanted.overwrite {
            return Err(wrong(
                "exists",
                format!("{} is there already", node.display()),
                "give --overwrite to replace it, or put the new one elsewhere with --out DIR",
            ));
        }
        let token_key = files::read_secret(
            &self.folder.join(TOKEN_KEY),
            "restore it from a copy: every server has it",
        )?;
        let (chain, key) = self.sign(wanted)?;
        files::make_folder(folder)?;
        files::write(&folder.join(TOKEN_KEY), &token_key, Readers::Owner)?;
        files::write(&folder.join(CA), &self.file(CA)?, Readers::All)?;
        files::write(
            &folder.join(NODE_KEY),
            key.serialize_pem().as_bytes(),
            Readers::Owner,
        )?;
        files::write(&node, chain.as_bytes(), Readers::All)?;
        Certificate::read(&read_chain(&node, "")?[0], &node)
    }

    fn sign(&self, wanted: &Wanted<'_>) -> Result<(String, KeyPair)> {
        let own = self.signing()?;
        let mut params = params(wanted.server.as_str(), wanted.days, &self.clock)?;
        let end = rcgen::date_time_ymd(1970, 1, 1) + since_1970(own.not_after);
        params.not_after = params.not_after.min(end);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let name = node_name(wanted.server)
            .try_into()
            .map_err(|error| refused(&error))?;
        let addresses = wanted.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names = [SanType::DnsName(name)]
            .into_iter()
            .chain(addresses)
            .collect();
        let key = KeyPair::generate().map_err(|error| refused(&error))?;
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .map_err(|error| refused(&error))?;
        let cross = if self.takes_over() {
            self.file(CROSS)?
        } else {
            Vec::new()
        };
        Ok((certificate.pem() + &String::from_utf8_lossy(&cross), key))
    }

    /// Makes a new authority, which signs from now on; nodes go on to believe the old one, too.
    pub(crate) fn rotate(self, days: u32) -> Result<Self> {
        if self.takes_over() {
            return Err(wrong(
                "rotation_under_way",
                format!(
                    "the authority in {} is taking over from an older one",
                    self.folder.display()
                ),
                "when every server has a new certificate, end that with `hydrant ca retire`",
            ));
        }
        let (params, key) = new_authority(days, &self.clock)?;
        let certificate = params.self_signed(&key).map_err(|error| refused(&error))?;
        let cross = params
            .signed_by(&key, &self.issuer()?)
            .map_err(|error| refused(&error))?;
        let old = pem(&self.believed[self.signing]);
        // Up to the last line the old key signs: a crash on the way is mended by doing it again.
        files::write(
            &self.folder.join(CROSS),
            cross.pem().as_bytes(),
            Readers::All,
        )?;
        files::write(
            &self.folder.join(CA),
            (certificate.pem() + &old).as_bytes(),
            Readers::All,
        )?;
        files::write(
            &self.folder.join(CA_KEY),
            key.serialize_pem().as_bytes(),
            Readers::Owner,
        )?;
        Self::open(&self.folder, self.clock)
    }

    /// Ends a rotation: nodes shall believe the old authority no more. Returns what it was.
    pub(crate) fn retire(self) -> Result<Vec<Certificate>> {
        if !self.takes_over() {
            return Err(wrong(
                "no_rotation",
                format!("the authority in {} is the only one", self.folder.display()),
                "make a new one first with `hydrant ca rotate`",
            ));
        }
        let mut retired = self.believed()?;
        retired.remove(self.signing);
        let own = pem(&self.believed[self.signing]);
        files::write(&self.folder.join(CA), own.as_bytes(), Readers::All)?;
        let cross = self.folder.join(CROSS);
        match std::fs::remove_file(&cross) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(system(
                format!("cannot delete {}", cross.display()),
                &error,
                "delete it",
            )),
            _ => Ok(retired),
        }
    }

    /// Whether a newer authority signs while an older one is believed still. When the first of the
    /// file does not sign, a rotation broke off before its last step.
    fn takes_over(&self) -> bool {
        self.believed.len() > 1 && self.signing == 0
    }

    /// What the authorities are that nodes believe.
    pub(crate) fn believed(&self) -> Result<Vec<Certificate>> {
        let ca = self.folder.join(CA);
        self.believed
            .iter()
            .map(|der| Certificate::read(der, &ca))
            .collect()
    }

    /// What the authority that signs is.
    pub(crate) fn signing(&self) -> Result<Certificate> {
        Certificate::read(&self.believed[self.signing], &self.folder.join(CA))
    }

    /// The certificates of servers in folders below this one, with the folders' names.
    pub(crate) fn issued(&self) -> Result<Vec<(String, Certificate)>> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| {
            system(format!("cannot read {}", self.folder.display()), &error, "")
        })?;
        let mut issued = Vec::new();
        for folder in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let node = folder.join(NODE);
            if !node.is_file() {
                continue;
            }
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let certificate = Certificate::read(&read_chain(&node, "")?[0], &node)?;
            issued.push((name.into_owned(), certificate));
        }
        issued.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(issued)
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>> {
        Issuer::from_ca_cert_der(&self.believed[self.signing], &self.key)
            .map_err(|error| refused(&error))
    }

    fn file(&self, name: &str) -> Result<Vec<u8>> {
        files::read(&self.folder.join(name), "restore it from a copy")
    }
}

/// An authority that nobody has signed yet, with its new key.
fn new_authority(days: u32, clock: &Clock) -> Result<(CertificateParams, KeyPair)> {
    let now = clock.unix_ms();
    // Two that follow each other within a second have different names all the same.
    let name = format!(
        "Hydrant fleet authority {} {:04x}",
        crate::output::time(now),
        now & 0xffff
    );
    let mut params = params(&name, days, clock)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(|error| refused(&error))?;
    Ok((params, key))
}

fn params(name: &str, days: u32, clock: &Clock) -> Result<CertificateParams> {
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970(clock.unix_ms() / 1000);
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| refused(&error))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - CLOCKS_APART;
    params.not_after = now + DAY * days;
    Ok(params)
}

fn since_1970(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn given_token_key(path: &Path) -> Result<Vec<u8>> {
    let mend = "name the file `key` in the data folder of a node";
    let key = files::read_secret(path, mend)?;
    if key.len() == 32 {
        return Ok(key);
    }
    let message = format!(
        "{} has {} bytes, and a key of tokens has 32",
        path.display(),
        key.len()
    );
    Err(wrong("damaged_file", message, mend))
}

fn random_key() -> Result<Vec<u8>> {
    let mut key = vec![0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .map_err(|error| system("cannot make a key", &error, "check /dev/urandom"))?;
    Ok(key)
}

/// What the library of certificates did not do.
fn refused(error: &dyn std::fmt::Display) -> Failure {
    wrong(
        "cannot_sign",
        format!("cannot make the certificate: {error}"),
        "",
    )
}
