//! All limits of one request in one step: admitted with a reservation, or refused with the time to wait.
//!
//! Nothing is taken where one limit refuses. A file that is full or cannot be had is replaced by memory of this
//! process, in which every limit is divided by the number of processes: less exact, never unlimited.

pub use super::rules::{Demand, Now, Reason, Refusal, Rule, Rules, Sets, Unit};
use super::{
    calendar::Wall,
    clock,
    counters::{self, Account, Ask, Counter, Counters},
    owners::{self, Owners, Process},
    rate::{self, Level, Rate, Rates, Verdict},
    slots::Slots,
    table::{Layout, Table},
};
use std::{
    io,
    path::Path,
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering},
        Arc, OnceLock,
    },
};

/// "SLGLIM" and the version of the layout.
pub const MAGIC: u64 = 0x534c_474c_494d_0001;
const SEEN: usize = 128;
/// The clock of a process that stood still between its look and the lock is behind by less than this.
const RESTARTED: u64 = 60_000_000_000;
const RATE_LOCK: usize = 192;
const COUNTER_LOCK: usize = 256;
const RATES: usize = 1 << 16;
const COUNTERS: usize = 1 << 13;
const RATES_AT: usize = 16384;
const COUNTERS_AT: usize = RATES_AT + RATES * rate::STRIDE;
/// Of the whole file: room for 65,536 rates and 8,192 counters in use at a time.
pub const SIZE: usize = COUNTERS_AT + COUNTERS * counters::STRIDE;
const _: () = assert!(owners::END <= RATES_AT);

/// One limit that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    rule: (u16, u16),
    // The arrival time of a rate, the period of a budget.
    mark: u64,
    alone: bool,
}

/// What a request holds until it is settled.
#[derive(Debug)]
pub struct Reservation {
    sets: Sets,
    taken: Vec<Taken>,
    demand: Demand,
    /// The rates of requests and of tokens with the least left.
    pub requests: Option<Level>,
    /// See `requests`.
    pub tokens: Option<Level>,
    /// Of the budget that is used up furthest: used before this request, and the most.
    pub budget: Option<(u64, u64)>,
    /// A limit was counted in this process alone.
    pub alone: bool,
}

struct Store {
    rates: Rates,
    counters: Counters,
}

impl Store {
    fn new(table: &Arc<Table>) -> io::Result<Store> {
        Ok(Store {
            rates: Rates(Slots::new(table, RATES_AT, rate::STRIDE, RATES, RATE_LOCK)?),
            counters: Counters(Slots::new(table, COUNTERS_AT, counters::STRIDE, COUNTERS, COUNTER_LOCK)?),
        })
    }
}

/// The limits of a machine. It belongs to the process that opens it: a child of a fork opens its own.
pub struct Limits {
    table: Option<Arc<Table>>,
    shared: Option<Store>,
    owners: Option<Owners>,
    process: Process,
    owner: AtomicUsize,
    // How many count beside each other where there is no file.
    processes: u64,
    alone: OnceLock<Option<Store>>,
    counted_alone: AtomicU64,
}

/// No number among the owners: what is held is counted in this process alone.
const NONE: usize = usize::MAX;

impl Limits {
    /// In the mapped file at `path`, which is made anew where it is missing, damaged, of another version, or from
    /// before the machine started.
    pub fn open(path: &Path) -> io::Result<Limits> {
        Limits::open_as(path, Process::this()?, clock::boot(), clock::since_boot())
    }

    /// As `open`, for a process, a start of the machine and a time that the caller names.
    pub fn open_as(path: &Path, process: Process, boot: u64, now: u64) -> io::Result<Limits> {
        let layout = Layout { magic: MAGIC, size: SIZE, allocated: true, stamp: boot };
        let mut table = Table::open_as(path, layout)?;
        if table.cell(SEEN)?.load(Ordering::Acquire) > now.saturating_add(RESTARTED) {
            // Without a boot id, the clock alone tells that the machine has started anew.
            table.begin_anew()?;
            table = Table::open_as(path, layout)?;
        }
        let table = Arc::new(table);
        let owners = Owners::new(&table);
        let limits = Limits {
            shared: Some(Store::new(&table)?),
            table: Some(table),
            owners: Some(owners),
            process,
            owner: AtomicUsize::new(NONE),
            processes: 1,
            alone: OnceLock::new(),
            counted_alone: AtomicU64::new(0),
        };
        limits.tick(now);
        Ok(limits)
    }

    /// Without a file: of every limit one share of `processes`.
    pub fn private(processes: u64) -> Limits {
        Limits {
            table: None,
            shared: None,
            owners: None,
            process: Process { identity: 1, namespace: 0 },
            owner: AtomicUsize::new(NONE),
            processes: processes.max(1),
            alone: OnceLock::new(),
            counted_alone: AtomicU64::new(0),
        }
    }

    /// Once a second: say that this process lives, and give back what dead ones held. Returns how many were dead.
    pub fn tick(&self, now: u64) -> usize {
        let (Some(owners), Some(store), Some(table)) = (&self.owners, &self.shared, &self.table) else { return 0 };
        let dead = owners.dead(now);
        for (number, identity) in &dead {
            store.counters.reap(owners, *number, *identity);
            owners.forget(*number, *identity);
        }
        let own = owners.join(self.process);
        self.owner.store(own.unwrap_or(NONE), Ordering::Release);
        if let Some(own) = own {
            owners.beat(own, now);
        }
        if let Ok(seen) = table.cell(SEEN) {
            seen.fetch_max(now, Ordering::AcqRel);
        }
        dead.len()
    }

    /// Whether the path still leads to the mapped file; true without one.
    pub fn is_current(&self) -> bool {
        self.table.as_ref().is_none_or(|table| table.is_current())
    }

    /// Whether the processes of the machine count together.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// How often a limit was counted in this process alone.
    pub fn counted_alone(&self) -> u64 {
        self.counted_alone.load(Ordering::Relaxed)
    }

    /// Reserve what all rules allow, or tell which refuses.
    pub fn admit<S: Clone + Into<Sets>>(&self, sets: &S, demand: Demand, now: Now) -> Result<Reservation, Refusal> {
        let sets: Sets = sets.clone().into();
        // Looked at first, so that a refused request leaves no trace that others would have to wait for.
        if let Some(refusal) = self.foresee(&sets, demand, now) {
            return Err(refusal);
        }
        let mut reservation = Reservation {
            taken: Vec::with_capacity(sets.iter().map(|rules| rules.len()).sum()),
            sets: sets.clone(),
            demand,
            requests: None,
            tokens: None,
            budget: None,
            alone: false,
        };
        for (set, rules) in sets.iter().enumerate() {
            for (number, rule) in rules.iter().enumerate() {
                if let Err(reason) = self.take(rule, (set as u16, number as u16), now, &mut reservation) {
                    self.undo(reservation, now);
                    return Err(Refusal { rule: (set, number), reason });
                }
            }
        }
        Ok(reservation)
    }

    /// The answer has ended: `actual` instead of what was reserved.
    pub fn settle(&self, reservation: Reservation, actual: Demand, now: Now) {
        self.end(&reservation, Some(actual), now);
    }

    /// As if it had never been.
    fn undo(&self, reservation: Reservation, now: Now) {
        self.end(&reservation, None, now);
    }

    /// What was spent of a budget before its counter was made, by the records.
    pub fn seed(&self, rule: &Rule, spent: u64, now: Now) {
        if let (Some(store), Rule::Budget { key, every, .. }) = (&self.shared, rule) {
            store.counters.seed(Counter { key: *key, period: every.ordinal(now.wall) }, now.mono, spent);
        }
    }

    /// A request of a dead process, begun at `opened`, was `actual`; `charged` was what it had reserved.
    pub fn correct(&self, rules: &Rules, opened: Wall, charged: Demand, actual: Demand, now: Now) {
        let Some(store) = &self.shared else { return };
        for rule in rules.iter() {
            if let Rule::Budget { unit, key, every, .. } = rule {
                let counter = Counter { key: *key, period: every.ordinal(now.wall) };
                if every.ordinal(opened) != counter.period {
                    // What was charged then is charged no more.
                    continue;
                }
                store.counters.correct(counter, now.mono, charged.of(*unit), actual.of(*unit));
            }
        }
    }

    /// What is left of a rate.
    pub fn level(&self, rate: &Rate, now: Now) -> Level {
        match &self.shared {
            Some(store) => rate.level(store.rates.word(rate), now.mono),
            None => rate.share(self.processes()).level(self.alone().map_or(0, |s| s.rates.word(rate)), now.mono),
        }
    }

    /// What a budget or a number of places stands at.
    pub fn account(&self, rule: &Rule, now: Now) -> Account {
        let counter = match rule {
            Rule::Budget { key, every, .. } => Counter { key: *key, period: every.ordinal(now.wall) },
            Rule::Concurrent { key, .. } => Counter { key: *key, period: 0 },
            Rule::Rate { .. } => return Account::default(),
        };
        self.shared.as_ref().or(self.alone()).map_or(Account::default(), |store| store.counters.peek(counter, now.mono))
    }

    /// The refusal that would be waited for longest; None where all would pass.
    fn foresee(&self, sets: &[Rules], demand: Demand, now: Now) -> Option<Refusal> {
        let store = self.shared.as_ref()?;
        let mut worst: Option<Refusal> = None;
        for (set, rules) in sets.iter().enumerate() {
            for (number, rule) in rules.iter().enumerate() {
                let Some(reason) = foreseen(store, rule, demand, now) else { continue };
                if worst.is_none_or(|known| reason.weight() > known.reason.weight()) {
                    worst = Some(Refusal { rule: (set, number), reason });
                }
            }
        }
        match worst {
            // Perhaps only the dead hold them.
            Some(Refusal { reason: Reason::Concurrent, .. }) if self.tick(now.mono) > 0 => {
                self.foresee(sets, demand, now)
            }
            found => found,
        }
    }

    fn take(&self, rule: &Rule, at: (u16, u16), now: Now, held: &mut Reservation) -> Result<(), Reason> {
        let shared = self.shared.as_ref().and_then(|store| self.take_in(store, false, rule, at, now, held));
        if let Some(done) = shared {
            return done;
        }
        self.counted_alone.fetch_add(1, Ordering::Relaxed);
        held.alone = true;
        let alone = self.alone().and_then(|store| self.take_in(store, true, rule, at, now, held));
        alone.unwrap_or(Err(Reason::Full))
    }

    fn take_in(
        &self,
        store: &Store,
        alone: bool,
        rule: &Rule,
        at: (u16, u16),
        now: Now,
        held: &mut Reservation,
    ) -> Option<Result<(), Reason>> {
        let mut mark = 0;
        match rule {
            Rule::Rate { unit, rate } => {
                let share = if alone { rate.share(self.processes()) } else { *rate };
                match store.rates.take(&share, now.mono, held.demand.of(*unit))? {
                    Verdict::Passes { after, .. } => {
                        mark = after;
                        held.note(*unit, share.level(after, now.mono));
                    }
                    Verdict::Waits(wait) => return Some(Err(Reason::Rate { wait })),
                    Verdict::TooLarge => return Some(Err(Reason::TooLarge)),
                }
            }
            Rule::Concurrent { key, most } => {
                let counter = Counter { key: *key, period: 0 };
                let ask = Ask { amount: 1, most: self.share(*most, alone), exactly: true };
                if !store.counters.hold(counter, self.owner(alone)?, now.mono, ask)?.1 {
                    return Some(Err(Reason::Concurrent));
                }
            }
            Rule::Budget { unit, key, most, every } => {
                mark = every.ordinal(now.wall);
                let ask = Ask { amount: held.demand.of(*unit), most: self.share(*most, alone), exactly: false };
                let counter = Counter { key: *key, period: mark };
                let (before, fits) = store.counters.hold(counter, self.owner(alone)?, now.mono, ask)?;
                if !fits {
                    return Some(Err(Reason::Budget { wait_ms: every.left(now.wall) }));
                }
                held.note_budget(before.used(), ask.most);
            }
        }
        held.taken.push(Taken { rule: at, mark, alone });
        Some(Ok(()))
    }

    fn end(&self, held: &Reservation, actual: Option<Demand>, now: Now) {
        for taken in &held.taken {
            let store = if taken.alone { self.alone() } else { self.shared.as_ref() };
            let rule = held.sets.get(taken.rule.0 as usize).and_then(|set| set.get(taken.rule.1 as usize));
            let (Some(store), Some(rule)) = (store, rule) else { continue };
            let Some(owner) = self.owner(taken.alone) else { continue };
            match rule {
                Rule::Rate { unit, rate } => {
                    let rate = if taken.alone { rate.share(self.processes()) } else { *rate };
                    let (reserved, used) = (held.demand.of(*unit), actual.map_or(0, |actual| actual.of(*unit)));
                    if used > reserved {
                        store.rates.charge(&rate, now.mono, used - reserved);
                    } else {
                        store.rates.give_back(&rate, now.mono, reserved - used, taken.mark);
                    }
                }
                Rule::Concurrent { key, .. } => {
                    store.counters.settle(Counter { key: *key, period: 0 }, owner, now.mono, 1, 0);
                }
                Rule::Budget { unit, key, every, .. } => {
                    let counter = Counter { key: *key, period: every.ordinal(now.wall) };
                    let spent = actual.map_or(0, |actual| actual.of(*unit));
                    store.counters.settle(counter, owner, now.mono, held.demand.of(*unit), spent);
                }
            }
        }
    }

    fn owner(&self, alone: bool) -> Option<usize> {
        match self.owner.load(Ordering::Acquire) {
            _ if alone => Some(0),
            NONE => None,
            number => Some(number),
        }
    }

    fn processes(&self) -> u64 {
        self.owners.as_ref().map_or(self.processes, Owners::count)
    }

    fn share(&self, most: u64, alone: bool) -> u64 {
        if alone {
            // A budget of nothing stays one.
            (most / self.processes()).max(most.min(1))
        } else {
            most
        }
    }

    fn alone(&self) -> Option<&Store> {
        let layout = Layout { magic: MAGIC, size: SIZE, allocated: false, stamp: 0 };
        let make = || Table::private(layout).ok().and_then(|table| Store::new(&Arc::new(table)).ok());
        self.alone.get_or_init(make).as_ref()
    }
}

impl Reservation {
    /// What was reserved.
    pub fn demand(&self) -> Demand {
        self.demand
    }

    fn note(&mut self, unit: Unit, level: Level) {
        let kept = if unit == Unit::Requests { &mut self.requests } else { &mut self.tokens };
        if kept.is_none_or(|known| level.remaining < known.remaining) {
            *kept = Some(level);
        }
    }

    fn note_budget(&mut self, used: u64, most: u64) {
        // a/b > c/d without division; money and tokens compare as shares.
        let further =
            |(known, of): (u64, u64)| u128::from(used) * u128::from(of) > u128::from(known) * u128::from(most);
        if self.budget.is_none_or(further) {
            self.budget = Some((used, most));
        }
    }
}

fn foreseen(store: &Store, rule: &Rule, demand: Demand, now: Now) -> Option<Reason> {
    match rule {
        Rule::Rate { unit, rate } => match rate.judge(store.rates.word(rate), now.mono, demand.of(*unit)) {
            Verdict::Passes { .. } => None,
            Verdict::Waits(wait) => Some(Reason::Rate { wait }),
            Verdict::TooLarge => Some(Reason::TooLarge),
        },
        Rule::Concurrent { key, most } => {
            let full = store.counters.peek(Counter { key: *key, period: 0 }, now.mono).used() >= *most;
            full.then_some(Reason::Concurrent)
        }
        Rule::Budget { key, most, every, .. } => {
            let counter = Counter { key: *key, period: every.ordinal(now.wall) };
            let over = store.counters.peek(counter, now.mono).used() >= *most;
            over.then(|| Reason::Budget { wait_ms: every.left(now.wall) })
        }
    }
}
