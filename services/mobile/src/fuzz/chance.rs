//! The same with bytes by chance: documents that were well, changed a little.

use fastrand::Rng;
use hydrant_harness::{is_soak, seed};
use serde_json::{Map, Value, json};

use super::*;

/// How often each is tried: for seconds, or for minutes.
fn tries(short: usize) -> usize {
    if is_soak() { 100 * short } else { short }
}

/// Something of any kind, to put where it does not belong.
fn anything(random: &mut Rng) -> Value {
    let deep = (0..random.usize(..100)).fold(json!(1), |inner, _| json!([inner]));
    let rules = (0..random.usize(..110)).fold(json!(1), |inner, _| json!({"!": inner}));
    let some = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("é😀\u{0}\"\\/~"),
        json!("a".repeat(300)),
        json!("on"),
        json!("9999-12-31T23:59:59Z"),
        json!("-009999-01-01T00:00:00Z"),
        json!("99999999999.0.0"),
        json!(">=1 <2"),
        json!([]),
        json!({}),
        json!(["off", 9999]),
        json!([["off", 10_000]]),
        json!({"$ref": "#"}),
        json!({"$ref": "is-tablet"}),
        json!({"var": ["items.1.0", {"var": ""}]}),
        json!({"$image": "a"}),
        json!({"fractional": [["a", 1e9], ["b", {"var": "device"}]]}),
        json!({"reduce": [{"var": "items"}, {"cat": [{"var": "accumulator"}, {"var": "current"}]}, "x"]}),
        json!({"/": [1, {"var": "x"}]}),
        deep,
        rules,
    ];
    some[random.usize(..some.len())].clone()
}

/// Changes one place of a document.
fn mutate(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Object(members) if !members.is_empty() && random.u8(..10) > 0 => {
            let name = nth(members, random);
            match random.u8(..12) {
                0 => drop(members.remove(&name)),
                1 => {
                    let member = members.remove(&name).unwrap();
                    let other = anything(random);
                    members.insert(other.as_str().unwrap_or("other").to_owned(), member);
                }
                2 => drop(members.insert(format!("{name}2"), anything(random))),
                _ => mutate(&mut members[&name], random),
            }
        }
        Value::Array(items) if !items.is_empty() && random.u8(..10) > 0 => {
            let index = random.usize(..items.len());
            match random.u8(..10) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                2 => items.push(anything(random)),
                _ => mutate(&mut items[index], random),
            }
        }
        Value::String(text) if random.bool() => *text = scrambled(text, random),
        Value::Number(number) if random.bool() => {
            let factor = [-1.0, 0.5, 2.0, 100.0, 1e6][random.usize(..5)];
            *value = json!(number.as_f64().unwrap_or(1.0) * factor);
        }
        other => *other = anything(random),
    }
}

fn nth(members: &Map<String, Value>, random: &mut Rng) -> String {
    let names = members.keys();
    { names }
        .nth(random.usize(..members.len()))
        .unwrap()
        .clone()
}

/// A text with some characters more or less.
fn scrambled(text: &str, random: &mut Rng) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=characters.len());
        match random.u8(..3) {
            0 if at < characters.len() => drop(characters.remove(at)),
            1 => {
                let piece = [
                    "{", "}", "[", "]", "\"", ",", ":", "\\", "-", ".", "0", "é", "\u{0}",
                ];
                let piece = piece[random.usize(..piece.len())];
                characters.splice(at..at, piece.chars());
            }
            _ => {
                let end = random.usize(at..=characters.len());
                let part: Vec<char> = characters[at..end].to_vec();
                characters.splice(at..at, part);
            }
        }
    }
    characters.into_iter().collect()
}

/// Any document of the world, changed as JSON or as text.
fn changed(random: &mut Rng) -> (Kind, String, String) {
    let kind = Kind::ALL[random.usize(..Kind::ALL.len())];
    let all: Vec<_> = world::bundle().of(kind).collect();
    let (name, text) = all[random.usize(..all.len())];
    let text = match random.u8(..4) {
        0 => scrambled(text, random),
        _ => {
            let mut value: Value = serde_json::from_str(text).unwrap();
            for _ in 0..random.u8(1..4) {
                mutate(&mut value, random);
            }
            value.to_string()
        }
    };
    (kind, name.to_owned(), text)
}

#[test]
fn no_document_makes_an_instance_panic() {
    let mut random = Rng::with_seed(seed());
    for _ in 0..tries(120) {
        let (kind, name, text) = changed(&mut random);
        revision(kind, &name, &text);
    }
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"not": {"$ref": "#"}}]}),
        json!({"$dynamicRef": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"if": {"$ref": "#"}, "then": {"$ref": "#"}}),
    ] {
        revision(Kind::ConfigSchema, "config", &schema.to_string());
        revision(
            Kind::ContentType,
            "poster",
            &json!({ "schema": schema }).to_string(),
        );
    }
}

#[test]
fn no_question_makes_an_instance_panic() {
    let mut random = Rng::with_seed(seed());
    for _ in 0..tries(300) {
        let at = random.usize(..world::contexts().len());
        let mut context = Value::Object(world::contexts()[at].clone());
        mutate(&mut context, &mut random);
        question(context.to_string().as_bytes());
        question(
            json!({"context": context, "slots": ["home"]})
                .to_string()
                .as_bytes(),
        );
        let query =
            "/v1/init?platform=ios&version=7.2.1&locale=en-US&slots=home,a&deadlineMs=20&x=%C3%A9";
        question(scrambled(query, &mut random).as_bytes());
        let lines = scrambled(">=7.2.0 <8.0.0-rc.1\n7.2.1+b\nzh-Hant-TW-x", &mut random);
        matching(lines.as_bytes());
        preview(lines.as_bytes());
    }
}

#[test]
fn no_change_of_an_entry_panics() {
    let mut random = Rng::with_seed(seed());
    let (_, text) = world::bundle().of(Kind::Content).next().unwrap();
    for _ in 0..tries(500) {
        entry(scrambled(text, &mut random).as_bytes());
    }
    // What is no number for some readers, and what is too deep for them.
    for part in [
        "1e999".to_owned(),
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
    ] {
        let text = format!(
            r#"{{"slot": "a", "locales": {{"en": {part}}}, "draft": {{"locales": {part}}}}}"#
        );
        entry(text.as_bytes());
    }
}

#[test]
fn no_source_makes_its_reader_panic() {
    let mut random = Rng::with_seed(seed());
    let file = include_str!("../../demo/sources.toml");
    for _ in 0..tries(500) {
        sources(scrambled(file, &mut random).as_bytes());
        let text = scrambled(r#"{"a": [1, {"b": "é"}], "c": 1.50}"#, &mut random);
        answer(text.as_bytes());
        let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        answer(&with_noise(&packed, &mut random));
    }
}

#[test]
fn no_published_value_makes_an_instance_panic() {
    let mut random = Rng::with_seed(seed());
    let packed = world::bundle().pack();
    for _ in 0..tries(100) {
        published(&with_noise(&packed, &mut random));
    }
}

#[test]
fn no_file_makes_the_reader_of_images_panic() {
    let mut random = Rng::with_seed(seed());
    let files = images();
    for _ in 0..tries(150) {
        image(&with_noise(
            &files[random.usize(..files.len())],
            &mut random,
        ));
    }
}

/// A small picture in each form that is taken.
fn images() -> Vec<Vec<u8>> {
    use image::ImageFormat::{Gif, Jpeg, Png, WebP};
    let picture = image::RgbaImage::from_fn(40, 30, |x, y| {
        image::Rgba([x as u8 * 6, y as u8 * 8, (x * y) as u8, 255])
    });
    let picture = image::DynamicImage::from(picture);
    let encoded = [Png, Jpeg, WebP, Gif].map(|format| {
        let (mut file, rgb) = (std::io::Cursor::new(Vec::new()), picture.to_rgb8());
        match format {
            Jpeg => rgb.write_to(&mut file, format).unwrap(),
            _ => picture.write_to(&mut file, format).unwrap(),
        }
        file.into_inner()
    });
    encoded.into()
}

/// Bytes of which some are others, or gone.
fn with_noise(bytes: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(..6) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.truncate(at + 1),
            _ => {
                let end = random.usize(at..bytes.len());
                let behind = bytes.len() - (end - at);
                bytes.copy_within(at..end, behind);
            }
        }
    }
    bytes
}
