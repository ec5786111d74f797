//! Bodies: where one ends. What passes through is checked and copied as it stands.

use crate::names::is_only_in_heads;

/// The longest line of a chunk's size with its extension, in bytes. Extensions mean nothing to
/// anybody; a long one is an attempt to make us work for nothing.
const MAX_CHUNK_LINE: u16 = 256;
/// The most hexadecimal digits of a chunk's size: 60 bits.
const MAX_SIZE_DIGITS: u8 = 15;
/// All trailers of one body together, in bytes.
const MAX_TRAILERS: u16 = 16 * 1024;

/// How the length of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// `content-length`, at least 1.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// All until the sender closes; answers only.
    UntilClose,
}

/// A body whose framing is broken; what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Follows a body through its bytes.
#[derive(Clone, Debug)]
pub enum Body {
    /// All of it was seen.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(Chunks),
    /// It goes on until the sender closes.
    UntilClose,
}

impl Body {
    /// A body of which nothing was seen yet. `for_request` refuses trailers that would pass for
    /// what a head alone may say.
    pub fn new(framing: Framing, for_request: bool) -> Self {
        match framing {
            Framing::Empty => Body::Done,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunks::new(for_request)),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Whether all of it was seen.
    pub fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes the bytes that came and tells how many of them belong to the body. With `payload`,
    /// what chunks carry is also appended to it, without their framing.
    pub fn scan(
        &mut self,
        input: &[u8],
        payload: Option<&mut Vec<u8>>,
    ) -> Result<usize, Malformed> {
        match self {
            Body::Done => Ok(0),
            Body::UntilClose => Ok(input.len()),
            Body::Length(left) => {
                let taken = (*left).min(input.len() as u64);
                self.skip(taken);
                Ok(taken as usize)
            }
            Body::Chunked(chunks) => {
                let taken = chunks.scan(input, payload)?;
                if chunks.is_done() {
                    *self = Body::Done;
                }
                Ok(taken)
            }
        }
    }

    /// Takes `count` bytes that went by unseen; of a body with a length only.
    pub fn skip(&mut self, count: u64) {
        if let Body::Length(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Body::Done;
            }
        }
    }
}

/// Follows a chunked body byte by byte. Strict: every line ends in CR LF, sizes are hexadecimal
/// digits and nothing else, trailers are well-formed fields.
#[derive(Clone, Debug)]
pub struct Chunks {
    state: State,
    left: u64,
    digits: u8,
    line: u16,
    trailers: u16,
    for_request: bool,
    name: FieldName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    ExtensionStart,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    FieldStart,
    FieldName,
    FieldValue,
    FieldLf,
    EndLf,
    Done,
}

impl Chunks {
    fn new(for_request: bool) -> Self {
        Self {
            state: State::Size,
            left: 0,
            digits: 0,
            line: 0,
            trailers: 0,
            for_request,
            name: FieldName::default(),
        }
    }

    fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn scan(
        &mut self,
        input: &[u8],
        mut payload: Option<&mut Vec<u8>>,
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            if self.state == State::Data {
                let taken = self.left.min((input.len() - at) as u64) as usize;
                if let Some(payload) = payload.as_deref_mut() {
                    payload.extend_from_slice(&input[at..at + taken]);
                }
                self.left -= taken as u64;
                at += taken;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.framing_byte(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, Malformed> {
        match self.state {
            State::Size | State::ExtensionStart | State::Extension | State::SizeLf => {
                self.size_byte(byte)
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                (self.digits, self.line) = (0, 0);
                Ok(State::Size)
            }
            State::DataCr | State::DataLf => Err(Malformed("a chunk is longer than its size")),
            _ => self.trailer_byte(byte),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE {
            return Err(Malformed("a chunk's size line is longer than 256 bytes"));
        }
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits += 1;
                if self.digits > MAX_SIZE_DIGITS {
                    return Err(Malformed("a chunk's size has more than 15 digits"));
                }
                self.left = self.left << 4 | u64::from(hex_digit(byte));
                Ok(State::Size)
            }
            (State::Size, _) if self.digits == 0 => Err(Malformed("a chunk has no size")),
            (State::Size, b';') => Ok(State::ExtensionStart),
            (State::ExtensionStart, b'\t' | b' ') => Ok(State::ExtensionStart),
            // An extension without a name is where servers disagree about the line's end.
            (State::ExtensionStart, _) if is_token_byte(byte) => Ok(State::Extension),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\t' | 0x20..=0x7e) => Ok(State::Extension),
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::FieldStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            _ => Err(Malformed("a chunk's size line holds a stray character")),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Malformed> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(Malformed("the trailers are longer than 16 KB"));
        }
        match (self.state, byte) {
            (State::FieldStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::FieldStart, _) if is_token_byte(byte) => {
                self.name = FieldName::default();
                self.name.push(byte);
                Ok(State::FieldName)
            }
            (State::FieldName, b':') if self.for_request && self.name.is_forbidden() => {
                Err(Malformed("a trailer says what only a head may say"))
            }
            (State::FieldName, b':') => Ok(State::FieldValue),
            (State::FieldName, _) if is_token_byte(byte) => {
                self.name.push(byte);
                Ok(State::FieldName)
            }
            (State::FieldValue, b'\r') => Ok(State::FieldLf),
            (State::FieldValue, b'\t' | 0x20..=0x7e | 0x80..) => Ok(State::FieldValue),
            (State::FieldLf, b'\n') => Ok(State::FieldStart),
            _ => Err(Malformed("a trailer is malformed")),
        }
    }
}

/// The name of a trailer, as much of it as is needed to tell whether it is forbidden.
#[derive(Clone, Copy, Debug, Default)]
struct FieldName {
    bytes: [u8; 20],
    len: u8,
}

impl FieldName {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    fn is_forbidden(&self) -> bool {
        let len = usize::from(self.len).min(self.bytes.len());
        is_only_in_heads(&self.bytes[..len])
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

/// The characters of which names of fields are made (RFC 9110, token).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunked() -> Body {
        Body::new(Framing::Chunked, true)
    }

    /// Feeds `input` in pieces that end at `cuts`.
    fn feed(input: &[u8], cuts: &[usize]) -> Result<(usize, Vec<u8>, bool), Malformed> {
        let (mut body, mut payload, mut total, mut from) = (chunked(), Vec::new(), 0, 0);
        for to in cuts.iter().copied().chain([input.len()]) {
            let to = to.clamp(from, input.len());
            total += body.scan(&input[from..to], Some(&mut payload))?;
            from = to;
        }
        Ok((total, payload, body.is_done()))
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        let message = b"5\r\nhello\r\nA;x=\"y z\"\r\n0123456789\r\n000\r\nt: v\r\nu:\r\n\r\n";
        let mut input = message.to_vec();
        input.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for first in 0..input.len() {
            for second in [first, first + 1, first + 7] {
                let (taken, payload, done) = feed(&input, &[first, second]).unwrap();
                assert_eq!((taken, done), (message.len(), true), "{first} {second}");
                assert_eq!(payload, b"hello0123456789");
            }
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long_extension = format!("5;{}\r\n", "x".repeat(300));
        let many_trailers = format!("0\r\n{}", "a: b\r\n".repeat(4000));
        for bad in [
            "\r\n",
            "g\r\n",
            "5 \r\n",
            " 5\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\n",
            "5\r\r\n",
            "5;a\n",
            "5;a\rb\r\n",
            "5;\0\r\n",
            "5;\r\nhello\r\n",
            "5; \r\nhello\r\n",
            "5;;a\r\nhello\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "3\r\nabc\r\r",
            "1000000000000000\r\n",
            "0000000000000000\r\n",
            "ffffffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na : c\r\n\r\n",
            "0\r\n a: c\r\n\r\n",
            "0\r\na: c\n\r\n",
            "0\r\na: c\0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nhydrant-caller: operator\r\n\r\n",
            "0\r\nHydrant_Caller: operator\r\n\r\n",
            "0\r\nhydrant-something-with-a-long-name: x\r\n\r\n",
            "0\r\nx-forwarded-for: 10.0.0.1\r\n\r\n",
            &long_extension,
            &many_trailers,
        ] {
            assert!(feed(bad.as_bytes(), &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn answers_may_carry_any_trailer() {
        let mut body = Body::new(Framing::Chunked, false);
        let message = b"0\r\ncontent-type: x\r\n\r\n";
        assert_eq!(body.scan(message, None), Ok(message.len()));
        assert!(body.is_done());
    }

    #[test]
    fn a_length_is_counted_down() {
        let mut body = Body::new(Framing::Length(5), true);
        assert_eq!(body.scan(b"abc", None), Ok(3));
        assert!(!body.is_done());
        assert_eq!(body.scan(b"defgh", None), Ok(2));
        assert!(body.is_done());
        assert_eq!(body.scan(b"more", None), Ok(0));
    }

    proptest! {
        #[test]
        fn scanning_never_panics_and_never_takes_too_much(
            input in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(taken) = chunked().scan(&input, None) {
                prop_assert!(taken <= input.len());
            }
        }

        #[test]
        fn cuts_change_nothing(
            input in proptest::string::string_regex("([0-9a-c]{1,2}(;a)?(\r\n|\n)?[a-c0\r\n]{0,12}){0,6}0\r\n\r\n").unwrap(),
            cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(feed(input.as_bytes(), &[]), feed(input.as_bytes(), &cuts));
        }

        #[test]
        fn what_was_chunked_comes_out_again(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
            cuts in proptest::collection::vec(0usize..700, 0..6),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (taken, payload, done) = feed(&input, &cuts).unwrap();
            prop_assert_eq!((taken, done), (input.len(), true));
            prop_assert_eq!(payload, chunks.concat());
        }
    }
}
