//! The splitting patterns of the encodings, written out as functions: where does the piece that starts here end?
//!
//! Each function follows the alternatives of its regular expression, from left to right, over the classes of
//! `class.rs`. It reads a run of characters at most three times, so splitting is linear in the text.

use super::class::{self, CASELESS, LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, UPPER};

/// Which of tiktoken's patterns an encoding splits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s`
    R50k,
    /// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|`
    /// `\s+(?!\S)|\s`
    Cl100k,
    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|`
    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|`
    /// `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    O200k,
}

/// What the first part of a word may be: `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`.
const HEAD: u8 = UPPER | CASELESS | MARK;
/// What the second part of a word may be: `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`.
const TAIL: u8 = LOWER | CASELESS | MARK;
/// What `[^\s\p{L}\p{N}]` refuses.
const NOT_PUNCTUATION: u8 = SPACE | LETTER | NUMBER;
/// What `[^\r\n\p{L}\p{N}]` refuses.
const NOT_PREFIX: u8 = NEWLINE | LETTER | NUMBER;

/// A text that is being split, with the classes of its characters.
#[derive(Clone, Copy)]
pub(super) struct Splitter<'a> {
    bytes: &'a [u8],
    classes: &'static [u8],
    pattern: Pattern,
}

impl<'a> Splitter<'a> {
    pub(super) fn new(text: &'a str, pattern: Pattern) -> Self {
        Self { bytes: text.as_bytes(), classes: class::table(), pattern }
    }

    /// The end of the piece that starts at `at`, which is a start of a piece and not the end of the text.
    pub(super) fn end_of_piece(&self, at: usize) -> usize {
        match self.pattern {
            Pattern::R50k => self.r50k(at),
            Pattern::Cl100k => self.cl100k(at),
            Pattern::O200k => self.o200k(at),
        }
    }

    fn r50k(&self, at: usize) -> usize {
        if let Some(length) = self.contraction(at, false) {
            return at + length;
        }
        let first = at + usize::from(self.bytes[at] == b' ');
        let class = self.class_at(first);
        match class {
            Some(class) if class & LETTER != 0 => self.run(first, LETTER),
            Some(NUMBER) => self.run(first, NUMBER),
            Some(class) if class & NOT_PUNCTUATION == 0 => self.run_without(first, NOT_PUNCTUATION),
            _ => self.blanks(at, false, true),
        }
    }

    fn cl100k(&self, at: usize) -> usize {
        if let Some(length) = self.contraction(at, true) {
            return at + length;
        }
        let (class, after) = self.character(at);
        if class & NOT_PREFIX == 0 && self.class_at(after).is_some_and(|next| next & LETTER != 0) {
            return self.run(after, LETTER);
        }
        if class & LETTER != 0 {
            return self.run(at, LETTER);
        }
        if class == NUMBER {
            return self.three_numbers(at);
        }
        match self.punctuation(at) {
            Some(end) => self.run(end, NEWLINE),
            None => self.blanks(at, true, true),
        }
    }

    fn o200k(&self, at: usize) -> usize {
        let (class, after) = self.character(at);
        if let Some(end) = self.o200k_word(at, class, after) {
            return end + self.contraction(end, true).unwrap_or(0);
        }
        if class == NUMBER {
            return self.three_numbers(at);
        }
        match self.punctuation(at) {
            Some(mut end) => {
                while self.bytes.get(end).is_some_and(|byte| matches!(byte, b'\r' | b'\n' | b'/')) {
                    end += 1;
                }
                end
            }
            None => self.blanks(at, true, false),
        }
    }

    /// The first two alternatives of o200k, each first with and then without the optional character before the word.
    fn o200k_word(&self, at: usize, class: u8, after: usize) -> Option<usize> {
        let prefixed = class & NOT_PREFIX == 0;
        let bare = class & (LETTER | MARK) != 0;
        if prefixed {
            if let Some(end) = self.word_with_tail(after) {
                return Some(end);
            }
        }
        if bare {
            if let Some(end) = self.word_with_tail(at) {
                return Some(end);
            }
        }
        // Nothing that could be a tail follows the head here, or the first alternative had matched.
        let start = if prefixed && self.class_at(after).is_some_and(|next| next & HEAD != 0) { after } else { at };
        (start != at || bare).then(|| self.run(start, HEAD))
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` at `start`: its end.
    fn word_with_tail(&self, start: usize) -> Option<usize> {
        let mut at = start;
        let mut after_last_shared = None;
        while at < self.bytes.len() {
            let (class, after) = self.character(at);
            if class == LOWER {
                return Some(self.run(after, TAIL));
            }
            if class & HEAD == 0 {
                break;
            }
            at = after;
            if class & TAIL != 0 {
                after_last_shared = Some(at);
            }
        }
        // The head gives characters back until one of them can be the tail.
        after_last_shared
    }

    fn three_numbers(&self, at: usize) -> usize {
        let mut end = at;
        for _ in 0..3 {
            match self.bytes.get(end) {
                Some(_) => match self.character(end) {
                    (NUMBER, after) => end = after,
                    _ => break,
                },
                None => break,
            }
        }
        end
    }

    /// ` ?[^\s\p{L}\p{N}]+` at `at`: its end.
    fn punctuation(&self, at: usize) -> Option<usize> {
        let first = at + usize::from(self.bytes[at] == b' ');
        let class = self.class_at(first)?;
        (class & NOT_PUNCTUATION == 0).then(|| self.run_without(first, NOT_PUNCTUATION))
    }

    /// White space at `at`. `to_newline`: up to its last line end, where it has one (`\s*[\r\n]+`). `whole_tail`:
    /// all of it at the end of the text, line ends or not (`\s++$`). Else all but the last character, if it is
    /// followed by anything (`\s+(?!\S)`), or that one character.
    fn blanks(&self, at: usize, to_newline: bool, whole_tail: bool) -> usize {
        let mut end = at;
        let mut last = at;
        let mut after_newline = None;
        while end < self.bytes.len() {
            let (class, after) = self.character(end);
            if class & SPACE == 0 {
                break;
            }
            last = end;
            end = after;
            if class == NEWLINE {
                after_newline = Some(end);
            }
        }
        let at_end = end == self.bytes.len();
        match after_newline {
            Some(newline) if to_newline && !(at_end && whole_tail) => newline,
            _ if at_end || last == at => end,
            _ => last,
        }
    }

    /// An apostrophe and `s`, `d`, `m`, `t`, `ll`, `ve` or `re` at `at`: its length in bytes.
    fn contraction(&self, at: usize, any_case: bool) -> Option<usize> {
        let rest = self.bytes.get(at..)?;
        let [b'\'', first, ..] = *rest else { return None };
        let second = rest.get(2).copied().unwrap_or(0);
        let fold = |byte: u8| if any_case { byte.to_ascii_lowercase() } else { byte };
        match (fold(first), fold(second)) {
            (b's' | b'd' | b'm' | b't', _) => Some(2),
            (b'l', b'l') | (b'v' | b'r', b'e') => Some(3),
            // U+017F, the long s, is an `s` where case does not count.
            (0xC5, 0xBF) if any_case => Some(3),
            _ => None,
        }
    }

    fn run(&self, mut at: usize, classes: u8) -> usize {
        while at < self.bytes.len() {
            let (class, after) = self.character(at);
            if class & classes == 0 {
                break;
            }
            at = after;
        }
        at
    }

    fn run_without(&self, mut at: usize, classes: u8) -> usize {
        while at < self.bytes.len() {
            let (class, after) = self.character(at);
            if class & classes != 0 {
                break;
            }
            at = after;
        }
        at
    }

    fn class_at(&self, at: usize) -> Option<u8> {
        (at < self.bytes.len()).then(|| self.character(at).0)
    }

    /// The class of the character that starts at `at`, and where the next one starts. The bytes are valid UTF-8.
    #[inline]
    fn character(&self, at: usize) -> (u8, usize) {
        let first = self.bytes[at];
        let tail = |offset: usize| u32::from(self.bytes[at + offset] & 0x3F);
        let lead = u32::from(first);
        let (point, length) = match first {
            0..=0x7F => (lead, 1),
            0x80..=0xDF => ((lead & 0x1F) << 6 | tail(1), 2),
            0xE0..=0xEF => ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
            _ => ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
        };
        (self.classes[point as usize], at + length)
    }
}

/// The pieces of a text, in order; together they are the text.
pub(super) struct Pieces<'a> {
    text: &'a str,
    splitter: Splitter<'a>,
    at: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(text: &'a str, pattern: Pattern) -> Self {
        Self { text, splitter: Splitter::new(text, pattern), at: 0 }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.at == self.text.len() {
            return None;
        }
        let start = self.at;
        self.at = self.splitter.end_of_piece(start);
        Some(&self.text[start..self.at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pattern: Pattern, text: &str) -> Vec<&str> {
        Pieces::new(text, pattern).collect()
    }

    #[test]
    fn words_and_what_stands_before_them() {
        assert_eq!(split(Pattern::Cl100k, "it's (a)  b"), ["it", "'s", " (", "a", ")", " ", " b"]);
        assert_eq!(split(Pattern::O200k, "it's (a)  b"), ["it's", " (", "a", ")", " ", " b"]);
        assert_eq!(split(Pattern::R50k, "it's (a)  b"), ["it", "'s", " (", "a", ")", " ", " b"]);
        assert_eq!(split(Pattern::O200k, "camelCase HTTPServer"), ["camel", "Case", " HTTPServer"]);
    }

    #[test]
    fn white_space_at_the_end() {
        assert_eq!(split(Pattern::Cl100k, "a\n  "), ["a", "\n  "]);
        assert_eq!(split(Pattern::O200k, "a\n  "), ["a", "\n", "  "]);
        assert_eq!(split(Pattern::R50k, "a\n  b"), ["a", "\n ", " b"]);
    }

    #[test]
    fn heads_give_back_what_the_tail_needs() {
        assert_eq!(split(Pattern::O200k, "ABCあDE"), ["ABCあ", "DE"]);
        assert_eq!(split(Pattern::O200k, "\u{301}ABC"), ["\u{301}", "ABC"]);
        assert_eq!(split(Pattern::O200k, "\u{301}ABCd"), ["\u{301}ABCd"]);
        assert_eq!(split(Pattern::O200k, "//\n/a"), ["//\n/", "a"]);
    }

    #[test]
    fn numbers_by_three() {
        assert_eq!(split(Pattern::Cl100k, "12345½"), ["123", "45½"]);
        assert_eq!(split(Pattern::R50k, " 12345½x"), [" 12345½", "x"]);
    }

    #[test]
    fn the_long_s_contracts_too() {
        assert_eq!(split(Pattern::O200k, "it'ſ"), ["it'ſ"]);
        assert_eq!(split(Pattern::Cl100k, "it'ſx"), ["it", "'ſ", "x"]);
        assert_eq!(split(Pattern::R50k, "it'S"), ["it", "'", "S"]);
    }
}
