//! What each short piece was encoded to the last time: a small table of fixed size that only one thread uses at once.

use super::{
    bpe::Merger,
    vocab::{hash, Key},
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    cell::Cell,
    ops::DerefMut,
    sync::atomic::{AtomicUsize, Ordering},
};

/// 2^15 entries of 32 bytes: 1 MiB. The keys, which are all that counting reads, stay in the second-level cache.
const SLOT_BITS: u32 = 15;
const SLOTS: usize = 1 << SLOT_BITS;
/// The number of tokens stands above the length, in the four highest bits of a key.
const COUNT_SHIFT: u32 = 124;
const COUNT: u128 = 0xF << COUNT_SHIFT;
const MAX_COUNT: usize = 0xF;
/// Ids have 18 bits: seven of them fit in an entry. A piece of more tokens is cached for counting only.
const ID_BITS: u32 = 18;
pub(super) const MAX_IDS: usize = 7;

/// The cache of one thread for one vocabulary, direct-mapped, and the working memory for what is not in it.
pub(super) struct Cache {
    keys: Box<[u128; SLOTS]>,
    ids: Box<[u128; SLOTS]>,
    pub(super) merger: Merger,
}

/// What is known of a piece: how many tokens it has and, if they are at most [`MAX_IDS`], their ids.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) count: usize,
    slot: usize,
}

impl Cache {
    fn new() -> Self {
        Self { keys: zeroed(), ids: zeroed(), merger: Merger::default() }
    }

    #[inline(always)]
    pub(super) fn get(&self, key: Key) -> Option<Known> {
        let slot = slot(key);
        let there = self.keys[slot];
        ((there ^ key) & !COUNT == 0).then_some(Known { count: (there >> COUNT_SHIFT) as usize, slot })
    }

    /// Appends the ids of a known piece with at most [`MAX_IDS`] tokens.
    #[inline(always)]
    pub(super) fn append(&self, known: Known, out: &mut Vec<u32>) {
        let mut packed = self.ids[known.slot];
        for _ in 0..known.count {
            out.push(packed as u32 & ((1 << ID_BITS) - 1));
            packed >>= ID_BITS;
        }
    }

    pub(super) fn put(&mut self, key: Key, ids: &[u32]) {
        if ids.len() > MAX_COUNT {
            return;
        }
        let slot = slot(key);
        self.keys[slot] = key | (ids.len() as u128) << COUNT_SHIFT;
        self.ids[slot] = ids.iter().take(MAX_IDS).rev().fold(0, |packed, &id| packed << ID_BITS | u128::from(id));
    }
}

#[inline(always)]
fn slot(key: Key) -> usize {
    (hash(key) >> (64 - SLOT_BITS)) as usize
}

fn zeroed() -> Box<[u128; SLOTS]> {
    // From a vector, so that a megabyte never lies on the stack; the length is right, so the first arm is the one.
    match vec![0; SLOTS].into_boxed_slice().try_into() {
        Ok(table) => table,
        Err(_) => Box::new([0; SLOTS]),
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
    Own(Option<Cache>),
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
            .map_or(Taken::Own(None), Taken::Kept)
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
