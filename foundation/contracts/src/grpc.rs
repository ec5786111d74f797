//! An error as gRPC carries it: in trailers, next to an HTTP status of 200.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use connectrpc::{ConnectError, ErrorDetail};

use crate::error::Error;

/// What a type of a detail begins with.
const TYPE_PREFIX: &str = "type.googleapis.com/";

impl Error {
    /// The trailers of a gRPC answer that carries it: `grpc-status`, `grpc-message` and
    /// `grpc-status-details-bin`, as names and ASCII values.
    pub fn to_grpc_trailers(&self) -> [(&'static str, String); 3] {
        let error = ConnectError::from(self.clone());
        let details = STANDARD_NO_PAD.encode(status_message(&error));
        [
            ("grpc-status", error.code.grpc_code().to_string()),
            ("grpc-message", percent_encoded(&self.message)),
            ("grpc-status-details-bin", details),
        ]
    }
}

/// The message `google.rpc.Status`: code = 1, message = 2, details = 3.
fn status_message(error: &ConnectError) -> Vec<u8> {
    let mut out = vec![1 << 3, error.code.grpc_code() as u8];
    put_bytes(
        &mut out,
        2,
        error.message.as_deref().unwrap_or("").as_bytes(),
    );
    for detail in &error.details {
        put_bytes(&mut out, 3, &any_message(detail));
    }
    out
}

/// The message `google.protobuf.Any`: type_url = 1, value = 2.
fn any_message(detail: &ErrorDetail) -> Vec<u8> {
    let name = detail.type_url.rsplit('/').next().unwrap_or("");
    let value = detail.value.as_deref().unwrap_or("").trim_end_matches('=');
    let mut out = Vec::new();
    put_bytes(&mut out, 1, format!("{TYPE_PREFIX}{name}").as_bytes());
    put_bytes(
        &mut out,
        2,
        &STANDARD_NO_PAD.decode(value).unwrap_or_default(),
    );
    out
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

/// All but visible ASCII and the space is encoded, and the percent sign itself.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn trailers_carry_code_message_and_details() {
        let error = Error::new(Code::Unavailable, "no_instance", "50 % of ä are\ngone");
        let [status, message, details] = error.to_grpc_trailers();
        assert_eq!(status, ("grpc-status", "14".into()));
        assert_eq!(message.1, "50 %25 of %C3%A4 are%0Agone");
        let bytes = STANDARD_NO_PAD.decode(details.1).unwrap();
        assert_eq!(bytes[..2], [8, 14]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("type.googleapis.com/hydrant.v1.ErrorInfo"),
            "{text}"
        );
        assert!(text.contains("no_instance"));
    }

    #[test]
    fn long_lengths_take_more_bytes() {
        let mut out = Vec::new();
        put_bytes(&mut out, 2, &[b'x'; 300]);
        assert_eq!(out[..3], [0x12, 0xac, 0x02]);
    }
}
