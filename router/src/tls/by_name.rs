//! Which certificate a client is shown: by the name that it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names in them. Of one name there may be several, with keys of several kinds.
#[derive(Debug, Default)]
pub(super) struct ByName {
    exact: Named,
    /// By what stands behind `*.`.
    wildcard: Named,
    /// For clients that name no server, or one that is nobody's.
    default: Option<Arc<CertifiedKey>>,
}

type Named = HashMap<String, Vec<Arc<CertifiedKey>>>;

impl ByName {
    /// Adds a certificate; the first is the default.
    pub(super) fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        self.default.get_or_insert_with(|| Arc::clone(key));
        for name in names {
            let (named, name) = match name.strip_prefix("*.") {
                Some(behind) => (&mut self.wildcard, behind),
                None => (&mut self.exact, name.as_str()),
            };
            let same = named.entry(name.to_ascii_lowercase()).or_default();
            same.push(Arc::clone(key));
        }
    }

    /// Those for a name: its own before those of `*.`, which stands for one label.
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let behind = || name.split_once('.').map(|(_, behind)| behind);
        let found = self.exact.get(&name);
        let found = found.or_else(|| self.wildcard.get(behind()?));
        found.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().map_or(&[][..], |name| self.of(name));
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let found = named.iter().find(fits).or(named.first());
        found.or(self.default.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<CertifiedKey> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let der = key.serialize_der().try_into().unwrap();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider);
        Arc::new(key.unwrap())
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_which_stands_for_one_label() {
        let (default, exact, wild) = (key(), key(), key());
        let mut all = ByName::default();
        for (names, key) in [
            (&["d.example"][..], &default),
            (&["a.w.example", "B.example"], &exact),
            (&["*.w.example"], &wild),
        ] {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            all.add(&names, key);
        }
        let is = |name: &str, key| all.of(name).first().is_some_and(|of| Arc::ptr_eq(of, key));
        assert!(is("d.example", &default));
        assert!(is("A.w.example", &exact) && is("b.example", &exact));
        assert!(is("b.w.example", &wild) && is("C.W.example", &wild));
        for nobody in ["w.example", "a.b.w.example", "example", "", "*.w.example."] {
            assert!(all.of(nobody).is_empty(), "{nobody}");
        }
        assert!(Arc::ptr_eq(all.default.as_ref().unwrap(), &default));
    }
}
