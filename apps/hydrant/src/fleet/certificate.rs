//! What a certificate says.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::files;
use crate::failure::{Failure, Result, wrong};

/// What people want to know of a certificate. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Whom it is of.
    pub(crate) subject: String,
    /// Who has signed it.
    pub(crate) issuer: String,
    /// The names of hosts in it.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Certificate {
    /// Reads one; `path` names its file in errors.
    pub(crate) fn read(der: &CertificateDer<'_>, path: &Path) -> Result<Self> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(der).map_err(|_| damaged(path, "certificate"))?;
        Ok(Self {
            subject: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            names: dns_names(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let mut names = name.iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    name.unwrap_or("nobody").to_owned()
}

fn dns_names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// The public key in a certificate, with its algorithm.
pub(super) fn public_key(der: &CertificateDer<'_>, path: &Path) -> Result<Vec<u8>> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|_| damaged(path, "certificate"))?;
    Ok(parsed.public_key().raw.to_vec())
}

/// All certificates of a file, at least one.
pub(super) fn read_chain(path: &Path, mend: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = files::read(path, mend)?;
    let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(damaged(path, "certificate")),
    }
}

/// A file is not what its name says.
pub(super) fn damaged(path: &Path, what: &str) -> Failure {
    wrong(
        "damaged_file",
        format!("{} has no {what} in it that can be read", path.display()),
        "restore it from a copy, or issue a new one with `hydrant ca issue SERVER --overwrite`",
    )
}
