//! Images as content refers to them. What is known of one stands in a document of its own, which
//! the service writes when the image is added; its bytes are in the object store.

use std::collections::HashMap;

use hydrant_flags::Mistake;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::content::document::{escape, parse};

/// The member that makes an object of an entry's fields an image: `{"$image": SHA-256, "alt": …}`.
const MARK: &str = "$image";

/// How deep fields may be nested.
const MAX_DEPTH: usize = 64;

/// All images, by the SHA-256 of the file that was added, in hexadecimal.
#[derive(Debug, Default)]
pub(crate) struct Images(HashMap<String, Image>);

/// What is known of an image; the document `image/{sha256}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// The media type of the file that was added, as `image/jpeg`.
    #[serde(rename = "type")]
    pub(crate) media_type: String,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// In pixels, turned as it is to be seen.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// What it shows, for who can't see it.
    #[serde(default)]
    pub(crate) alt: String,
    /// As apps get it, from the smallest on.
    pub(crate) variants: Vec<Variant>,
}

/// An image in one width.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `jpg` or `png`.
    pub(crate) format: String,
    pub(crate) bytes: u64,
    /// Of its bytes, in hexadecimal: its name in the object store.
    pub(crate) sha256: String,
}

impl Variant {
    /// The last part of its URL, as `640.jpg`.
    pub(crate) fn file(&self) -> String {
        format!("{}.{}", self.width, self.format)
    }

    /// Where the outside reaches it, when it is of the image with this SHA-256.
    pub(crate) fn url(&self, sha256: &str) -> String {
        format!("{URL}/{sha256}/{}", self.file())
    }

    pub(crate) fn media_type(&self) -> &'static str {
        match self.format.as_str() {
            "jpg" => "image/jpeg",
            _ => "image/png",
        }
    }
}

impl Images {
    /// Reads the documents of images: their names and texts.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn compile<'a>(
        documents: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<Mistake>> {
        let mut images = HashMap::new();
        let mut mistakes = Vec::new();
        for (name, text) in documents {
            match read(name, text) {
                Ok(image) => drop(images.insert(name.to_owned(), image)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self(images)),
            false => Err(mistakes),
        }
    }

    /// All images with their names, sorted.
    pub(crate) fn all(&self) -> Vec<(&str, &Image)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(name, one)| (name.as_str(), one))
            .collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }

    pub(crate) fn get(&self, sha256: &str) -> Option<&Image> {
        self.0.get(sha256)
    }

    /// Fields as an app gets them: each reference to an image replaced by what it needs to show it.
    /// References to images that are not there are told as mistakes; `pointer` is where the fields
    /// stand in their document.
    pub(crate) fn expand(&self, fields: &Value, pointer: &str) -> Result<Value, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let expanded = self.walk(fields, pointer, 0, &mut mistakes);
        match mistakes.is_empty() {
            true => Ok(expanded),
            false => Err(mistakes),
        }
    }

    fn walk(&self, value: &Value, at: &str, depth: usize, mistakes: &mut Vec<Mistake>) -> Value {
        if depth > MAX_DEPTH {
            mistakes.push(Mistake::at(
                at,
                format!("it is nested deeper than {MAX_DEPTH}"),
            ));
            return Value::Null;
        }
        match value {
            Value::Object(object) if object.contains_key(MARK) => self.show(object, at, mistakes),
            Value::Object(object) => {
                let members = object.iter().map(|(name, value)| {
                    let at = format!("{at}/{}", escape(name));
                    (name.clone(), self.walk(value, &at, depth + 1, mistakes))
                });
                Value::Object(members.collect())
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let walk = |(n, item)| self.walk(item, &format!("{at}/{n}"), depth + 1, mistakes);
                Value::Array(items.map(walk).collect())
            }
            plain => plain.clone(),
        }
    }

    fn show(&self, reference: &Map<String, Value>, at: &str, mistakes: &mut Vec<Mistake>) -> Value {
        let sha256 = reference[MARK].as_str().unwrap_or_default();
        let Some(image) = self.get(sha256) else {
            let message = format!("there is no image `{}`", reference[MARK]);
            let mend =
                "add it with `hydrant mobile image add FILE`, which prints how to refer to it";
            mistakes.push(Mistake::at(format!("{at}/{MARK}"), message).mend(mend));
            return Value::Null;
        };
        image.show(sha256, reference.get("alt").and_then(Value::as_str))
    }
}

impl Image {
    /// As an app gets it: `{"src", "width", "height", "alt", "variants": [{"url", "width"}]}`.
    /// `src` is the largest variant, whose width and height these are.
    fn show(&self, sha256: &str, alt: Option<&str>) -> Value {
        let url = |variant: &Variant| variant.url(sha256);
        let variants = self.variants.iter();
        let variants = variants.map(|one| json!({ "width": one.width, "url": url(one) }));
        let largest = self.variants.last();
        json!({
            "src": largest.map(url),
            "width": largest.map(|one| one.width),
            "height": largest.map(|one| one.height),
            "alt": alt.unwrap_or(&self.alt),
            "variants": variants.collect::<Vec<_>>(),
        })
    }
}

/// Where the outside reaches images.
const URL: &str = "/api/mobile/v1/images";

fn read(name: &str, text: &str) -> Result<Image, Mistake> {
    let id = format!("image/{name}");
    let image: Image = parse(&id, text)?;
    if !is_sha256(name) || image.variants.is_empty() || !image.variants.iter().all(is_sound) {
        let message = "it is not what the service writes when an image is added";
        let mend = "add images with `hydrant mobile image add FILE`";
        return Err(Mistake::at("", message).mend(mend).of(id));
    }
    Ok(image)
}

fn is_sound(variant: &Variant) -> bool {
    matches!(variant.format.as_str(), "jpg" | "png") && is_sha256(&variant.sha256)
}

/// Whether the text is a SHA-256 in small hexadecimal digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_digit)
}
