//! `Limits`, `LimitRules`, `LimitSets`, `Admission`: the limits of a machine, a request at a time.

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, sync::PyOnceLock, types::PyBytes};
use sluicegate_core::shared::{
    calendar::{Every, Wall},
    clock,
    limits::{self, Demand, Now, Reason, Refusal, Reservation, Rule, Rules, Sets, Unit},
    rate::{Level, Rate},
    slots::Key,
    told,
};
use std::{path::PathBuf, sync::Arc};

const MINUTE: u64 = 60_000_000_000;
const DAY: u64 = 1440 * MINUTE;
const MILLI: u64 = 1_000_000;

/// The limits of one workspace, key, assistant or upstream.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct LimitRules {
    rules: Rules,
    kinds: Vec<String>,
}

fn rule(kind: &str, owner: &str, most: u64, burst: Option<u64>) -> PyResult<Rule> {
    let parts = [kind, owner];
    let rate = |unit, period| Rule::Rate { unit, rate: Rate::new(&parts, most, burst.unwrap_or(most), period) };
    let budget = |unit, every| Rule::Budget { unit, key: Key::of(&parts), most, every };
    Ok(match kind {
        "requests_per_minute" => rate(Unit::Requests, MINUTE),
        "requests_per_day" => rate(Unit::Requests, DAY),
        "tokens_per_minute" => rate(Unit::Tokens, MINUTE),
        "tokens_per_day" => rate(Unit::Tokens, DAY),
        "concurrent_requests" => Rule::Concurrent { key: Key::of(&parts), most },
        "usd_per_day" => budget(Unit::Micros, Every::Day),
        "usd_per_week" => budget(Unit::Micros, Every::Week),
        "usd_per_month" => budget(Unit::Micros, Every::Month),
        "usd_total" => budget(Unit::Micros, Every::Total),
        "budget_tokens_per_day" => budget(Unit::Tokens, Every::Day),
        "budget_tokens_per_week" => budget(Unit::Tokens, Every::Week),
        "budget_tokens_per_month" => budget(Unit::Tokens, Every::Month),
        "budget_tokens_total" => budget(Unit::Tokens, Every::Total),
        _ => return Err(PyValueError::new_err(format!("`{kind}` is no kind of limit"))),
    })
}

#[pymethods]
impl LimitRules {
    #[new]
    fn new(owner: &str, rules: Vec<(String, u64, Option<u64>)>) -> PyResult<Self> {
        let made: PyResult<Vec<Rule>> =
            rules.iter().map(|(kind, most, burst)| rule(kind, owner, *most, *burst)).collect();
        let kinds = rules.into_iter().map(|(kind, _, _)| kind).collect();
        Ok(LimitRules { rules: made?.into(), kinds })
    }

    fn __len__(&self) -> usize {
        self.rules.len()
    }
}

/// All limits that count for a request.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct LimitSets {
    sets: Sets,
    /// Of each set.
    kinds: Vec<Vec<String>>,
    /// The share of a budget from which on there are warnings.
    warn_percent: u64,
}

#[pymethods]
impl LimitSets {
    #[new]
    #[pyo3(signature = (sets, warn_percent = 100))]
    fn new(sets: Vec<PyRef<'_, LimitRules>>, warn_percent: u64) -> Self {
        let kinds = sets.iter().map(|rules| rules.kinds.clone()).collect();
        LimitSets { sets: sets.iter().map(|rules| rules.rules.clone()).collect(), kinds, warn_percent }
    }
}

impl LimitSets {
    fn warns(&self, (used, most): (u64, u64)) -> bool {
        u128::from(used) * 100 >= u128::from(most) * u128::from(self.warn_percent)
    }
}

/// What came of one request: what it holds, or why it is refused.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Admission {
    limits: Arc<limits::Limits>,
    held: Mutex<Option<Reservation>>,
    /// The set and the kind of the limit that refuses; None: admitted.
    #[pyo3(get)]
    refused: Option<(usize, String)>,
    /// "rate", "too_large", "concurrent", "budget" or "full".
    #[pyo3(get)]
    reason: Option<&'static str>,
    #[pyo3(get)]
    retry_after_ms: Option<u64>,
    /// Counted in this process alone, by a share.
    #[pyo3(get)]
    alone: bool,
    /// Of the budget that is used up furthest: used, and the most.
    #[pyo3(get)]
    budget: Option<(u64, u64)>,
    /// Admitted, and no budget is near its end: one look tells it for nearly every request.
    #[pyo3(get)]
    is_plain: bool,
    requests: Option<Level>,
    tokens: Option<Level>,
}

#[pymethods]
impl Admission {
    /// The answer has ended: what was used, instead of what was reserved. Later calls do nothing.
    fn settle(&self, tokens: u64, micros: u64) {
        if let Some(held) = self.held.lock().take() {
            self.limits.settle(held, Demand { tokens, micros }, Now::read());
        }
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Headers<'py> {
        headers(py, self.requests, self.tokens)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        // Nobody has told how it ended: what was reserved counts as used, and the place is free.
        if let Some(held) = self.held.lock().take() {
            let demand = held.demand();
            self.limits.settle(held, demand, Now::read());
        }
    }
}

type Headers<'py> = Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>;

fn headers(py: Python<'_>, requests: Option<Level>, tokens: Option<Level>) -> Headers<'_> {
    // Each answer has the same six names.
    static NAMES: PyOnceLock<[[Py<PyBytes>; 3]; 2]> = PyOnceLock::new();
    let bytes = |text: &str| PyBytes::new(py, text.as_bytes());
    let names = NAMES.get_or_init(py, || told::NAMES.map(|unit| unit.map(|name| bytes(name).unbind())));
    let levels = [requests, tokens].into_iter().zip(names).filter_map(|(level, names)| Some((level?, names)));
    levels
        .flat_map(|(level, names)| names.iter().zip(told::values(level)))
        .map(|(name, value)| (name.bind(py).clone(), bytes(&value)))
        .collect()
}

/// The headers of rates that Redis counts: the unit, the limit, the burst, the period in microseconds, what is owed.
#[pyfunction]
pub fn rate_headers(py: Python<'_>, rates: Vec<(String, u64, u64, u64, f64)>) -> Headers<'_> {
    let (mut requests, mut tokens) = (None, None);
    for (unit, limit, burst, period, owed) in rates {
        let level = told::Counted { limit, burst, period, owed }.level();
        let least = if unit == "tokens" { &mut tokens } else { &mut requests };
        *least = Some(told::tighter(*least, level));
    }
    headers(py, requests, tokens)
}

/// The limits of one machine.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Limits {
    limits: Arc<limits::Limits>,
}

impl Limits {
    fn refused(&self, refusal: Refusal, sets: &LimitSets) -> Admission {
        let (set, rule) = refusal.rule;
        let kind = sets.kinds.get(set).and_then(|kinds| kinds.get(rule)).cloned().unwrap_or_default();
        let (reason, wait) = match refusal.reason {
            Reason::Rate { wait } => ("rate", Some(wait.div_ceil(MILLI))),
            Reason::TooLarge => ("too_large", None),
            Reason::Concurrent => ("concurrent", None),
            Reason::Budget { wait_ms } => ("budget", wait_ms),
            Reason::Full => ("full", None),
        };
        let now = Now::read();
        let (mut requests, mut tokens) = (None, None);
        if let Some(Rule::Rate { unit, rate }) = sets.sets.get(set).and_then(|rules| rules.get(rule)) {
            let level = Some(self.limits.level(rate, now));
            *(if *unit == Unit::Requests { &mut requests } else { &mut tokens }) = level;
        }
        Admission {
            limits: self.limits.clone(),
            held: Mutex::new(None),
            refused: Some((set, kind)),
            reason: Some(reason),
            retry_after_ms: wait,
            alone: false,
            budget: None,
            is_plain: false,
            requests,
            tokens,
        }
    }
}

#[pymethods]
impl Limits {
    #[new]
    #[pyo3(signature = (path, processes = 1))]
    fn new(py: Python<'_>, path: Option<PathBuf>, processes: u64) -> PyResult<Self> {
        let limits = match path {
            // Another process may hold the lock while it initialises the file.
            Some(path) => py.detach(|| limits::Limits::open(&path))?,
            None => limits::Limits::private(processes),
        };
        Ok(Limits { limits: Arc::new(limits) })
    }

    fn admit(&self, sets: &LimitSets, tokens: u64, micros: u64) -> Admission {
        match self.limits.admit(&sets.sets, Demand { tokens, micros }, Now::read()) {
            Err(refusal) => self.refused(refusal, sets),
            Ok(held) => Admission {
                limits: self.limits.clone(),
                refused: None,
                reason: None,
                retry_after_ms: None,
                alone: held.alone,
                budget: held.budget,
                is_plain: !held.budget.is_some_and(|budget| sets.warns(budget)),
                requests: held.requests,
                tokens: held.tokens,
                held: Mutex::new(Some(held)),
            },
        }
    }

    fn tick(&self, py: Python<'_>) -> usize {
        py.detach(|| self.limits.tick(clock::since_boot()))
    }

    fn seed(&self, rules: &LimitRules, kind: &str, spent: u64) {
        if let Some(rule) = self.rule(rules, kind) {
            self.limits.seed(rule, spent, Now::read());
        }
    }

    fn account(&self, rules: &LimitRules, kind: &str) -> Option<(u64, u64, bool)> {
        let found = self.limits.account(self.rule(rules, kind)?, Now::read());
        Some((found.spent, found.held, found.seeded))
    }

    fn correct(&self, rules: &LimitRules, opened_ms: u64, charged: (u64, u64), actual: (u64, u64)) {
        let demand = |(tokens, micros)| Demand { tokens, micros };
        self.limits.correct(&rules.rules, Wall(opened_ms), demand(charged), demand(actual), Now::read());
    }

    #[getter]
    fn is_current(&self) -> bool {
        self.limits.is_current()
    }

    #[getter]
    fn is_shared(&self) -> bool {
        self.limits.is_shared()
    }

    #[getter]
    fn counted_alone(&self) -> u64 {
        self.limits.counted_alone()
    }
}

impl Limits {
    fn rule<'a>(&self, rules: &'a LimitRules, kind: &str) -> Option<&'a Rule> {
        rules.rules.get(rules.kinds.iter().position(|known| known == kind)?)
    }
}
