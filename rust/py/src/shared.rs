//! `SharedTable`: the mapped file of the machine's worker processes.

use pyo3::prelude::*;
use sluicegate_core::shared::generation::Generation;
use std::path::PathBuf;

/// What the worker processes of one machine share.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct SharedTable {
    generation: Generation,
}

#[pymethods]
impl SharedTable {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        // Another process may hold the lock while it initialises the file.
        let generation = py.detach(|| Generation::open(&path))?;
        Ok(SharedTable { generation })
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.generation.read()
    }

    fn advance(&self) -> u64 {
        self.generation.advance()
    }

    fn note(&self, row: u64) -> u64 {
        self.generation.note(row)
    }

    #[getter]
    fn is_current(&self) -> bool {
        self.generation.is_current()
    }
}
