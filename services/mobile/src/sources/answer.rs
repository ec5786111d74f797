//! From the bytes of an answer to a value: unpacked, checked, and bounded in all its measures.

use std::io::Read;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::sources::Source;
use crate::sources::schema::Schema;
use crate::sources::snapshot::Failure;

/// How deep lists and objects may be in one another. Programs that read the answer on phones have
/// limits of their own, and this is far below any of them.
const MAX_DEPTH: usize = 64;
/// The largest window that zstd may ask memory for: 8 MB, what RFC 8878 asks of everybody.
const ZSTD_WINDOW: u32 = 23;

/// What decides which value an answer gives.
#[derive(Clone)]
pub(crate) struct Rules {
    max_size: u64,
    pointer: String,
    schema: Option<Arc<Schema>>,
}

impl From<&Source> for Rules {
    fn from(source: &Source) -> Self {
        Self {
            max_size: source.max_size,
            pointer: source.pointer.clone(),
            schema: source.schema.clone(),
        }
    }
}

impl Rules {
    /// The part at `pointer` of documents of at most so many bytes.
    pub(crate) fn of(max_size: u64, pointer: &str) -> Self {
        Self {
            max_size,
            pointer: pointer.to_owned(),
            schema: None,
        }
    }

    /// The value of an answer, without white space. Takes its time: not for an event loop.
    pub(crate) fn value(&self, body: &[u8], encoding: &str) -> Result<Box<RawValue>, Failure> {
        let body = self.unpacked(body, encoding)?;
        let text = std::str::from_utf8(&body).map_err(|_| not_json(&"it is not UTF-8"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        check_depth(text)?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        let value = at(whole, &self.pointer)?;
        let value =
            RawValue::from_string(without_space(value.get())).map_err(|error| not_json(&error))?;
        if let Some(schema) = &self.schema {
            let parsed: Value =
                serde_json::from_str(value.get()).map_err(|error| not_json(&error))?;
            schema.check(&parsed)?;
        }
        Ok(value)
    }

    fn unpacked(&self, body: &[u8], encoding: &str) -> Result<Vec<u8>, Failure> {
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => self.read(body, encoding),
            "gzip" | "x-gzip" => self.read(flate2::read::MultiGzDecoder::new(body), encoding),
            "br" => self.read(brotli::Decompressor::new(body, 4096), encoding),
            "zstd" => {
                let mut unpacked =
                    zstd::Decoder::new(body).map_err(|error| not_packed(encoding, &error))?;
                unpacked
                    .window_log_max(ZSTD_WINDOW)
                    .map_err(|error| not_packed(encoding, &error))?;
                self.read(unpacked, encoding)
            }
            other => Err(Failure::new(
                format!("its content-encoding is `{}`", other.escape_debug()),
                "let the source answer plainly, or with gzip, br or zstd",
            )),
        }
    }

    /// Stops at the limit, however much more is packed into it.
    fn read(&self, unpacked: impl Read, encoding: &str) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        unpacked
            .take(self.max_size + 1)
            .read_to_end(&mut body)
            .map_err(|error| not_packed(encoding, &error))?;
        if body.len() as u64 > self.max_size {
            return Err(too_large(self.max_size));
        }
        Ok(body)
    }
}

pub(crate) fn too_large(max_size: u64) -> Failure {
    Failure::new(
        format!("it has more than {max_size} bytes"),
        "make it smaller, or raise its max_size (at most 3MB)",
    )
}

fn not_packed(encoding: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("it is not what its content-encoding `{encoding}` says: {error}"),
        "mend the source",
    )
}

fn not_json(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("it is not JSON: {error}"),
        "look what it answers: it may be a page of an error, or of a log-in",
    )
}

/// Counts before anything is parsed, so that no depth can exhaust a stack.
fn check_depth(text: &str) -> Result<(), Failure> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Failure::new(
                format!("it is nested deeper than {MAX_DEPTH} levels"),
                "make it flatter, or name a part of it by `pointer`",
            ));
        }
    }
    Ok(())
}

/// The part that a pointer (RFC 6901) names, as it is written: numbers keep all their digits.
fn at<'a>(whole: &'a RawValue, pointer: &str) -> Result<&'a RawValue, Failure> {
    let mut value = whole;
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        value = member(value, &key).ok_or_else(|| {
            Failure::new(
                format!("it has nothing at `{pointer}`"),
                "mend its `pointer`, or the source",
            )
        })?;
    }
    Ok(value)
}

fn member<'a>(value: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    use std::borrow::Cow;
    use std::collections::HashMap;
    if value.get().starts_with('{') {
        let members: HashMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_str(value.get()).ok()?;
        return members.get(key).copied();
    }
    let is_index = key == "0" || !key.starts_with(['0', '+']);
    let items: Vec<&'a RawValue> = serde_json::from_str(value.get()).ok()?;
    items
        .get(key.parse::<usize>().ok().filter(|_| is_index)?)
        .copied()
}

/// The same JSON without white space between its parts.
fn without_space(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |character: &char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        in_string || !matches!(character, ' ' | '\n' | '\r' | '\t')
    };
    text.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(body: &str, pointer: &str) -> Result<String, String> {
        let value = Rules::of(1000, pointer).value(body.as_bytes(), "");
        value
            .map(|value| value.get().to_owned())
            .map_err(|failure| failure.reason)
    }

    #[test]
    fn a_pointer_names_a_part() {
        let body = r#" { "a/b": [ 1, { "~": " x \" " } ], "n": 12345678901234567890.10 } "#;
        for (pointer, expected) in [
            (
                "",
                r#"{"a/b":[1,{"~":" x \" "}],"n":12345678901234567890.10}"#,
            ),
            ("/a~1b/0", "1"),
            ("/a~1b/1/~0", r#"" x \" ""#),
            ("/n", "12345678901234567890.10"),
        ] {
            assert_eq!(value(body, pointer).unwrap(), expected, "{pointer}");
        }
        for pointer in ["/c", "/a~1b/2", "/a~1b/01", "/a~1b/-", "/n/0", "/"] {
            let reason = value(body, pointer).unwrap_err();
            assert!(reason.contains(pointer), "{reason}");
        }
    }

    #[test]
    fn garbage_of_every_kind_is_told() {
        for (body, part) in [
            ("", "not JSON"),
            ("<html>", "not JSON"),
            ("{\"a\":1", "not JSON"),
            ("[1] [2]", "not JSON"),
            ("[1e999999]x", "not JSON"),
        ] {
            assert!(value(body, "").unwrap_err().contains(part), "{body}");
        }
        let bytes = Rules::of(1000, "").value(b"\"\xff\"", "").unwrap_err();
        assert!(bytes.reason.contains("UTF-8"));
        assert_eq!(value("\u{feff}[1]", "").unwrap(), "[1]");
    }

    #[test]
    fn depth_is_bounded_before_anything_is_parsed() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(value(&nested(MAX_DEPTH), "").is_ok());
        let reason = value(&nested(MAX_DEPTH + 1), "").unwrap_err();
        assert!(reason.contains("nested"), "{reason}");
        let reason = Rules::of(1 << 20, "").value("[".repeat(1 << 20).as_bytes(), "");
        assert!(reason.unwrap_err().reason.contains("nested"));
        let text = format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200));
        assert!(value(&text, "").is_ok(), "not in a text");
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(body).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn a_packed_answer_is_unpacked_up_to_its_size() {
        let body = br#"{"a": 1}"#;
        let mut brotli = Vec::new();
        let params = brotli::enc::BrotliEncoderParams::default();
        brotli::BrotliCompress(&mut &body[..], &mut brotli, &params).unwrap();
        for (packed, encoding) in [
            (gzip(body), "gzip"),
            (brotli, "br"),
            (zstd::encode_all(&body[..], 3).unwrap(), "ZSTD"),
        ] {
            let value = Rules::of(8, "").value(&packed, encoding).unwrap();
            assert_eq!(value.get(), r#"{"a":1}"#, "{encoding}");
            let failure = Rules::of(7, "").value(&packed, encoding).unwrap_err();
            assert!(failure.reason.contains("more than 7"), "{encoding}");
            let failure = Rules::of(8, "").value(body, encoding).unwrap_err();
            assert!(failure.reason.contains(encoding), "{failure:?}");
        }
        let failure = Rules::of(8, "").value(body, "exotic").unwrap_err();
        assert!(failure.reason.contains("exotic"));
    }

    #[test]
    fn a_bomb_is_not_unpacked_beyond_its_size() {
        let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
        println!("{} bytes stand for 64 MB", bomb.len());
        let failure = Rules::of(100_000, "").value(&bomb, "gzip").unwrap_err();
        assert!(failure.reason.contains("more than 100000"), "{failure:?}");
    }

    #[test]
    fn a_value_fits_its_schema() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        std::fs::write(&path, r#"{"items": {"type": "integer"}}"#).unwrap();
        let rules = Rules {
            schema: Some(Arc::new(Schema::load(&path).unwrap())),
            ..Rules::of(1000, "/data")
        };
        assert!(rules.value(br#"{"data": [1, 2]}"#, "").is_ok());
        let failure = rules.value(br#"{"data": [1, "x"]}"#, "").unwrap_err();
        assert!(failure.reason.contains("/1"), "{failure:?}");
    }

    proptest! {
        #[test]
        fn white_space_changes_nothing(
            texts in proptest::collection::vec(".{0,8}", 0..5), number in any::<f64>(),
        ) {
            let whole = json!({ "texts": texts, "number": number });
            let pretty = serde_json::to_string_pretty(&whole).unwrap();
            let value = Rules::of(100_000, "").value(pretty.as_bytes(), "").unwrap();
            prop_assert_eq!(value.get(), whole.to_string());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for encoding in ["", "gzip", "br", "zstd"] {
                let _ = Rules::of(100, "/a/0").value(&bytes, encoding);
            }
        }
    }
}
