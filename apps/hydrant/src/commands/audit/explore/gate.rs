//! Who may see the page: whoever has the key that was printed, in one browser, and no other site.

use std::sync::{Mutex, PoisonError};

use hydrant_sdk::axum::http::{HeaderMap, HeaderValue, header};

/// What the page may do and load: its own style, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

pub(super) struct Gate {
    port: u16,
    /// What opens the page; gone when it was used.
    key: Mutex<Option<String>>,
    /// What the browser has shown it with since.
    pass: String,
}

impl Gate {
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            key: Mutex::new(Some(secret())),
            pass: secret(),
        }
    }

    pub(super) fn url(&self) -> String {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key.as_deref().unwrap_or_default();
        format!("http://127.0.0.1:{}/?key={key}", self.port)
    }

    /// The cookie for whoever brings the key; once.
    pub(super) fn enter(&self, key: &str) -> Option<HeaderValue> {
        let mut open = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.as_deref().is_some_and(|open| is_same(open, key)) {
            return None;
        }
        *open = None;
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie(),
            self.pass
        );
        cookie.parse().ok()
    }

    /// Whether a request comes from the page itself, or from the address bar. A name that somebody's DNS turns to
    /// this machine is not this page, and another site's link is not its user.
    pub(super) fn is_ours(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST.as_str()).unwrap_or_default();
        let hosts = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port));
        let site = text("sec-fetch-site").unwrap_or("none");
        hosts.iter().any(|known| known == host) && ["none", "same-origin"].contains(&site)
    }

    pub(super) fn has_pass(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|text| text.split(';'));
        pairs.any(|pair| {
            let pair = pair.trim().split_once('=');
            pair.is_some_and(|(name, value)| name == self.cookie() && is_same(value, &self.pass))
        })
    }

    /// Cookies know no ports: each page has one of its own name.
    fn cookie(&self) -> String {
        format!("hydrant_audit_{}", self.port)
    }
}

/// The headers of every answer.
pub(super) fn guards() -> [(header::HeaderName, HeaderValue); 5] {
    [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ]
}

fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Takes as long for any difference.
fn is_same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    one.len() == other.len() && pairs.fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_key_opens_once() {
        let gate = Gate::new(7);
        let url = gate.url();
        let (_, key) = url.split_once("key=").unwrap();
        assert!(key.len() >= 32, "{key}");
        assert!(gate.enter("").is_none());
        assert!(gate.enter(&key[1..]).is_none());
        let cookie = gate.enter(key).unwrap();
        assert!(gate.enter(key).is_none(), "once");
        assert!(gate.enter("").is_none());
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        assert!(gate.has_pass(&headers(&[("cookie", &format!("a=b; {cookie}"))])));
        assert!(!Gate::new(7).has_pass(&headers(&[("cookie", cookie)])));
        assert!(!gate.has_pass(&headers(&[("cookie", "hydrant_audit_7=")])));
    }

    #[test]
    fn other_hosts_and_other_sites_are_not_this_page() {
        let gate = Gate::new(7);
        for (pairs, is_ours) in [
            (&[("host", "127.0.0.1:7")][..], true),
            (
                &[("host", "localhost:7"), ("sec-fetch-site", "same-origin")],
                true,
            ),
            (&[("host", "127.0.0.1:8")], false),
            (&[("host", "evil.example:7")], false),
            (
                &[("host", "127.0.0.1:7"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            (
                &[("host", "127.0.0.1:7"), ("sec-fetch-site", "same-site")],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(gate.is_ours(&headers(pairs)), is_ours, "{pairs:?}");
        }
    }
}
