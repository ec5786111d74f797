//! Pixels, between what decoders give and encoders take.

use image::{ColorType, DynamicImage};

/// The largest colour profile that is kept, in bytes.
const MAX_PROFILE: usize = 64 * 1024;

/// What is kept of what stands beside the pixels: the meaning of their colours, and nothing that
/// tells of who made the picture, when or where.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    profile: Option<Vec<u8>>,
}

impl Kept {
    /// A profile is kept when it is for the kind of colours that the picture has.
    pub(crate) fn of(profile: Option<Vec<u8>>, picture: &DynamicImage) -> Self {
        let wanted: &[u8] = match picture.color().has_color() {
            true => b"RGB ",
            false => b"GRAY",
        };
        let fits =
            |profile: &Vec<u8>| profile.len() <= MAX_PROFILE && profile.get(16..20) == Some(wanted);
        Self {
            profile: profile.filter(fits),
        }
    }

    pub(crate) fn profile(&self) -> Option<&[u8]> {
        self.profile.as_deref()
    }
}

/// The picture with 8 bits for each channel, grey or in colour, with or without transparency.
pub(crate) fn plain(picture: DynamicImage) -> DynamicImage {
    match picture.color() {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => picture,
        ColorType::L16 => picture.to_luma8().into(),
        ColorType::La16 => picture.to_luma_alpha8().into(),
        other if other.has_alpha() => picture.to_rgba8().into(),
        _ => picture.to_rgb8().into(),
    }
}

/// Colours times opacity, as resizing needs it: else what can't be seen shows as a dark edge.
pub(crate) fn premultiplied(mut picture: DynamicImage) -> DynamicImage {
    each_colour(&mut picture, |colour, alpha| {
        ((u16::from(colour) * u16::from(alpha) + 127) / 255) as u8
    });
    picture
}

/// The reverse of [`premultiplied`].
pub(crate) fn straight(mut picture: DynamicImage) -> DynamicImage {
    each_colour(&mut picture, |colour, alpha| match alpha {
        0 => 0,
        alpha => {
            let alpha = u16::from(alpha);
            ((u16::from(colour) * 255 + alpha / 2) / alpha).min(255) as u8
        }
    });
    picture
}

fn each_colour(picture: &mut DynamicImage, change: impl Fn(u8, u8) -> u8) {
    let pixel = |channels: &mut [u8]| {
        if let [colours @ .., alpha] = channels {
            colours
                .iter_mut()
                .for_each(|one| *one = change(*one, *alpha));
        }
    };
    match picture {
        DynamicImage::ImageRgba8(pixels) => pixels.pixels_mut().for_each(|one| pixel(&mut one.0)),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels_mut().for_each(|one| pixel(&mut one.0)),
        _ => {}
    }
}
