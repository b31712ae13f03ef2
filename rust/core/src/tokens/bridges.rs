//! Which neighbouring characters a token can span. Where none can, a piece is cut: its parts are encoded by themselves.
//!
//! Merging across a place needs a token that spans it. So cutting where there is none changes nothing, and the parts
//! of a long run of Chinese, Thai or Arabic are short enough for the caches.

/// Bits of the filter of character pairs, of which each pair has two. o200k_base has 25,000 pairs: fewer than one in
/// a hundred others looks like one of them.
const FILTER_BITS: u32 = 19;

/// The pairs of characters that stand side by side in some token.
pub(super) struct Bridges {
    /// Pairs of whole characters, by hash. A pair that is not in here is in no token.
    characters: Vec<u64>,
    /// For tokens that hold only a part of a character, by the two bytes that touch: 166 pairs in o200k_base.
    bytes: Vec<u64>,
}

impl Bridges {
    pub(super) fn new() -> Self {
        Self { characters: vec![0; 1 << (FILTER_BITS - 6)], bytes: vec![0; 1 << 10] }
    }

    /// Spans everything: for tests of what happens before the cutting.
    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.characters.fill(u64::MAX);
    }

    pub(super) fn insert(&mut self, token: &[u8]) {
        let mut at = 0;
        let mut before: Option<(u32, bool)> = None;
        while at < token.len() {
            let (character, length, whole) = part(token, at);
            match before {
                Some((previous, true)) if whole => {
                    for bit in pair_bits(previous, character) {
                        self.characters[bit >> 6] |= 1 << (bit & 63);
                    }
                }
                Some(_) => {
                    let bit = byte_bit(token[at - 1], token[at]);
                    self.bytes[bit >> 6] |= 1 << (bit & 63);
                }
                None => {}
            }
            before = Some((character, whole));
            at += length;
        }
    }

    /// Where the part of `piece` that starts at `start` ends: before the next character that no token joins to the
    /// one in front of it. `piece` is valid UTF-8, and `start` the start of a character in it.
    #[inline]
    pub(super) fn end_of_part(&self, piece: &[u8], start: usize) -> usize {
        let (mut previous, length) = character(piece, start);
        let mut at = start + length;
        while at < piece.len() {
            let (next, length) = character(piece, at);
            if !self.spans(previous, next, piece[at - 1], piece[at]) {
                break;
            }
            previous = next;
            at += length;
        }
        at
    }

    /// Whether some token spans the place between these two bytes and holds only a part of one of their characters.
    #[inline(always)]
    pub(super) fn spans_in_parts(&self, last: u8, first: u8) -> bool {
        let bit = byte_bit(last, first);
        self.bytes[bit >> 6] >> (bit & 63) & 1 == 1
    }

    #[inline(always)]
    fn spans(&self, left: u32, right: u32, last: u8, first: u8) -> bool {
        let [one, two] = pair_bits(left, right).map(|bit| self.characters[bit >> 6] >> (bit & 63));
        one & two & 1 == 1 || self.spans_in_parts(last, first)
    }
}

#[inline(always)]
fn pair_bits(left: u32, right: u32) -> [usize; 2] {
    let pair = u64::from(left) << 32 | u64::from(right);
    let hash = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [hash >> (64 - FILTER_BITS), hash >> (64 - 2 * FILTER_BITS) & ((1 << FILTER_BITS) - 1)].map(|bit| bit as usize)
}

#[inline(always)]
fn byte_bit(last: u8, first: u8) -> usize {
    usize::from(last) << 8 | usize::from(first)
}

/// The bytes of the character at `at` as a number, and how many they are.
#[inline(always)]
fn character(bytes: &[u8], at: usize) -> (u32, usize) {
    let first = bytes[at];
    let length = length_after(first);
    let number = bytes[at..at + length].iter().fold(0, |number, &byte| number << 8 | u32::from(byte));
    (number, length)
}

#[inline(always)]
pub(super) fn length_after(first: u8) -> usize {
    match first {
        0..=0xBF => 1,
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        _ => 4,
    }
}

/// The character or the part of one at `at` in any bytes: its number, its length, and whether it is whole.
fn part(token: &[u8], at: usize) -> (u32, usize, bool) {
    let continues = |byte: &u8| byte & 0xC0 == 0x80;
    let rest = &token[at..];
    if continues(&rest[0]) {
        return (0, rest.iter().take_while(|byte| continues(byte)).count(), false);
    }
    let wanted = length_after(rest[0]);
    let length = 1 + rest[1..].iter().take(wanted - 1).take_while(|byte| continues(byte)).count();
    if length < wanted {
        return (0, length, false);
    }
    (character(token, at).0, length, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(bridges: &Bridges, piece: &'a str) -> Vec<&'a str> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < piece.len() {
            let end = bridges.end_of_part(piece.as_bytes(), at);
            parts.push(&piece[at..end]);
            at = end;
        }
        parts
    }

    #[test]
    fn cuts_only_where_no_token_spans() {
        let mut bridges = Bridges::new();
        for token in ["中国", "国人", "é", "n'"] {
            bridges.insert(token.as_bytes());
        }
        assert_eq!(parts(&bridges, "中国人中é"), ["中国人", "中", "é"]);
    }

    #[test]
    fn a_token_with_half_a_character_spans_what_touches_there() {
        let mut bridges = Bridges::new();
        // The last byte of 中 (E4 B8 AD) and the first of 国 (E5 9B BD).
        bridges.insert(&[0xAD, 0xE5]);
        assert_eq!(parts(&bridges, "中国中"), ["中国", "中"]);
        bridges.insert(b" \xE4");
        assert_eq!(parts(&bridges, " 中国中"), [" 中国", "中"]);
    }
}
