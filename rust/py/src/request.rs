//! `scan` and `Request`: one pass over a request body, and the splices that follow from it.

use pyo3::{create_exception, exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::chat::{
    rewrite::{rewrite, Edits},
    scan::{self as core_scan, Scanned},
};

create_exception!(
    sluicegate._core,
    RequestError,
    PyValueError,
    "A request body that cannot be accepted: (code, message, param)."
);

/// One scanned request body.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Request {
    body: Py<PyBytes>,
    scanned: Scanned,
}

/// Bodies beyond this are scanned without the GIL; below it, giving it up costs more than the scan (1 GB/s).
const DETACH_FROM: usize = 64 * 1024;

#[pyfunction]
pub fn scan(operation: &str, body: Bound<'_, PyBytes>) -> PyResult<Request> {
    let operation = crate::upstream::operation(operation)?;
    let bytes = body.as_bytes();
    let scanned = if bytes.len() < DETACH_FROM {
        core_scan::scan(operation, bytes)
    } else {
        body.py().detach(|| core_scan::scan(operation, bytes))
    };
    let scanned = scanned.map_err(|e| RequestError::new_err((e.code, e.message, e.param)))?;
    Ok(Request { body: body.unbind(), scanned })
}

#[pymethods]
impl Request {
    #[getter]
    fn model(&self) -> Option<&str> {
        self.scanned.model.as_deref()
    }
    #[getter]
    fn stream(&self) -> bool {
        self.scanned.stream
    }
    #[getter]
    fn include_usage(&self) -> bool {
        self.scanned.include_usage
    }
    #[getter]
    fn max_tokens(&self) -> Option<u64> {
        self.scanned.max_tokens
    }
    #[getter]
    fn n(&self) -> u64 {
        self.scanned.n
    }
    #[getter]
    fn size(&self, py: Python<'_>) -> usize {
        self.body.as_bytes(py).len()
    }

    fn rewrite(&self, py: Python<'_>, model: Option<&str>, include_usage: bool) -> Py<PyBytes> {
        let edits = Edits { model, include_usage };
        match rewrite(self.body.as_bytes(py), &self.scanned, &edits) {
            Some(changed) => PyBytes::new(py, &changed).unbind(),
            None => self.body.clone_ref(py),
        }
    }
}
