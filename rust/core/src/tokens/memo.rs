//! Counts of texts that were counted before: a chat sends its whole history with every turn.

use super::{Encoding, Stopped};
use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// Shorter texts are counted faster than they are looked up, in bytes.
const SHORTEST: usize = 64;
/// Locks, so that threads rarely meet at one.
const SHARDS: usize = 16;
/// Entries that a hash may be in.
const WAYS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Entry {
    hash: u128,
    count: u32,
}

/// A bounded table from texts to counts, shared by all threads.
///
/// It keeps no text, only a 128-bit hash of text and encoding, with a key that is drawn when the table is made. Two
/// texts with the same hash would share a count; nobody can look for such texts without the key, and by accident it
/// takes some 10^19 of them.
pub struct Memo {
    key: (u64, u64),
    shards: Vec<Mutex<Vec<[Entry; WAYS]>>>,
}

impl Memo {
    /// A memo for about this many texts, 32 bytes each. When it is full, the oldest of four entries makes room.
    pub fn new(texts: usize) -> Self {
        let sets = (texts / SHARDS / WAYS).next_power_of_two();
        // Each state has keys of its own, from the random numbers of the system.
        let random = || RandomState::new().build_hasher().finish();
        Self {
            key: (random(), random()),
            shards: (0..SHARDS).map(|_| Mutex::new(vec![[Entry::default(); WAYS]; sets])).collect(),
        }
    }

    /// [`Encoding::count`], from the memo where the text was counted before.
    pub fn count(&self, encoding: &Encoding, text: &str) -> usize {
        // Never stopped, so there is always a count.
        self.count_until(encoding, text, &mut || false).unwrap_or(0)
    }

    /// [`Encoding::count_until`], from the memo where the text was counted before.
    pub fn count_until(
        &self,
        encoding: &Encoding,
        text: &str,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<usize, Stopped> {
        self.count_by(encoding.name().as_bytes(), text, || encoding.count_until(text, stop))
    }

    /// The count of a text by whatever `owner` stands for, from the memo where it was counted before.
    ///
    /// No owner may be the start of another one and the byte 0xFF.
    pub fn count_by<E>(&self, owner: &[u8], text: &str, count: impl FnOnce() -> Result<usize, E>) -> Result<usize, E> {
        if text.len() < SHORTEST {
            return count();
        }
        let hash = self.hash(owner, text);
        if let Some(known) = self.get(hash) {
            return Ok(known);
        }
        let count = count()?;
        self.put(hash, count);
        Ok(count)
    }

    fn hash(&self, owner: &[u8], text: &str) -> u128 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        // Written one after the other, with a byte between them that is in no UTF-8.
        hasher.write(owner);
        hasher.write(&[0xFF]);
        hasher.write(text.as_bytes());
        hasher.finish128().as_u128()
    }

    // A lock that is taken is not waited for: it may be held for ever by a thread that a fork did not copy.

    #[allow(clippy::cast_possible_truncation)]
    fn place(&self, hash: u128) -> (&Mutex<Vec<[Entry; WAYS]>>, usize) {
        (&self.shards[hash as usize % SHARDS], (hash >> 64) as usize)
    }

    fn get(&self, hash: u128) -> Option<usize> {
        let (shard, set) = self.place(hash);
        let sets = shard.try_lock()?;
        let entries = &sets[set & (sets.len() - 1)];
        entries.iter().find(|entry| entry.hash == hash && entry.count > 0).map(|entry| entry.count as usize)
    }

    fn put(&self, hash: u128, count: usize) {
        let (shard, set) = self.place(hash);
        let (Some(mut sets), Ok(count)) = (shard.try_lock(), u32::try_from(count)) else { return };
        let set = set & (sets.len() - 1);
        let entries = &mut sets[set];
        entries.rotate_right(1);
        entries[0] = Entry { hash, count };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::encoding;

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("Message {at} of a long conversation. ").repeat(3 + at % 7)).collect()
    }

    #[test]
    fn counts_as_the_encoding() {
        let memo = Memo::new(64);
        for name in ["cl100k_base", "o200k_base"] {
            let encoding = encoding(name).unwrap();
            // Twice, and many more than it has room for.
            for text in texts(500).iter().chain(&texts(500)) {
                assert_eq!(memo.count(encoding, text), encoding.count(text));
            }
        }
    }

    #[test]
    fn remembers_each_encoding_for_itself() {
        let memo = Memo::new(64);
        let text = "naïve façade — 中文 ".repeat(20);
        let [old, new] = ["r50k_base", "o200k_base"].map(|name| encoding(name).unwrap());
        assert_ne!(old.count(&text), new.count(&text));
        for _ in 0..2 {
            assert_eq!(memo.count(old, &text), old.count(&text));
            assert_eq!(memo.count(new, &text), new.count(&text));
        }
    }

    #[test]
    fn a_known_text_is_not_counted_again() {
        let memo = Memo::new(64);
        let encoding = encoding("cl100k_base").unwrap();
        let text = "word ".repeat(40_000);
        let mut asked = 0;
        let mut count = || {
            memo.count_until(encoding, &text, &mut || {
                asked += 1;
                false
            })
        };
        assert_eq!(count(), count());
        assert_eq!(asked, text.len() / 65_536);
    }

    #[test]
    fn a_count_that_was_stopped_is_not_kept() {
        let memo = Memo::new(64);
        let encoding = encoding("cl100k_base").unwrap();
        let text = "word ".repeat(40_000);
        assert_eq!(memo.count_until(encoding, &text, &mut || true), Err(Stopped));
        assert_eq!(memo.count(encoding, &text), encoding.count(&text));
    }

    #[test]
    fn any_owner_counts_once_for_each_text() {
        let memo = Memo::new(64);
        let text = "word ".repeat(20);
        let count = |owner: &[u8], value| memo.count_by(owner, &text, || Ok::<_, ()>(value)).unwrap();
        assert_eq!((count(b"a", 5), count(b"b", 7)), (5, 7));
        assert_eq!((count(b"a", 8), count(b"b", 8)), (5, 7));
        assert_eq!(memo.count_by(b"a", &format!("{text}!"), || Err(())), Err(()));
    }
}
