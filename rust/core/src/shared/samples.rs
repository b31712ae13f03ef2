//! What was counted, as samples: the sums over all processes, and what the living ones say of themselves.

use super::{
    metrics::{
        Metrics, ANSWER, CODE, COUNT, COUNTS, DURATION, FAILED, FIRST_TOKEN, GAUGE, GAUGES, LAG, MODEL, OF_MODEL,
        OF_UPSTREAM, OF_WORKSPACE, OPERATIONS, OTHER, OVERHEAD, PHASE, POOL, POOLS, REASONS, REFUSED, STATUSES,
        SUBJECTS, TOKENS, TOP, UPSTREAM, UPSTREAMS, WORKSPACE,
    },
    names::Names,
    owners::MOST,
    phases::{cells, COARSE, FINE, PHASES},
};
use std::sync::atomic::Ordering;

/// One value for whoever asks for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What is counted.
    pub family: &'static str,
    /// The values of its labels.
    pub labels: Vec<String>,
    /// One number; of a histogram its buckets, and then its sum.
    pub values: Vec<u64>,
}

/// The sums of all blocks, or the block of one process.
pub(super) struct Sums<'a> {
    pub(super) metrics: &'a Metrics,
    blocks: Vec<usize>,
    found: Vec<Sample>,
}

impl Sums<'_> {
    fn value(&self, cell: usize) -> u64 {
        let values = self.blocks.iter().map(|block| self.metrics.cell(*block, cell).load(Ordering::Relaxed));
        // A file that somebody has written nonsense into is no reason to stop.
        values.fold(0, u64::saturating_add)
    }

    /// `count` cells from `at` on, as one sample; none where nothing was counted.
    pub(super) fn add(&mut self, family: &'static str, labels: &[&str], at: usize, count: usize) {
        let values: Vec<u64> = (at..at + count).map(|cell| self.value(cell)).collect();
        if values.iter().any(|value| *value > 0) {
            self.always(family, labels, values);
        }
    }

    fn always(&mut self, family: &'static str, labels: &[&str], values: Vec<u64>) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.found.push(Sample { family, labels, values });
    }

    fn fixed(&mut self) {
        for (phase, name) in PHASES.into_iter().enumerate() {
            for (stream, is_stream) in ["false", "true"].into_iter().enumerate() {
                self.add("phase", &[name, is_stream], PHASE + (phase * 2 + stream) * cells(&FINE), cells(&FINE));
            }
        }
        for (operation, name) in OPERATIONS.into_iter().enumerate() {
            self.add("overhead", &[name], OVERHEAD + operation * cells(&FINE), cells(&FINE));
            for (stream, is_stream) in ["false", "true"].into_iter().enumerate() {
                let at = DURATION + (operation * 2 + stream) * cells(&COARSE);
                self.add("duration", &[name, is_stream], at, cells(&COARSE));
            }
        }
        self.add("lag", &[], LAG, cells(&FINE));
        for (subject, whose) in SUBJECTS.into_iter().enumerate() {
            for (reason, why) in REASONS.into_iter().enumerate() {
                self.add("limit_rejections", &[whose, why], REFUSED + subject * REASONS.len() + reason, 1);
            }
        }
        for (number, name) in COUNTS.into_iter().enumerate() {
            let value = self.value(COUNT + number);
            self.always(name, &[], vec![value]);
        }
        for (number, code) in named(&self.metrics.codes) {
            self.add("errors", &[&code], CODE + number, 1);
        }
    }

    fn usage(&mut self, families: [&'static str; 2], name: &str, at: usize) {
        let [tokens, cost] = families;
        for (kind, kind_name) in TOKENS.into_iter().enumerate() {
            self.add(tokens, &[name, kind_name], at + kind, 1);
        }
        self.add(cost, &[name], at + TOKENS.len(), 1);
    }

    fn labelled(&mut self) {
        for (number, name) in named(&self.metrics.workspaces) {
            let at = WORKSPACE + number * OF_WORKSPACE;
            for (operation, operation_name) in OPERATIONS.into_iter().enumerate() {
                for (status, class) in STATUSES.into_iter().enumerate() {
                    let cell = at + operation * STATUSES.len() + status;
                    self.add("requests", &[operation_name, class, &name], cell, 1);
                }
            }
            self.usage(["tokens", "cost"], &name, at + OPERATIONS.len() * STATUSES.len());
        }
        for (number, name) in named(&self.metrics.upstreams) {
            let at = UPSTREAM + number * OF_UPSTREAM;
            for (status, class) in STATUSES.into_iter().enumerate() {
                self.add("upstream_requests", &[&name, class], at + status, 1);
            }
            self.add("upstream_failures", &[&name], at + FAILED, 1);
            self.add("first_token", &[&name], at + FIRST_TOKEN, cells(&COARSE));
            self.add("answer", &[&name], at + ANSWER, cells(&COARSE));
        }
        for (number, name) in named(&self.metrics.models) {
            let at = MODEL + number * OF_MODEL;
            self.add("model_requests", &[&name], at, 1);
            self.usage(["model_tokens", "model_cost"], &name, at + 1);
        }
    }

    fn gauges(&mut self) {
        let all = self.blocks.clone();
        for block in &all {
            let worker = block.to_string();
            for (number, name) in GAUGES.into_iter().enumerate() {
                let value = self.metrics.cell(*block, GAUGE + number).load(Ordering::Relaxed);
                self.always(name, &[&worker], vec![value]);
            }
        }
        for (number, name) in named(&self.metrics.upstreams) {
            // The last number has no name of its own, so its gauges are shown when something is there.
            let at = UPSTREAM + number * OF_UPSTREAM + POOL;
            let values: Vec<u64> = (at..at + POOLS).map(|cell| self.value(cell)).collect();
            if number < UPSTREAMS || values.iter().any(|value| *value > 0) {
                self.always("pool", &[&name], values);
            }
        }
    }
}

/// All names with their numbers, and `other` after them.
pub(super) fn named(names: &Names) -> Vec<(usize, String)> {
    let mut found: Vec<_> = names.all().into_iter().enumerate().collect();
    found.push((names.most(), OTHER.to_owned()));
    found
}

impl Metrics {
    /// Everything that was counted, and what the living processes say of themselves.
    pub fn read(&self, now: u64) -> Vec<Sample> {
        let top = self.table.cell(TOP).map_or(0, |top| top.load(Ordering::Acquire) as usize).min(MOST);
        let mut sums = Sums { metrics: self, blocks: (0..top).collect(), found: Vec::new() };
        sums.fixed();
        sums.labelled();
        sums.scores();
        sums.blocks = match self.process {
            None => vec![0],
            Some(_) => self.owners.living(now),
        };
        sums.gauges();
        sums.found
    }
}
