//! The pieces of 64 bytes of ASCII at once: where pieces start follows from bit masks of the character classes.
//!
//! A window begins where a piece begins, so nothing has to be known of what stands before it: no pattern looks back.
//! What the masks cannot decide (a byte above 127, the end of the window, a few rare cases) only lowers the limit up
//! to which their answer is trusted; the piece there is left to `split.rs`, which is always right.

use super::split::Pattern;

/// The bytes of a window.
pub(super) const WINDOW: usize = 64;

/// One bit for each byte of a window, the lowest for the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks {
    pub(super) upper: u64,
    pub(super) lower: u64,
    pub(super) digit: u64,
    pub(super) space: u64,
    /// White space that is neither a space nor a line end.
    pub(super) tab: u64,
    pub(super) newline: u64,
    pub(super) apostrophe: u64,
    pub(super) slash: u64,
    /// Not ASCII.
    pub(super) high: u64,
}

/// Finds the classes of the 64 bytes of a window.
pub(super) trait Classify: Copy {
    fn classify(self, window: &[u8; WINDOW]) -> Masks;
}

/// One bit for each of the first eight masks, in their order; 0 is punctuation. Indexed by an ASCII byte.
pub(super) const CLASS_BITS: [u8; 128] = class_bits();

const fn class_bits() -> [u8; 128] {
    let mut bits = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        bits[byte] = match byte as u8 {
            b'A'..=b'Z' => 1,
            b'a'..=b'z' => 1 << 1,
            b'0'..=b'9' => 1 << 2,
            b' ' => 1 << 3,
            b'\t' | 0x0B | 0x0C => 1 << 4,
            b'\r' | b'\n' => 1 << 5,
            b'\'' => 1 << 6,
            b'/' => 1 << 7,
            _ => 0,
        };
        byte += 1;
    }
    bits
}

/// Without any vector instruction.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Classify for Portable {
    #[inline]
    fn classify(self, window: &[u8; WINDOW]) -> Masks {
        let mut rows = [0_u64; 8];
        let mut high = 0;
        for (at, eight) in window.chunks_exact(8).enumerate() {
            let mut classes = 0;
            let mut not_ascii = 0;
            for (offset, &byte) in eight.iter().enumerate() {
                classes |= u64::from(CLASS_BITS[usize::from(byte & 0x7F)]) << (8 * offset);
                not_ascii |= u64::from(byte >> 7) << offset;
            }
            high |= not_ascii << (8 * at);
            rows[at] = transpose(classes);
        }
        let column = |class: usize| {
            rows.iter().enumerate().fold(0, |mask, (at, row)| mask | (row >> (8 * class) & 0xFF) << (8 * at)) & !high
        };
        Masks {
            upper: column(0),
            lower: column(1),
            digit: column(2),
            space: column(3),
            tab: column(4),
            newline: column(5),
            apostrophe: column(6),
            slash: column(7),
            high,
        }
    }
}

/// Transposes eight rows of eight bits (Hacker's Delight, 7-3).
#[inline]
fn transpose(mut rows: u64) -> u64 {
    let mut swap = (rows ^ (rows >> 7)) & 0x00AA_00AA_00AA_00AA;
    rows ^= swap ^ (swap << 7);
    swap = (rows ^ (rows >> 14)) & 0x0000_CCCC_0000_CCCC;
    rows ^= swap ^ (swap << 14);
    swap = (rows ^ (rows >> 28)) & 0x0000_0000_F0F0_F0F0;
    rows ^ swap ^ (swap << 28)
}

/// The starts of pieces in a window that begins with one: bit 0, and all others that are sure. Where the piece of the
/// highest start ends is not known.
#[inline]
pub(super) fn starts(pattern: Pattern, window: &[u8; WINDOW], masks: &Masks) -> u64 {
    match pattern {
        Pattern::R50k => r50k(window, masks),
        Pattern::Cl100k => newer::<false>(window, masks),
        Pattern::O200k => newer::<true>(window, masks),
    }
}

#[inline(always)]
fn r50k(window: &[u8; WINDOW], masks: &Masks) -> u64 {
    let letter = masks.upper | masks.lower;
    let blank = masks.space | masks.tab | masks.newline;
    let punctuation = !(letter | masks.digit | blank | masks.high);
    let first = |mask: u64| mask & !(mask << 1);
    let after_space = masks.space << 1;
    let words = (first(letter) | first(masks.digit) | first(punctuation)) & !after_space;
    let mut starts = words | first(blank) | blank & !(blank >> 1);
    let mut limit = masks.high.trailing_zeros();
    let mut contractions = masks.apostrophe & words & letter >> 1;
    while contractions != 0 {
        let at = contractions.trailing_zeros();
        if at + 3 >= limit {
            limit = limit.min(at + 1);
            break;
        }
        if let Some(length) = contraction(window, at, false) {
            starts &= !(1 << (at + 1));
            starts |= 1 << (at + length);
        }
        contractions &= contractions - 1;
    }
    trusted(starts, blank, limit)
}

/// The patterns of cl100k and o200k, which treat white space, numbers and punctuation alike.
#[inline(always)]
fn newer<const O200K: bool>(window: &[u8; WINDOW], masks: &Masks) -> u64 {
    let letter = masks.upper | masks.lower;
    let blank = masks.space | masks.tab;
    let all_space = blank | masks.newline;
    let punctuation = !(letter | masks.digit | all_space | masks.high);
    // Line ends right after punctuation belong to its piece.
    let absorbed = masks.newline & !masks.newline.wrapping_add(masks.newline & punctuation << 1);
    let space = all_space & !absorbed;
    let mut starts = space & !(space << 1);
    starts |= blank & !(all_space >> 1);
    starts |= after_last_newline(blank, masks.newline, masks.newline & !absorbed);

    let symbols = punctuation & !(punctuation << 1) & !(masks.space << 1);
    // A single one begins the word after it, and so does a blank.
    let prefix = symbols & !(punctuation >> 1) | blank;
    starts |= symbols | letter & !(letter << 1) & !(prefix << 1);
    starts |= threes(masks.digit);

    let mut limit = masks.high.trailing_zeros();
    if O200K {
        starts |= masks.upper & masks.lower << 1;
        // A slash after absorbed line ends is absorbed too.
        limit = limit.min((masks.slash & absorbed << 1).trailing_zeros());
        (starts, limit) = contractions_after(window, masks, starts, limit);
    } else {
        (starts, limit) = contractions_before(window, masks.apostrophe & symbols & letter >> 1, starts, limit);
    }
    trusted(starts, space, limit)
}

/// Blanks after the last line end of white space start a piece: those after `newline` with no `any_newline` next.
#[inline(always)]
fn after_last_newline(blank: u64, any_newline: u64, newline: u64) -> u64 {
    let mut after = blank & newline << 1;
    // Adding carries from the first blank of a run to the character after its last one.
    let mut not_last = blank.wrapping_add(after) & !blank & any_newline;
    while not_last != 0 {
        let before = after & ((1 << not_last.trailing_zeros()) - 1);
        if before != 0 {
            after ^= 1 << (63 - before.leading_zeros());
        }
        not_last &= not_last - 1;
    }
    after
}

/// Every third digit of each run.
#[inline(always)]
fn threes(digit: u64) -> u64 {
    let mut last = digit & !(digit << 1);
    let mut starts = last;
    let third = digit & digit << 1 & digit << 2;
    loop {
        last = last << 3 & third;
        if last == 0 {
            return starts;
        }
        starts |= last;
    }
}

/// cl100k: an apostrophe that starts a piece, and what it contracts, are a piece.
#[inline(always)]
fn contractions_before(window: &[u8; WINDOW], mut candidates: u64, mut starts: u64, mut limit: u32) -> (u64, u32) {
    while candidates != 0 {
        let at = candidates.trailing_zeros();
        if at + 3 >= limit {
            limit = limit.min(at + 1);
            break;
        }
        if let Some(length) = contraction(window, at, true) {
            starts |= 1 << (at + length);
        }
        candidates &= candidates - 1;
    }
    (starts, limit)
}

/// o200k: a contraction after a word belongs to the word.
#[inline(always)]
fn contractions_after(window: &[u8; WINDOW], masks: &Masks, mut starts: u64, mut limit: u32) -> (u64, u32) {
    let letter = masks.upper | masks.lower;
    let unknown = masks.high | letter;
    let mut candidates = masks.apostrophe & letter << 1 & (unknown >> 1 | 1 << 63);
    let mut last_end = 0;
    while candidates != 0 {
        let at = candidates.trailing_zeros();
        if at + 3 >= limit {
            limit = limit.min(at);
            break;
        }
        // In "it's's" the second one begins a word: its first apostrophe is a prefix.
        if at != last_end {
            if let Some(length) = contraction(window, at, true) {
                last_end = at + length;
                starts &= !(((1 << length) - 1) << at);
                starts |= 1 << last_end;
            }
        }
        candidates &= candidates - 1;
    }
    (starts, limit)
}

/// The length of the contraction whose apostrophe stands at `at`; two bytes follow it in the window.
#[inline(always)]
fn contraction(window: &[u8; WINDOW], at: u32, any_case: bool) -> Option<u32> {
    let fold = |byte: u8| if any_case { byte | 0x20 } else { byte };
    let at = at as usize;
    match (fold(window[at + 1]), fold(window[at + 2])) {
        (b's' | b'd' | b'm' | b't', _) => Some(2),
        (b'l', b'l') | (b'v' | b'r', b'e') => Some(3),
        _ => None,
    }
}

/// The starts below `limit`, without those in white space that touches it: what follows decides on them.
#[inline(always)]
fn trusted(starts: u64, space: u64, limit: u32) -> u64 {
    let below = u64::MAX >> (64 - limit.max(1));
    let mut starts = starts & below;
    let last = 1 << (limit.max(1) - 1);
    if space & last != 0 {
        let run = space & !(space << 1) & below;
        starts &= u64::MAX >> run.leading_zeros();
    }
    starts | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_every_byte() {
        for byte in 0..=255_u8 {
            let masks = Portable.classify(&[byte; WINDOW]);
            let set = |mask: u64| {
                assert!(mask == 0 || mask == u64::MAX, "{byte}");
                mask != 0
            };
            assert_eq!(set(masks.upper), byte.is_ascii_uppercase());
            assert_eq!(set(masks.lower), byte.is_ascii_lowercase());
            assert_eq!(set(masks.digit), byte.is_ascii_digit());
            assert_eq!(set(masks.space), byte == b' ');
            assert_eq!(set(masks.tab), matches!(byte, 9 | 11 | 12));
            assert_eq!(set(masks.newline), matches!(byte, 10 | 13));
            assert_eq!(set(masks.apostrophe), byte == b'\'');
            assert_eq!(set(masks.slash), byte == b'/');
            assert_eq!(set(masks.high), byte >= 128);
        }
    }
}
