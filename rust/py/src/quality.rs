//! `QualityChecks`: checks of a chat's whole answer.

use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::{
    chat::{convert::to_events, Operation},
    quality::{check, Script, Wanted},
    relay::Plan,
};

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

    fn check(&self, request: &Bound<'_, PyBytes>, answer: &Bound<'_, PyBytes>) -> Option<(u8, Vec<&'static str>)> {
        let (asked, given) = (request.as_bytes(), answer.as_bytes());
        let work = || check(asked, given, &self.wanted);
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
