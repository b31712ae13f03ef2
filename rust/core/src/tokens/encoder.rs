//! The way of a text through the tables: cache, vocabulary, pieces seen before, byte pair encoding.

use super::{
    cache::{Cache, Caches, Known},
    output::Output,
    parts::{Parts, CAPACITY},
    scan::{Classify, Portable},
    seen::{Found, Seen, MAX_BYTES},
    split::Pattern,
    vocab::{hash, key, long_hash, Key, Vocabulary, KEY_BYTES, NONE},
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
        let mut run = Run { encoder: self, cache: taken.cache(), bytes: text.as_bytes(), text: true, output, stop };
        let mut parts = Parts::new(text, self.pattern, &self.vocabulary.bridges, classify);
        let mut work = Work { sought: [(0, 0); CAPACITY], later: [0; CAPACITY + 1] };
        let mut ask = STOP_EVERY;
        while parts.fill() {
            run.batch(&parts, &mut work)?;
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
        let text = std::str::from_utf8(bytes).is_ok();
        let mut run = Run { encoder: self, cache: taken.cache(), bytes, text, output, stop: &mut || false };
        if !bytes.is_empty() {
            // Never stopped, so never an error.
            let _ = run.part(bytes, key_or_none(bytes, 0, bytes.len()), Seen::hash(bytes));
        }
    }
}

/// One call: a text, and all that is needed to encode it.
struct Run<'a, O> {
    encoder: &'a Encoder,
    cache: &'a mut Cache,
    bytes: &'a [u8],
    /// Whether they are UTF-8.
    text: bool,
    output: &'a mut O,
    stop: &'a mut dyn FnMut() -> bool,
}

impl<O: Output> Run<'_, O> {
    /// Encodes a batch. First all parts are sought in the cache, and for those that are not there the memory is asked
    /// for where they may be: waiting for many places at once takes hardly longer than waiting for one.
    #[inline(always)]
    fn batch<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work) -> Result<(), Stopped> {
        for at in 0..parts.len() {
            let (start, end) = parts.bounds(at);
            let key = key_or_none(self.bytes, start, end - start);
            let hash = hash(key);
            self.cache.prefetch(hash);
            work.sought[at] = (key, hash);
        }
        let waiting = if O::IN_ORDER { self.known_in_order(parts, work) } else { self.known(parts, work) };
        if waiting == 0 {
            return Ok(());
        }
        for &at in &work.later[..waiting] {
            self.prefetch(parts.bounds(usize::from(at)), &mut work.sought[usize::from(at)]);
        }
        for &at in &work.later[..waiting] {
            self.encoder.seen.prefetch_entry(work.sought[usize::from(at)].1);
        }
        for &at in &work.later[..waiting] {
            let (start, end) = parts.bounds(usize::from(at));
            let (key, hash) = work.sought[usize::from(at)];
            // An equal part of the same batch may have come first.
            if !self.cache.get(key, hash).is_some_and(|known| self.output.known(known)) {
                self.part(&self.bytes[start..end], key, hash)?;
            }
        }
        Ok(())
    }

    /// Hands out what the cache knows of a batch, and notes the parts that it does not know. No branch depends on
    /// which they are: guessing wrong would mean to wait for each place in the cache by itself.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn known<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work) -> usize {
        let mut waiting = 0;
        let mut total = 0;
        for at in 0..parts.len() {
            let (key, hash) = work.sought[at];
            let count = self.cache.count(key, hash);
            total += count;
            work.later[waiting] = at as u8;
            waiting += usize::from(count == 0);
        }
        self.output.known(Known::counted(total));
        waiting
    }

    /// The same where the order matters: from the first part on that is not known, all have to wait.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn known_in_order<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work) -> usize {
        let mut at = 0;
        while at < parts.len() {
            let (key, hash) = work.sought[at];
            if !self.cache.get(key, hash).is_some_and(|known| self.output.known(known)) {
                break;
            }
            at += 1;
        }
        let waiting = parts.len() - at;
        for (later, at) in work.later.iter_mut().zip(at..parts.len()) {
            *later = at as u8;
        }
        waiting
    }

    /// Asks for the memory where a part may be that the cache does not know.
    #[inline(always)]
    fn prefetch(&self, (start, end): (usize, usize), (key, hash): &mut (Key, u64)) {
        if end - start > KEY_BYTES {
            if end - start > MAX_BYTES {
                return;
            }
            *hash = long_hash(&self.bytes[start..end]);
        } else {
            self.encoder.vocabulary.prefetch_key(*key);
        }
        self.encoder.seen.prefetch(*hash);
    }

    fn part(&mut self, bytes: &[u8], key: Key, hash: u64) -> Result<(), Stopped> {
        if bytes.len() <= KEY_BYTES {
            self.short(bytes, key, hash);
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
        let tokens = merged(self.encoder, self.cache, (bytes, hash), self.text, &mut found);
        self.output.tokens(tokens);
        Ok(())
    }

    fn short(&mut self, bytes: &[u8], key: Key, hash: u64) {
        let id = self.encoder.vocabulary.find_key(key);
        if id != NONE {
            self.cache.put(key, hash, &[id]);
            return self.output.tokens(&[id]);
        }
        let mut found = Found::default();
        let tokens = merged(self.encoder, self.cache, (bytes, hash), self.text, &mut found);
        self.output.tokens(tokens);
        // Copied, because the tokens may still lie in the working memory of the cache.
        let mut ids = [NONE; KEY_BYTES];
        let count = tokens.len();
        ids[..count].copy_from_slice(tokens);
        self.cache.put(key, hash, &ids[..count]);
    }
}

/// The working memory of a batch: the key and hash of each part, and the numbers of those that wait.
struct Work {
    sought: [(Key, u64); CAPACITY],
    later: [u8; CAPACITY + 1],
}

/// The key of a part; of one that is too long, a key that no piece has.
#[inline(always)]
fn key_or_none(bytes: &[u8], at: usize, length: usize) -> Key {
    key(bytes, at, if length <= KEY_BYTES { length } else { 0 })
}

/// The tokens of a piece of at most [`MAX_BYTES`] that is no token: seen before, or encoded now. `text`: it is UTF-8.
fn merged<'a>(
    encoder: &Encoder,
    cache: &'a mut Cache,
    (bytes, hash): (&[u8], u64),
    text: bool,
    found: &'a mut Found,
) -> &'a [u32] {
    if encoder.seen.get(bytes, hash, found) {
        return found.tokens();
    }
    let tokens = cache.merger.short(&encoder.vocabulary, bytes, text);
    encoder.seen.put(bytes, hash, tokens);
    tokens
}
