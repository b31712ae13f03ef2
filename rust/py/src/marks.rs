//! `Marks`: when one request came through which of its stages.

use pyo3::prelude::*;
use sluicegate_core::shared::{
    clock::monotonic,
    phases::{self, PHASES},
};

/// Readings of one monotonic clock in seconds; 0: not reached. Kept here, as a request takes seven of them.
#[pyclass(module = "sluicegate._core")]
pub struct Marks {
    marks: phases::Marks,
}

impl Marks {
    /// As it stands where the end began at `closing`.
    pub fn until(&self, closing: f64, now: f64) -> phases::Marks {
        phases::Marks { closing, now, ..self.marks }
    }
}

#[pymethods]
impl Marks {
    #[new]
    #[pyo3(signature = (began, known = 0.0, read = 0.0, planned = 0.0, admitted = 0.0, asked = 0.0, answered = 0.0, waited = 0.0))]
    #[allow(clippy::too_many_arguments)] // one for each stage
    fn new(
        began: f64,
        known: f64,
        read: f64,
        planned: f64,
        admitted: f64,
        asked: f64,
        answered: f64,
        waited: f64,
    ) -> Self {
        let passed = [known, read, planned, admitted];
        Marks { marks: phases::Marks { began, passed, asked, answered, waited, closing: 0.0, now: 0.0 } }
    }

    #[getter]
    fn began(&self) -> f64 {
        self.marks.began
    }

    fn known(&mut self) {
        self.marks.passed[0] = monotonic();
    }

    fn read(&mut self) {
        self.marks.passed[1] = monotonic();
    }

    fn planned(&mut self) {
        self.marks.passed[2] = monotonic();
    }

    fn admitted(&mut self) {
        self.marks.passed[3] = monotonic();
    }

    fn asked(&mut self) {
        self.marks.asked = monotonic();
    }

    fn answered(&mut self) {
        self.marks.answered = monotonic();
        self.marks.waited += self.marks.answered - self.marks.asked;
    }

    fn overhead_us(&self, closing: f64, answer_us: Option<u64>) -> u64 {
        self.until(closing, closing).overhead(answer_us)
    }

    fn phases(&self, closing: f64, relayed: bool) -> Vec<(&'static str, u64)> {
        let found = self.until(closing, monotonic()).phases(relayed);
        PHASES.into_iter().zip(found).filter_map(|(name, took)| Some((name, took?))).collect()
    }
}
