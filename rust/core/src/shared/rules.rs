//! What a limit is, what a request asks of it, and how it refuses.

use super::{
    calendar::{Every, Wall},
    clock,
    rate::Rate,
    slots::Key,
};
use std::sync::Arc;

/// What a rate or a budget counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
    /// Millionths of a dollar.
    Micros,
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// So many requests or tokens per minute or day.
    Rate {
        /// What it counts.
        unit: Unit,
        /// How many.
        rate: Rate,
    },
    /// So many requests at a time.
    Concurrent {
        /// Which counter.
        key: Key,
        /// How many.
        most: u64,
    },
    /// So much per day, week, month or in all.
    Budget {
        /// What it counts.
        unit: Unit,
        /// Which counter.
        key: Key,
        /// How much.
        most: u64,
        /// When it begins anew.
        every: Every,
    },
}

/// The limits of one workspace, key, assistant or upstream.
pub type Rules = Arc<[Rule]>;

/// All limits that count for a request.
pub type Sets = Arc<[Rules]>;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of prompt and answer, at most.
    pub tokens: u64,
    /// What they cost, in millionths of a dollar.
    pub micros: u64,
}

impl Demand {
    /// How much of what such a limit counts.
    pub fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Tokens => self.tokens,
            Unit::Micros => self.micros,
        }
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// `clock::since_boot`.
    pub mono: u64,
    /// The calendar, for budgets alone.
    pub wall: Wall,
}

impl Now {
    /// This moment.
    pub fn read() -> Now {
        Now { mono: clock::since_boot(), wall: Wall::read() }
    }
}

/// Why a limit refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// After so many nanoseconds there is room, if nobody else takes it.
    Rate {
        /// Nanoseconds.
        wait: u64,
    },
    /// The demand is larger than the burst of a rate.
    TooLarge,
    /// All places are taken; nobody knows for how long.
    Concurrent,
    /// The budget is used up; so many milliseconds to the next period, if there is one.
    Budget {
        /// Milliseconds; None: it never begins anew.
        wait_ms: Option<u64>,
    },
    /// There is no room to count in, not even in this process.
    Full,
}

/// Which limit refuses, and why: the one that is waited for longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The number of the set of rules, and of the rule in it.
    pub rule: (usize, usize),
    /// Why.
    pub reason: Reason,
}

impl Reason {
    /// What is waited for longest is told: whoever waits for it has waited for the others as well.
    pub fn weight(self) -> u64 {
        match self {
            Reason::Concurrent => 0,
            Reason::Rate { wait } => 1 + wait.min(u64::MAX >> 2),
            Reason::Budget { .. } => u64::MAX - 2,
            Reason::TooLarge => u64::MAX - 1,
            Reason::Full => u64::MAX,
        }
    }
}
