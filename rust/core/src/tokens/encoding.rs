//! An encoding: text to tokens, tokens to text, and counting without keeping the tokens.

use super::{
    bpe,
    cache::{Cache, Caches, MAX_IDS},
    special::{AllowedSpecial, SpecialTokens},
    split::{Pattern, Pieces, Splitter},
    vocab::{key, Vocabulary, KEY_BYTES, NONE},
    Stopped, UnknownToken,
};

/// How many bytes are encoded before `stop` is asked again.
const STOP_EVERY: usize = 65_536;

/// What encodings of the same ranks and pattern share.
pub(super) struct Core {
    pub(super) vocabulary: Vocabulary,
    pub(super) pattern: Pattern,
    pub(super) caches: Caches,
}

/// A token encoding, for example `o200k_base`. Immutable and shared by all threads; see [`super::encoding`].
pub struct Encoding {
    pub(super) name: &'static str,
    pub(super) core: &'static Core,
    pub(super) special: SpecialTokens,
}

/// What becomes of the tokens of a text.
trait Output {
    /// Takes a piece the cache knows; `false` if the cache does not know enough of it.
    fn known(&mut self, cache: &Cache, known: super::cache::Known) -> bool;
    fn tokens(&mut self, tokens: &[u32]);
    fn sink(&mut self) -> bpe::Sink<'_>;
}

struct Counter(usize);

impl Output for Counter {
    #[inline(always)]
    fn known(&mut self, _: &Cache, known: super::cache::Known) -> bool {
        self.0 += known.count;
        true
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.0 += tokens.len();
    }

    fn sink(&mut self) -> bpe::Sink<'_> {
        bpe::Sink::Count(&mut self.0)
    }
}

struct Ids<'a>(&'a mut Vec<u32>);

impl Output for Ids<'_> {
    #[inline(always)]
    fn known(&mut self, cache: &Cache, known: super::cache::Known) -> bool {
        let enough = known.count <= MAX_IDS;
        if enough {
            cache.append(known, self.0);
        }
        enough
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.0.extend_from_slice(tokens);
    }

    fn sink(&mut self) -> bpe::Sink<'_> {
        bpe::Sink::Tokens(self.0)
    }
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
        self.core.vocabulary.max_id().max(self.special.max_id())
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
        self.run(text, &mut counter, stop)?;
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
        self.run(text, &mut Ids(out), stop).inspect_err(|_| out.truncate(before))
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
            self.run(&text[at..found.start], &mut Ids(out), stop).inspect_err(|_| out.truncate(before))?;
            out.push(id);
            at = found.end;
        }
        self.run(&text[at..], &mut Ids(out), stop).inspect_err(|_| out.truncate(before))
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
            self.run(&text[at..found.start], &mut counter, stop)?;
            counter.0 += 1;
            at = found.end;
        }
        self.run(&text[at..], &mut counter, stop)?;
        Ok(counter.0)
    }

    /// The first special token in `text` that `which` names: its byte range and its id.
    pub fn find_special(&self, text: &str, which: &AllowedSpecial) -> Option<(std::ops::Range<usize>, u32)> {
        self.special.next(text, 0, which)
    }

    /// The bytes of a token, ordinary or special; not always valid UTF-8.
    pub fn token_bytes(&self, token: u32) -> Option<&[u8]> {
        self.core.vocabulary.get(token).or_else(|| self.special.text(token).map(str::as_bytes))
    }

    /// The token with exactly these bytes, ordinary or special.
    pub fn token_of(&self, bytes: &[u8]) -> Option<u32> {
        let ordinary = self.core.vocabulary.find(bytes);
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
        let mut taken = self.core.caches.take();
        // Never stopped, so never an error.
        let _ = self.core.piece(taken.cache(), bytes, 0, bytes.len(), &mut Ids(out), &mut || false);
    }

    /// The pieces the pattern splits `text` into. Each is encoded by itself; together they are the text.
    pub fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        Pieces::new(text, self.core.pattern)
    }

    fn run(&self, text: &str, output: &mut impl Output, stop: &mut dyn FnMut() -> bool) -> Result<(), Stopped> {
        let mut taken = self.core.caches.take();
        let cache = taken.cache();
        let splitter = Splitter::new(text, self.core.pattern);
        let mut at = 0;
        let mut ask = STOP_EVERY;
        while at < text.len() {
            let end = splitter.end_of_piece(at);
            self.core.piece(cache, text.as_bytes(), at, end, output, stop)?;
            at = end;
            if at >= ask {
                ask = at + STOP_EVERY;
                if stop() {
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }
}

impl Core {
    /// Encodes the piece `bytes[at..end]`.
    #[inline(always)]
    fn piece(
        &self,
        cache: &mut Cache,
        bytes: &[u8],
        at: usize,
        end: usize,
        output: &mut impl Output,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        if end - at > KEY_BYTES {
            return self.long_piece(cache, &bytes[at..end], output, stop);
        }
        let key = key(bytes, at, end - at);
        match cache.get(key) {
            Some(known) if output.known(cache, known) => {}
            _ => self.new_piece(cache, &bytes[at..end], key, output),
        }
        Ok(())
    }

    #[cold]
    fn new_piece(&self, cache: &mut Cache, bytes: &[u8], key: u128, output: &mut impl Output) {
        if bytes.is_empty() {
            return;
        }
        let id = self.vocabulary.find_key(key);
        let mut ids = [NONE; KEY_BYTES];
        let count = if id == NONE {
            let tokens = cache.merger.short(&self.vocabulary, bytes);
            ids[..tokens.len()].copy_from_slice(tokens);
            tokens.len()
        } else {
            ids[0] = id;
            1
        };
        cache.put(key, &ids[..count]);
        output.tokens(&ids[..count]);
    }

    fn long_piece(
        &self,
        cache: &mut Cache,
        bytes: &[u8],
        output: &mut impl Output,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        if let Some(id) = self.vocabulary.find(bytes) {
            output.tokens(&[id]);
            return Ok(());
        }
        cache.merger.long(&self.vocabulary, bytes, output.sink(), stop)
    }
}
