//! What each short piece was encoded to the last time: a small table of fixed size that only one thread uses at once.

use super::{bpe::Merger, key::Key, lanes::Lanes, prefetch::prefetch};
use parking_lot::{Mutex, MutexGuard};
use std::{
    cell::Cell,
    ops::DerefMut,
    sync::atomic::{AtomicUsize, Ordering},
};

/// 2^15 sets of two entries of 24 bytes: 1.5 MiB. The keys, which are all that counting reads, are 1 MiB of them.
const SET_BITS: u32 = 15;
const SETS: usize = 1 << SET_BITS;
/// The number of tokens stands above the length, in the four highest bits of a key.
const COUNT_SHIFT: u32 = 124;
const COUNT: u128 = 0xF << COUNT_SHIFT;
const MAX_COUNT: usize = 0xF;
/// Ids have 18 bits: three of them fit in an entry. A piece of more tokens is cached for counting only.
const ID_BITS: u32 = 18;
const MAX_IDS: usize = 3;

/// No piece has this key: its length is 0 and its bytes are not. Not simply 0, so that filling the tables with it
/// touches their memory: else a text seen for the first time would pay for 400 page faults.
const NO_KEY: Key = 1;

/// The cache of one thread for one vocabulary, and the working memory for what is not in it.
pub(super) struct Cache {
    keys: Box<[[u128; 2]; SETS]>,
    ids: Box<[[u64; 2]; SETS]>,
    pub(super) merger: Merger,
    pub(super) lanes: Lanes,
}

/// What the cache knows of a piece: how many tokens it has and, if they are at most three, their ids.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) count: usize,
    packed: u64,
}

impl Known {
    /// Of a number of tokens that are only counted.
    #[inline(always)]
    pub(super) fn counted(count: usize) -> Self {
        Self { count, packed: 0 }
    }

    /// The id of token `at`, where there are at most three.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn id(self, at: u32) -> u32 {
        (self.packed >> (at * ID_BITS)) as u32 & ((1 << ID_BITS) - 1)
    }
}

impl Cache {
    fn new() -> Self {
        Self {
            keys: filled([NO_KEY; 2]),
            ids: filled([u64::MAX; 2]),
            merger: Merger::default(),
            lanes: Lanes::default(),
        }
    }

    /// How many tokens a piece has; 0 if the cache does not know it. Without a branch.
    #[inline(always)]
    pub(super) fn count(&self, key: Key, hash: u64) -> usize {
        let [first, second] = self.keys[set(hash)];
        let count = |there: Key| {
            let same = (there ^ key) & !COUNT == 0;
            (there >> COUNT_SHIFT) as usize & usize::from(same).wrapping_neg()
        };
        count(first) | count(second)
    }

    /// Asks for the memory that [`Self::count`] and [`Self::get`] will read.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.keys[set(hash)]);
    }

    /// Asks for the memory that [`Self::put`] will change beside.
    #[inline(always)]
    pub(super) fn prefetch_ids(&self, hash: u64) {
        prefetch(&self.ids[set(hash)]);
    }

    #[inline(always)]
    pub(super) fn get(&self, key: Key, hash: u64) -> Option<Known> {
        let set = set(hash);
        let [first, second] = self.keys[set];
        if (first ^ key) & !COUNT == 0 {
            return Some(Known { count: (first >> COUNT_SHIFT) as usize, packed: self.ids[set][0] });
        }
        let same = (second ^ key) & !COUNT == 0;
        same.then(|| Known { count: (second >> COUNT_SHIFT) as usize, packed: self.ids[set][1] })
    }

    /// Keeps a piece; the older of the two in its set makes room.
    pub(super) fn put(&mut self, key: Key, hash: u64, ids: &[u32]) {
        if ids.len() > MAX_COUNT {
            return;
        }
        let set = set(hash);
        let ids_there = &mut self.ids[set];
        let keys_there = &mut self.keys[set];
        if (keys_there[0] ^ key) & !COUNT != 0 {
            keys_there[1] = keys_there[0];
            ids_there[1] = ids_there[0];
        }
        keys_there[0] = key | (ids.len() as u128) << COUNT_SHIFT;
        ids_there[0] = ids.iter().take(MAX_IDS).rev().fold(0, |packed, &id| packed << ID_BITS | u64::from(id));
    }
}

#[inline(always)]
fn set(hash: u64) -> usize {
    (hash >> (64 - SET_BITS)) as usize
}

fn filled<T: Copy>(value: T) -> Box<[T; SETS]> {
    // From a vector, so that a megabyte never lies on the stack; the length is right, so the first arm is the one.
    match vec![value; SETS].into_boxed_slice().try_into() {
        Ok(table) => table,
        Err(_) => Box::new([value; SETS]),
    }
}

/// The caches of a vocabulary: as many as there are processors, made when they are first needed.
///
/// A call takes one that is free and never waits: a thread that held one while the process forked holds it for ever
/// in the child.
pub(super) struct Caches {
    slots: Vec<Mutex<Option<Cache>>>,
}

/// A cache for the time of one call.
pub(super) enum Taken<'a> {
    Kept(MutexGuard<'a, Option<Cache>>),
    /// All were in use.
    Own(Box<Option<Cache>>),
}

impl Caches {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { slots: (0..processors.clamp(2, 64)).map(|_| Mutex::new(None)).collect() }
    }

    pub(super) fn take(&self) -> Taken<'_> {
        let preferred = thread_number();
        (0..self.slots.len())
            .find_map(|offset| self.slots[(preferred + offset) % self.slots.len()].try_lock())
            .map_or_else(|| Taken::Own(Box::default()), Taken::Kept)
    }
}

impl Taken<'_> {
    pub(super) fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Kept(guard) => guard.deref_mut().get_or_insert_with(Cache::new),
            Self::Own(own) => own.get_or_insert_with(Cache::new),
        }
    }
}

/// A small number for each thread, so that a thread finds the cache again that it filled.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.with(Cell::get)
}
