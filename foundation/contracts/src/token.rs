use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::name::ServiceId;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 512;

/// Who calls, as proved by a token of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// No token: the outside.
    Outside,
    /// Somebody whom a token names.
    Known(Identity),
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A service, with its tier.
    Service(ServiceId),
    /// A person at the command line, who may do all.
    Operator,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Service(service) => service.fmt(f),
            Identity::Operator => f.pad("operator"),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Outside => f.pad("outside"),
            Caller::Known(identity) => identity.fmt(f),
        }
    }
}

/// A token that this key did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token was not made by this node or its fleet; make one with `hydrant token SERVICE`")]
pub struct InvalidToken;

/// The secret with which a node makes and checks tokens. Checking needs no I/O.
///
/// A token is `h1.{identity}.{mac}`: the identity in plain text, so that people see what they
/// hold, and an HMAC-SHA-256 over everything before the last dot.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// Makes a token that names `identity`.
    pub fn issue(&self, identity: &Identity) -> String {
        let body = format!("h1.{identity}");
        let mac = self.mac(&body).finalize().into_bytes();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// Tells whom `token` names, or that it is not ours.
    pub fn verify(&self, token: &str) -> Result<Identity, InvalidToken> {
        let (body, mac) = token
            .rsplit_once('.')
            .filter(|_| token.len() <= MAX_TOKEN)
            .ok_or(InvalidToken)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| InvalidToken)?;
        self.mac(body)
            .verify_slice(&mac)
            .map_err(|_| InvalidToken)?;
        match body.strip_prefix("h1.").ok_or(InvalidToken)? {
            "operator" => Ok(Identity::Operator),
            service => ServiceId::from_str(service)
                .map(Identity::Service)
                .map_err(|_| InvalidToken),
        }
    }

    fn mac(&self, body: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(body.as_bytes());
        mac
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_whom_it_was_made_for() {
        let key = TokenKey::new(&[7; 32]);
        for identity in [
            Identity::Operator,
            Identity::Service("service/mobile".parse().unwrap()),
        ] {
            assert_eq!(key.verify(&key.issue(&identity)), Ok(identity));
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.issue(&Identity::Service("service/mobile".parse().unwrap()));
        assert!(key.verify(&token.replace("service/", "api/")).is_err());
        assert!(key.verify(&token[..token.len() - 1]).is_err());
        assert!(TokenKey::new(&[8; 32]).verify(&token).is_err());
        for junk in [
            "",
            ".",
            "h1.operator.",
            "h1.operator.AAAA",
            &"a.".repeat(400),
        ] {
            assert!(key.verify(junk).is_err(), "{junk}");
        }
    }
}
