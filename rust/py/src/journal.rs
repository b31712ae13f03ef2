//! `Journal`: the usage journal of a worker, and the segments of all of them.

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::journal::{self, Segment, Writer};
use std::path::PathBuf;

/// Appends records to the segments of one process.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Journal {
    writer: Mutex<Writer>,
}

#[pymethods]
impl Journal {
    #[new]
    #[pyo3(signature = (folder, name, segment_bytes = 8 << 20, most_waiting = 16 << 20))]
    fn new(folder: PathBuf, name: &str, segment_bytes: u64, most_waiting: usize) -> PyResult<Self> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(PyValueError::new_err("the name is a part of a file's name"));
        }
        Ok(Journal { writer: Mutex::new(Writer::open(&folder, name, segment_bytes, most_waiting)?) })
    }

    fn append(&self, kind: u8, payload: &[u8]) -> bool {
        self.writer.lock().append(kind, payload)
    }

    fn flush(&self) -> bool {
        self.writer.lock().flush()
    }

    fn rotate(&self) -> PyResult<()> {
        Ok(self.writer.lock().rotate()?)
    }

    #[getter]
    fn waiting(&self) -> usize {
        self.writer.lock().state().waiting
    }

    #[getter]
    fn lost(&self) -> u64 {
        self.writer.lock().state().lost
    }

    #[getter]
    fn written(&self) -> u64 {
        self.writer.lock().state().written
    }
}

/// A file of records, of this process or another.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct JournalSegment {
    segment: Segment,
}

type Records<'py> = Vec<(u8, Bound<'py, PyBytes>)>;

#[pymethods]
impl JournalSegment {
    #[getter]
    fn path(&self) -> PathBuf {
        self.segment.path.clone()
    }

    #[getter]
    fn inode(&self) -> u64 {
        self.segment.inode
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.segment.is_open
    }

    fn read<'py>(&self, py: Python<'py>, start: u64, most: usize) -> PyResult<(Records<'py>, u64, bool, u64)> {
        let batch = py.detach(|| journal::read(&self.segment.path, start, most))?;
        let records = batch.records.iter().map(|(kind, payload)| (*kind, PyBytes::new(py, payload))).collect();
        Ok((records, batch.end, batch.is_last, batch.skipped))
    }

    fn remove(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(py.detach(|| journal::remove(&self.segment))?)
    }
}

/// The segments in a folder, oldest first for each process.
#[pyfunction]
pub fn journal_segments(py: Python<'_>, folder: PathBuf) -> PyResult<Vec<JournalSegment>> {
    let found = py.detach(|| journal::segments(&folder))?;
    Ok(found.into_iter().map(|segment| JournalSegment { segment }).collect())
}
