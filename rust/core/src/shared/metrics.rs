//! What all worker processes have done, counted in one mapped file: one block of atomics for each process.
//!
//! A process adds to its own block alone, so none waits for a cache line of another. Who reads sums over all blocks.
//! The block of a dead process keeps its counts and goes to the next that starts: a sum never steps back. Gauges
//! count as long as their process lives.

use super::{
    clock,
    names::{self, Names},
    owners::{self, Owners, Process, MOST},
    phases::{bucket, cells, Marks, COARSE, FINE, PHASES},
    scored,
    table::{Layout, Table},
};
use std::{
    io,
    path::Path,
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering},
        Arc,
    },
};

/// "SLGMET" and the version of the layout.
pub const MAGIC: u64 = 0x534c_474d_4554_0002;
/// What is asked for. The last is everything that is none of the others.
pub const OPERATIONS: [&str; 5] = ["chat", "completions", "embeddings", "responses", "other"];
/// Classes of the status.
pub const STATUSES: [&str; 3] = ["2xx", "4xx", "5xx"];
/// Kinds of tokens.
pub const TOKENS: [&str; 4] = ["prompt", "completion", "cached", "reasoning"];
/// Whose limit refuses, and why.
pub const SUBJECTS: [&str; 4] = ["workspace", "key", "assistant", "upstream"];
/// See `SUBJECTS`.
pub const REASONS: [&str; 5] = ["rate", "concurrent", "budget", "too_large", "full"];
/// Counters without labels, by name.
pub const COUNTS: [&str; 9] = [
    "retries",
    "internal_errors",
    "records_written",
    "records_lost",
    "records_moved",
    "moves_failed",
    "limits_alone",
    "log_lines_dropped",
    "worker_starts",
];
/// What each process says of itself now and then, by name.
pub const GAUGES: [&str; 10] = [
    "open_requests",
    "open_streams",
    "resident_bytes",
    "cpu_us",
    "open_files",
    "records_waiting",
    "moved_at_ms",
    "database_down",
    "limits_not_shared",
    "draining",
];
/// So many workspaces, upstreams, models, error codes and assistants with scores are counted one by one.
pub const WORKSPACES: usize = 64;
/// See `WORKSPACES`.
pub const UPSTREAMS: usize = 64;
/// See `WORKSPACES`.
pub const MODELS: usize = 128;
/// See `WORKSPACES`.
pub const CODES: usize = 96;
/// See `WORKSPACES`.
pub const ASSISTANTS: usize = 64;
/// The name of all others.
pub const OTHER: &str = "other";

pub(super) const TOP: usize = 192;
const NAMES_AT: usize = owners::END.next_multiple_of(4096);
const UPSTREAM_NAMES: usize = NAMES_AT + names::size(WORKSPACES);
const MODEL_NAMES: usize = UPSTREAM_NAMES + names::size(UPSTREAMS);
const CODE_NAMES: usize = MODEL_NAMES + names::size(MODELS);
const ASSISTANT_NAMES: usize = CODE_NAMES + names::size(CODES);
const BLOCKS_AT: usize = (ASSISTANT_NAMES + names::size(ASSISTANTS)).next_multiple_of(4096);

// Cells of a block, from its first on.
pub(super) const PHASE: usize = 0;
pub(super) const OVERHEAD: usize = PHASE + 2 * PHASES.len() * cells(&FINE);
pub(super) const DURATION: usize = OVERHEAD + OPERATIONS.len() * cells(&FINE);
pub(super) const LAG: usize = DURATION + 2 * OPERATIONS.len() * cells(&COARSE);
pub(super) const REFUSED: usize = LAG + cells(&FINE);
pub(super) const COUNT: usize = REFUSED + SUBJECTS.len() * REASONS.len();
pub(super) const GAUGE: usize = COUNT + COUNTS.len();
// Of a workspace: requests by operation and status, tokens, cost.
pub(super) const WORKSPACE: usize = GAUGE + GAUGES.len();
pub(super) const OF_WORKSPACE: usize = OPERATIONS.len() * STATUSES.len() + TOKENS.len() + 1;
// Of an upstream: requests by status, failed calls, first token, duration, and three gauges.
pub(super) const UPSTREAM: usize = WORKSPACE + (WORKSPACES + 1) * OF_WORKSPACE;
pub(super) const FAILED: usize = STATUSES.len();
pub(super) const FIRST_TOKEN: usize = FAILED + 1;
pub(super) const ANSWER: usize = FIRST_TOKEN + cells(&COARSE);
pub(super) const POOL: usize = ANSWER + cells(&COARSE);
pub(super) const POOLS: usize = 3;
pub(super) const OF_UPSTREAM: usize = POOL + POOLS;
// Of a model: requests, tokens, cost.
pub(super) const MODEL: usize = UPSTREAM + (UPSTREAMS + 1) * OF_UPSTREAM;
pub(super) const OF_MODEL: usize = 1 + TOKENS.len() + 1;
pub(super) const CODE: usize = MODEL + (MODELS + 1) * OF_MODEL;
// Of an assistant: see `scored.rs`.
pub(super) const ASSISTANT: usize = CODE + CODES + 1;
const STRIDE: usize = ((ASSISTANT + (ASSISTANTS + 1) * scored::CELLS) * 8).next_multiple_of(64);
/// Of the whole file.
pub const SIZE: usize = BLOCKS_AT + MOST * STRIDE;

/// One request that has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended<'a> {
    /// One of `OPERATIONS`.
    pub operation: &'a str,
    /// Empty where nobody was let in.
    pub workspace: &'a str,
    /// Who was asked last, if anybody.
    pub upstream: Option<&'a str>,
    /// The upstream's own name of the model.
    pub model: Option<&'a str>,
    /// Of the error.
    pub code: Option<&'a str>,
    /// What the client saw.
    pub status: u16,
    /// A stream was asked for.
    pub stream: bool,
    /// In the order of `TOKENS`.
    pub tokens: [u64; 4],
    /// Cost, in millionths of a dollar.
    pub micros: u64,
    /// Upstreams that were asked.
    pub attempts: u64,
    /// From the call to the first event, in microseconds.
    pub first_us: Option<u64>,
    /// From the call to the end of the answer; None: there was none.
    pub answer_us: Option<u64>,
    /// When it reached which stage.
    pub marks: Marks,
}

/// An upstream as one process sees it: idle connections, those in use, and whether it is avoided.
pub type Pool = (String, u64, u64, bool);

/// The metrics of a gateway's processes. It belongs to the process that opens it.
pub struct Metrics {
    pub(super) table: Arc<Table>,
    pub(super) owners: Owners,
    pub(super) process: Option<Process>,
    block: AtomicUsize,
    pub(super) workspaces: Names,
    pub(super) upstreams: Names,
    pub(super) models: Names,
    pub(super) codes: Names,
    pub(super) assistants: Names,
}

static NOWHERE: AtomicU64 = AtomicU64::new(0);

impl Metrics {
    /// In the mapped file at `path`, which begins anew where it is missing, damaged, or has another `stamp`.
    pub fn open(path: &Path, stamp: u64) -> io::Result<Metrics> {
        Metrics::open_as(path, stamp, Process::this()?)
    }

    /// As `open`, for a process that the caller names.
    pub fn open_as(path: &Path, stamp: u64, process: Process) -> io::Result<Metrics> {
        let table = Table::open_as(path, Layout { magic: MAGIC, size: SIZE, allocated: true, stamp })?;
        let metrics = Metrics::of(Arc::new(table), Some(process));
        metrics.tick(clock::since_boot());
        Ok(metrics)
    }

    /// Of this process alone.
    pub fn private() -> io::Result<Metrics> {
        let layout = Layout { magic: MAGIC, size: SIZE, allocated: false, stamp: 0 };
        let metrics = Metrics::of(Arc::new(Table::private(layout)?), None);
        metrics.enter(0);
        Ok(metrics)
    }

    fn of(table: Arc<Table>, process: Option<Process>) -> Metrics {
        Metrics {
            owners: Owners::new(&table),
            process,
            block: AtomicUsize::new(MOST),
            workspaces: Names::new(&table, NAMES_AT, WORKSPACES),
            upstreams: Names::new(&table, UPSTREAM_NAMES, UPSTREAMS),
            models: Names::new(&table, MODEL_NAMES, MODELS),
            codes: Names::new(&table, CODE_NAMES, CODES),
            assistants: Names::new(&table, ASSISTANT_NAMES, ASSISTANTS),
            table,
        }
    }

    /// Once a second: say that this process lives, and let the blocks of dead ones go to others.
    pub fn tick(&self, now: u64) {
        let Some(process) = self.process else { return };
        for (number, identity) in self.owners.dead(now) {
            self.owners.forget(number, identity);
        }
        // With more processes than blocks, the last block counts for several; its gauges are then of one of them.
        let number = self.owners.join(process).unwrap_or(MOST - 1);
        self.owners.beat(number, now);
        if self.block.load(Ordering::Relaxed) != number {
            self.enter(number);
        }
    }

    fn enter(&self, number: usize) {
        self.block.store(number, Ordering::Relaxed);
        if let Ok(top) = self.table.cell(TOP) {
            top.fetch_max(number as u64 + 1, Ordering::AcqRel);
        }
        for gauge in 0..GAUGES.len() {
            self.set(GAUGE + gauge, 0);
        }
        self.publish_pools(&[]);
        self.count("worker_starts", 1);
    }

    /// A request has ended.
    pub fn ended(&self, request: &Ended<'_>) {
        let operation = position(&OPERATIONS, request.operation, OPERATIONS.len() - 1);
        let status = match request.status {
            0..=399 => 0,
            400..=499 => 1,
            _ => 2,
        };
        let stream = usize::from(request.stream);
        let relayed = request.answer_us.is_some();
        for (phase, took) in request.marks.phases(relayed).into_iter().enumerate() {
            if let Some(took) = took {
                self.observe(PHASE + (phase * 2 + stream) * cells(&FINE), &FINE, took);
            }
        }
        self.observe(OVERHEAD + operation * cells(&FINE), &FINE, request.marks.overhead(request.answer_us));
        let duration = DURATION + (operation * 2 + stream) * cells(&COARSE);
        self.observe(duration, &COARSE, request.marks.duration());
        if request.attempts > 1 {
            self.count("retries", request.attempts - 1);
        }
        if let Some(code) = request.code {
            self.add(CODE + self.codes.number(code), 1);
        }
        let workspace = WORKSPACE + self.workspaces.number(request.workspace) * OF_WORKSPACE;
        self.add(workspace + operation * STATUSES.len() + status, 1);
        self.add_usage(workspace + OPERATIONS.len() * STATUSES.len(), request);
        if let Some(upstream) = request.upstream {
            let upstream = UPSTREAM + self.upstreams.number(upstream) * OF_UPSTREAM;
            self.add(upstream + status, 1);
            if let Some(first) = request.first_us {
                self.observe(upstream + FIRST_TOKEN, &COARSE, first);
            }
            if let Some(took) = request.answer_us {
                self.observe(upstream + ANSWER, &COARSE, took);
            }
        }
        // Names that no upstream has answered for are the clients' own.
        if let (Some(model), true) = (request.model, relayed) {
            let model = MODEL + self.models.number(model) * OF_MODEL;
            self.add(model, 1);
            self.add_usage(model + 1, request);
        }
    }

    fn add_usage(&self, at: usize, request: &Ended<'_>) {
        for (kind, amount) in request.tokens.into_iter().enumerate() {
            self.add(at + kind, amount);
        }
        self.add(at + TOKENS.len(), request.micros);
    }

    /// A call of an upstream has failed, whatever came of its request.
    pub fn failed(&self, upstream: &str) {
        self.add(UPSTREAM + self.upstreams.number(upstream) * OF_UPSTREAM + FAILED, 1);
    }

    /// A limit has refused a request.
    pub fn refused(&self, subject: &str, reason: &str) {
        let subject = position(&SUBJECTS, subject, 0);
        let reason = position(&REASONS, reason, REASONS.len() - 1);
        self.add(REFUSED + subject * REASONS.len() + reason, 1);
    }

    /// More of one of `COUNTS`.
    pub fn count(&self, name: &str, more: u64) {
        if let Some(number) = COUNTS.iter().position(|known| *known == name) {
            self.add(COUNT + number, more);
        }
    }

    /// The event loop was late by so many microseconds.
    pub fn lag(&self, micros: u64) {
        self.observe(LAG, &FINE, micros);
    }

    /// One of `GAUGES` of this process.
    pub fn publish(&self, name: &str, value: u64) {
        if let Some(number) = GAUGES.iter().position(|known| *known == name) {
            self.set(GAUGE + number, value);
        }
    }

    /// The upstreams as this process sees them; those that are missing have nothing open.
    pub fn publish_pools(&self, pools: &[Pool]) {
        let mut sums = [[0u64; POOLS]; UPSTREAMS + 1];
        for (name, idle, in_use, avoided) in pools {
            if let Some([a, b, c]) = sums.get_mut(self.upstreams.number(name)) {
                *a = a.saturating_add(*idle);
                *b = b.saturating_add(*in_use);
                *c += u64::from(*avoided);
            }
        }
        for (number, values) in sums.into_iter().enumerate() {
            for (at, value) in values.into_iter().enumerate() {
                self.set(UPSTREAM + number * OF_UPSTREAM + POOL + at, value);
            }
        }
    }

    pub(super) fn observe(&self, at: usize, bounds: &[u64], micros: u64) {
        self.add(at + bucket(bounds, micros), 1);
        self.add(at + bounds.len() + 1, micros);
    }

    pub(super) fn add(&self, cell: usize, more: u64) {
        if more > 0 {
            self.cell(self.block.load(Ordering::Relaxed), cell).fetch_add(more, Ordering::Relaxed);
        }
    }

    fn set(&self, cell: usize, value: u64) {
        self.cell(self.block.load(Ordering::Relaxed), cell).store(value, Ordering::Relaxed);
    }

    pub(super) fn cell(&self, block: usize, cell: usize) -> &'static AtomicU64 {
        self.table.cell(BLOCKS_AT + block * STRIDE + cell * 8).unwrap_or(&NOWHERE)
    }
}

pub(super) fn position(names: &[&str], name: &str, otherwise: usize) -> usize {
    names.iter().position(|known| *known == name).unwrap_or(otherwise)
}
