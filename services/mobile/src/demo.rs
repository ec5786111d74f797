//! What `hydrant up` begins with: files of sources, and a first revision of documents, with an image.

use std::io;
use std::path::{Path, PathBuf};

use crate::documents::{DocumentId, Kind};
use crate::service::Edit;

/// The variable that asks for the documents of the demo, where there has never been a revision.
pub const DEMO: &str = "HYDRANT_MOBILE_DEMO";
/// Who made the first revision.
pub(crate) const AUTHOR: &str = "hydrant";
/// Why.
pub(crate) const REASON: &str = "demo";

/// The files of the demo, as they come with the program.
const FILES: [(&str, &str); 3] = [
    (
        "configuration.json",
        include_str!("../demo/configuration.json"),
    ),
    ("content.json", include_str!("../demo/content.json")),
    ("sources.toml", include_str!("../demo/sources.toml")),
];

/// The documents of the demo, as they come with the program.
const DOCUMENTS: [(Kind, &str, &str); 12] = [
    (Kind::Flags, "demo", include_str!("../demo/flags/demo.json")),
    (
        Kind::ConfigSchema,
        "config",
        include_str!("../demo/config-schema/config.json"),
    ),
    (
        Kind::Config,
        "base",
        include_str!("../demo/config/base.json"),
    ),
    (Kind::Config, "ios", include_str!("../demo/config/ios.json")),
    (
        Kind::Config,
        "android",
        include_str!("../demo/config/android.json"),
    ),
    (
        Kind::Config,
        "before-7",
        include_str!("../demo/config/before-7.json"),
    ),
    (
        Kind::Config,
        "market-de",
        include_str!("../demo/config/market-de.json"),
    ),
    (
        Kind::ContentType,
        "banner",
        include_str!("../demo/content-type/banner.json"),
    ),
    (
        Kind::Content,
        "apples",
        include_str!("../demo/content/apples.json"),
    ),
    (
        Kind::Content,
        "delivery",
        include_str!("../demo/content/delivery.json"),
    ),
    (
        Kind::Content,
        "new-year",
        include_str!("../demo/content/new-year.json"),
    ),
    (
        Kind::Image,
        IMAGE_NAME,
        include_str!("../demo/image/apples.json"),
    ),
];

/// The image that an entry of the demo shows.
pub(crate) const IMAGE: &[u8] = include_bytes!("../demo/apples.png");
/// Its SHA-256, by which the entry refers to it.
const IMAGE_NAME: &str = "c125bdb3ac36131cb5acf80029c6dceecf4026b50046bff0b5c72d37a7fd6301";

/// Whether the environment asks for the documents of the demo.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(DEMO).is_some_and(|value| value == "1")
}

/// The first revision of `hydrant up`; where no images can be kept, without what shows one.
pub(crate) fn documents(images: bool) -> Vec<Edit> {
    let edit = |(kind, name, body): (Kind, &str, &str)| Edit {
        id: DocumentId::new(kind, name).expect("the names of the demo are good"),
        body: Some(body.to_owned()),
    };
    let is_shown = |(_, name, body): &(Kind, &str, &str)| {
        images || *name != IMAGE_NAME && !body.contains(IMAGE_NAME)
    };
    DOCUMENTS.into_iter().filter(is_shown).map(edit).collect()
}

/// Writes the demo's sources into `folder`, which is made when missing. A file that is there stays
/// as it is. Returns the path of `sources.toml`, which [`SOURCES`](crate::SOURCES) takes.
///
/// # Errors
///
/// If the folder or a file can't be written.
pub fn install_demo(folder: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in FILES {
        write_if_missing(&folder.join(name), text)?;
    }
    Ok(folder.join("sources.toml"))
}

fn write_if_missing(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    match std::fs::File::create_new(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::compiled::Compiled;
    use crate::content::images::scale::{make, sha256_of};
    use crate::sources::Sources;

    fn compiled(images: bool) -> Compiled {
        let mut bundle = Bundle::default();
        for edit in documents(images) {
            bundle.put(&edit.id, edit.body);
        }
        Compiled::compile(&bundle).unwrap()
    }

    #[test]
    fn without_a_place_for_images_the_demo_begins_without_what_shows_one() {
        let names = |compiled: &Compiled| {
            let entries = compiled.content.entries().into_iter();
            entries
                .map(|entry| entry.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&compiled(true)), ["new-year", "apples", "delivery"]);
        let without = compiled(false);
        assert_eq!(names(&without), ["new-year", "delivery"]);
        assert!(without.content.images().is_empty());
    }

    /// What is told of it in `image/apples.json` is what this program makes of it.
    #[test]
    fn the_image_of_the_demo_is_as_its_document_says() {
        assert_eq!(sha256_of(IMAGE), IMAGE_NAME);
        let made = make(IMAGE).unwrap();
        let compiled = compiled(true);
        let told = compiled.content.image(IMAGE_NAME).unwrap();
        let variants: Vec<_> = made.variants.into_iter().map(|(one, _)| one).collect();
        assert_eq!(told.variants, variants);
        assert_eq!((told.width, told.height), (made.width, made.height));
        assert_eq!(told.bytes, IMAGE.len() as u64);
    }

    #[test]
    fn the_demo_is_valid_and_keeps_what_people_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = install_demo(folder.path()).unwrap();
        let sources = Sources::load(&path, Some("http://127.0.0.1:8080")).unwrap();
        assert_eq!(sources.list().len(), 3);
        let content = folder.path().join("content.json");
        std::fs::write(&content, "{}").unwrap();
        install_demo(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(content).unwrap(), "{}");
    }
}
