//! Texts as JSON writes them, with their escapes.

use std::borrow::Cow;

/// How many bytes of UTF-8 the checked text between two quotes means.
pub(super) fn decoded_length(raw: &str) -> u64 {
    let bytes = raw.as_bytes();
    let (mut at, mut length) = (0, bytes.len());
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        if bytes.get(at + 1) != Some(&b'u') {
            length -= 1;
            at += 2;
            continue;
        }
        length -= 6;
        length += match escape_unit(bytes, at) {
            Some(..0x80) => 1,
            Some(0x80..0x800) => 2,
            // Two halves make one character of four bytes.
            Some(0xd800..0xe000) => 2,
            _ => 3,
        };
        at += 6;
    }
    length as u64
}

/// The number of the `\uXXXX` at `at`.
pub(super) fn escape_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at + 2..at + 6)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// The same text, of the same length, with `\ufffd` for each half of a surrogate pair that stands alone.
pub(crate) fn mask_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut masked, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = memchr::memchr(b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        if bytes.get(at + 1) != Some(&b'u') {
            at += 2;
            continue;
        }
        let unit = escape_unit(bytes, at);
        let low =
            bytes.get(at + 6..at + 8) == Some(b"\\u") && matches!(escape_unit(bytes, at + 6), Some(0xdc00..0xe000));
        match unit {
            Some(0xd800..0xdc00) if low => at += 12,
            Some(0xd800..0xe000) => {
                masked.push_str(&text[copied..at]);
                masked.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            // Not an escape: the reader will say so.
            None => at += 2,
            Some(_) => at += 6,
        }
    }
    masked.push_str(&text[copied..]);
    Cow::Owned(masked)
}

/// How much of a text can be read alone: all but a first half of a surrogate pair at its end.
pub(crate) fn whole_characters(raw: &str) -> usize {
    // Every escape of the text was checked, so a last one of a high half is six bytes long.
    let cut = raw.len().saturating_sub(6);
    if raw.is_char_boundary(cut) && is_high_half(&raw[cut..]) && is_escape(raw, cut) {
        cut
    } else {
        raw.len()
    }
}

/// Does `\ud83d` or its like stand here?
fn is_high_half(escape: &str) -> bool {
    escape.starts_with("\\u") && matches!(escape_unit(escape.as_bytes(), 0), Some(0xd800..0xdc00))
}

/// Is the backslash at `at` the beginning of an escape, and not the second one of `\\`?
fn is_escape(raw: &str, at: usize) -> bool {
    raw.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
}
