//! What becomes of the tokens of a text: they are counted, or kept.

use super::{bpe::Sink, cache::Known};

pub(super) trait Output {
    /// Whether tokens must come in the order of the text.
    const IN_ORDER: bool;

    /// Takes the tokens of a piece the cache knows; `false` if it does not know all that is needed.
    fn known(&mut self, known: Known) -> bool;

    fn tokens(&mut self, tokens: &[u32]);

    /// The same for the encoder of long pieces, which gives its tokens bit by bit.
    fn sink(&mut self) -> Sink<'_>;
}

pub(super) struct Counter(pub(super) usize);

impl Output for Counter {
    const IN_ORDER: bool = false;

    #[inline(always)]
    fn known(&mut self, known: Known) -> bool {
        self.0 += known.count;
        true
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.0 += tokens.len();
    }

    fn sink(&mut self) -> Sink<'_> {
        Sink::Count(&mut self.0)
    }
}

pub(super) struct Ids<'a>(pub(super) &'a mut Vec<u32>);

impl Output for Ids<'_> {
    const IN_ORDER: bool = true;

    #[inline(always)]
    fn known(&mut self, known: Known) -> bool {
        match known.count {
            1 => self.0.push(known.id(0)),
            2 => self.0.extend_from_slice(&[known.id(0), known.id(1)]),
            3 => self.0.extend_from_slice(&[known.id(0), known.id(1), known.id(2)]),
            _ => return false,
        }
        true
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.0.extend_from_slice(tokens);
    }

    fn sink(&mut self) -> Sink<'_> {
        Sink::Tokens(self.0)
    }
}
