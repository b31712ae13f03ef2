//! One rate in one word: GCRA. The word is the theoretical arrival time, the moment from which nothing is owed.
//!
//! Time is counted in units of about a nanosecond that are chosen so that what one token costs is a whole number of
//! them: counts are then exact, whatever the limit. Where the limit divides its period, a unit is a nanosecond.

use super::slots::{Key, Slots, PAYLOAD};
use std::sync::atomic::Ordering;

/// Bytes of a slot.
pub const STRIDE: usize = 32;
/// A slot that has owed nothing for so long may be given to another key.
const IDLE: u64 = 60_000_000_000;
/// The word of a slot on its way to another key.
const EMPTIED: u64 = u64::MAX;
const MINUTE: u64 = 60_000_000_000;

/// A limit of so many per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Which counter.
    pub key: Key,
    /// So many per period.
    pub limit: u64,
    /// So many at once.
    pub burst: u64,
    cost: u64,
    // Units in a period, and nanoseconds in it.
    units: u128,
    period: u64,
}

/// What a rate says to a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass; the arrival time after it, and the units that were added.
    Passes {
        /// The word then.
        after: u64,
        /// So many of its units are of this demand.
        units: u64,
    },
    /// Not before so many nanoseconds have passed.
    Waits(u64),
    /// Never: it is larger than the burst.
    TooLarge,
}

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The limit.
    pub limit: u64,
    /// May pass now.
    pub remaining: u64,
    /// Nanoseconds until all of the burst may.
    pub reset: u64,
}

impl Rate {
    /// `limit` per `period` nanoseconds, `burst` at once; both at least 1, the limit at most one per nanosecond.
    pub fn new(parts: &[&str], limit: u64, burst: u64, period: u64) -> Rate {
        let period = period.max(1);
        let limit = limit.clamp(1, period);
        let cost = period.div_ceil(limit);
        // Beyond a year nothing is a limit any more, and all sums stay far below 2^63.
        let burst = burst.clamp(1, (365 * 1440 * MINUTE / cost).max(1));
        let units = u128::from(cost) * u128::from(limit);
        let odd = if units == u128::from(period) { String::new() } else { limit.to_string() };
        // Another unit is another counter.
        let name: Vec<&str> = parts.iter().copied().chain([odd.as_str()]).collect();
        Rate { key: Key::of(&name), limit, burst, cost, units, period }
    }

    /// The rate of one of `processes` that cannot count together.
    pub fn share(&self, processes: u64) -> Rate {
        let cost = self.cost;
        let processes = processes.max(1);
        let limit = (self.limit / processes).max(1);
        let burst = (self.burst / processes).max(1);
        let cost = if limit == self.limit { cost } else { self.period.div_ceil(limit) };
        Rate { limit, burst, cost, units: u128::from(cost) * u128::from(limit), ..*self }
    }

    fn units_of(&self, nanoseconds: u64) -> u64 {
        if self.units == u128::from(self.period) {
            return nanoseconds;
        }
        (u128::from(nanoseconds) * self.units / u128::from(self.period)).min(u128::from(u64::MAX >> 1)) as u64
    }

    fn nanoseconds_of(&self, units: u64) -> u64 {
        if self.units == u128::from(self.period) {
            return units;
        }
        (u128::from(units) * u128::from(self.period)).div_ceil(self.units).min(u128::from(u64::MAX)) as u64
    }

    fn capacity(&self) -> u64 {
        self.burst.saturating_mul(self.cost)
    }

    /// From which time on more is owed. A word that no history can have led to counts as the most there can be.
    fn owed(&self, word: u64, now: u64) -> u64 {
        word.clamp(now, now.saturating_add(self.capacity().saturating_mul(2)))
    }

    /// What would be said at `now` (nanoseconds) to `amount` more, with this word in the slot.
    pub fn judge(&self, word: u64, now: u64, amount: u64) -> Verdict {
        if amount > self.burst {
            return Verdict::TooLarge;
        }
        let (now, units) = (self.units_of(now), amount.saturating_mul(self.cost));
        let after = self.owed(word, now).saturating_add(units);
        match (after - now).checked_sub(self.capacity()) {
            None | Some(0) => Verdict::Passes { after, units },
            Some(beyond) => Verdict::Waits(self.nanoseconds_of(beyond)),
        }
    }

    /// What is left at `now`.
    pub fn level(&self, word: u64, now: u64) -> Level {
        let now = self.units_of(now);
        let owed = self.owed(word, now) - now;
        Level {
            limit: self.limit,
            remaining: self.capacity().saturating_sub(owed) / self.cost,
            reset: self.nanoseconds_of(owed),
        }
    }
}

/// The slots of all rates.
pub struct Rates(pub Slots);

impl Rates {
    /// The word of a rate; 0 where it has none.
    pub fn word(&self, rate: &Rate) -> u64 {
        self.0.find(rate.key).map_or(0, |at| self.0.cell(at, PAYLOAD).load(Ordering::Acquire))
    }

    /// Let `amount` pass, if it may. None: there is no slot to count in.
    pub fn take(&self, rate: &Rate, now: u64, amount: u64) -> Option<Verdict> {
        self.change(rate.key, now, |word| match rate.judge(word, now, amount) {
            Verdict::Passes { after, units } => (Some(after), Verdict::Passes { after, units }),
            refused => (None, refused),
        })
    }

    /// Give back `amount` of what led to `after`, as far as time has not given it back already.
    pub fn give_back(&self, rate: &Rate, now: u64, amount: u64, after: u64) {
        let left = after.saturating_sub(rate.units_of(now)).min(amount.saturating_mul(rate.cost));
        if left == 0 {
            return;
        }
        self.change(rate.key, now, |word| (Some(word.saturating_sub(left)), ()));
    }

    /// Charge `amount` more than was reserved, whether there is room or not: it has been used.
    pub fn charge(&self, rate: &Rate, now: u64, amount: u64) {
        let (at, units) = (rate.units_of(now), amount.saturating_mul(rate.cost));
        self.change(rate.key, now, |word| (Some(rate.owed(rate.owed(word, at).saturating_add(units), at)), ()));
    }

    /// One change of the word of a key, by compare and swap: the new word, if any, and what comes of it.
    fn change<T>(&self, key: Key, now: u64, step: impl Fn(u64) -> (Option<u64>, T)) -> Option<T> {
        let mut turns = 0;
        loop {
            let (at, claimed) = match self.0.find(key) {
                Some(at) => (at, false),
                None => (self.0.claim(key, |at| self.vacate(at, now))?, true),
            };
            let cell = self.0.cell(at, PAYLOAD);
            let word = cell.load(Ordering::Acquire);
            if word == EMPTIED {
                turns += 1;
                // Whoever claims it clears it; one that died there is not waited for.
                if claimed || turns > 10_000 {
                    let _ = cell.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Acquire);
                }
                std::hint::spin_loop();
                continue;
            }
            let (next, result) = step(word);
            let Some(next) = next else { return Some(result) };
            if cell.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            if self.0.is(at, key) {
                return Some(result);
            }
            // The slot went to another key between the look and the swap: what was added is not that one's.
            cell.fetch_sub(next.saturating_sub(word), Ordering::AcqRel);
        }
    }

    /// Clear the slot, if it has owed nothing for a minute.
    fn vacate(&self, at: usize, now: u64) -> bool {
        let cell = self.0.cell(at, PAYLOAD);
        let word = cell.load(Ordering::Acquire);
        if word == EMPTIED {
            return true;
        }
        // Units are never shorter than nanoseconds, so this errs on the side of keeping.
        word.saturating_add(IDLE) < now
            && cell.compare_exchange(word, EMPTIED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
