//! `sluicegate._core`: the PyO3 skin over `sluicegate-core`. Values in, values out; no logic.
#![forbid(unsafe_code)]

mod bridge;
mod chunks;
mod digest;
mod journal;
mod limits;
mod marks;
mod metrics;
mod prompt;
mod quality;
mod reactor;
mod record_rows;
mod request;
mod runtime;
mod shared;
mod sse;
mod stream;
mod tokens;
mod upstream;
mod values;
mod wake;

use pyo3::prelude::*;

/// The Rust core of Sluicegate; `sluicegate/_core.pyi` documents it.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("RequestError", m.py().get_type::<request::RequestError>())?;
    m.add_function(wrap_pyfunction!(digest::sha256, m)?)?;
    m.add_function(wrap_pyfunction!(request::scan, m)?)?;
    m.add_class::<request::Request>()?;
    m.add_class::<request::Message>()?;
    m.add_function(wrap_pyfunction!(request::chain, m)?)?;
    m.add_function(wrap_pyfunction!(request::without_thoughts, m)?)?;
    m.add_class::<request::Recipe>()?;
    m.add_class::<quality::QualityChecks>()?;
    m.add_function(wrap_pyfunction!(quality::stream_of, m)?)?;
    m.add_function(wrap_pyfunction!(quality::ask_logprobs, m)?)?;
    m.add_function(wrap_pyfunction!(quality::certainty_values, m)?)?;
    m.add_class::<quality::Ranks>()?;
    m.add_class::<upstream::Upstream>()?;
    m.add_class::<values::Failure>()?;
    m.add_class::<values::Outcome>()?;
    m.add_class::<values::Reply>()?;
    m.add_class::<shared::SharedTable>()?;
    m.add_class::<limits::Limits>()?;
    m.add_class::<limits::LimitRules>()?;
    m.add_class::<limits::LimitSets>()?;
    m.add_class::<limits::Admission>()?;
    m.add_function(wrap_pyfunction!(limits::rate_headers, m)?)?;
    m.add_class::<journal::Journal>()?;
    m.add_class::<journal::JournalSegment>()?;
    m.add_function(wrap_pyfunction!(journal::journal_segments, m)?)?;
    m.add_function(wrap_pyfunction!(record_rows::record_rows, m)?)?;
    m.add_function(wrap_pyfunction!(record_rows::record_sums, m)?)?;
    m.add_class::<metrics::Metrics>()?;
    m.add_class::<marks::Marks>()?;
    m.add_class::<stream::Stream>()?;
    m.add_class::<bridge::Call>()?;
    m.add_class::<bridge::Bridge>()?;
    m.add_class::<tokens::Tokenizer>()?;
    m.add_class::<tokens::Counter>()?;
    m.add_class::<tokens::MessageCount>()?;
    m.add_function(wrap_pyfunction!(tokens::encoding_names, m)?)?;
    m.add_function(wrap_pyfunction!(tokens::encoding_name_for_model, m)?)?;
    m.add_function(wrap_pyfunction!(tokens::count_chat, m)?)?;
    m.add_function(wrap_pyfunction!(prompt::count_prompt, m)?)?;
    m.add_class::<prompt::Said>()?;
    m.add("EventTooLargeError", m.py().get_type::<sse::EventTooLargeError>())?;
    m.add_class::<sse::Event>()?;
    m.add_class::<sse::EventDecoder>()?;
    m.add_class::<sse::EventEncoder>()?;
    m.add_class::<chunks::Chunk>()?;
    m.add_class::<chunks::ToolCallDelta>()?;
    m.add_class::<chunks::Usage>()?;
    m.add_class::<chunks::Chunks>()?;
    runtime::watch_forks(m.py())
}
