//! `Metrics`: what all worker processes of a gateway have done.

use crate::marks::Marks;
use pyo3::prelude::*;
use sluicegate_core::shared::{
    clock,
    metrics::{self, Ended, Pool},
    phases::{COARSE, FINE},
    scored::{Scored, SCORES},
};
use std::path::PathBuf;

type Samples = Vec<(&'static str, Vec<String>, Vec<u64>)>;

/// The metrics of a gateway's processes.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Metrics {
    metrics: metrics::Metrics,
}

#[pymethods]
impl Metrics {
    #[new]
    #[pyo3(signature = (path = None, stamp = 0))]
    fn new(py: Python<'_>, path: Option<PathBuf>, stamp: u64) -> PyResult<Self> {
        let metrics = match path {
            // Another process may hold the lock while it initialises the file.
            Some(path) => py.detach(|| metrics::Metrics::open(&path, stamp))?,
            None => metrics::Metrics::private()?,
        };
        Ok(Metrics { metrics })
    }

    #[allow(clippy::too_many_arguments)] // one call for all that is known of a request
    fn ended(
        &self,
        operation: &str,
        workspace: &str,
        upstream: Option<&str>,
        model: Option<&str>,
        code: Option<&str>,
        status: u16,
        stream: bool,
        tokens: (u64, u64, u64, u64),
        micros: u64,
        attempts: u64,
        first_us: Option<u64>,
        answer_us: Option<u64>,
        marks: &Marks,
        closing: f64,
    ) {
        self.metrics.ended(&Ended {
            operation,
            workspace,
            upstream,
            model,
            code,
            status,
            stream,
            tokens: tokens.into(),
            micros,
            attempts,
            first_us,
            answer_us,
            marks: marks.until(closing, clock::monotonic()),
        });
    }

    fn failed(&self, upstream: &str) {
        self.metrics.failed(upstream);
    }

    #[allow(clippy::too_many_arguments)] // as above
    fn scored(
        &self,
        workspace: &str,
        assistant: &str,
        score: Option<u64>,
        verdict: &str,
        again: u64,
        micros: u64,
        waited: u64,
    ) {
        self.metrics.scored(&Scored { of: (workspace, assistant), score, verdict, again, micros, waited });
    }

    fn refused(&self, subject: &str, reason: &str) {
        self.metrics.refused(subject, reason);
    }

    fn count(&self, name: &str, more: u64) {
        self.metrics.count(name, more);
    }

    fn lag(&self, micros: u64) {
        self.metrics.lag(micros);
    }

    fn publish(&self, name: &str, value: u64) {
        self.metrics.publish(name, value);
    }

    fn publish_pools(&self, pools: Vec<Pool>) {
        self.metrics.publish_pools(&pools);
    }

    fn tick(&self, py: Python<'_>) {
        py.detach(|| self.metrics.tick(clock::since_boot()));
    }

    fn read(&self, py: Python<'_>) -> Samples {
        let found = py.detach(|| self.metrics.read(clock::since_boot()));
        found.into_iter().map(|sample| (sample.family, sample.labels, sample.values)).collect()
    }

    /// Upper bounds of the buckets: in microseconds of what the gateway does itself and of what is waited for, and of
    /// scores.
    #[staticmethod]
    fn bounds() -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        (FINE.to_vec(), COARSE.to_vec(), SCORES.to_vec())
    }
}
