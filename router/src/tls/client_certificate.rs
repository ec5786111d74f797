//! What an instance learns of a client's certificate.

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// The longest subject that goes on, in bytes as it is written.
const MAX_SUBJECT: usize = 2048;

/// The value of the header `hydrant-client-cert`: `subject="CN=a,O=b", sha256="…"`, the hash in
/// hexadecimal digits. The subject is left out when it can't be read or is too long: half of a name
/// could be somebody else's.
pub(super) fn described(certificate: &CertificateDer<'_>) -> Box<str> {
    let mut text = String::new();
    if let Some(subject) = subject(certificate) {
        // Writing to a string does not fail.
        let _ = write!(text, "subject=\"{subject}\", ");
    }
    text.push_str("sha256=\"");
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    text.into()
}

fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = written(certificate.subject())?;
    (!subject.is_empty() && subject.len() <= MAX_SUBJECT).then_some(subject)
}

/// In the order of the certificate. Whatever could be taken for the end of a value is escaped, so that
/// nobody's name contains another's.
fn written(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for attribute in name.iter_attributes() {
        if !text.is_empty() {
            text.push(',');
        }
        let oid = attribute.attr_type().to_id_string();
        text.push_str(short(&oid));
        text.push('=');
        escape(attribute.as_str().ok()?, &mut text);
    }
    Some(text)
}

fn short(oid: &str) -> &str {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        other => other,
    }
}

fn escape(value: &str, text: &mut String) {
    for byte in value.bytes() {
        match byte {
            b',' | b'=' | b'+' | b'"' | b'\\' | b'%' | b';' => {
                let _ = write!(text, "%{byte:02X}");
            }
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn of(names: &[(DnType, &str)]) -> Box<str> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        described(certificate.der())
    }

    #[test]
    fn a_name_can_contain_no_other() {
        let plain = of(&[
            (DnType::CommonName, "phone 7"),
            (DnType::OrganizationName, "Shop"),
        ]);
        assert!(
            plain.starts_with("subject=\"CN=phone 7,O=Shop\", sha256=\""),
            "{plain}"
        );
        let hash = plain.rsplit('"').nth(1).unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let odd = of(&[(DnType::CommonName, "a,O=Shop\", x=\"é\r\n%")]);
        assert!(
            odd.starts_with("subject=\"CN=a%2CO%3DShop%22%2C x%3D%22%C3%A9%0D%0A%25\", sha256="),
            "{odd}"
        );
        assert!(
            of(&[(DnType::CommonName, &"x".repeat(MAX_SUBJECT))]).starts_with("sha256=\""),
            "too long"
        );
        assert!(of(&[]).starts_with("sha256=\""));
    }
}
