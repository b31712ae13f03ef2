//! `Journal`: the usage journal of a worker, and the segments of all of them.

use crate::marks::Marks;
use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::{
    journal::{self, Segment, Writer},
    record::{fields::Fields, Closed, Scored},
    shared::clock::monotonic,
};
use std::{io, path::PathBuf};

/// Score, failed checks, method, reason.
type Found<'a> = (Option<u64>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

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

    /// One call for all that is known of a request: as a Python value that is encoded, it cost twice as much.
    #[allow(clippy::too_many_arguments)]
    fn close(
        &self,
        kind: u8,
        id: &str,
        workspace: &str,
        key: &str,
        operation: &str,
        stream: bool,
        model: Option<&str>,
        assistant: Option<&str>,
        assistant_version: Option<u64>,
        upstream: Option<&str>,
        upstream_model: Option<&str>,
        status: u16,
        code: Option<&str>,
        error: Option<&str>,
        attempts: u64,
        prompt_tokens: u64,
        completion_tokens: u64,
        cached_tokens: u64,
        reasoning_tokens: u64,
        source: &str,
        micros: u64,
        first_us: Option<u64>,
        answer_us: Option<u64>,
        marks: &Marks,
        closing: f64,
        bytes_in: u64,
        bytes_out: u64,
        client: Option<&str>,
        finish: Option<&str>,
        conversation: Option<&str>,
        thinking: Option<&str>,
        scored: Option<Found<'_>>,
    ) -> bool {
        let marks = marks.until(closing, monotonic());
        let (score, failed_checks, method, reason) = scored.unwrap_or_default();
        let closed = Closed {
            id,
            workspace,
            key,
            operation,
            stream,
            model: model.unwrap_or_default(),
            assistant,
            assistant_version,
            upstream,
            upstream_model,
            status,
            code,
            error,
            attempts,
            tokens: [prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens],
            source,
            micros,
            first_us,
            duration_us: marks.duration(),
            overhead_us: marks.overhead(answer_us),
            bytes_in,
            bytes_out,
            client,
            finish,
            conversation,
            thinking,
            scored: Scored { score, failed_checks, method, reason },
            phases: &marks.line(answer_us.is_some()),
        };
        self.writer.lock().append_made(kind, |frame| closed.encode_into(frame))
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

/// Of each its kind, its id, and all of it.
type Records<'py> = Vec<(u8, Bound<'py, PyBytes>, Bound<'py, PyBytes>)>;

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
        let (batch, ids) = py.detach(|| -> io::Result<_> {
            let batch = journal::read(&self.segment.path, start, most)?;
            let ids: Vec<_> = batch.records.iter().map(|(_, payload)| Some(Fields::read(payload)?.id)).collect();
            Ok((batch, ids))
        })?;
        let known = batch.records.iter().zip(&ids).filter_map(|((kind, payload), id)| {
            Some((*kind, PyBytes::new(py, id.as_ref()?), PyBytes::new(py, payload)))
        });
        let unreadable = ids.iter().filter(|id| id.is_none()).count() as u64;
        Ok((known.collect(), batch.end, batch.is_last, batch.skipped + unreadable))
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
