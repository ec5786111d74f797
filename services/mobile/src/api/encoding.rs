//! Content codings: which one a client takes best, and the bytes in it.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

/// Below this size nothing is won, in bytes.
const MIN_SIZE: usize = 512;
/// Above this size brotli works less hard, in bytes.
const LARGE: usize = 256 * 1024;

/// A coding that is made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// Of two that a client takes as gladly, the first one is used.
    pub(crate) const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// As `Content-Encoding` says it.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// The bytes in this coding.
    pub(crate) fn encode(self, body: &[u8]) -> std::io::Result<Bytes> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, 3),
            Self::Brotli => brotli(body),
            Self::Gzip => gzip(body),
        }
        .map(Bytes::from)
    }
}

fn brotli(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: if body.len() > LARGE { 4 } else { 5 },
        lgwin: 20,
        size_hint: body.len(),
        ..Default::default()
    };
    let mut encoded = Vec::with_capacity(body.len() / 4);
    brotli::BrotliCompress(&mut &*body, &mut encoded, &parameters)?;
    Ok(encoded)
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let out = Vec::with_capacity(body.len() / 4);
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// The coding for a body of this size that a client takes best, by the weights in its
/// `Accept-Encoding`; `None` for the body as it is, also where it takes nothing else either.
pub(crate) fn choose(headers: &HeaderMap, size: usize) -> Option<Coding> {
    if size < MIN_SIZE {
        return None;
    }
    let mut weights = Weights::default();
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .for_each(|item| weights.take(item));
    }
    let identity = weights.identity();
    let mut best: Option<(Coding, u16)> = None;
    for coding in Coding::ALL {
        let weight = weights.of(coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((coding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= identity)
        .map(|(coding, _)| coding)
}

/// How gladly each coding is taken, in thousandths.
#[derive(Debug, Default)]
struct Weights {
    named: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    /// Reads `br;q=0.5`. What can't be read is left out.
    fn take(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let Some(weight) = parts.try_fold(1000, |_, part| weight(part)) else {
            return;
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        for (place, coding) in Coding::ALL.iter().enumerate() {
            if is(coding.name()) || (*coding == Coding::Gzip && is("x-gzip")) {
                self.named[place] = Some(weight);
            }
        }
        if is("identity") {
            self.identity = Some(weight);
        }
        if name == b"*" {
            self.any = Some(weight);
        }
    }

    fn of(&self, coding: Coding) -> u16 {
        self.named[coding as usize].or(self.any).unwrap_or(0)
    }

    /// The body as it is may be sent where nothing forbids it, but a coding that is named is better.
    fn identity(&self) -> u16 {
        self.identity.unwrap_or(0)
    }
}

/// `q=0.5` in thousandths.
fn weight(part: &[u8]) -> Option<u16> {
    let text = part
        .strip_prefix(b"q=")
        .or_else(|| part.strip_prefix(b"Q="))?;
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let mut thousandths = digit(whole)?;
    for place in 0..3 {
        let next = fraction.get(place).map_or(Some(0), digit)?;
        thousandths = thousandths * 10 + next;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn chosen(text: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
        choose(&headers, MIN_SIZE)
    }

    #[test]
    fn the_coding_that_is_taken_best_is_used() {
        use Coding::{Brotli, Gzip, Zstd};
        for (text, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("GZIP", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.8", Some(Gzip)),
            ("br;q=0.5, zstd;q=0.501", Some(Zstd)),
            ("zstd;q=0, *", Some(Brotli)),
            ("*;q=0.1", Some(Zstd)),
            ("*;q=0", None),
            ("gzip;q=0", None),
            ("", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=", None),
            ("gzip;q=0.0001", None),
            ("gzip ; q=0.3", Some(Gzip)),
            ("deflate, compress", None),
        ] {
            assert_eq!(chosen(text), expected, "{text}");
        }
        assert_eq!(choose(&HeaderMap::new(), MIN_SIZE), None);
    }

    #[test]
    fn what_is_small_stays_as_it_is() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(choose(&headers, MIN_SIZE - 1), None);
    }

    fn decode(coding: Coding, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut body = Vec::new();
        match coding {
            Coding::Zstd => body = zstd::bulk::decompress(bytes, size).unwrap(),
            Coding::Brotli => {
                brotli::Decompressor::new(bytes, 4096)
                    .read_to_end(&mut body)
                    .unwrap();
            }
            Coding::Gzip => {
                flate2::read::GzDecoder::new(bytes)
                    .read_to_end(&mut body)
                    .unwrap();
            }
        }
        body
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for coding in Coding::ALL {
                let encoded = coding.encode(&body).unwrap();
                prop_assert_eq!(&decode(coding, &encoded, body.len()), &body);
            }
        }

        #[test]
        fn any_header_is_read_without_panic(text in "[a-z*;=q0-9., -]{0,60}") {
            chosen(&text);
        }
    }
}
