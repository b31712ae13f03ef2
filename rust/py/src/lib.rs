//! `sluicegate._core`: the PyO3 skin over `sluicegate-core`. Values in, values out; no logic.
#![forbid(unsafe_code)]

mod bridge;
mod request;
mod runtime;
mod shared;
mod stream;
mod upstream;
mod values;
mod wake;

use pyo3::prelude::*;

/// The Rust core of Sluicegate; `sluicegate/_core.pyi` documents it.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("RequestError", m.py().get_type::<request::RequestError>())?;
    m.add_function(wrap_pyfunction!(request::scan, m)?)?;
    m.add_class::<request::Request>()?;
    m.add_class::<upstream::Upstream>()?;
    m.add_class::<values::Failure>()?;
    m.add_class::<values::Outcome>()?;
    m.add_class::<values::Reply>()?;
    m.add_class::<shared::SharedTable>()?;
    m.add_class::<stream::Stream>()?;
    m.add_class::<bridge::Call>()?;
    m.add_class::<bridge::Bridge>()?;
    runtime::watch_forks(m.py())
}
