//! What Python is told of a call, as frozen values.

use crate::stream::Stream;
use pyo3::{prelude::*, types::PyBytes};
use sluicegate_core::{
    quality::certainty::{Certainty, Features},
    upstream::{
        outlet::{self, End},
        response::ReplyHeaders,
    },
};
use std::time::Duration;

/// Why a call failed, ready to be shown.
#[pyclass(frozen, get_all, module = "sluicegate._core", name = "Failure")]
#[derive(Clone)]
pub struct Failure {
    cause: &'static str,
    status: u16,
    r#type: String,
    code: String,
    message: String,
    param: Option<String>,
    retryable: bool,
    counts_against_upstream: bool,
    retry_after_ms: Option<u64>,
    should_retry: Option<bool>,
}

impl From<&sluicegate_core::Error> for Failure {
    fn from(error: &sluicegate_core::Error) -> Self {
        let public = error.public();
        Failure {
            cause: error.code(),
            status: public.status,
            r#type: public.kind,
            code: public.code,
            message: public.message,
            param: public.param,
            retryable: error.retryable(),
            counts_against_upstream: error.counts_against_upstream(),
            retry_after_ms: error.retry_after().map(|d| d.as_millis() as u64),
            should_retry: error.should_retry(),
        }
    }
}

/// How an answer ended and what was observed in it.
#[pyclass(frozen, get_all, module = "sluicegate._core", name = "Outcome")]
pub struct Outcome {
    state: &'static str,
    failure: Option<Failure>,
    tail: Py<PyBytes>,
    answer: Option<Py<PyBytes>>,
    closing: Py<PyBytes>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    usage_suspect: bool,
    thinking_bytes: u64,
    answer_bytes: u64,
    thought_unmatched: bool,
    thought_missed: bool,
    finish_reasons: Vec<String>,
    finish: Option<String>,
    upstream_model: Option<String>,
    events: u64,
    bytes_in: u64,
    bytes_out: u64,
    first_event_us: Option<u64>,
    duration_us: u64,
    attempts: u32,
    certainty: Option<(u64, bool)>,
    uncertain: Option<&'static str>,
}

fn micros(d: Duration) -> u64 {
    d.as_micros() as u64
}

impl Outcome {
    pub fn new(py: Python<'_>, mut o: outlet::Outcome) -> Self {
        let usage = o.observed.usage.unwrap_or_default();
        let closing = o.closing.unwrap_or_default();
        let (certainty, uncertain) = match o.observed.certainty {
            None => (None, None),
            Some(Certainty::Known(Features { packed, tops })) => (Some((packed, tops)), None),
            Some(Certainty::Unknown(why)) => (None, Some(why)),
        };
        let finish_reasons: Vec<String> =
            std::mem::take(&mut o.observed.finish_reasons).into_iter().flatten().collect();
        Outcome {
            state: match o.end {
                End::Finished => "finished",
                End::Failed => "failed",
                End::Cancelled => "cancelled",
            },
            failure: o.error.as_ref().map(Failure::from),
            tail: PyBytes::new(py, &o.tail).unbind(),
            answer: (!closing.response.is_empty()).then(|| PyBytes::new(py, &closing.response).unbind()),
            closing: PyBytes::new(py, &closing.event).unbind(),
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            cached_tokens: usage.cached,
            reasoning_tokens: usage.reasoning,
            usage_suspect: o.observed.usage_suspect,
            thinking_bytes: o.observed.thinking_bytes,
            answer_bytes: o.observed.answer_bytes(),
            thought_unmatched: o.observed.thought_unmatched,
            thought_missed: o.observed.thought_missed,
            events: o.observed.events,
            bytes_in: o.observed.bytes,
            bytes_out: o.observed.sent,
            finish: finish_reasons.first().cloned(),
            finish_reasons,
            upstream_model: o.observed.model,
            first_event_us: o.first_event.map(micros),
            duration_us: micros(o.duration),
            attempts: o.attempts,
            certainty,
            uncertain,
        }
    }
}

/// What a call's future resolves to.
#[pyclass(frozen, module = "sluicegate._core", name = "Reply")]
pub struct Reply {
    #[pyo3(get)]
    pub failure: Option<Failure>,
    #[pyo3(get)]
    pub body: Py<PyBytes>,
    #[pyo3(get)]
    pub outcome: Option<Py<Outcome>>,
    #[pyo3(get)]
    pub stream: Option<Py<Stream>>,
    pub reply_headers: ReplyHeaders,
}

#[pymethods]
impl Reply {
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let bytes = |b: &[u8]| PyBytes::new(py, b);
        self.reply_headers.iter().map(|(n, v)| (bytes(n.as_str().as_bytes()), bytes(v.as_bytes()))).collect()
    }
}
