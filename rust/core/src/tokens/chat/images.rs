//! What an image costs: 512-pixel tiles for some models, 32-pixel patches for others, as OpenAI documents it.

use super::{
    families::{Family, ImageRules},
    pixels::{size_of_data_url, Size},
    Reason,
};

/// No side of an image that is resized is longer, save where the model takes the original.
const HIGH_SIDE: f64 = 2048.0;
const LOW_SIDE: f64 = 512.0;
const PATCH: f64 = 32.0;
/// For `original` detail: 10,000 patches, 6,000 pixels.
const ORIGINAL_PATCHES: u32 = 10_000;
const ORIGINAL_SIDE: f64 = 6000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    Low,
    High,
    Original,
}

/// Tokens of one image, and why that is not exact, where it is not.
pub fn image_tokens(url: &str, detail: Option<&str>, family: &Family) -> (u64, Option<Reason>) {
    let wanted = match detail {
        Some("low") => Detail::Low,
        Some("high") => Detail::High,
        Some("original") => Detail::Original,
        _ if family.auto_is_original => Detail::Original,
        _ => Detail::High,
    };
    let size = size_of_data_url(url);
    let tokens = match family.images {
        ImageRules::Tiles { base, .. } if wanted == Detail::Low => return (base.into(), family.image_doubt()),
        ImageRules::Tiles { base, tile } => u64::from(base) + u64::from(tile) * size.map_or(WORST_TILES, tiles),
        ImageRules::Patches { multiplier, high, original } => {
            let (patches, side) = match wanted {
                Detail::Low => (high, LOW_SIDE),
                // Without a limit there is no worst case: an image of unknown size counts as 10,000 patches.
                Detail::Original if original == u32::MAX && size.is_some() => (u32::MAX, f64::MAX),
                Detail::Original if original > 0 => (ORIGINAL_PATCHES, ORIGINAL_SIDE),
                _ => (high, HIGH_SIDE),
            };
            let worst = Size { width: side as u32, height: side as u32 };
            let count = patches_of(size.unwrap_or(worst), patches, side);
            (count as f64 * multiplier).ceil() as u64
        }
    };
    let doubt = match size {
        None => Some(Reason::ImageSize),
        Some(_) if detail.is_none_or(|detail| detail == "auto") => Some(Reason::ImageDetail),
        Some(_) => family.image_doubt(),
    };
    (tokens, doubt)
}

/// 2048 × 768 is the largest that is left after both steps of scaling.
const WORST_TILES: u64 = 8;

/// Into a square of 2048 pixels, then down to a shorter side of 768: how many tiles of 512 cover that.
fn tiles(size: Size) -> u64 {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let fit = (HIGH_SIDE / width.max(height)).min(1.0);
    let (width, height) = (width * fit, height * fit);
    let fit = (768.0 / width.min(height)).min(1.0);
    // Rounded to whole pixels: 2050 × 513 is billed as 2048 × 512, 2049 × 513 as 2048 × 513.
    let side = |length: f64| ((length * fit).round().max(1.0) as u64).div_ceil(512);
    side(width) * side(height)
}

/// Scaled down to `side` pixels and to the budget of patches, as the documentation's formula does it.
fn patches_of(size: Size, budget: u32, side: f64) -> u64 {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let fit = (side / width.max(height)).min(1.0);
    let (width, height) = (width * fit, height * fit);
    let covered = |width: f64, height: f64| {
        // A thousandth of a pixel is an error of rounding, not a patch more.
        let patches = |length: f64| ((length - 0.001) / PATCH).ceil().max(1.0) as u64;
        patches(width) * patches(height)
    };
    let plain = covered(width, height);
    if plain <= u64::from(budget) {
        return plain;
    }
    let shrink = (PATCH * PATCH * f64::from(budget) / (width * height)).sqrt();
    let whole = |length: f64| {
        let patches = length * shrink / PATCH;
        patches.floor().max(1.0) / patches
    };
    let shrink = shrink * whole(width).min(whole(height));
    covered(width * shrink, height * shrink).min(budget.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn tiles_are_those_of_the_documentation_and_of_bills() {
        for (width, height, expected) in [
            (1024, 1024, 765),
            (2048, 4096, 1105),
            (128, 64, 255),
            (2049, 513, 1445),
            (2050, 513, 765),
            (4096, 8192, 1105),
            (1, 65535, 765),
        ] {
            assert_eq!(85 + 170 * tiles(size(width, height)), expected, "{width}x{height}");
        }
    }

    #[test]
    fn patches_are_those_of_the_documentation() {
        assert_eq!(patches_of(size(1024, 1024), 1536, HIGH_SIDE), 1024);
        assert_eq!(patches_of(size(1800, 2400), 1536, HIGH_SIDE), 1452);
        assert_eq!(patches_of(size(128, 64), 1536, HIGH_SIDE), 8);
        assert_eq!(patches_of(size(4000, 4000), 1536, LOW_SIDE), 256);
    }

    #[test]
    fn no_size_breaks_a_budget() {
        for width in [1, 31, 33, 700, 2047, 2049, 65_535, u32::MAX] {
            for height in [1, 32, 1000, 40_000, u32::MAX] {
                assert!(tiles(size(width, height)) <= WORST_TILES);
                for budget in [1536, 2500] {
                    assert!((1..=budget).contains(&(patches_of(size(width, height), budget as u32, HIGH_SIDE))));
                }
            }
        }
    }
}
