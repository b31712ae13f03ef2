//! The pieces of several tokens that any thread has met: two tables of fixed size, shared without a lock.
//!
//! Entries stand one behind the other in the order of their first sight, so that as much memory is touched as there
//! are pieces, and a text that comes again meets them in that order. An index finds them by their hash. When all
//! entries are taken, the oldest makes room.
//!
//! Each entry is guarded by its version: odd while somebody writes, and different before and after a write. Whoever
//! reads while it changes finds nothing; whoever wants to write while another does leaves it. What the index says is
//! only a hint, because the entry holds all bytes of its piece. So nobody ever waits, and a thread that is lost in the
//! middle of a write, as by a fork, costs one entry.

use super::{
    key::{hash, key as short_key, long_hash, KEY_BYTES},
    prefetch::prefetch,
};
use std::sync::{
    atomic::{fence, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    OnceLock,
};

/// Entries of one cache line, for nearly everything: 11.7 MiB, and 2 MiB for their index.
type Words = Table<WORD_KEY, 3>;
const WORDS: (usize, u32) = (192_000, 16);
/// Entries of three cache lines for rows of dashes and their like: 0.8 MiB. Encoding those costs most.
type Rows = Table<16, 7>;
const ROWS: (usize, u32) = (4096, 10);
/// The longest piece that is kept, in bytes; the last byte of a key is the length.
pub(super) const MAX_BYTES: usize = ROW_WORDS * 8 - 1;
const ROW_WORDS: usize = 16;
const WORD_BYTES: usize = WORD_KEY * 8 - 1;
const WORD_KEY: usize = 4;
/// Three ids of 18 bits in a word, and their number above them in the first one.
const IDS_IN_WORD: usize = 3;
const ID_BITS: usize = 18;
const COUNT_SHIFT: usize = IDS_IN_WORD * ID_BITS;
/// The most tokens an entry holds.
pub(super) const MAX_TOKENS: usize = 7 * IDS_IN_WORD;
/// Entries are made by so many, when the first of them is needed.
const BLOCK: usize = 64;
/// A slot of the index: the number of an entry plus one, and above it a part of the hash. 0 is free.
const NUMBER_BITS: u32 = 18;
/// Slots of one bucket, half a cache line.
const WAYS: usize = 8;

/// The tables. They start empty.
pub(super) struct Seen {
    words: Words,
    rows: Rows,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { words: Table::new(WORDS), rows: Table::new(ROWS) }
    }

    /// The hash of a piece, which the other functions want.
    #[inline(always)]
    pub(super) fn hash(piece: &[u8]) -> u64 {
        if piece.len() <= KEY_BYTES {
            hash(short_key(piece, 0, piece.len()))
        } else {
            long_hash(piece)
        }
    }

    /// Asks for the memory of the index that [`Self::prefetch_entry`] and [`Self::get`] will read.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(self.words.bucket(hash));
    }

    /// Asks for the memory of the entry itself.
    #[inline(always)]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        if let Some(entry) = self.words.candidates(hash).next() {
            prefetch(entry);
        }
    }

    /// Gives `out` the tokens of a piece; `false` if they are not known. The piece has at most [`MAX_BYTES`].
    pub(super) fn get(&self, piece: &[u8], hash: u64, out: &mut Found) -> bool {
        if piece.len() <= WORD_BYTES {
            self.words.get(piece, hash, out)
        } else {
            self.rows.get(piece, hash, out)
        }
    }

    /// Keeps the tokens of a piece, unless they are too many or somebody else writes there.
    pub(super) fn put(&self, piece: &[u8], hash: u64, tokens: &[u32]) {
        if piece.len() <= WORD_BYTES {
            self.words.put(piece, hash, tokens);
        } else if piece.len() <= MAX_BYTES {
            self.rows.put(piece, hash, tokens);
        }
    }
}

/// A table of pieces of at most `8 * KEY - 1` bytes and `3 * IDS` tokens.
struct Table<const KEY: usize, const IDS: usize> {
    index: Vec<Bucket>,
    shift: u32,
    blocks: Vec<OnceLock<Box<[Entry<KEY, IDS>]>>>,
    /// How many pieces were put.
    put: AtomicUsize,
}

#[derive(Default)]
#[repr(align(32))]
struct Bucket([AtomicU32; WAYS]);

#[repr(align(64))]
struct Entry<const KEY: usize, const IDS: usize> {
    version: AtomicU64,
    key: [AtomicU64; KEY],
    ids: [AtomicU64; IDS],
}

impl<const KEY: usize, const IDS: usize> Entry<KEY, IDS> {
    fn empty() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { version: AtomicU64::new(0), key: std::array::from_fn(zero), ids: std::array::from_fn(zero) }
    }

    fn get(&self, key: &[u64; KEY], out: &mut Found) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let same = self.key.iter().zip(key).all(|(there, word)| there.load(Ordering::Relaxed) == *word);
        if version % 2 == 1 || !same {
            return false;
        }
        let words: [u64; IDS] = std::array::from_fn(|at| self.ids[at].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if self.version.load(Ordering::Relaxed) != version {
            return false;
        }
        out.count = (words[0] >> COUNT_SHIFT) as usize;
        for (ids, word) in out.ids.chunks_exact_mut(IDS_IN_WORD).zip(words) {
            for (at, id) in ids.iter_mut().enumerate() {
                *id = (word >> (at * ID_BITS)) as u32 & ((1 << ID_BITS) - 1);
            }
        }
        true
    }

    /// Replaces the piece; gives the one that was there. `None` if somebody else writes.
    fn put(&self, key: [u64; KEY], tokens: &[u32]) -> Option<[u64; KEY]> {
        let version = self.version.load(Ordering::Relaxed);
        let odd = version | 1;
        if odd == version || self.version.compare_exchange(version, odd, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return None;
        }
        fence(Ordering::Release);
        let mut words = [0_u64; IDS];
        for (at, &id) in tokens.iter().enumerate() {
            words[at / IDS_IN_WORD] |= u64::from(id) << (at % IDS_IN_WORD * ID_BITS);
        }
        words[0] |= (tokens.len() as u64) << COUNT_SHIFT;
        let before = std::array::from_fn(|at| self.key[at].load(Ordering::Relaxed));
        self.key.iter().zip(key).for_each(|(there, word)| there.store(word, Ordering::Relaxed));
        self.ids.iter().zip(words).for_each(|(there, word)| there.store(word, Ordering::Relaxed));
        self.version.store(odd.wrapping_add(1), Ordering::Release);
        Some(before)
    }
}

impl<const KEY: usize, const IDS: usize> Table<KEY, IDS> {
    fn new((entries, bucket_bits): (usize, u32)) -> Self {
        Self {
            index: (0..1 << bucket_bits).map(|_| Bucket::default()).collect(),
            shift: 64 - bucket_bits,
            blocks: (0..entries / BLOCK).map(|_| OnceLock::new()).collect(),
            put: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    fn bucket(&self, hash: u64) -> &Bucket {
        &self.index[(hash >> self.shift) as usize]
    }

    /// The entries that may be of a piece with this hash: most often one or none.
    #[inline(always)]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = &Entry<KEY, IDS>> {
        let tag = tag(hash);
        let slots = self.bucket(hash).0.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(move |slot| slot >> NUMBER_BITS == tag && *slot != 0).filter_map(|slot| {
            let number = number(slot);
            self.blocks[number / BLOCK].get().map(|block| &block[number % BLOCK])
        })
    }

    fn get(&self, piece: &[u8], hash: u64, out: &mut Found) -> bool {
        let key = words_of(piece);
        self.candidates(hash).any(|entry| entry.get(&key, out))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn put(&self, piece: &[u8], hash: u64, tokens: &[u32]) {
        if tokens.len() > IDS * IDS_IN_WORD {
            return;
        }
        let number = self.put.fetch_add(1, Ordering::Relaxed) % (self.blocks.len() * BLOCK);
        let block = &self.blocks[number / BLOCK];
        if block.get().is_none() {
            // Made before it is set: a fork must not find a block that another thread is making.
            let _ = block.set((0..BLOCK).map(|_| Entry::empty()).collect());
        }
        let Some(before) = block.get().and_then(|block| block[number % BLOCK].put(words_of(piece), tokens)) else {
            return;
        };
        if let Some(old) = piece_of(&before) {
            let hash = Seen::hash(&old[..]);
            let slot = slot(hash, number);
            for there in &self.bucket(hash).0 {
                let _ = there.compare_exchange(slot, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        self.enter(hash, number);
    }

    /// Notes an entry in a free slot of its bucket, or in that of the oldest one.
    fn enter(&self, hash: u64, entry: usize) {
        let bucket = &self.bucket(hash).0;
        let all = self.blocks.len() * BLOCK;
        let age = |slot: &AtomicU32| (entry + all - number(slot.load(Ordering::Relaxed).max(1))) % all;
        let free = bucket.iter().find(|slot| slot.load(Ordering::Relaxed) == 0);
        if let Some(place) = free.or_else(|| bucket.iter().max_by_key(|slot| age(slot))) {
            place.store(slot(hash, entry), Ordering::Relaxed);
        }
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & (u32::MAX >> NUMBER_BITS)
}

#[inline(always)]
fn number(slot: u32) -> usize {
    (slot & ((1 << NUMBER_BITS) - 1)) as usize - 1
}

#[allow(clippy::cast_possible_truncation)]
fn slot(hash: u64, number: usize) -> u32 {
    tag(hash) << NUMBER_BITS | (number as u32 + 1)
}

/// The tokens of a piece that was found.
#[derive(Default)]
pub(super) struct Found {
    ids: [u32; MAX_TOKENS],
    count: usize,
}

impl Found {
    pub(super) fn tokens(&self) -> &[u32] {
        &self.ids[..self.count]
    }
}

/// A piece as words; the highest byte of the last one is the length.
#[allow(clippy::cast_possible_truncation)]
fn words_of<const KEY: usize>(piece: &[u8]) -> [u64; KEY] {
    // 17 to 31 bytes: without a copy of a length that nobody can guess.
    if let (WORD_KEY, 17.., Some(first), Some(last)) = (KEY, piece.len(), piece.first_chunk(), piece.last_chunk()) {
        let (first, last) = (u128::from_le_bytes(*first), u128::from_le_bytes(*last));
        let last = last >> (8 * (32 - piece.len())) | (piece.len() as u128) << 120;
        let words = [first as u64, (first >> 64) as u64, last as u64, (last >> 64) as u64];
        return std::array::from_fn(|at| words[at % WORD_KEY]);
    }
    if piece.len() <= KEY_BYTES {
        let key = short_key(piece, 0, piece.len());
        let words = [key as u64, (key >> 64) as u64 & (u64::MAX >> 8), (piece.len() as u64) << 56];
        return std::array::from_fn(|at| match at {
            0 | 1 => words[at],
            _ if at + 1 == KEY => words[2],
            _ => 0,
        });
    }
    let mut bytes = [0; ROW_WORDS * 8];
    bytes[..piece.len()].copy_from_slice(piece);
    bytes[KEY * 8 - 1] = piece.len() as u8;
    std::array::from_fn(|at| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at * 8 + offset])))
}

/// The piece again; `None` where there never was one.
fn piece_of<const KEY: usize>(words: &[u64; KEY]) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = usize::from(bytes.pop()?);
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(seen: &Seen, piece: &[u8], tokens: &[u32]) {
        seen.put(piece, Seen::hash(piece), tokens);
    }

    fn get(seen: &Seen, piece: &[u8]) -> Option<Vec<u32>> {
        let mut found = Found::default();
        seen.get(piece, Seen::hash(piece), &mut found).then(|| found.tokens().to_vec())
    }

    #[test]
    fn gives_back_what_was_put() {
        let seen = Seen::new();
        for length in 1..=MAX_BYTES {
            let piece = vec![b'a'; length];
            let most = if length <= WORD_BYTES { 9 } else { MAX_TOKENS };
            let tokens: Vec<u32> = (0..length.min(most) as u32).map(|at| 200_000 + at).collect();
            assert_eq!(get(&seen, &piece), None);
            put(&seen, &piece, &tokens);
            assert_eq!(get(&seen, &piece), Some(tokens));
        }
    }

    #[test]
    fn leaves_out_what_does_not_fit() {
        let seen = Seen::new();
        put(&seen, b"abc", &[1; 10]);
        put(&seen, &[b'b'; WORD_BYTES + 1], &[1; MAX_TOKENS + 1]);
        put(&seen, &[b'a'; MAX_BYTES + 1], &[1]);
        for piece in [&b"abc"[..], &[b'b'; WORD_BYTES + 1]] {
            assert_eq!(get(&seen, piece), None);
        }
    }

    #[test]
    fn the_oldest_make_room_and_the_newest_stay() {
        let seen = Seen::new();
        let piece = |number: usize| format!("piece {number}").into_bytes();
        let last = 3 * WORDS.0;
        for number in 0..last {
            put(&seen, &piece(number), &[number as u32 % 200_000]);
        }
        let there = |number: &usize| get(&seen, &piece(*number)) == Some(vec![*number as u32 % 200_000]);
        assert_eq!((0..last - WORDS.0).filter(there).count(), 0);
        // All but those that shared a bucket with more than seven others.
        let stayed = (last - WORDS.0..last).filter(there).count();
        assert!(stayed > WORDS.0 / 100 * 98, "{stayed}");
    }

    #[test]
    fn readers_never_see_half_an_entry() {
        let seen = Seen::new();
        // Both words of each piece hold the same number, so a mixture is seen at once.
        let piece = |number: u64| [number.to_le_bytes(), number.to_le_bytes()].concat();
        std::thread::scope(|scope| {
            for start in 0..2_u64 {
                let seen = &seen;
                scope.spawn(move || {
                    for number in 0..200_000 {
                        let number = number * 2 + start;
                        let token = (number % (1 << 18)) as u32;
                        put(seen, &piece(number), &[token; 9]);
                        let other = number ^ 1;
                        if let Some(found) = get(seen, &piece(other)) {
                            assert_eq!(found, [(other % (1 << 18)) as u32; 9]);
                        }
                    }
                });
            }
        });
    }
}
