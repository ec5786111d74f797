use image::{Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::*;

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Left half red, right half blue.
fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| match x < width / 2 {
        true => Rgb([250, 0, 0]),
        false => Rgb([0, 0, 250]),
    })
}

/// A JPEG with an EXIF part that says how it is to be turned, and where it was made.
fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x02".to_vec();
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    exif.extend([0x01, 0x0e, 0, 2, 0, 0, 0, 4]);
    exif.extend(b"HOME\0\0\0\0");
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn an_image_is_offered_in_widths_up_to_its_own() {
    for (own, expected) in [
        (1, vec![1]),
        (320, vec![320]),
        (700, vec![320, 640, 700]),
        (1920, vec![320, 640, 1080, 1920]),
        (9000, vec![320, 640, 1080, 1920]),
    ] {
        assert_eq!(widths(own).collect::<Vec<_>>(), expected, "{own}");
    }
    let made = make(&encoded(halves(700, 100), ImageFormat::Png)).unwrap();
    assert_eq!((made.width, made.height), (700, 100));
    for ((variant, bytes), (width, height)) in
        made.variants.iter().zip([(320, 45), (640, 91), (700, 100)])
    {
        assert_eq!((variant.width, variant.height), (width, height));
        assert_eq!(
            (variant.bytes, &variant.sha256),
            (bytes.len() as u64, &sha256_of(bytes))
        );
        let seen = image::load_from_memory(bytes).unwrap().to_rgb8();
        assert_eq!(seen.dimensions(), (width, height));
        assert_eq!(seen[(1, height / 2)], Rgb([250, 0, 0]));
    }
}

#[test]
fn a_kind_of_file_becomes_the_one_that_suits_it() {
    let opaque = || encoded(halves(8, 8), ImageFormat::WebP);
    let clear = || encoded(RgbaImage::new(8, 8), ImageFormat::WebP);
    for (bytes, format) in [
        (encoded(halves(8, 8), ImageFormat::Jpeg), "jpg"),
        (encoded(halves(8, 8), ImageFormat::Png), "png"),
        (encoded(halves(8, 8), ImageFormat::Gif), "png"),
        (opaque(), "jpg"),
        (clear(), "png"),
    ] {
        let made = make(&bytes).unwrap();
        assert_eq!(made.variants[0].0.format, format, "{}", made.media_type);
        let as_written = image::guess_format(&made.variants[0].1).unwrap();
        assert_eq!(as_written.extensions_str()[0], format);
    }
}

#[test]
fn a_photograph_is_turned_and_tells_no_more_than_its_picture() {
    let given = with_exif(&encoded(halves(64, 32), ImageFormat::Jpeg), 6);
    assert!(given.windows(4).any(|part| part == b"HOME"));
    let made = make(&given).unwrap();
    assert_eq!((made.width, made.height), (32, 64), "it was on its side");
    let (_, bytes) = &made.variants[0];
    assert!(
        !bytes
            .windows(4)
            .any(|part| part == b"HOME" || part == b"Exif")
    );
    let seen = image::load_from_memory(bytes).unwrap().to_rgb8();
    assert!(seen[(16, 4)][0] > 200, "red is above: {:?}", seen[(16, 4)]);
    assert!(seen[(16, 60)][2] > 200, "blue is below");
}

#[test]
fn what_cannot_be_seen_does_not_colour_the_edge() {
    let picture = RgbaImage::from_fn(640, 8, |x, _| match x < 321 {
        true => Rgba([255, 255, 255, 255]),
        false => Rgba([0, 0, 0, 0]),
    });
    let made = make(&encoded(picture, ImageFormat::Png)).unwrap();
    let seen = image::load_from_memory(&made.variants[0].1)
        .unwrap()
        .to_rgba8();
    assert_eq!(seen.width(), 320);
    for pixel in seen.pixels().filter(|pixel| pixel[3] > 8) {
        assert!(pixel[0] > 240, "{pixel:?}");
    }
}

#[test]
fn few_bytes_that_are_very_many_pixels_are_refused_before_they_are_decoded() {
    let mut bomb = encoded(RgbImage::new(1, 1), ImageFormat::Png);
    // Width and height stand at byte 16; the check sum of the chunk is behind its 13 bytes.
    bomb[16..24].copy_from_slice(&[0, 0, 0x3f, 0xff, 0, 0, 0x3f, 0xff]);
    let sum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    let refused = make(&bomb).unwrap_err();
    assert!(
        matches!(refused, Refused::TooManyPixels { width: 16_383, .. }),
        "{refused}"
    );
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn an_animation_is_refused() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    let frame = || image::Frame::new(RgbaImage::new(4, 4));
    encoder.encode_frames([frame(), frame()]).unwrap();
    drop(encoder);
    assert_eq!(make(&bytes).unwrap_err(), Refused::Animation);
}

#[test]
fn other_files_are_refused() {
    for bytes in [
        &b""[..],
        b"<svg/>",
        b"GIF",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF0000WEBP",
    ] {
        assert!(make(bytes).is_err(), "{bytes:?}");
    }
}

/// How many images the test of broken ones makes.
fn cases() -> u32 {
    if hydrant_harness::is_soak() {
        200_000
    } else {
        1_000
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn any_bytes_as_an_image_are_taken_or_refused_without_panic(
        format in prop_oneof![
            Just(ImageFormat::Jpeg), Just(ImageFormat::Png), Just(ImageFormat::Gif), Just(ImageFormat::WebP),
        ],
        size in (1u32..24, 1u32..24),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = encoded(halves(size.0, size.1), format);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            bytes.extend(noise);
        }
        if let Ok(made) = make(&bytes) {
            for (_, bytes) in made.variants {
                prop_assert!(image::load_from_memory(&bytes).is_ok());
            }
        }
    }
}
