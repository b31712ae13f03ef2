//! `count_prompt`: the tokens of a request's body within a time, without the GIL.

use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::{
    chat::Operation,
    tokens::{
        chat::{self, ChatError},
        tokenizer::TokenError,
    },
};
use std::time::{Duration, Instant};

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
