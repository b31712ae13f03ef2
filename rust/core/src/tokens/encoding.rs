//! An encoding: text to tokens, tokens to text, and counting without keeping the tokens.

use super::{
    encoder::Encoder,
    output::{Counter, Ids},
    special::{AllowedSpecial, SpecialTokens},
    split::Pieces,
    Stopped, UnknownToken,
};

/// A token encoding, for example `o200k_base`. Immutable and shared by all threads; see [`super::encoding`].
pub struct Encoding {
    pub(super) name: &'static str,
    pub(super) encoder: &'static Encoder,
    pub(super) special: SpecialTokens,
}

impl Encoding {
    /// The name, as tiktoken has it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The largest token plus one; not every number below it is a token.
    pub fn n_vocab(&self) -> usize {
        self.max_token_value() as usize + 1
    }

    /// The largest token, special ones included.
    pub fn max_token_value(&self) -> u32 {
        self.encoder.vocabulary.max_id().max(self.special.max_id())
    }

    /// The special tokens with their texts, in no particular order.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.special.iter()
    }

    /// How many tokens `text` has. Special tokens in it are text.
    pub fn count(&self, text: &str) -> usize {
        // Never stopped, so there is always a count.
        self.count_until(text, &mut || false).unwrap_or(0)
    }

    /// [`Self::count`], asking `stop` about every 64 KiB of text whether to give up.
    pub fn count_until(&self, text: &str, stop: &mut dyn FnMut() -> bool) -> Result<usize, Stopped> {
        let mut counter = Counter(0);
        self.encoder.text(text, &mut counter, stop)?;
        Ok(counter.0)
    }

    /// Appends the tokens of `text` to `out`. Special tokens in it are text.
    pub fn encode_ordinary(&self, text: &str, out: &mut Vec<u32>) {
        // Never stopped, so never an error.
        let _ = self.encode_ordinary_until(text, out, &mut || false);
    }

    /// [`Self::encode_ordinary`], asking `stop` about every 64 KiB of text whether to give up; `out` then keeps what
    /// it had.
    pub fn encode_ordinary_until(
        &self,
        text: &str,
        out: &mut Vec<u32>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        let before = out.len();
        self.encoder.text(text, &mut Ids(out), stop).inspect_err(|_| out.truncate(before))
    }

    /// Appends the tokens of `text` to `out`; where an allowed special token stands in it, that token.
    pub fn encode_with_special(&self, text: &str, allowed: &AllowedSpecial, out: &mut Vec<u32>) {
        // Never stopped, so never an error.
        let _ = self.encode_with_special_until(text, allowed, out, &mut || false);
    }

    /// [`Self::encode_with_special`], asking `stop` as [`Self::encode_ordinary_until`] does.
    pub fn encode_with_special_until(
        &self,
        text: &str,
        allowed: &AllowedSpecial,
        out: &mut Vec<u32>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        let before = out.len();
        let mut at = 0;
        while let Some((found, id)) = self.special.next(text, at, allowed) {
            self.encoder.text(&text[at..found.start], &mut Ids(out), stop).inspect_err(|_| out.truncate(before))?;
            out.push(id);
            at = found.end;
        }
        self.encoder.text(&text[at..], &mut Ids(out), stop).inspect_err(|_| out.truncate(before))
    }

    /// [`Self::count`] where allowed special tokens count as one.
    pub fn count_with_special_until(
        &self,
        text: &str,
        allowed: &AllowedSpecial,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<usize, Stopped> {
        let mut counter = Counter(0);
        let mut at = 0;
        while let Some((found, _)) = self.special.next(text, at, allowed) {
            self.encoder.text(&text[at..found.start], &mut counter, stop)?;
            counter.0 += 1;
            at = found.end;
        }
        self.encoder.text(&text[at..], &mut counter, stop)?;
        Ok(counter.0)
    }

    /// The first special token in `text` that `which` names: its byte range and its id.
    pub fn find_special(&self, text: &str, which: &AllowedSpecial) -> Option<(std::ops::Range<usize>, u32)> {
        self.special.next(text, 0, which)
    }

    /// The bytes of a token, ordinary or special; not always valid UTF-8.
    pub fn token_bytes(&self, token: u32) -> Option<&[u8]> {
        self.encoder.vocabulary.get(token).or_else(|| self.special.text(token).map(str::as_bytes))
    }

    /// The token with exactly these bytes, ordinary or special.
    pub fn token_of(&self, bytes: &[u8]) -> Option<u32> {
        let ordinary = self.encoder.vocabulary.find(bytes);
        ordinary.or_else(|| std::str::from_utf8(bytes).ok().and_then(|text| self.special.id(text)))
    }

    /// Appends the bytes of `tokens` to `out`. On an unknown token, `out` keeps what it had.
    pub fn decode_bytes(&self, tokens: &[u32], out: &mut Vec<u8>) -> Result<(), UnknownToken> {
        let before = out.len();
        for &token in tokens {
            match self.token_bytes(token) {
                Some(bytes) => out.extend_from_slice(bytes),
                None => {
                    out.truncate(before);
                    return Err(UnknownToken { token, encoding: self.name });
                }
            }
        }
        Ok(())
    }

    /// Appends the byte pair encoding of `bytes` to `out`: any bytes, taken as one piece.
    pub fn encode_single_piece(&self, bytes: &[u8], out: &mut Vec<u32>) {
        self.encoder.piece(bytes, &mut Ids(out));
    }

    /// The pieces the pattern splits `text` into. Each is encoded by itself; together they are the text.
    pub fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        Pieces::new(text, self.encoder.pattern)
    }
}
