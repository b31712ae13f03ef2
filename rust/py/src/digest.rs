//! `sha256`: for a key of 60 bytes Python's own takes most of its time to find OpenSSL's function.

use pyo3::{prelude::*, types::PyBytes};
use sluicegate_core::digest;

/// SHA-256 of a few bytes.
#[pyfunction]
pub fn sha256<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, digest::sha256(data).as_ref())
}
