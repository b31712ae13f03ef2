//! Texts cut to a number of tokens: at a token's end, never inside a character, and counted again after the cut,
//! because a text that ends earlier may be divided into other tokens.

use std::{fmt, ops::Range};

use super::tokenizer::{Stop, TokenError, Tokenizer};

/// So many boundaries beyond the limit are tried too: a cut can make one token of two.
const BEYOND: usize = 8;
/// After so many boundaries that do not fit, larger steps are taken.
const CLOSE: usize = 32;
/// The first guess of how much text holds the tokens; English has 4.4 bytes a token.
const BYTES_A_TOKEN: usize = 8;

/// Why a text cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// Of the tokenizer.
    Token(TokenError),
    /// The character at this byte has more tokens than a chunk may have.
    Character(usize),
}

impl From<TokenError> for SplitError {
    fn from(error: TokenError) -> Self {
        SplitError::Token(error)
    }
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitError::Token(error) => error.fmt(f),
            SplitError::Character(at) => {
                write!(f, "the character at byte {at} alone has more tokens than a chunk may have")
            }
        }
    }
}

impl std::error::Error for SplitError {}

/// The length in bytes of the longest beginning that ends at a token's end and has at most `most` tokens.
pub fn beginning(tokenizer: &Tokenizer, text: &str, most: usize, stop: Stop<'_>) -> Result<usize, TokenError> {
    let wanted = most.saturating_add(2 * BEYOND);
    let mut window = wanted.saturating_mul(BYTES_A_TOKEN);
    let mut ends = Vec::new();
    loop {
        let part = &text[..floor(text, window)];
        ends.clear();
        tokenizer.ends(part, wanted, &mut ends, stop)?;
        if part.len() == text.len() && ends.len() <= most {
            return Ok(text.len());
        }
        if part.len() == text.len() || ends.len() >= wanted {
            break;
        }
        window = window.saturating_mul(2);
    }
    ends.truncate(most.saturating_add(BEYOND));
    ends.dedup();
    longest(ends.into_iter().rev().filter(|end| text.is_char_boundary(*end)), |end| {
        Ok(tokenizer.count(&text[..end], stop)? <= most)
    })
    .map(|found| found.unwrap_or(0))
}

/// Where the longest ending begins that starts at a token's start and has at most `most` tokens.
pub fn ending(tokenizer: &Tokenizer, text: &str, most: usize, stop: Stop<'_>) -> Result<usize, TokenError> {
    let wanted = most.saturating_add(2 * BEYOND);
    let mut window = wanted.saturating_mul(BYTES_A_TOKEN);
    let mut ends = Vec::new();
    let offset = loop {
        let offset = if window >= text.len() { 0 } else { certain_start(text, text.len() - window) };
        ends.clear();
        tokenizer.ends(&text[offset..], usize::MAX, &mut ends, stop)?;
        if offset == 0 && ends.len() <= most {
            return Ok(0);
        }
        if offset == 0 || ends.len() >= wanted {
            break offset;
        }
        window = window.saturating_mul(2);
    };
    // The start of each token but the first is the end of the one before it.
    let first = ends.len().saturating_sub(most.saturating_add(BEYOND) + 1);
    let mut starts: Vec<usize> = ends[first..].iter().map(|end| end + offset).collect();
    if first == 0 {
        starts.insert(0, offset);
    }
    starts.dedup();
    longest(starts.into_iter().filter(|start| text.is_char_boundary(*start)), |start| {
        Ok(tokenizer.count(&text[start..], stop)? <= most)
    })
    .map(|found| found.unwrap_or(text.len()))
}

/// Chunks that cover the text, each of at most `most` tokens; each begins with at most `overlap` tokens of the end of
/// the one before it.
pub fn split(
    tokenizer: &Tokenizer,
    text: &str,
    most: usize,
    overlap: usize,
    stop: Stop<'_>,
) -> Result<Vec<Range<usize>>, SplitError> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let (mut start, mut reached) = (0, 0);
    while reached < text.len() {
        let end = start + beginning(tokenizer, &text[start..], most, stop)?;
        if end <= reached {
            if start == reached {
                return Err(SplitError::Character(start));
            }
            // With the overlap there is no room for the next character: that chunk goes without.
            start = reached;
            continue;
        }
        chunks.push(start..end);
        reached = end;
        start = match overlap {
            0 => end,
            _ => start + ending(tokenizer, &text[start..end], overlap, stop)?,
        };
    }
    Ok(chunks)
}

/// The first candidate that fits: each of the nearest ones, then in growing steps.
fn longest(
    candidates: impl Iterator<Item = usize>,
    mut fits: impl FnMut(usize) -> Result<bool, TokenError>,
) -> Result<Option<usize>, TokenError> {
    let (mut step, mut next) = (1, 0);
    for (index, candidate) in candidates.enumerate() {
        if index < next {
            continue;
        }
        if fits(candidate)? {
            return Ok(Some(candidate));
        }
        step = if index < CLOSE { 1 } else { step * 2 };
        next = index + step;
    }
    Ok(None)
}

fn floor(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A place from `from` on where every pattern starts a piece: the blank of letter, blank, letter. Where there is none
/// nearby, any start of a character.
fn certain_start(text: &str, from: usize) -> usize {
    let bytes = &text.as_bytes()[from..];
    let near = &bytes[..bytes.len().min(4096)];
    let letters =
        |window: &[u8]| window[0].is_ascii_alphabetic() && window[1] == b' ' && window[2].is_ascii_alphabetic();
    match near.windows(3).position(letters) {
        Some(at) => from + at + 1,
        None => floor(text, from),
    }
}
