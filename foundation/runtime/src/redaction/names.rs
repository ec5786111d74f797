use aho_corasick::AhoCorasick;

use super::InvalidRule;

/// What a secret name has in it, without regard to case, dashes and underscores.
const PARTS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "authorization",
    "cookie",
    "credential",
    "signature",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "sessionkey",
    "creditcard",
    "debitcard",
    "cardnumber",
    "cardno",
    "socialsecurity",
    "securitynumber",
    "securitycode",
    "taxpayerid",
];

/// The longest name that is looked at, in bytes; what is longer is no name.
pub(super) const MAX_NAME: usize = 64;
/// The shortest name that may be added: a shorter one is a part of too many.
const SHORTEST: usize = 3;

/// Short names, which count as whole words only: `card` is not in `discard`.
fn is_secret_word(word: &[u8]) -> bool {
    let end = word.iter().rposition(|byte| !byte.is_ascii_digit());
    let word = &word[..end.map_or(0, |end| end + 1)];
    let word = word.strip_suffix(b"s").unwrap_or(word);
    matches!(
        word,
        b"ssn"
            | b"itin"
            | b"card"
            | b"pan"
            | b"cvv"
            | b"cvc"
            | b"iban"
            | b"pin"
            | b"otp"
            | b"totp"
            | b"pwd"
            | b"pw"
            | b"pas"
            | b"jwt"
            | b"auth"
            | b"psk"
    )
}

/// Which names are secret.
#[derive(Debug)]
pub(super) struct Names(AhoCorasick);

impl Names {
    pub(super) fn new(added: &[String]) -> Result<Self, InvalidRule> {
        let mut parts: Vec<String> = PARTS.iter().map(|part| (*part).to_owned()).collect();
        for name in added {
            parts.push(joined(name)?);
        }
        let built = AhoCorasick::new(parts);
        built
            .map(Self)
            .map_err(|error| InvalidRule(error.to_string()))
    }

    /// Whether the name, or a word of it, is secret: `X-API-Key`, `cardNumber`, `customer.ssn`.
    pub(super) fn has(&self, name: &str) -> bool {
        if name.len() > MAX_NAME {
            return false;
        }
        let (mut joined, mut length, mut word) = ([0; MAX_NAME], 0, 0);
        let bytes = name.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let (begins, is_part) = (begins_word(bytes, at), byte.is_ascii_alphanumeric());
            if (begins || !is_part) && is_secret_word(&joined[word..length]) {
                return true;
            }
            if begins || !is_part {
                word = length;
            }
            if is_part {
                joined[length] = byte.to_ascii_lowercase();
                length += 1;
            }
            // An escape of a URL stands for a bracket or a space.
            at += if byte == b'%' { 3 } else { 1 };
        }
        is_secret_word(&joined[word..length]) || self.0.is_match(&joined[..length])
    }
}

/// Whether a word begins here within a name such as `cardNumber` or `SSNValue`.
fn begins_word(name: &[u8], at: usize) -> bool {
    let is = |at: usize, is: fn(&u8) -> bool| name.get(at).is_some_and(is);
    at > 0
        && is(at, u8::is_ascii_uppercase)
        && (!is(at - 1, u8::is_ascii_uppercase) || is(at + 1, u8::is_ascii_lowercase))
}

fn joined(name: &str) -> Result<String, InvalidRule> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    let joined: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if !name.chars().all(is_good) || joined.len() < SHORTEST || name.len() > MAX_NAME {
        let name = name.escape_debug();
        return Err(InvalidRule(format!(
            "`{name}` is not a name: write {SHORTEST} to {MAX_NAME} letters and digits, as employee_no"
        )));
    }
    Ok(joined.to_ascii_lowercase())
}
