//! An encoding: text to tokens, tokens to text, and counting without keeping the tokens.

use super::{
    bpe,
    cache::{Cache, Caches, Known},
    scan::{self, Classify, Portable},
    seen::{Found, Seen, MAX_BYTES},
    special::{AllowedSpecial, SpecialTokens},
    split::{Pattern, Pieces, Splitter},
    vocab::{key, Vocabulary, KEY_BYTES, NONE},
    Stopped, UnknownToken,
};

#[cfg(target_arch = "x86_64")]
use super::x86::Avx512;

/// How many bytes are encoded before `stop` is asked again.
const STOP_EVERY: usize = 65_536;

/// What encodings of the same ranks and pattern share.
pub(super) struct Core {
    pub(super) vocabulary: Vocabulary,
    pub(super) pattern: Pattern,
    pub(super) caches: Caches,
    pub(super) seen: Seen,
}

/// A token encoding, for example `o200k_base`. Immutable and shared by all threads; see [`super::encoding`].
pub struct Encoding {
    pub(super) name: &'static str,
    pub(super) core: &'static Core,
    pub(super) special: SpecialTokens,
}

/// What becomes of the tokens of a text.
trait Output {
    /// Whether tokens must come in the order of the text.
    const IN_ORDER: bool;
    /// Takes a piece the cache knows; `false` if the cache does not know enough of it.
    fn known(&mut self, cache: &Cache, known: Known) -> bool;
    fn tokens(&mut self, tokens: &[u32]);
    fn sink(&mut self) -> bpe::Sink<'_>;
}

struct Counter(usize);

impl Output for Counter {
    const IN_ORDER: bool = false;

    #[inline(always)]
    fn known(&mut self, _: &Cache, known: Known) -> bool {
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
    const IN_ORDER: bool = true;

    #[inline(always)]
    fn known(&mut self, cache: &Cache, known: Known) -> bool {
        cache.append(known, self.0)
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
        let _ = match bytes.len() {
            0 => Ok(()),
            1..=KEY_BYTES => self.core.piece(taken.cache(), bytes, 0, bytes.len(), &mut Ids(out), &mut || false),
            _ => self.core.part(taken.cache(), bytes, &mut Ids(out), &mut || false),
        };
    }

    /// The pieces the pattern splits `text` into. Each is encoded by itself; together they are the text.
    pub fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        Pieces::new(text, self.core.pattern)
    }

    fn run(&self, text: &str, output: &mut impl Output, stop: &mut dyn FnMut() -> bool) -> Result<(), Stopped> {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = Avx512::detect() {
            return self.core.text(text, avx512, output, stop);
        }
        self.core.text(text, Portable, output, stop)
    }
}

/// What is encoded by itself: the pieces of a text, the long ones cut where no token spans. They come in batches.
struct Parts<'a> {
    bytes: &'a [u8],
    splitter: Splitter<'a>,
    /// Where the parts of the batch begin, and where the last one ends.
    bounds: [usize; CAPACITY + 1],
    count: usize,
    at: usize,
    /// The end of the piece that is being cut.
    piece_end: usize,
}

/// A batch is full with this many parts.
const BATCH: usize = 64;
/// The last window may bring as many more as it has bytes.
const CAPACITY: usize = BATCH + scan::WINDOW;

impl<'a> Parts<'a> {
    fn new(text: &'a str, core: &Core) -> Self {
        let splitter = Splitter::new(text, core.pattern);
        Self { bytes: text.as_bytes(), splitter, bounds: [0; CAPACITY + 1], count: 0, at: 0, piece_end: 0 }
    }

    /// Replaces the batch by the next one; `false` at the end of the text.
    #[inline(always)]
    fn fill(&mut self, core: &Core, classify: impl Classify) -> bool {
        self.count = 0;
        self.bounds[0] = self.at;
        while self.count < BATCH && self.at < self.bytes.len() {
            if self.at < self.piece_end {
                self.push(core.vocabulary.bridges.end_of_part(&self.bytes[..self.piece_end], self.at));
                continue;
            }
            let mut starts = core.starts(self.bytes, self.at, classify);
            starts &= starts - 1;
            if starts == 0 {
                self.push_piece();
            }
            let window = self.at;
            while starts != 0 {
                self.push(window + starts.trailing_zeros() as usize);
                starts &= starts - 1;
            }
        }
        self.count > 0
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
}

impl Core {
    fn text(
        &self,
        text: &str,
        classify: impl Classify,
        output: &mut impl Output,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        let mut taken = self.caches.take();
        let cache = taken.cache();
        let mut parts = Parts::new(text, self);
        let mut ask = STOP_EVERY;
        while parts.fill(self, classify) {
            self.batch(cache, &parts, output, stop)?;
            if parts.at >= ask {
                ask = parts.at + STOP_EVERY;
                if stop() {
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }

    /// Encodes a batch of parts. First all of them are sought in the cache, and the memory is asked for where those
    /// that are not there may be: waiting for many places at once takes hardly longer than waiting for one.
    #[inline(always)]
    fn batch<O: Output>(
        &self,
        cache: &mut Cache,
        parts: &Parts<'_>,
        output: &mut O,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        let mut later = [0_u8; CAPACITY];
        let mut count = 0;
        for at in 0..parts.count {
            let (start, end) = (parts.bounds[at], parts.bounds[at + 1]);
            let known = if end - start <= KEY_BYTES {
                let key = key(parts.bytes, start, end - start);
                let known = cache.get(key);
                if known.is_none() {
                    self.vocabulary.prefetch_key(key);
                }
                known
            } else {
                None
            };
            let done = match known {
                Some(known) => !O::IN_ORDER && output.known(cache, known),
                None => {
                    if end - start <= MAX_BYTES {
                        self.seen.prefetch(&parts.bytes[start..end]);
                    }
                    false
                }
            };
            later[count] = at as u8;
            count += usize::from(!done);
        }
        for &at in &later[..count] {
            let (start, end) = (parts.bounds[at as usize], parts.bounds[at as usize + 1]);
            self.piece(cache, parts.bytes, start, end, output, stop)?;
        }
        Ok(())
    }

    /// The sure starts of pieces in the window at `at`, as [`scan::starts`] gives them.
    #[inline(always)]
    fn starts(&self, bytes: &[u8], at: usize, classify: impl Classify) -> u64 {
        let rest = &bytes[at..];
        // Most often a blank and a word in another script: the window would end where it begins.
        if rest[0] >= 0x80 || rest.get(1).is_none_or(|&second| second >= 0x80) {
            return 1;
        }
        if let Some(window) = rest.first_chunk() {
            return scan::starts(self.pattern, window, &classify.classify(window));
        }
        // Behind the end stands a byte that is not ASCII: no piece is trusted to end there.
        let mut window = [0xFF; scan::WINDOW];
        window[..rest.len()].copy_from_slice(rest);
        scan::starts(self.pattern, &window, &classify.classify(&window))
    }

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
            return self.part(cache, &bytes[at..end], output, stop);
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
        let id = self.vocabulary.find_key(key);
        if id != NONE {
            cache.put(key, &[id]);
            return output.tokens(&[id]);
        }
        let mut found = Found::default();
        let tokens = if self.seen.get(bytes, &mut found) {
            found.tokens()
        } else {
            let tokens = cache.merger.short(&self.vocabulary, bytes);
            self.seen.put(bytes, tokens);
            tokens
        };
        output.tokens(tokens);
        // Copied, because the tokens may still lie in the working memory of the cache.
        let mut ids = [NONE; KEY_BYTES];
        let count = tokens.len();
        ids[..count].copy_from_slice(tokens);
        cache.put(key, &ids[..count]);
    }

    /// A part that is too long for the cache.
    fn part(
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
        if bytes.len() > MAX_BYTES {
            return cache.merger.long(&self.vocabulary, bytes, output.sink(), stop);
        }
        let mut found = Found::default();
        if self.seen.get(bytes, &mut found) {
            output.tokens(found.tokens());
        } else {
            let tokens = cache.merger.short(&self.vocabulary, bytes);
            self.seen.put(bytes, tokens);
            output.tokens(tokens);
        }
        Ok(())
    }
}
