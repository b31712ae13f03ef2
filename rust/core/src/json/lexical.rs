//! The bytes of a string, a number and a word of JSON: where they end, and what a string means.

use super::{JsonError, MAX_NUMBER_BYTES};

pub(super) fn word_end(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    match bytes[at..].starts_with(word) {
        true => Ok(at + word.len()),
        false => Err(JsonError::Syntax { at }),
    }
}

/// The offset of the closing quote of a string whose text begins at `at`, and whether there are escapes in it.
#[inline]
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    let mut escaped = false;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => at = escape_end(bytes, at)?,
            _ => return Err(JsonError::Syntax { at }),
        }
        escaped = true;
    }
}

/// The offset of the first quote, backslash or control character from `at` on, or the end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // Eight bytes at a time. `x - ONES & !x` has the high bit set first in the lowest byte that is 0; what a
    // borrow sets above it does not matter, because only the lowest is used.
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let slash = word ^ (ONES * b'\\' as u64);
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if found & HIGH != 0 {
            return at + (found & HIGH).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..=0x1f) {
        at += 1;
    }
    at
}

/// The offset behind the escape that begins with the backslash at `at`; a surrogate pair is one escape.
fn escape_end(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(at + 2),
        Some(b'u') => {}
        Some(_) => return Err(JsonError::Syntax { at: at + 1 }),
        None => return Err(JsonError::Syntax { at: bytes.len() }),
    }
    match hex4(bytes, at + 2)? {
        0xdc00..=0xdfff => Err(JsonError::LoneSurrogate { at }),
        0xd800..=0xdbff => {
            if !bytes[at + 6..].starts_with(b"\\u") {
                // The text may just end too early.
                let cut = bytes[at + 6..].len() < 2 && b"\\u".starts_with(&bytes[at + 6..]);
                return Err(if cut { JsonError::Syntax { at: bytes.len() } } else { JsonError::LoneSurrogate { at } });
            }
            match hex4(bytes, at + 8)? {
                0xdc00..=0xdfff => Ok(at + 12),
                _ => Err(JsonError::LoneSurrogate { at }),
            }
        }
        _ => Ok(at + 6),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Result<u32, JsonError> {
    let mut number = 0;
    for offset in at..at + 4 {
        let digit = bytes.get(offset).and_then(|&byte| char::from(byte).to_digit(16));
        number = number << 4 | digit.ok_or(JsonError::Syntax { at: offset.min(bytes.len()) })?;
    }
    Ok(number)
}

/// The offset behind the number that begins at `start`.
pub(super) fn number_end(text: &str, start: usize) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count > 0 {
            Ok(from + count)
        } else {
            Err(JsonError::Syntax { at: from })
        }
    };
    let mut at = start + usize::from(bytes[start] == b'-');
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits(at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    let exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
    if exponent {
        at += 1;
        at = digits(at + usize::from(matches!(bytes.get(at), Some(b'+' | b'-'))))?;
    }
    // Up to 300 bytes without an exponent are below 1e300, and need no look.
    let length = at - start;
    if length > MAX_NUMBER_BYTES
        || ((exponent || length > 300) && !text[start..at].parse::<f64>().is_ok_and(f64::is_finite))
    {
        return Err(JsonError::NumberRange { at: start });
    }
    Ok(at)
}

/// Append what the checked text between two quotes means.
pub(super) fn unescape(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let bytes = rest.as_bytes();
        // Checked when it was read; anything else would be a mistake here, and shows as U+FFFD.
        let end = escape_end(bytes, at).unwrap_or(bytes.len());
        out.push(match bytes.get(at + 1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => code_point(bytes, at, end).unwrap_or(char::REPLACEMENT_CHARACTER),
            Some(&byte) => char::from(byte),
            None => char::REPLACEMENT_CHARACTER,
        });
        rest = &rest[end..];
    }
    out.push_str(rest);
}

fn code_point(bytes: &[u8], at: usize, end: usize) -> Option<char> {
    let unit = hex4(bytes, at + 2).ok()?;
    if end - at < 12 {
        return char::from_u32(unit);
    }
    let low = hex4(bytes, at + 8).ok()?;
    char::from_u32(0x10000 + ((unit & 0x3ff) << 10) + (low & 0x3ff))
}

/// Append `text` as a JSON string, quotes included.
pub fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_end(rest, 0);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}
