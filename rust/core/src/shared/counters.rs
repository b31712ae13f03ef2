//! What is held and what is spent: concurrent requests, and budgets of money and tokens.
//!
//! A counter is the sum of what each process holds and, for a budget, of what is spent in its period. A process only
//! adds to its own cell, in one store under a lock, so a crash at any point leaves a whole account, and what a dead
//! process held is known to the last unit.

use super::{
    owners::{Owners, MOST},
    slots::{lock, Guard, Key, Slots, PAYLOAD},
};
use std::sync::atomic::{AtomicU64, Ordering};

const LOCK: usize = PAYLOAD;
const SPENT: usize = PAYLOAD + 8;
/// The ordinal of a budget's period, from 1; 0 for concurrency.
const PERIOD: usize = PAYLOAD + 16;
const USED_AT: usize = PAYLOAD + 24;
/// 1 once the counter has learnt what was spent before it was made.
const SEEDED: usize = PAYLOAD + 32;
/// So many cells of processes have ever been used: the others need not be read.
const TOP: usize = PAYLOAD + 40;
const HELD: usize = 64;
/// Bytes of a counter.
pub const STRIDE: usize = HELD + MOST * 8;
/// A counter that nobody has used for so long may be given to another key. What a budget has spent is then read again
/// from the records, when somebody asks for it.
const IDLE: u64 = 60_000_000_000;
const BUDGET_IDLE: u64 = 3_600_000_000_000;
/// The period moves on with the calendar. A clock that stepped back by one does not bring the last one again.
const STEP_BACK: u64 = 1;

/// Which counter, in which period (0: it has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub key: Key,
    /// The ordinal of the period.
    pub period: u64,
}

/// What a counter stands at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Used up in this period.
    pub spent: u64,
    /// Reserved by requests that are under way.
    pub held: u64,
    /// Whether what was spent before the counter was made is in it.
    pub seeded: bool,
}

impl Account {
    /// Spent and held.
    pub fn used(&self) -> u64 {
        self.spent.saturating_add(self.held)
    }
}

/// The slots of all counters.
pub struct Counters(pub Slots);

struct Open<'a> {
    slots: &'a Slots,
    at: usize,
    _guard: Guard,
}

impl Open<'_> {
    fn cell(&self, offset: usize) -> &'static AtomicU64 {
        self.slots.cell(self.at, offset)
    }

    fn own(&self, owner: usize) -> &'static AtomicU64 {
        self.cell(HELD + owner * 8)
    }

    fn account(&self) -> Account {
        account(self.slots, self.at)
    }

    /// Begin the period that the calendar shows, if it is a new one.
    fn turn(&self, period: u64) {
        let cell = self.cell(PERIOD);
        let known = cell.load(Ordering::Acquire);
        if period > known {
            // Spent first: who dies between the two has emptied a period that was over.
            self.cell(SPENT).store(0, Ordering::Release);
            if known != 0 {
                self.cell(SEEDED).store(1, Ordering::Release);
            }
            cell.store(period, Ordering::Release);
        } else if known - period > STEP_BACK {
            // The clock was far ahead for a while. What was spent then stays spent.
            cell.store(period, Ordering::Release);
        }
    }
}

fn account(slots: &Slots, at: usize) -> Account {
    let load = |offset| slots.cell(at, offset).load(Ordering::Acquire);
    let top = (load(TOP) as usize).min(MOST);
    let held = (0..top).fold(0u64, |sum, owner| sum.saturating_add(load(HELD + owner * 8)));
    Account { spent: load(SPENT), held, seeded: load(SEEDED) != 0 }
}

impl Counters {
    /// What the counter stands at, without waiting for anybody.
    pub fn peek(&self, counter: Counter, now: u64) -> Account {
        let Some(at) = self.0.find(counter.key) else { return Account::default() };
        let mut found = account(&self.0, at);
        let period = self.0.cell(at, PERIOD).load(Ordering::Acquire);
        if counter.period > period {
            found.spent = 0;
            found.seeded = period != 0;
        } else if period - counter.period > STEP_BACK {
            // Written down here too: who is refused does not come to `hold`.
            drop(self.open(counter, now));
        }
        found
    }

    /// Hold `amount` more while less than `most` is used; it may then be more by this one amount. With `exactly`, only
    /// where all of it fits. The account before it, and whether it was done. None: there is no slot to count in.
    pub fn hold(&self, counter: Counter, owner: usize, now: u64, ask: Ask) -> Option<(Account, bool)> {
        let open = self.open(counter, now)?;
        let before = open.account();
        let fits = match ask.exactly {
            true => before.used().saturating_add(ask.amount) <= ask.most,
            false => before.used() < ask.most,
        };
        if fits {
            open.cell(TOP).fetch_max(owner as u64 + 1, Ordering::AcqRel);
            open.own(owner).fetch_add(ask.amount, Ordering::AcqRel);
        }
        Some((before, fits))
    }

    /// What was held is over: `spent` of it is used up.
    pub fn settle(&self, counter: Counter, owner: usize, now: u64, held: u64, spent: u64) {
        let Some(open) = self.open(counter, now) else { return };
        // Spent first: a crash between the two charges too much, never too little.
        add(open.cell(SPENT), spent);
        let own = open.own(owner);
        own.store(own.load(Ordering::Acquire).saturating_sub(held), Ordering::Release);
    }

    /// What was spent in this period before the counter was made. Counts once.
    pub fn seed(&self, counter: Counter, now: u64, spent: u64) {
        let Some(open) = self.open(counter, now) else { return };
        if open.cell(PERIOD).load(Ordering::Acquire) == counter.period
            && open.cell(SEEDED).swap(1, Ordering::AcqRel) == 0
        {
            add(open.cell(SPENT), spent);
        }
    }

    /// A crash charged `charged`, and it was `actual`.
    pub fn correct(&self, counter: Counter, now: u64, charged: u64, actual: u64) {
        let Some(open) = self.open(counter, now) else { return };
        let spent = open.cell(SPENT);
        let whole = spent.load(Ordering::Acquire).saturating_add(actual);
        spent.store(whole.saturating_sub(charged), Ordering::Release);
    }

    /// Give back what a dead process held. What it had reserved of budgets counts as spent: nobody knows better yet.
    pub fn reap(&self, owners: &Owners, owner: usize, identity: u64) {
        for at in self.0.used() {
            let held = self.0.cell(at, HELD + owner * 8);
            if held.load(Ordering::Acquire) == 0 {
                continue;
            }
            let open = Open { slots: &self.0, at, _guard: lock(self.0.cell(at, LOCK)) };
            if owners.identity(owner) != identity {
                // Somebody else has done it, and the number belongs to a new process.
                return;
            }
            if open.cell(PERIOD).load(Ordering::Acquire) != 0 {
                add(open.cell(SPENT), held.load(Ordering::Acquire));
            }
            held.store(0, Ordering::Release);
        }
    }

    fn open(&self, counter: Counter, now: u64) -> Option<Open<'_>> {
        loop {
            let at = match self.0.find(counter.key) {
                Some(at) => at,
                None => self.0.claim(counter.key, |at| self.vacate(at, now))?,
            };
            let open = Open { slots: &self.0, at, _guard: lock(self.0.cell(at, LOCK)) };
            if !self.0.is(at, counter.key) {
                continue;
            }
            open.cell(USED_AT).store(now, Ordering::Release);
            open.turn(counter.period);
            return Some(open);
        }
    }

    /// Clear the slot, if nothing in it is worth remembering: no holdings, and nothing spent lately.
    fn vacate(&self, at: usize, now: u64) -> bool {
        let open = Open { slots: &self.0, at, _guard: lock(self.0.cell(at, LOCK)) };
        let is_budget = open.cell(PERIOD).load(Ordering::Acquire) != 0;
        let wait = if is_budget { BUDGET_IDLE } else { IDLE };
        let used_at = open.cell(USED_AT).load(Ordering::Acquire);
        if open.account().held != 0 || used_at.saturating_add(wait) >= now {
            return false;
        }
        for offset in [SPENT, PERIOD, SEEDED, TOP] {
            open.cell(offset).store(0, Ordering::Release);
        }
        true
    }
}

/// What is asked of a counter.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// So much more.
    pub amount: u64,
    /// While less than this is used.
    pub most: u64,
    /// All of it has to fit.
    pub exactly: bool,
}

fn add(cell: &AtomicU64, amount: u64) {
    let sum = cell.load(Ordering::Acquire).saturating_add(amount);
    cell.store(sum, Ordering::Release);
}
