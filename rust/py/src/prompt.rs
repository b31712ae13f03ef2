//! `count_prompt` and `Said`: the tokens of a request's body and of its answer within a time, without the GIL.

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::{
    chat::Operation,
    tokens::{
        chat::{self, ChatError},
        said,
        tokenizer::TokenError,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::tokens::{contained, MessageCount, Tokenizer};

/// Shorter bodies are counted with the GIL, as in `tokens.rs`.
const DETACH_FROM: usize = 4 * 1024;

/// Count the JSON body of a request; None if it takes longer than `seconds`.
#[pyfunction]
pub fn count_prompt(
    operation: &str,
    body: &Bound<'_, PyBytes>,
    model: &str,
    tokenizer: &Bound<'_, Tokenizer>,
    seconds: f64,
) -> PyResult<Option<MessageCount>> {
    let operation = crate::upstream::operation(operation)?;
    let limit = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let begun = Instant::now();
    let (bytes, inner) = (body.as_bytes(), &tokenizer.get().inner);
    // The GIL is not asked for in between: whoever waits for it waits for the loop.
    let mut stop = || begun.elapsed() >= limit;
    let mut work = || {
        contained(|| match operation {
            Operation::Completions => chat::count_completion(bytes, inner, &mut stop),
            Operation::Embeddings => chat::count_input(bytes, inner, &mut stop),
            _ => chat::count_chat(bytes, model, Some(inner), &mut stop),
        })
    };
    let counted = if bytes.len() < DETACH_FROM { work() } else { body.py().detach(work) };
    match counted? {
        Ok(counted) => Ok(Some(MessageCount::from(&counted))),
        Err(ChatError::Token(TokenError::Stopped)) => Ok(None),
        Err(error) => Err(PyValueError::new_err(error.to_string())),
    }
}

/// What one answer has said so far: the relay adds to it, and who has to charge the answer counts it.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Said {
    pub inner: said::Shared,
}

#[pymethods]
impl Said {
    #[new]
    #[pyo3(signature = (tokenizer = None))]
    fn new(tokenizer: Option<&Bound<'_, Tokenizer>>) -> Self {
        let said = said::Said::new(tokenizer.map(|found| found.get().inner.clone()));
        Said { inner: said::Shared(Arc::new(Mutex::new(said))) }
    }

    #[getter]
    fn pending_bytes(&self) -> usize {
        self.inner.0.lock().pending()
    }

    fn count(&self, py: Python<'_>, tokenizer: &Bound<'_, Tokenizer>, seconds: f64) -> PyResult<Option<u64>> {
        let limit = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|e| PyValueError::new_err(e.to_string()))?;
        let (said, begun) = (self.inner.0.clone(), Instant::now());
        let inner = &tokenizer.get().inner;
        let mut stop = || begun.elapsed() >= limit;
        let mut work = || contained(|| said.lock().total(Some(inner), &mut stop));
        let small = self.inner.0.lock().pending() < DETACH_FROM;
        match (if small { work() } else { py.detach(work) })? {
            Err(TokenError::Stopped) => Ok(None),
            found => found.map_err(|error| PyValueError::new_err(error.to_string())),
        }
    }
}
