//! A table of slots in a mapped file: found by a 128-bit key without a lock, claimed and reclaimed under one.

use super::table::Table;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{
    hash::Hasher,
    io,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

/// How far from its first place a key may be. What is full is said after so many looks, however large the table.
const PROBES: usize = 32;
/// A slot in the middle of being given to another key; what dies there leaves a slot that may be taken.
const MOVING: u64 = u64::MAX;
const HIGH: usize = 0;
const LOW: usize = 8;
/// Where the slot's own cells begin.
pub const PAYLOAD: usize = 16;
/// A lock is held for a microsecond. Who holds it for so long is dead or frozen, and loses it.
const STOLEN_AFTER: Duration = Duration::from_millis(100);

/// Names one counter: a hash of what it counts. Stable over versions of this program with the same layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Key {
    high: u64,
    low: u64,
}

impl Key {
    /// The key of, say, `["requests_minute", "workspace", "default"]`.
    pub fn of(parts: &[&str]) -> Key {
        let mut hasher = SipHasher13::new();
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part.as_bytes());
        }
        let hash = hasher.finish128();
        // 0 is a free slot.
        Key { high: hash.h1.clamp(1, MOVING - 1), low: hash.h2 }
    }
}

/// The slots between two offsets of a file.
pub struct Slots {
    table: Arc<Table>,
    start: usize,
    stride: usize,
    count: usize,
    lock: &'static AtomicU64,
}

impl Slots {
    /// `count` slots, a power of two, of `stride` bytes from `start` on; the lock for claiming is at `lock`.
    pub fn new(table: &Arc<Table>, start: usize, stride: usize, count: usize, lock: usize) -> io::Result<Slots> {
        let last = start + stride * count - 8;
        if !count.is_power_of_two() || table.cell(last).is_err() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Slots { lock: table.cell(lock)?, table: table.clone(), start, stride, count })
    }

    /// The atomic `offset` bytes into the slot at `at`. Both come from here, so it is always inside.
    pub fn cell(&self, at: usize, offset: usize) -> &'static AtomicU64 {
        self.table.cell(at + offset).unwrap_or(&NOWHERE)
    }

    /// Where the key's slot is.
    pub fn find(&self, key: Key) -> Option<usize> {
        for at in self.places(key) {
            match self.cell(at, HIGH).load(Ordering::Acquire) {
                0 => return None,
                high if high == key.high && self.cell(at, LOW).load(Ordering::Acquire) == key.low => return Some(at),
                _ => {}
            }
        }
        None
    }

    /// Whether the slot still belongs to the key.
    pub fn is(&self, at: usize, key: Key) -> bool {
        self.cell(at, HIGH).load(Ordering::Acquire) == key.high && self.cell(at, LOW).load(Ordering::Acquire) == key.low
    }

    /// The key's slot, which is made where it is missing: `vacate` tells whether the slot at an offset has nothing to
    /// remember, and clears it if so. None: all places of this key are in use.
    pub fn claim(&self, key: Key, vacate: impl Fn(usize) -> bool) -> Option<usize> {
        // One at a time: two that look for a place for one key must not find two.
        let _guard = lock(self.lock);
        if let Some(at) = self.find(key) {
            return Some(at);
        }
        for at in self.places(key) {
            let high = self.cell(at, HIGH);
            match high.load(Ordering::Acquire) {
                0 => {}
                MOVING => {
                    let _ = vacate(at);
                }
                found => {
                    if !vacate(at) {
                        continue;
                    }
                    let _ = high.compare_exchange(found, MOVING, Ordering::AcqRel, Ordering::Acquire);
                }
            }
            self.cell(at, LOW).store(key.low, Ordering::Release);
            high.store(key.high, Ordering::Release);
            return Some(at);
        }
        None
    }

    /// Every slot that some key has.
    pub fn used(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.count)
            .map(|number| self.start + number * self.stride)
            .filter(|at| !matches!(self.cell(*at, HIGH).load(Ordering::Acquire), 0 | MOVING))
    }

    fn places(&self, key: Key) -> impl Iterator<Item = usize> {
        let (first, mask, start, stride) = (key.low as usize, self.count - 1, self.start, self.stride);
        (0..PROBES.min(self.count)).map(move |step| start + ((first.wrapping_add(step)) & mask) * stride)
    }
}

static NOWHERE: AtomicU64 = AtomicU64::new(0);
static TOKENS: AtomicU64 = AtomicU64::new(0);

/// A lock in the file, until it is dropped.
pub struct Guard(&'static AtomicU64, u64);

impl Drop for Guard {
    fn drop(&mut self) {
        // Not a store: it may have been stolen.
        let _ = self.0.compare_exchange(self.1, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Take a lock that any process of the machine may hold. What it guards is changed with one store at a time, so what
/// a dead holder leaves is whole.
pub fn lock(cell: &'static AtomicU64) -> Guard {
    if TOKENS.load(Ordering::Relaxed) == 0 {
        // Tokens of two processes differ.
        let first = (u64::from(std::process::id()) << 32) | 1;
        let _ = TOKENS.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    }
    let token = TOKENS.fetch_add(1, Ordering::Relaxed);
    let mut waited_for = (0, None);
    for turn in 0u32.. {
        let holder = match cell.compare_exchange_weak(0, token, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => break,
            Err(holder) => holder,
        };
        if turn < 64 {
            std::hint::spin_loop();
            continue;
        }
        std::thread::yield_now();
        match waited_for {
            (same, Some(since)) if same == holder => {
                let stolen = Instant::now().duration_since(since) > STOLEN_AFTER
                    && cell.compare_exchange(holder, token, Ordering::Acquire, Ordering::Relaxed).is_ok();
                if stolen {
                    break;
                }
            }
            _ => waited_for = (holder, Some(Instant::now())),
        }
    }
    Guard(cell, token)
}
