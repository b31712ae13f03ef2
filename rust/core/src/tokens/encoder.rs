//! The way of a text through the tables: cache, vocabulary, pieces seen before, byte pair encoding.

use super::{
    cache::{Cache, Caches, Known},
    output::Output,
    parts::{Parts, CAPACITY},
    scan::{Classify, Portable},
    seen::{Found, Seen, MAX_BYTES},
    split::Pattern,
    vocab::{key, Key, Vocabulary, KEY_BYTES, NONE},
    Stopped,
};

#[cfg(target_arch = "x86_64")]
use super::x86::Avx512;

/// How many bytes are encoded before `stop` is asked again.
const STOP_EVERY: usize = 65_536;

/// What encodings of the same ranks and pattern share.
pub(super) struct Encoder {
    pub(super) vocabulary: Vocabulary,
    pub(super) pattern: Pattern,
    caches: Caches,
    seen: Seen,
}

impl Encoder {
    pub(super) fn new(vocabulary: Vocabulary, pattern: Pattern) -> Self {
        Self { vocabulary, pattern, caches: Caches::new(), seen: Seen::new() }
    }

    /// Encodes a text. `stop` is asked about every 64 KiB.
    pub(super) fn text(
        &self,
        text: &str,
        output: &mut impl Output,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = Avx512::detect() {
            return self.text_with(text, avx512, output, stop);
        }
        self.text_with(text, Portable, output, stop)
    }

    fn text_with(
        &self,
        text: &str,
        classify: impl Classify,
        output: &mut impl Output,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        let mut taken = self.caches.take();
        let mut run = Run { encoder: self, cache: taken.cache(), bytes: text.as_bytes(), output, stop };
        let mut parts = Parts::new(text, self.pattern, &self.vocabulary.bridges, classify);
        let mut later = [(0, Known::default()); CAPACITY];
        let mut ask = STOP_EVERY;
        while parts.fill() {
            run.batch(&parts, &mut later)?;
            if parts.end() >= ask {
                ask = parts.end() + STOP_EVERY;
                if (run.stop)() {
                    return Err(Stopped);
                }
            }
        }
        Ok(())
    }

    /// Encodes any bytes as one piece.
    pub(super) fn piece(&self, bytes: &[u8], output: &mut impl Output) {
        let mut taken = self.caches.take();
        let mut run = Run { encoder: self, cache: taken.cache(), bytes, output, stop: &mut || false };
        if !bytes.is_empty() {
            // Never stopped, so never an error.
            let _ = run.part(0, bytes.len());
        }
    }
}

/// One call: a text, and all that is needed to encode it.
struct Run<'a, O> {
    encoder: &'a Encoder,
    cache: &'a mut Cache,
    bytes: &'a [u8],
    output: &'a mut O,
    stop: &'a mut dyn FnMut() -> bool,
}

impl<O: Output> Run<'_, O> {
    /// Encodes a batch. First all parts are sought in the cache, and for those that are not there the memory is asked
    /// for where they may be: waiting for many places at once takes hardly longer than waiting for one. `later` is
    /// working memory: the parts that wait, and what the cache knew of them.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn batch<C: Classify>(&mut self, parts: &Parts<'_, C>, later: &mut [(u8, Known); CAPACITY]) -> Result<(), Stopped> {
        let mut waiting = 0;
        for at in 0..parts.len() {
            let (start, end) = parts.bounds(at);
            let known = self.known(start, end);
            if let Some(known) = known {
                if (!O::IN_ORDER || waiting == 0) && self.output.known(known) {
                    continue;
                }
            }
            later[waiting] = (at as u8, known.unwrap_or_default());
            waiting += 1;
        }
        for &(at, known) in &later[..waiting] {
            if known.count == 0 || !self.output.known(known) {
                let (start, end) = parts.bounds(at as usize);
                self.part(start, end)?;
            }
        }
        Ok(())
    }

    /// What the cache knows of a part; if nothing, the memory is asked for where it may be.
    #[inline(always)]
    fn known(&self, start: usize, end: usize) -> Option<Known> {
        if end - start <= KEY_BYTES {
            let key = key(self.bytes, start, end - start);
            let known = self.cache.get(key);
            if known.is_some() {
                return known;
            }
            self.encoder.vocabulary.prefetch_key(key);
        }
        if end - start <= MAX_BYTES {
            self.encoder.seen.prefetch(&self.bytes[start..end]);
        }
        None
    }

    fn part(&mut self, start: usize, end: usize) -> Result<(), Stopped> {
        let bytes = &self.bytes[start..end];
        if bytes.len() <= KEY_BYTES {
            let key = key(self.bytes, start, bytes.len());
            // An equal part of the same batch may have come first.
            if !self.cache.get(key).is_some_and(|known| self.output.known(known)) {
                self.short(bytes, key);
            }
            return Ok(());
        }
        if let Some(id) = self.encoder.vocabulary.find(bytes) {
            self.output.tokens(&[id]);
            return Ok(());
        }
        if bytes.len() > MAX_BYTES {
            return self.cache.merger.long(&self.encoder.vocabulary, bytes, self.output.sink(), self.stop);
        }
        let mut found = Found::default();
        let tokens = merged(self.encoder, self.cache, bytes, &mut found);
        self.output.tokens(tokens);
        Ok(())
    }

    fn short(&mut self, bytes: &[u8], key: Key) {
        let id = self.encoder.vocabulary.find_key(key);
        if id != NONE {
            self.cache.put(key, &[id]);
            return self.output.tokens(&[id]);
        }
        let mut found = Found::default();
        let tokens = merged(self.encoder, self.cache, bytes, &mut found);
        self.output.tokens(tokens);
        // Copied, because the tokens may still lie in the working memory of the cache.
        let mut ids = [NONE; KEY_BYTES];
        let count = tokens.len();
        ids[..count].copy_from_slice(tokens);
        self.cache.put(key, &ids[..count]);
    }
}

/// The tokens of a piece of at most [`MAX_BYTES`] that is no token: seen before, or encoded now.
fn merged<'a>(encoder: &Encoder, cache: &'a mut Cache, bytes: &[u8], found: &'a mut Found) -> &'a [u32] {
    if encoder.seen.get(bytes, found) {
        return found.tokens();
    }
    let tokens = cache.merger.short(&encoder.vocabulary, bytes);
    encoder.seen.put(bytes, tokens);
    tokens
}
