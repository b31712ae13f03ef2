//! The tokens of a vocabulary by the hash of their bytes.

use super::{
    prefetch::prefetch,
    vocab::{ID_BITS, NONE},
};

/// A part of the hash of a token above its id, or [`NONE`]. Of a piece that is no token, and most new ones are none, no
/// bucket says otherwise: what is further away is not read then.
type Slot = u32;

#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
fn tag(hash: u64) -> Slot {
    ((hash >> 32) as u32) << ID_BITS
}

/// The id in a slot, if the slot has this tag. Of [`NONE`] it may be a number that is no id.
#[inline(always)]
fn id_in(slot: Slot, tag: Slot) -> Option<u32> {
    let id = slot ^ tag;
    (id >> ID_BITS == 0).then_some(id)
}

/// Half a cache line.
#[derive(Clone)]
#[repr(align(32))]
struct Bucket([Slot; 8]);

/// The tokens by the hash of their bytes.
pub(super) struct Index {
    buckets: Vec<Bucket>,
    shift: u32,
}

impl Index {
    pub(super) fn with_room_for(count: usize) -> Self {
        // At most four tokens a bucket: one in a hundred overflows into the next one.
        let buckets = (count / 4).next_power_of_two().max(2);
        Self { buckets: vec![Bucket([NONE; 8]); buckets], shift: 64 - buckets.trailing_zeros() }
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.place(hash)]);
    }

    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        let mut at = self.place(hash);
        loop {
            if let Some(free) = self.buckets[at].0.iter_mut().find(|slot| **slot == NONE) {
                *free = tag(hash) | id;
                return;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
    }

    /// The first id with this hash that is the one, or [`NONE`]. What is asked about may be no id.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> u32 {
        let mut at = self.place(hash);
        loop {
            let slots = &self.buckets[at].0;
            let mut ids = slots.iter().filter_map(|&slot| id_in(slot, tag(hash)));
            if let Some(id) = ids.find(|&id| is_it(id)) {
                return id;
            }
            if slots[7] == NONE {
                return NONE;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
    }

    /// Some id that [`Self::find`] may ask about; most often there is none.
    #[inline(always)]
    pub(super) fn candidate(&self, hash: u64) -> usize {
        let slots = &self.buckets[self.place(hash)].0;
        slots.iter().fold(NONE, |found, &slot| id_in(slot, tag(hash)).unwrap_or(found)) as usize
    }
}
