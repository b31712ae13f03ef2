//! The chunks of a streamed chat answer as Python values: a list of all that are ready, for each time somebody asks.

use crate::{
    stream::{Link, Stream},
    values::Outcome,
};
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyList, PyString, PyTuple},
};
use sluicegate_core::{
    chat::{
        chunks,
        delta::{self, Choice, Delta, Part},
        observe,
    },
    upstream::outlet::Taken,
};
use std::sync::Arc;

/// So many batches of 8 KiB are taken at a time: an upstream that never pauses must not keep the caller from its turn.
const BATCHES: usize = 8;

/// Token counts as the server reports them.
#[pyclass(frozen, get_all, eq, module = "sluicegate.client", name = "Usage")]
#[derive(Clone, PartialEq)]
pub struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl From<observe::Usage> for Usage {
    fn from(usage: observe::Usage) -> Self {
        Usage {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.total,
            cached_tokens: usage.cached,
            reasoning_tokens: usage.reasoning,
        }
    }
}

#[pymethods]
impl Usage {
    #[new]
    #[pyo3(signature = (prompt_tokens = None, completion_tokens = None, total_tokens = None, cached_tokens = None, reasoning_tokens = None))]
    fn new(
        prompt_tokens: Option<u64>,
        completion_tokens: Option<u64>,
        total_tokens: Option<u64>,
        cached_tokens: Option<u64>,
        reasoning_tokens: Option<u64>,
    ) -> Self {
        Usage { prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens }
    }

    fn __repr__(&self) -> String {
        let shown = |count: Option<u64>| count.map_or("None".to_owned(), |count| count.to_string());
        format!(
            "Usage(prompt_tokens={}, completion_tokens={}, total_tokens={}, cached_tokens={}, reasoning_tokens={})",
            shown(self.prompt_tokens),
            shown(self.completion_tokens),
            shown(self.total_tokens),
            shown(self.cached_tokens),
            shown(self.reasoning_tokens)
        )
    }
}

/// A fragment of a tool call.
#[pyclass(frozen, get_all, eq, module = "sluicegate.client", name = "ToolCallDelta")]
#[derive(Clone, PartialEq)]
pub struct ToolCallDelta {
    index: Option<u64>,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

#[pymethods]
impl ToolCallDelta {
    #[new]
    #[pyo3(signature = (index = None, id = None, name = None, arguments = String::new()))]
    fn new(index: Option<u64>, id: Option<String>, name: Option<String>, arguments: String) -> Self {
        ToolCallDelta { index, id, name, arguments }
    }

    fn __repr__(&self) -> String {
        format!("ToolCallDelta({:?}, {:?})", self.name.as_deref().unwrap_or_default(), self.arguments)
    }
}

/// One chunk of a streamed answer.
#[pyclass(frozen, get_all, module = "sluicegate.client", name = "Chunk")]
pub struct Chunk {
    content: Py<PyString>,
    thinking: Py<PyString>,
    refusal: Py<PyString>,
    tool_calls: Py<PyTuple>,
    finish_reason: Option<Py<PyString>>,
    usage: Option<Py<Usage>>,
    index: u64,
}

#[pymethods]
impl Chunk {
    #[new]
    #[pyo3(signature = (content = None, *, thinking = None, refusal = None, tool_calls = None, finish_reason = None, usage = None, index = 0))]
    #[allow(clippy::too_many_arguments)] // named one by one in Python
    fn new(
        py: Python<'_>,
        content: Option<Py<PyString>>,
        thinking: Option<Py<PyString>>,
        refusal: Option<Py<PyString>>,
        tool_calls: Option<Py<PyTuple>>,
        finish_reason: Option<Py<PyString>>,
        usage: Option<Py<Usage>>,
        index: u64,
    ) -> Self {
        let empty = || intern!(py, "").clone().unbind();
        Chunk {
            content: content.unwrap_or_else(empty),
            thinking: thinking.unwrap_or_else(empty),
            refusal: refusal.unwrap_or_else(empty),
            tool_calls: tool_calls.unwrap_or_else(|| PyTuple::empty(py).unbind()),
            finish_reason,
            usage,
            index,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut shown = format!("Chunk({}", self.content.bind(py).repr()?);
        for (name, text) in [("thinking", &self.thinking), ("refusal", &self.refusal)] {
            if !text.bind(py).is_empty()? {
                shown += &format!(", {name}={}", text.bind(py).repr()?);
            }
        }
        if !self.tool_calls.bind(py).is_empty() {
            shown += &format!(", tool_calls={}", self.tool_calls.bind(py).repr()?);
        }
        if let Some(reason) = &self.finish_reason {
            shown += &format!(", finish_reason={}", reason.bind(py).repr()?);
        }
        if let Some(usage) = &self.usage {
            shown += &format!(", usage={}", usage.get().__repr__());
        }
        Ok(shown + ")")
    }
}

impl Chunk {
    fn empty(py: Python<'_>, index: u64) -> Self {
        Chunk::new(py, None, None, None, None, None, None, index)
    }

    fn of_text(py: Python<'_>, index: u64, part: Part, text: &str) -> PyResult<Self> {
        let mut chunk = Chunk::empty(py, index);
        let text = PyString::new(py, text);
        match part {
            Part::Content => chunk.content = text.unbind(),
            Part::Thinking => chunk.thinking = text.unbind(),
            Part::Refusal => chunk.refusal = text.unbind(),
            Part::Arguments(index) => {
                let call = ToolCallDelta { index, id: None, name: None, arguments: text.to_str()?.to_owned() };
                chunk.tool_calls = PyTuple::new(py, [call])?.unbind();
            }
        }
        Ok(chunk)
    }

    fn of_choice(py: Python<'_>, choice: Choice) -> PyResult<Self> {
        let Choice { index, finish, delta: Delta { content, thinking, refusal, calls }, .. } = choice;
        let text = |text: &str| (!text.is_empty()).then(|| PyString::new(py, text).unbind());
        let calls = calls.into_iter().map(|call| {
            let delta::Call { index, id, name, arguments } = call;
            ToolCallDelta { index, id, name, arguments }
        });
        let calls = if calls.len() == 0 { None } else { Some(PyTuple::new(py, calls)?.unbind()) };
        let finish = finish.map(|reason| PyString::new(py, &reason).unbind());
        Ok(Chunk::new(py, text(&content), text(&thinking), text(&refusal), calls, finish, None, index))
    }
}

/// Appends what one chunk of the server is in Python: mostly one value, one for each choice, none for an error.
fn append(py: Python<'_>, chunk: delta::Chunk<'_>, to: &Bound<'_, PyList>) -> PyResult<()> {
    let whole = match chunk {
        delta::Chunk::Nothing => return Ok(()),
        delta::Chunk::Text { choice, part, text } => return to.append(Chunk::of_text(py, choice, part, text)?),
        delta::Chunk::Whole(whole) if whole.error => return Ok(()),
        delta::Chunk::Whole(whole) => whole,
    };
    let last = whole.choices.len().saturating_sub(1);
    let mut usage = whole.usage.map(|usage| Py::new(py, Usage::from(usage))).transpose()?;
    if whole.choices.is_empty() && usage.is_some() {
        return to.append(Chunk { usage, ..Chunk::empty(py, 0) });
    }
    for (at, choice) in whole.choices.into_iter().enumerate() {
        let mut chunk = Chunk::of_choice(py, choice)?;
        chunk.usage = if at == last { usage.take() } else { None };
        to.append(chunk)?;
    }
    Ok(())
}

/// A streamed chat answer, read as chunks instead of being sent on.
#[pyclass(module = "sluicegate._core")]
pub struct Chunks {
    // Dropping it cancels the upstream call.
    stream: Py<Stream>,
    link: Arc<Link>,
    chunks: chunks::Chunks,
    outcome: Option<Py<Outcome>>,
}

#[pymethods]
impl Chunks {
    #[new]
    fn new(stream: Py<Stream>) -> PyResult<Self> {
        let link = stream.get().link.clone();
        if link.outlet.get().is_none() {
            return Err(PyValueError::new_err("this stream has not begun"));
        }
        Ok(Chunks { stream, link, chunks: chunks::Chunks::default(), outcome: None })
    }

    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let Some(outlet) = self.link.outlet.get() else { return Ok(list) };
        if self.outcome.is_some() {
            return Ok(list);
        }
        let mut batches = 0;
        while batches < BATCHES || list.is_empty() {
            batches += 1;
            match outlet.take() {
                Taken::Nothing => break,
                Taken::Batch(bytes) => self.chunks.push(&bytes, |chunk| append(py, chunk, &list))?,
                Taken::Ended(mut outcome) => {
                    let tail = std::mem::take(&mut outcome.tail);
                    self.chunks.push(&tail, |chunk| append(py, chunk, &list))?;
                    self.outcome = Some(Py::new(py, Outcome::new(py, *outcome))?);
                    break;
                }
            }
        }
        Ok(list)
    }

    fn wait(&self, future: Py<PyAny>) {
        self.link.wait(future);
    }

    fn cancel(&self) -> PyResult<()> {
        self.stream.get().cancel("client_closed")
    }

    #[getter]
    fn outcome(&self, py: Python<'_>) -> Option<Py<Outcome>> {
        self.outcome.as_ref().map(|outcome| outcome.clone_ref(py))
    }

    #[getter]
    fn content(&self) -> &str {
        &self.chunks.joined().message.content
    }

    #[getter]
    fn thinking(&self) -> &str {
        &self.chunks.joined().message.thinking
    }

    #[getter]
    fn refusal(&self) -> &str {
        &self.chunks.joined().message.refusal
    }

    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.chunks.joined().finish.as_deref()
    }

    #[getter]
    fn usage(&self) -> Option<Usage> {
        self.chunks.joined().usage.map(Usage::from)
    }

    #[getter]
    fn tool_calls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let calls = self.chunks.joined().message.calls.iter().cloned();
        PyTuple::new(
            py,
            calls.map(|delta::Call { index, id, name, arguments }| ToolCallDelta { index, id, name, arguments }),
        )
    }
}
