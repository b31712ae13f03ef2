//! The size of an image, read from the first bytes of a `data:` URL; nothing is fetched and no pixel is decoded.

use base64::{
    alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    Engine,
};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// PNG, GIF and WebP say their size in the first 30 bytes.
const SHORT_HEAD: usize = 64;
/// A JPEG says it behind its metadata: segments of at most 64 KiB (EXIF, colour profile in several parts).
const LONG_HEAD: usize = 1 << 20;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The size that the header of `data:image/…;base64,…` gives; `None` where it cannot be read.
pub fn size_of_data_url(url: &str) -> Option<Size> {
    let data = base64_part(url)?;
    let head = decoded(data, SHORT_HEAD)?;
    if head.starts_with(&[0xFF, 0xD8]) {
        return jpeg(&decoded(data, LONG_HEAD)?);
    }
    png(&head).or_else(|| gif(&head)).or_else(|| webp(&head)).filter(|size| size.width > 0 && size.height > 0)
}

/// How many bytes the base64 text of a `data:` URL stands for; `None` for any other URL.
pub fn data_bytes(url: &str) -> Option<usize> {
    base64_part(url).map(|data| data.len() / 4 * 3)
}

fn base64_part(url: &str) -> Option<&str> {
    let rest = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).map(|_| &url[5..])?;
    let (kind, data) = rest.split_once(',')?;
    kind.to_ascii_lowercase().ends_with(";base64").then_some(data)
}

/// The first bytes, at most `limit`.
fn decoded(data: &str, limit: usize) -> Option<Vec<u8>> {
    let whole = data.len().min(limit.div_ceil(3) * 4);
    LENIENT.decode(data.as_bytes().get(..whole - whole % 4)?).ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn png(head: &[u8]) -> Option<Size> {
    if !head.starts_with(b"\x89PNG\r\n\x1a\n") || head.get(12..16)? != b"IHDR" {
        return None;
    }
    let number = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    Some(Size { width: number(16)?, height: number(20)? })
}

fn gif(head: &[u8]) -> Option<Size> {
    if !head.starts_with(b"GIF87a") && !head.starts_with(b"GIF89a") {
        return None;
    }
    Some(Size { width: le16(head, 6)?, height: le16(head, 8)? })
}

/// The three kinds of WebP: lossy, lossless, and extended.
fn webp(head: &[u8]) -> Option<Size> {
    if !head.starts_with(b"RIFF") || head.get(8..12)? != b"WEBP" {
        return None;
    }
    match head.get(12..16)? {
        b"VP8 " => Some(Size { width: le16(head, 26)? & 0x3FFF, height: le16(head, 28)? & 0x3FFF }),
        b"VP8L" => {
            let bits = u32::from_le_bytes(head.get(21..25)?.try_into().ok()?);
            Some(Size { width: (bits & 0x3FFF) + 1, height: (bits >> 14 & 0x3FFF) + 1 })
        }
        b"VP8X" => {
            let three = |at: usize| Some(le16(head, at)? | u32::from(*head.get(at + 2)?) << 16);
            Some(Size { width: three(24)? + 1, height: three(27)? + 1 })
        }
        _ => None,
    }
}

/// From segment to segment, until the one that starts a frame.
fn jpeg(bytes: &[u8]) -> Option<Size> {
    let mut at = 2;
    loop {
        // Any number of 0xFF may stand before a marker.
        while *bytes.get(at)? == 0xFF && *bytes.get(at + 1)? == 0xFF {
            at += 1;
        }
        if *bytes.get(at)? != 0xFF {
            return None;
        }
        match *bytes.get(at + 1)? {
            // Start of frame, but not the tables C4 and CC, nor the reserved C8.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let size = Size { height: be16(bytes, at + 5)?, width: be16(bytes, at + 7)? };
                return (size.width > 0 && size.height > 0).then_some(size);
            }
            // The picture itself begins, or ends: no frame was before it.
            0xD9 | 0xDA => return None,
            0x01 | 0xD0..=0xD8 => at += 2,
            _ => at += 2 + be16(bytes, at + 2)?.max(2) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    fn url(bytes: &[u8]) -> String {
        format!("data:image/x;base64,{}", STANDARD.encode(bytes))
    }

    fn size(width: u32, height: u32) -> Option<Size> {
        Some(Size { width, height })
    }

    #[test]
    fn each_format_gives_its_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 4, 0, 0, 0, 2, 1, 8, 2, 0, 0, 0]);
        assert_eq!(size_of_data_url(&url(&png)), size(1024, 513));
        assert_eq!(size_of_data_url(&url(b"GIF89a\x20\x03\x58\x02\xf7\0\0")), size(800, 600));
        assert_eq!(
            size_of_data_url(&url(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x03\x00\x01\x00\x01")),
            size(1024, 65538)
        );
        assert_eq!(
            size_of_data_url(&url(b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\x30\0\0\x9d\x01\x2a\x20\x03\x58\x02")),
            size(800, 600)
        );
        assert_eq!(size_of_data_url(&url(b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x1f\xc3\x95\x00\0\0")), size(800, 600));
    }

    #[test]
    fn a_jpeg_is_read_behind_long_metadata() {
        let mut jpeg = vec![0xFF, 0xD8];
        for _ in 0..5 {
            jpeg.extend([0xFF, 0xE1, 0xFF, 0xFF]);
            jpeg.extend(vec![7; 0xFFFD]);
        }
        jpeg.extend([0xFF, 0xFF, 0xC4, 0, 4, 0, 0]);
        jpeg.extend([0xFF, 0xC2, 0, 17, 8, 0x07, 0x08, 0x09, 0x60, 3, 0, 0, 0, 0]);
        assert_eq!(size_of_data_url(&url(&jpeg)), size(2400, 1800));
        assert_eq!(size_of_data_url(&url(&jpeg[..jpeg.len() - 9])), None);
    }

    #[test]
    fn what_is_no_image_has_no_size() {
        for bytes in
            [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xda\0\0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"%PDF-1.7"]
        {
            assert_eq!(size_of_data_url(&url(bytes)), None, "{bytes:?}");
        }
        for text in
            ["", "data:", "data:image/png,abc", "https://example.com/a.png", "data:image/png;base64,%%%%", "dätä:"]
        {
            assert_eq!(size_of_data_url(text), None, "{text}");
        }
    }
}
