//! Makes of an image that somebody gives what apps get: in a few widths, turned as it is to be
//! seen, and without what cameras write beside the picture.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::codecs::png::{PngDecoder, PngEncoder};
use image::codecs::webp::WebPDecoder;
use image::error::ImageResult;
use image::imageops::FilterType;
use image::{AnimationDecoder as _, DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, Limits};
use sha2::{Digest as _, Sha256};

use crate::content::image::Variant;
use crate::content::images::picture::{self, Kept};

/// The widths that an image is offered in, as far as it has them; it is never enlarged.
const WIDTHS: [u32; 4] = [320, 640, 1080, 1920];

/// The most pixels: 40 million, so that taking an image in needs no more than half a gigabyte.
pub(crate) const MAX_PIXELS: u64 = 40_000_000;

/// The widest and highest image, in pixels.
const MAX_SIDE: u32 = 16_384;

/// The most bytes that a decoder may take.
const MAX_MEMORY: u64 = 384 * 1024 * 1024;

/// The largest variant, in bytes.
pub(crate) const MAX_VARIANT: usize = 20 * 1024 * 1024;

/// How good a JPEG is, of 100.
const QUALITY: u8 = 82;

/// What an image that was given is made into.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) media_type: &'static str,
    /// In pixels, turned as it is to be seen.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// From the smallest on, with their bytes.
    pub(crate) variants: Vec<(Variant, Vec<u8>)>,
}

/// Why something can't be taken as an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is no JPEG, PNG, WebP or GIF by its first bytes")]
    Unknown,
    #[error(
        "it has {width} × {height} pixels; at most {MAX_PIXELS} are taken, and {MAX_SIDE} on a side"
    )]
    TooManyPixels { width: u32, height: u32 },
    #[error("it is an animation, which can't be resized")]
    Animation,
    #[error("it needs more memory than an image may")]
    TooMuchMemory,
    #[error("made smaller, it still has more than {MAX_VARIANT} bytes")]
    TooLarge,
    #[error("it is broken: {0}")]
    Broken(String),
}

impl Refused {
    /// How to mend it.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Unknown => "give a JPEG, PNG, WebP or GIF file",
            Self::TooManyPixels { .. } | Self::TooMuchMemory => "make it smaller first",
            Self::Animation => "give one of its pictures, or show it as a video",
            Self::TooLarge => "give it as a JPEG",
            Self::Broken(_) => "save it anew with an image editor",
        }
    }
}

/// Makes the variants. Takes time and memory: for a thread that may block.
///
/// # Errors
///
/// If it is no image of a known kind, too large, animated, or broken.
pub(crate) fn make(bytes: &[u8]) -> Result<Made, Refused> {
    let format = known_format(bytes)?;
    let (picture, kept) = decode(bytes, format)?;
    let output = output_format(format, &picture);
    let (width, height) = (picture.width(), picture.height());
    let mut variants = Vec::new();
    let mut larger = picture::premultiplied(picture);
    for width in widths(width).rev() {
        larger = resized(larger, width);
        variants.push(encode(&larger, output, &kept)?);
    }
    variants.reverse();
    Ok(Made {
        media_type: format.to_mime_type(),
        width,
        height,
        variants,
    })
}

/// The kind of file, by its first bytes.
fn known_format(bytes: &[u8]) -> Result<ImageFormat, Refused> {
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif),
        ) => Ok(format),
        _ => Err(Refused::Unknown),
    }
}

fn decode(bytes: &[u8], format: ImageFormat) -> Result<(DynamicImage, Kept), Refused> {
    let bytes = || Cursor::new(bytes);
    match format {
        ImageFormat::Jpeg => read(JpegDecoder::new(bytes())),
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(bytes(), limits()).map_err(broken)?;
            still(decoder.is_apng().map_err(broken)?)?;
            read(Ok(decoder))
        }
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(bytes()).map_err(broken)?;
            still(decoder.has_animation())?;
            read(Ok(decoder))
        }
        _ => {
            still(has_two_frames(GifDecoder::new(bytes()))?)?;
            read(GifDecoder::new(bytes()))
        }
    }
}

fn still(is_animation: bool) -> Result<(), Refused> {
    match is_animation {
        true => Err(Refused::Animation),
        false => Ok(()),
    }
}

fn has_two_frames(decoder: ImageResult<GifDecoder<Cursor<&[u8]>>>) -> Result<bool, Refused> {
    let decoder = within_limits(decoder)?;
    let mut frames = decoder.into_frames();
    frames.next().transpose().map_err(broken)?;
    Ok(frames.next().is_some())
}

fn read(decoder: ImageResult<impl ImageDecoder>) -> Result<(DynamicImage, Kept), Refused> {
    let mut decoder = within_limits(decoder)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let profile = decoder.icc_profile().unwrap_or_default();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    let picture = picture::plain(picture);
    let kept = Kept::of(profile, &picture);
    Ok((picture, kept))
}

/// Checks the size before a pixel is decoded: few bytes can say that they are very many.
fn within_limits<D: ImageDecoder>(decoder: ImageResult<D>) -> Result<D, Refused> {
    let mut decoder = decoder.map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
        return Err(Refused::TooManyPixels { width, height });
    }
    decoder.set_limits(limits()).map_err(broken)?;
    match decoder.total_bytes() > MAX_MEMORY {
        true => Err(Refused::TooMuchMemory),
        false => Ok(decoder),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    limits
}

fn broken(error: image::ImageError) -> Refused {
    match error {
        image::ImageError::Limits(_) => Refused::TooMuchMemory,
        other => Refused::Broken(other.to_string()),
    }
}

/// JPEG stays JPEG, and WebP becomes it: those are photographs. What has transparency or few
/// colours is PNG, without losses.
fn output_format(given: ImageFormat, picture: &DynamicImage) -> ImageFormat {
    match given {
        ImageFormat::Jpeg => ImageFormat::Jpeg,
        ImageFormat::WebP if !picture.color().has_alpha() => ImageFormat::Jpeg,
        _ => ImageFormat::Png,
    }
}

/// The widths for an image of this width, from the smallest on: its own is the last one, when it
/// is not wider than the widest.
fn widths(own: u32) -> impl DoubleEndedIterator<Item = u32> {
    let last = own.min(WIDTHS[WIDTHS.len() - 1]);
    let smaller = WIDTHS.into_iter().filter(move |width| *width < last);
    smaller.chain([last])
}

fn resized(picture: DynamicImage, width: u32) -> DynamicImage {
    if picture.width() == width {
        return picture;
    }
    let scaled = u64::from(picture.height()) * u64::from(width) / u64::from(picture.width());
    let height = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
    picture.resize_exact(width, height, FilterType::Lanczos3)
}

fn encode(
    picture: &DynamicImage,
    format: ImageFormat,
    kept: &Kept,
) -> Result<(Variant, Vec<u8>), Refused> {
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
            write(picture, encoder, kept)
        }
        _ => {
            let straight = picture::straight(picture.clone());
            write(&straight, PngEncoder::new(&mut bytes), kept)
        }
    }
    .map_err(broken)?;
    if bytes.len() > MAX_VARIANT {
        return Err(Refused::TooLarge);
    }
    let variant = Variant {
        width: picture.width(),
        height: picture.height(),
        format: match format {
            ImageFormat::Jpeg => "jpg".to_owned(),
            _ => "png".to_owned(),
        },
        bytes: bytes.len() as u64,
        sha256: sha256_of(&bytes),
    };
    Ok((variant, bytes))
}

fn write(picture: &DynamicImage, mut encoder: impl ImageEncoder, kept: &Kept) -> ImageResult<()> {
    if let Some(profile) = kept.profile() {
        // An encoder that can't keep it makes a picture that is right all the same.
        let _ = encoder.set_icc_profile(profile.to_vec());
    }
    picture.write_with_encoder(encoder)
}

/// In small hexadecimal digits.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
