//! Scores of answers: checks of a whole one, its log-probabilities, and its rank among earlier ones.

use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::{
    chat::{
        convert::to_events,
        logprobs::{asked, Logprobs},
        Operation,
    },
    quality::{begins, certainty::Features, check, Script, Wanted},
    relay::Plan,
    shared::ranks::{self, Rank},
};

use std::path::PathBuf;

/// Answers beyond this are checked without the GIL.
const DETACH_FROM: usize = 16 * 1024;

/// What one assistant wants of its answers.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct QualityChecks {
    wanted: Wanted,
}

#[pymethods]
impl QualityChecks {
    #[new]
    #[pyo3(signature = (*, script = None, banned = Vec::new(), required = Vec::new()))]
    fn new(script: Option<&str>, banned: Vec<String>, required: Vec<String>) -> PyResult<Self> {
        let named = |name: &str| {
            Script::of_name(name)
                .ok_or_else(|| PyValueError::new_err(format!("script: {name:?} is none that is known")))
        };
        let lower = |texts: Vec<String>| texts.iter().map(|text| text.to_lowercase()).collect();
        let script = script.map(named).transpose()?;
        Ok(QualityChecks { wanted: Wanted { script, banned: lower(banned), required: lower(required) } })
    }

    #[pyo3(signature = (request, answer, *, partial = false))]
    fn check(
        &self,
        request: &Bound<'_, PyBytes>,
        answer: &Bound<'_, PyBytes>,
        partial: bool,
    ) -> Option<(u8, Vec<&'static str>)> {
        let (asked, given) = (request.as_bytes(), answer.as_bytes());
        let work = || if partial { begins(asked, given, &self.wanted) } else { check(asked, given, &self.wanted) };
        let found = if given.len() + asked.len() < DETACH_FROM { work() } else { request.py().detach(work) };
        found.map(|verdict| (verdict.score, verdict.failed.iter().map(|one| one.describe().0).collect()))
    }
}

/// The events of the stream that this whole answer of a chat would have been.
#[pyfunction]
pub fn stream_of(py: Python<'_>, answer: &Bound<'_, PyBytes>, hide_usage: bool) -> PyResult<Py<PyBytes>> {
    let plan = Plan {
        operation: Operation::Chat,
        public_model: None,
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage,
        choices: 1,
        max_event_bytes: usize::MAX,
        max_answer_bytes: u64::MAX,
    };
    let (events, _) =
        to_events(&plan, answer.as_bytes().to_vec()).map_err(|error| PyValueError::new_err(error.public().message))?;
    Ok(PyBytes::new(py, &events).unbind())
}

/// A chat's body that asks for log-probabilities; true: the answer must lose them. None: the client asks itself.
#[pyfunction]
pub fn ask_logprobs(py: Python<'_>, body: &Bound<'_, PyBytes>, tops: u32) -> (Option<Py<PyBytes>>, bool) {
    let (changed, wanted) = asked(body.as_bytes(), tops);
    (changed.map(|body| PyBytes::new(py, &body).unbind()), wanted == Logprobs::Strip)
}

/// The numbers of `Outcome.certainty`.
#[pyfunction]
pub fn certainty_values(packed: u64) -> [f64; 4] {
    Features::values(packed)
}

/// How certain the last answers were.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Ranks {
    inner: ranks::Ranks,
}

#[pymethods]
impl Ranks {
    #[new]
    fn new(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        Ok(Ranks { inner: py.detach(|| ranks::Ranks::open(path.as_deref()))? })
    }

    fn take(&self, whose: Vec<String>, packed: u64, tops: bool) -> Option<(Option<u8>, usize)> {
        let whose: Vec<&str> = whose.iter().map(String::as_str).collect();
        let Rank { percent, among } = self.inner.take(&whose, Features { packed, tops })?;
        Some((percent, among))
    }

    #[getter]
    fn is_current(&self) -> bool {
        self.inner.is_current()
    }
}
