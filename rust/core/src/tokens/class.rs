//! The class of a character in the splitting patterns: letter, mark, number, white space or none of these.
//!
//! The Unicode data are those of `regex-syntax`, because tiktoken's regex engine takes its data from there. A newer
//! Unicode version can change the class of a character: `tests/tokens/test_exact.py` compares every code point.

use regex_syntax::hir::{Class, HirKind};
use std::sync::OnceLock;

/// `\p{Lu}` and `\p{Lt}`.
pub(super) const UPPER: u8 = 1;
/// `\p{Ll}`.
pub(super) const LOWER: u8 = 2;
/// `\p{Lm}` and `\p{Lo}`: letters without case.
pub(super) const CASELESS: u8 = 4;
/// `\p{M}`.
pub(super) const MARK: u8 = 8;
/// `\p{N}`.
pub(super) const NUMBER: u8 = 16;
/// `\s` without the line ends.
pub(super) const BLANK: u8 = 32;
/// `\r` and `\n`.
pub(super) const NEWLINE: u8 = 64;

/// `\p{L}`.
pub(super) const LETTER: u8 = UPPER | LOWER | CASELESS;
/// `\s`.
pub(super) const SPACE: u8 = BLANK | NEWLINE;

/// One class byte for each code point: 1.1 MB, of which a text touches a few pages.
type Table = Box<[u8]>;

const PROPERTIES: [(&str, u8); 6] = [
    (r"[\p{Lu}\p{Lt}]", UPPER),
    (r"\p{Ll}", LOWER),
    (r"[\p{Lm}\p{Lo}]", CASELESS),
    (r"\p{M}", MARK),
    (r"\p{N}", NUMBER),
    (r"\s", BLANK),
];

/// The table all encodings share, made at the first use (0.5 ms).
pub(super) fn table() -> &'static [u8] {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(build)
}

fn build() -> Table {
    let mut table = vec![0_u8; 0x11_0000].into_boxed_slice();
    for (property, class) in PROPERTIES {
        for (first, last) in ranges(property) {
            table[first as usize..=last as usize].fill(class);
        }
    }
    table['\r' as usize] = NEWLINE;
    table['\n' as usize] = NEWLINE;
    table
}

fn ranges(property: &str) -> Vec<(char, char)> {
    // The properties are constants that regex-syntax knows: a test walks through all of them.
    match regex_syntax::parse(property).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.iter().map(|range| (range.start(), range.end())).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_is_known() {
        for (property, _) in PROPERTIES {
            assert!(!ranges(property).is_empty(), "{property}");
        }
    }

    #[test]
    fn classes_of_known_characters() {
        let known = [
            ('A', UPPER),
            ('ǅ', UPPER),
            ('ß', LOWER),
            ('ʰ', CASELESS),
            ('中', CASELESS),
            ('\u{301}', MARK),
            ('٣', NUMBER),
            ('½', NUMBER),
            ('\t', BLANK),
            ('\u{85}', BLANK),
            ('\u{a0}', BLANK),
            ('\u{3000}', BLANK),
            ('\n', NEWLINE),
            ('\u{200b}', 0),
            ('\u{1f}', 0),
            ('!', 0),
            ('😀', 0),
        ];
        for (character, class) in known {
            assert_eq!(table()[character as usize], class, "{character:?}");
        }
    }
}
