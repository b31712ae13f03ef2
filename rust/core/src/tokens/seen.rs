//! The pieces of several tokens that any thread has met: a table of fixed size, shared without a lock.
//!
//! Each entry is guarded by its version: odd while somebody writes, and different before and after a write. Whoever
//! reads while it changes finds nothing; whoever wants to write while another does leaves it. So nobody ever waits,
//! and a thread that is lost in the middle of a write, as by a fork, costs one entry.

use super::{
    prefetch::prefetch,
    vocab::{hash, key as short_key, long_hash, KEY_BYTES},
};
use std::sync::{
    atomic::{fence, AtomicU64, Ordering},
    OnceLock,
};

/// 2^18 entries of one cache line: 16 MiB, in blocks that are made when something is put there.
const SLOT_BITS: u32 = 18;
const BLOCK_BITS: u32 = 9;
const BLOCK: usize = 1 << BLOCK_BITS;
const KEY_WORDS: usize = 4;
/// The longest piece of an entry, in bytes; the last byte of the key is the length.
pub(super) const MAX_BYTES: usize = KEY_WORDS * 8 - 1;
const ID_WORDS: usize = 3;
/// Three ids of 18 bits in a word, and their number above them in the first one.
const IDS_IN_WORD: usize = 3;
const ID_BITS: usize = 18;
const COUNT_SHIFT: usize = IDS_IN_WORD * ID_BITS;
/// The most tokens an entry holds.
pub(super) const MAX_TOKENS: usize = ID_WORDS * IDS_IN_WORD;

#[derive(Default)]
#[repr(align(64))]
struct Entry {
    version: AtomicU64,
    key: [AtomicU64; KEY_WORDS],
    ids: [AtomicU64; ID_WORDS],
}

/// The table. It starts empty.
pub(super) struct Seen {
    blocks: Vec<OnceLock<Box<[Entry]>>>,
}

/// A piece of at most [`MAX_BYTES`] as words.
type Key = [u64; KEY_WORDS];

impl Seen {
    pub(super) fn new() -> Self {
        Self { blocks: (0..1 << (SLOT_BITS - BLOCK_BITS)).map(|_| OnceLock::new()).collect() }
    }

    #[inline(always)]
    fn entry(&self, piece: &[u8]) -> Option<&Entry> {
        let slot = slot(piece);
        self.blocks[slot >> BLOCK_BITS].get().map(|block| &block[slot & (BLOCK - 1)])
    }

    /// Asks for the memory that [`Self::get`] will read.
    #[inline(always)]
    pub(super) fn prefetch(&self, piece: &[u8]) {
        if let Some(entry) = self.entry(piece) {
            prefetch(entry);
        }
    }

    /// Gives `out` the tokens of a piece; `false` if they are not known. The piece has at most [`MAX_BYTES`].
    pub(super) fn get(&self, piece: &[u8], out: &mut Found) -> bool {
        let key = key(piece);
        let Some(entry) = self.entry(piece) else { return false };
        let version = entry.version.load(Ordering::Acquire);
        let same = entry.key.iter().zip(key).all(|(there, word)| there.load(Ordering::Relaxed) == word);
        if version % 2 == 1 || !same {
            return false;
        }
        let words: [u64; ID_WORDS] = std::array::from_fn(|at| entry.ids[at].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if entry.version.load(Ordering::Relaxed) != version {
            return false;
        }
        out.count = (words[0] >> COUNT_SHIFT) as usize;
        for (at, id) in out.ids.iter_mut().enumerate() {
            *id = (words[at / IDS_IN_WORD] >> (at % IDS_IN_WORD * ID_BITS)) as u32 & ((1 << ID_BITS) - 1);
        }
        true
    }

    /// Keeps the tokens of a piece, unless they are too many or somebody else writes there.
    pub(super) fn put(&self, piece: &[u8], tokens: &[u32]) {
        if tokens.len() > MAX_TOKENS || piece.len() > MAX_BYTES {
            return;
        }
        let key = key(piece);
        let slot = slot(piece);
        let block = self.blocks[slot >> BLOCK_BITS].get_or_init(|| (0..BLOCK).map(|_| Entry::default()).collect());
        let entry = &block[slot & (BLOCK - 1)];
        let version = entry.version.load(Ordering::Relaxed);
        let odd = version | 1;
        if odd == version || entry.version.compare_exchange(version, odd, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        fence(Ordering::Release);
        let mut words = [0_u64; ID_WORDS];
        for (at, &id) in tokens.iter().enumerate() {
            words[at / IDS_IN_WORD] |= u64::from(id) << (at % IDS_IN_WORD * ID_BITS);
        }
        words[0] |= (tokens.len() as u64) << COUNT_SHIFT;
        entry.key.iter().zip(key).for_each(|(there, word)| there.store(word, Ordering::Relaxed));
        entry.ids.iter().zip(words).for_each(|(there, word)| there.store(word, Ordering::Relaxed));
        entry.version.store(odd.wrapping_add(1), Ordering::Release);
    }
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

fn key(piece: &[u8]) -> Key {
    let mut bytes = [0; KEY_WORDS * 8];
    bytes[..piece.len()].copy_from_slice(piece);
    bytes[MAX_BYTES] = piece.len() as u8;
    std::array::from_fn(|at| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at * 8 + offset])))
}

#[inline(always)]
fn slot(piece: &[u8]) -> usize {
    let hash = if piece.len() <= KEY_BYTES { hash(short_key(piece, 0, piece.len())) } else { long_hash(piece) };
    (hash >> (64 - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put() {
        let seen = Seen::new();
        let mut found = Found::default();
        for count in 1..=MAX_TOKENS {
            let piece = vec![b'a'; count * 3];
            let tokens: Vec<u32> = (0..count as u32).map(|at| 200_000 + at).collect();
            assert!(!seen.get(&piece, &mut found));
            seen.put(&piece, &tokens);
            assert!(seen.get(&piece, &mut found));
            assert_eq!(found.tokens(), tokens);
        }
    }

    #[test]
    fn leaves_out_what_does_not_fit() {
        let seen = Seen::new();
        seen.put(b"abc", &[1; MAX_TOKENS + 1]);
        seen.put(&[b'a'; MAX_BYTES + 1], &[1]);
        assert!(!seen.get(b"abc", &mut Found::default()));
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
                        seen.put(&piece(number), &[token; 9]);
                        let mut found = Found::default();
                        let other = number ^ 1;
                        if seen.get(&piece(other), &mut found) {
                            assert_eq!(found.tokens(), [(other % (1 << 18)) as u32; 9]);
                        }
                    }
                });
            }
        });
    }
}
