//! What is encoded by itself: the pieces of a text, the long ones cut where no token spans. They come in batches.

use super::{
    bridges::Bridges,
    key::KEY_BYTES,
    scan::{self, Classify},
    split::{Pattern, Splitter},
};

/// The largest batch is full with this many parts.
pub(super) const BATCH: usize = 128;
/// The last window may bring as many more as it has bytes.
pub(super) const CAPACITY: usize = BATCH + scan::WINDOW;

pub(super) struct Parts<'a, C> {
    bytes: &'a [u8],
    pattern: Pattern,
    splitter: Splitter<'a>,
    bridges: &'a Bridges,
    classify: C,
    /// Where the parts of the batch begin, and where the last one ends.
    bounds: [usize; CAPACITY + 1],
    count: usize,
    at: usize,
    /// The end of the piece that is being cut.
    piece_end: usize,
}

impl<'a, C: Classify> Parts<'a, C> {
    pub(super) fn new(text: &'a str, pattern: Pattern, bridges: &'a Bridges, classify: C) -> Self {
        Self {
            bytes: text.as_bytes(),
            pattern,
            splitter: Splitter::new(text, pattern),
            bridges,
            classify,
            bounds: [0; CAPACITY + 1],
            count: 0,
            at: 0,
            piece_end: 0,
        }
    }

    /// Replaces the batch by the next one of `most` parts, at most [`BATCH`]; `false` at the end of the text.
    #[inline(always)]
    pub(super) fn fill(&mut self, most: usize) -> bool {
        self.count = 0;
        self.bounds[0] = self.at;
        while self.count < most.min(BATCH) && self.at < self.bytes.len() {
            if self.at < self.piece_end {
                self.push(self.bridges.end_of_part(&self.bytes[..self.piece_end], self.at));
                continue;
            }
            let window = self.at;
            let mut starts = self.starts();
            starts &= starts - 1;
            if starts == 0 {
                self.push_piece();
            }
            while starts != 0 {
                self.push(window + starts.trailing_zeros() as usize);
                starts &= starts - 1;
            }
        }
        self.count > 0
    }

    /// The number of parts in the batch.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Where part `at` of the batch begins and ends.
    #[inline(always)]
    pub(super) fn bounds(&self, at: usize) -> (usize, usize) {
        (self.bounds[at], self.bounds[at + 1])
    }

    /// The end of the batch in the text.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    fn push_piece(&mut self) {
        let end = self.splitter.end_of_piece(self.at);
        // Cutting pays where characters have several bytes; the second byte belongs to the first letter.
        if end - self.at > KEY_BYTES && self.bytes[self.at + 1] >= 0x80 {
            self.piece_end = end;
        } else {
            self.push(end);
        }
    }

    #[inline(always)]
    fn push(&mut self, end: usize) {
        self.count += 1;
        self.bounds[self.count] = end;
        self.at = end;
    }

    /// The sure starts of pieces in the next window, as [`scan::starts`] gives them.
    #[inline(always)]
    fn starts(&self) -> u64 {
        let rest = &self.bytes[self.at..];
        // Most often a blank and a word in another script: the window would end where it begins.
        if rest[0] >= 0x80 || rest.get(1).is_none_or(|&second| second >= 0x80) {
            return 1;
        }
        if let Some(window) = rest.first_chunk() {
            return scan::starts(self.pattern, window, &self.classify.classify(window));
        }
        // Behind the end stands a byte that is not ASCII: no piece is trusted to end there.
        let mut window = [0xFF; scan::WINDOW];
        window[..rest.len()].copy_from_slice(rest);
        scan::starts(self.pattern, &window, &self.classify.classify(&window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{scan::Portable, split::Pieces, vocab::Vocabulary};
    use proptest::prelude::*;

    /// The bounds of all parts, without bridges: then only characters of several bytes are cut, and not in ASCII.
    fn bounds<C: Classify>(text: &str, pattern: Pattern, bridges: &Bridges, classify: C) -> Vec<usize> {
        let mut parts = Parts::new(text, pattern, bridges, classify);
        let mut found = Vec::new();
        while parts.fill(BATCH) {
            found.extend((0..parts.len()).map(|at| parts.bounds(at).1));
        }
        found
    }

    fn as_the_splitter<C: Classify>(text: &str, pattern: Pattern, classify: C) {
        // With every character spanned by "a token", nothing is cut.
        let mut all = Bridges::new();
        all.fill();
        let mut at = 0;
        let wanted: Vec<usize> = Pieces::new(text, pattern)
            .map(|piece| {
                at += piece.len();
                at
            })
            .collect();
        assert_eq!(bounds(text, pattern, &all, classify), wanted, "{pattern:?} {text:?}");
    }

    fn in_every_way(text: &str) {
        for pattern in [Pattern::R50k, Pattern::Cl100k, Pattern::O200k] {
            as_the_splitter(text, pattern, Portable);
            #[cfg(target_arch = "x86_64")]
            if let Some(avx512) = crate::tokens::x86::Avx512::detect() {
                as_the_splitter(text, pattern, avx512);
            }
        }
    }

    /// Everything the masks treat in its own way, so that each meets each.
    const SNIPPETS: [&str; 40] = [
        "a",
        "Z",
        "word",
        "HTTPServer",
        "camelCase",
        "it",
        "'s",
        "'LL",
        "'re",
        "'ſ",
        "'",
        "''",
        "n't",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        " \n",
        "\n ",
        "\x0b",
        "/",
        "//",
        ";\n",
        "}\n/",
        "...",
        "(",
        "1",
        "22",
        "4567",
        "é",
        "e\u{301}",
        "\u{a0}",
        "中文",
        "привет",
        "😀",
        "\u{3000}",
        "ß",
        "<|endoftext|>",
        "\0",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn windows_split_as_the_splitter(picks in prop::collection::vec(0..SNIPPETS.len(), 0..80)) {
            let text: String = picks.into_iter().map(|pick| SNIPPETS[pick]).collect();
            in_every_way(&text);
        }

        #[test]
        fn windows_split_ascii_as_the_splitter(text in "[ a-zA-Z'/\n\r\t0-9.;]{0,200}") {
            in_every_way(&text);
        }
    }

    #[test]
    fn parts_are_cut_where_no_token_spans() -> Result<(), &'static str> {
        let packed = include_bytes!("data/cl100k_base.vocab");
        let vocabulary = Vocabulary::read(packed).ok_or("the bundled vocabulary is complete")?;
        let text = "魑魅魍魎跋扈する";
        let found = bounds(text, Pattern::Cl100k, &vocabulary.bridges, Portable);
        assert!(found.len() > 3 && found.last() == Some(&text.len()), "{found:?}");
        Ok(())
    }
}
