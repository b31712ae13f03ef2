//! Which two tokens join, and to what: tables without a branch that depends on what is in them.

use super::{
    prefetch::prefetch,
    vocab::{ID_BITS, NONE},
};
use std::hint::select_unpredictable;

/// A token with what it can join with: the id, and below it four bits for what may follow and four for what may
/// precede it, one for each [`kind`]. Most pairs that are asked for do not join, and these bits know that of most of
/// them: then nobody waits for the memory where they would be.
pub(super) type Marked = u32;
const MARK_BITS: u32 = 8;
const KINDS: u32 = 4;
/// Of a token with anything.
const ANY: u32 = (1 << MARK_BITS) - 1;
/// No token: it joins with nothing, and no vocabulary has so many that this number is one.
pub(super) const NO_TOKEN: Marked = ((1 << ID_BITS) - 1) << MARK_BITS;

/// A token of which nothing is known.
#[inline(always)]
pub(super) fn unmarked(id: u32) -> Marked {
    id << MARK_BITS | ANY
}

#[inline(always)]
pub(super) fn id_of(token: Marked) -> u32 {
    token >> MARK_BITS
}

#[inline(always)]
fn kind(id: u32) -> u32 {
    id % KINDS
}

#[inline(always)]
fn may_join(left: Marked, right: Marked) -> bool {
    (left >> kind(id_of(right))) & (right >> (KINDS + kind(id_of(left)))) & 1 == 1
}

/// The marks of all tokens, while the tables are filled.
pub(super) struct Marks(Vec<u8>);

impl Marks {
    pub(super) fn none(count: usize) -> Self {
        Self(vec![0; count])
    }

    /// Notes that two tokens join.
    pub(super) fn add(&mut self, left: u32, right: u32) {
        self.0[left as usize] |= 1 << kind(right);
        self.0[right as usize] |= 1 << (KINDS + kind(left));
    }

    pub(super) fn of(&self, id: u32) -> Marked {
        id << MARK_BITS | u32::from(self.0[id as usize])
    }
}

/// Merges: (left, right) → the token they join to.
pub(super) struct Pairs {
    /// The first one stays empty, for those who know that there is nothing.
    buckets: Vec<PairBucket>,
    shift: u32,
}

/// left << 44 | right << 26 | joined, as [`Marked`]; 0 is free, because no pair joins to token 0.
#[derive(Clone)]
#[repr(align(16))]
struct PairBucket([u64; 2]);

/// Of the last slot in a bucket: some pair had no room and stands in the next bucket.
const OVERFLOWN: u64 = 1 << 63;
const PAIR_AT: u32 = MARK_BITS + ID_BITS;
const JOINED: u64 = (1 << PAIR_AT) - 1;
const PAIR_BITS: u64 = !(OVERFLOWN | JOINED);

/// Two tokens whose join is asked for: what a slot holds above the joined token, and the bucket where that may be.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    pair: u64,
    bucket: usize,
}

impl PairBucket {
    /// The slot of a pair, or 0. Without a branch: which slot it is, and whether there is one, cannot be guessed.
    #[inline(always)]
    fn find(&self, pair: u64) -> u64 {
        self.0.iter().fold(0, |found, &slot| {
            let same = (slot ^ pair) & PAIR_BITS == 0;
            // Of the pair (0, 0) a free slot looks the same, and adds nothing.
            found | select_unpredictable(same, slot, 0)
        })
    }
}

impl Pairs {
    pub(super) fn with_room_for(count: usize) -> Self {
        // 0.8 pairs a bucket: 4 % of the buckets overflow into the next one.
        let buckets = count.next_power_of_two().max(2);
        Self { buckets: vec![PairBucket([0; 2]); buckets + 1], shift: 64 - buckets.trailing_zeros() }
    }

    #[inline(always)]
    fn bucket(&self, pair: u64) -> usize {
        ((pair >> PAIR_AT).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize + 1
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, left: u32, right: u32) {
        prefetch(&self.buckets[self.bucket(packed(left, right))]);
    }

    pub(super) fn insert(&mut self, left: u32, right: u32, joined: Marked) {
        let pair = packed(left, right);
        let mut at = self.bucket(pair);
        loop {
            let slots = &mut self.buckets[at].0;
            if let Some(free) = slots.iter_mut().find(|slot| **slot & !OVERFLOWN == 0) {
                *free |= pair | u64::from(joined);
                return;
            }
            slots[1] |= OVERFLOWN;
            at = self.next(at);
        }
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            1
        } else {
            at + 1
        }
    }

    /// The slot of a pair that begins to be sought at a bucket, or 0.
    #[inline(always)]
    fn find(&self, pair: u64, mut at: usize) -> u64 {
        let mut found = self.buckets[at].find(pair);
        while self.buckets[at].0[1] & OVERFLOWN != 0 && found == 0 {
            at = self.next(at);
            found = self.buckets[at].find(pair);
        }
        found
    }

    #[inline(always)]
    pub(super) fn get(&self, left: u32, right: u32) -> u32 {
        let pair = packed(left, right);
        match self.find(pair, self.bucket(pair)) {
            0 => NONE,
            slot => id_of(joined(slot)),
        }
    }

    /// The same with the marks of what they join to.
    #[inline(always)]
    pub(super) fn get_unmarked(&self, left: u32, right: u32) -> Marked {
        let pair = packed(left, right);
        marked_or_none(self.find(pair, self.bucket(pair)))
    }

    /// Asks for the memory that [`Self::answer`] will read. Of tokens that cannot join it is the bucket that is empty.
    #[inline(always)]
    pub(super) fn ask(&self, left: Marked, right: Marked) -> Asked {
        let pair = packed(id_of(left), id_of(right));
        let bucket = select_unpredictable(may_join(left, right), self.bucket(pair), 0);
        prefetch(&self.buckets[bucket]);
        Asked { pair, bucket }
    }

    /// What the tokens join to, or [`NONE`].
    #[inline(always)]
    pub(super) fn answer(&self, asked: Asked) -> Marked {
        marked_or_none(self.find(asked.pair, asked.bucket))
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
fn joined(slot: u64) -> Marked {
    (slot & JOINED) as Marked
}

#[inline(always)]
fn marked_or_none(slot: u64) -> Marked {
    select_unpredictable(slot == 0, NONE, joined(slot))
}

/// The pair as it stands in a slot.
#[inline(always)]
fn packed(left: u32, right: u32) -> u64 {
    (u64::from(left) << ID_BITS | u64::from(right)) << PAIR_AT
}
