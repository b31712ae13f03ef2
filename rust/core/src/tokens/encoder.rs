//! The way of a text through the tables: cache, vocabulary, pieces seen before, byte pair encoding.

use super::{
    cache::{Cache, Caches, Known},
    key::{hash, key, long_hash, Key, KEY_BYTES},
    lanes::LANES,
    output::Output,
    parts::{Parts, BATCH, CAPACITY},
    scan::{Classify, Portable},
    seen::{Found, Seen, MAX_BYTES},
    split::Pattern,
    vocab::{Vocabulary, NONE},
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
        let cache = taken.cache();
        // A call that was stopped may have left pieces there.
        cache.lanes.clear();
        let mut run = Run { encoder: self, cache, bytes: text.as_bytes(), output, stop };
        let mut parts = Parts::new(text, self.pattern, &self.vocabulary.bridges, classify);
        let mut work = Work::new();
        let batch = run.batch_size();
        let mut ask = STOP_EVERY;
        while parts.fill(batch) {
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
        if bytes.is_empty() {
            return;
        }
        if let Some(id) = self.vocabulary.find(bytes) {
            return output.tokens(&[id]);
        }
        let mut taken = self.caches.take();
        // Never stopped, so never an error.
        let _ = taken.cache().merger.long(&self.vocabulary, bytes, output.sink(), &mut || false);
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

/// The working memory of a batch.
struct Work {
    /// The key and hash of each part.
    sought: [(Key, u64); CAPACITY],
    /// The numbers of the parts that wait.
    later: [u8; CAPACITY + 1],
    /// The numbers of those whose pieces are in the lanes.
    joining: [u8; LANES],
    joining_count: usize,
}

impl Work {
    fn new() -> Self {
        Self { sought: [(0, 0); CAPACITY], later: [0; CAPACITY + 1], joining: [0; LANES], joining_count: 0 }
    }
}

impl<O: Output> Run<'_, O> {
    /// Where the order matters, parts behind one that is not known are read twice: then batches are smaller.
    fn batch_size(&self) -> usize {
        if O::IN_ORDER {
            BATCH / 2
        } else {
            BATCH
        }
    }

    /// Encodes a batch. First all parts are sought in the cache, and for those that are not there the memory is asked
    /// for where they may be: waiting for many places at once takes hardly longer than waiting for one.
    #[inline(always)]
    fn batch<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work) -> Result<(), Stopped> {
        for at in 0..parts.len() {
            let (start, end) = parts.bounds(at);
            let key = key_or_none(self.bytes, start, end - start);
            let hash = hash(key);
            self.cache.prefetch(hash);
            if O::IN_ORDER {
                self.cache.prefetch_ids(hash);
            }
            work.sought[at] = (key, hash);
        }
        let first = if O::IN_ORDER { self.known_in_order(parts, work) } else { 0 };
        let waiting = self.known(parts, work, first);
        for &at in &work.later[..waiting] {
            self.prefetch(parts.bounds(usize::from(at)), &mut work.sought[usize::from(at)].1);
        }
        for &at in &work.later[..waiting] {
            let hash = work.sought[usize::from(at)].1;
            self.encoder.vocabulary.prefetch_found(hash);
            self.encoder.seen.prefetch_entry(hash);
        }
        if O::IN_ORDER {
            return (first..parts.len()).try_for_each(|at| self.answer(parts, work, at as u8));
        }
        for waiter in 0..waiting {
            self.answer(parts, work, work.later[waiter])?;
        }
        self.join(parts, work);
        Ok(())
    }

    /// Answers one part, or puts its piece into the lanes.
    #[inline(always)]
    fn answer<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work, at: u8) -> Result<(), Stopped> {
        if !self.find(parts, work, at)? {
            self.begin(parts, work, at);
        }
        Ok(())
    }

    /// Where the order matters: hands out what the cache knows up to the first part that it does not know, and gives
    /// that one's number.
    #[inline(always)]
    fn known_in_order<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &Work) -> usize {
        let mut at = 0;
        while at < parts.len() {
            let (key, hash) = work.sought[at];
            if !self.cache.get(key, hash).is_some_and(|known| self.output.known(known)) {
                break;
            }
            at += 1;
        }
        at
    }

    /// Notes the parts from `first` on that the cache does not know, and hands out what it knows of the others, unless
    /// the order matters. No branch depends on which they are: guessing wrong would mean to wait for each place in the
    /// cache by itself.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn known<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work, first: usize) -> usize {
        let mut waiting = 0;
        let mut total = 0;
        for at in first..parts.len() {
            let (key, hash) = work.sought[at];
            let count = self.cache.count(key, hash);
            total += count;
            work.later[waiting] = at as u8;
            waiting += usize::from(count == 0);
        }
        if !O::IN_ORDER {
            self.output.known(Known::counted(total));
        }
        waiting
    }

    /// Asks for the memory where a part may be that the cache does not know.
    #[inline(always)]
    fn prefetch(&self, (start, end): (usize, usize), hash: &mut u64) {
        if end - start > KEY_BYTES {
            *hash = long_hash(&self.bytes[start..end]);
        } else {
            self.cache.prefetch_ids(*hash);
        }
        self.encoder.vocabulary.prefetch_hash(*hash);
        self.encoder.seen.prefetch(*hash);
    }

    /// Answers a part that is a token or was met before; `false` if its piece has to be encoded. A piece that is too
    /// long to be kept is encoded at once, or when its turn comes.
    #[inline(always)]
    fn find<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &Work, at: u8) -> Result<bool, Stopped> {
        let (start, end) = parts.bounds(usize::from(at));
        let bytes = &self.bytes[start..end];
        let (key, hash) = work.sought[usize::from(at)];
        let short = bytes.len() <= KEY_BYTES;
        let id = if short {
            // An equal part of the same batch may have come first.
            if let Some(known) = self.cache.get(key, hash) {
                if self.output.known(known) {
                    return Ok(true);
                }
            }
            self.encoder.vocabulary.find_key(key, hash)
        } else {
            self.encoder.vocabulary.find_long(bytes, hash)
        };
        if id != NONE {
            if short {
                self.cache.put(key, hash, &[id]);
            }
            self.output.tokens(&[id]);
            return Ok(true);
        }
        if bytes.len() > MAX_BYTES {
            let vocabulary = &self.encoder.vocabulary;
            return self.cache.merger.long(vocabulary, bytes, self.output.sink(), self.stop).map(|()| true);
        }
        let mut found = Found::default();
        if !self.encoder.seen.get(bytes, hash, &mut found) {
            return Ok(false);
        }
        if short {
            self.cache.put(key, hash, found.tokens());
        }
        self.output.tokens(found.tokens());
        Ok(true)
    }

    /// Puts a piece that has to be encoded into the lanes, or encodes it now if it is too long for them or the order
    /// matters.
    fn begin<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work, at: u8) {
        let (start, end) = parts.bounds(usize::from(at));
        let bytes = &self.bytes[start..end];
        if !O::IN_ORDER && self.cache.lanes.push(&self.encoder.vocabulary, bytes) {
            work.joining[work.joining_count] = at;
            work.joining_count += 1;
            if work.joining_count == LANES {
                self.join(parts, work);
            }
        } else {
            let tokens = self.cache.merger.short(&self.encoder.vocabulary, bytes);
            // Copied, because they lie in the working memory of the cache.
            let tokens = tokens.to_vec();
            self.keep(parts, work, at, &tokens);
        }
    }

    /// Encodes the pieces that are in the lanes.
    fn join<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &mut Work) {
        if work.joining_count == 0 {
            return;
        }
        self.cache.lanes.join(&self.encoder.vocabulary);
        for lane in 0..work.joining_count {
            let (tokens, count) = self.cache.lanes.tokens(lane);
            self.keep(parts, work, work.joining[lane], &tokens[..count]);
        }
        self.cache.lanes.clear();
        work.joining_count = 0;
    }

    /// Answers a part, and keeps the tokens of its piece for the next time.
    #[inline(always)]
    fn keep<C: Classify>(&mut self, parts: &Parts<'_, C>, work: &Work, at: u8, tokens: &[u32]) {
        let (start, end) = parts.bounds(usize::from(at));
        let (key, hash) = work.sought[usize::from(at)];
        self.encoder.seen.put(&self.bytes[start..end], hash, tokens);
        if end - start <= KEY_BYTES {
            self.cache.put(key, hash, tokens);
        }
        self.output.tokens(tokens);
    }
}

/// The key of a part; of one that is too long, a key that no piece has.
#[inline(always)]
fn key_or_none(bytes: &[u8], at: usize, length: usize) -> Key {
    key(bytes, at, if length <= KEY_BYTES { length } else { 0 })
}
