//! What stands in the link to a preview, signed so that nobody can make or change one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_TOKEN: usize = 1024;

/// Keeps signatures of this apart from any others that the secret may be used for.
const PURPOSE: &[u8] = b"hydrant mobile preview 1\n";

/// What a link shows, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) entry: String,
    /// `None` for the newest draft.
    pub(crate) revision: Option<u64>,
    /// When the link was made, in milliseconds since 1970.
    pub(crate) made: i64,
    /// When it ends.
    pub(crate) expires: i64,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It was not made here, or was changed since.
    Forged,
    /// Its time is over.
    Expired,
}

/// Makes and reads tokens.
#[derive(Clone)]
pub(crate) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut mac = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        Self(mac)
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("texts and numbers become JSON");
        let mac = self.0.clone().chain_update(&claims).finalize();
        let [claims, mac] =
            [&claims[..], &mac.into_bytes()].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{claims}.{mac}")
    }

    /// What a token says, when it was made here and its time is not over. Nothing of it is looked
    /// at before its signature, which is compared in constant time.
    pub(crate) fn open(&self, token: &str, now: i64) -> Result<Claims, Invalid> {
        let (claims, mac) = parts(token).ok_or(Invalid::Forged)?;
        let expected = self.0.clone().chain_update(&claims);
        expected.verify_slice(&mac).map_err(|_| Invalid::Forged)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Invalid::Forged)?;
        match now < claims.expires {
            true => Ok(claims),
            false => Err(Invalid::Expired),
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// Whether the text may be a token: what can't be one is not worth a question to the service.
pub(crate) fn may_be_token(text: &str) -> bool {
    parts(text).is_some()
}

fn parts(token: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let (claims, mac) = token.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    Some((decode(claims)?, decode(mac)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> Claims {
        Claims {
            entry: "fresh".into(),
            revision: Some(7),
            made: 1_000,
            expires: 2_000,
        }
    }

    #[test]
    fn a_token_is_good_until_its_end() {
        let signer = Signer::new(b"secret");
        let token = signer.sign(&claims());
        assert_eq!(signer.open(&token, 1_999), Ok(claims()));
        assert_eq!(signer.open(&token, 2_000), Err(Invalid::Expired));
        assert_eq!(
            Signer::new(b"other").open(&token, 1_500),
            Err(Invalid::Forged)
        );
        assert!(may_be_token(&token));
    }

    #[test]
    fn a_signature_for_something_else_is_none() {
        let claims = serde_json::to_vec(&claims()).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        let mac = mac.chain_update(&claims).finalize().into_bytes();
        let [claims, mac] = [&claims[..], &mac].map(|part| URL_SAFE_NO_PAD.encode(part));
        let opened = Signer::new(b"secret").open(&format!("{claims}.{mac}"), 1_500);
        assert_eq!(opened, Err(Invalid::Forged));
    }

    proptest! {
        #[test]
        fn no_other_text_opens_anything(
            at in any::<prop::sample::Index>(),
            byte in "[A-Za-z0-9_.-]",
            text in ".{0,80}",
        ) {
            let signer = Signer::new(b"secret");
            let token = signer.sign(&claims());
            prop_assert!(signer.open(&text, 0).is_err());
            let at = at.index(token.len());
            let changed = format!("{}{byte}{}", &token[..at], &token[at + 1..]);
            // The last character of a part has bits that mean nothing; none but zeros are read.
            prop_assert_eq!(signer.open(&changed, 0).is_ok(), changed == token);
            for cut in [&token[..at], &token[at + 1..]] {
                prop_assert_eq!(signer.open(cut, 0), Err(Invalid::Forged));
            }
        }
    }
}
