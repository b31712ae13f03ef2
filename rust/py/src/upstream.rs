//! `Upstream`: a checked configuration with its pool.

use crate::runtime;
use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*};
use sluicegate_core::{
    chat::Operation,
    upstream::{
        deadline::Clocks,
        target::{check_foreign, Target, TargetConfig},
    },
};
use std::{sync::Arc, time::Duration};

/// One OpenAI-compatible server.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Upstream {
    config: TargetConfig,
    // With the number of forks at which it was made.
    target: Mutex<(u32, Arc<Target>)>,
}

impl Upstream {
    /// The target of this process: after a fork a new one, for the old connections are the parent's. The old one
    /// is leaked: closing it would take the parent's sockets out of the epoll set that both share.
    pub fn target(&self) -> PyResult<Arc<Target>> {
        let mut slot = self.target.lock();
        if slot.0 != runtime::forks() {
            let fresh = Target::new(self.config.clone()).map_err(PyValueError::new_err)?;
            std::mem::forget(std::mem::replace(&mut *slot, (runtime::forks(), Arc::new(fresh))));
        }
        Ok(slot.1.clone())
    }
}

#[pymethods]
impl Upstream {
    #[new]
    #[pyo3(signature = (base_url, *, api_key = None, headers = Vec::new(), connect_timeout = 5.0, first_event_timeout = 300.0,
        idle_timeout = 120.0, total_timeout = 1800.0, pool_idle_timeout = 25.0, max_event_bytes = 1_048_576,
        max_answer_bytes = 67_108_864, allow_private_networks = Vec::new(), ca_file = None, http2 = true, trusted = true, exact = false))]
    #[allow(clippy::too_many_arguments)] // named one by one in Python
    fn new(
        base_url: String,
        api_key: Option<String>,
        headers: Vec<(String, String)>,
        connect_timeout: f64,
        first_event_timeout: f64,
        idle_timeout: f64,
        total_timeout: f64,
        pool_idle_timeout: f64,
        max_event_bytes: usize,
        max_answer_bytes: u64,
        allow_private_networks: Vec<String>,
        ca_file: Option<std::path::PathBuf>,
        http2: bool,
        trusted: bool,
        exact: bool,
    ) -> PyResult<Self> {
        let ca_pem = match ca_file {
            Some(path) => Some(
                std::fs::read(&path).map_err(|e| PyValueError::new_err(format!("ca_file: {}: {e}", path.display())))?,
            ),
            None => None,
        };
        let clocks = Clocks {
            connect: clock("connect_timeout", connect_timeout)?,
            first_event: clock("first_event_timeout", first_event_timeout)?,
            idle: clock("idle_timeout", idle_timeout)?,
            total: clock("total_timeout", total_timeout)?,
        };
        let config = TargetConfig {
            base_url,
            api_key,
            headers,
            clocks,
            pool_idle_timeout: Duration::try_from_secs_f64(pool_idle_timeout)
                .map_err(|_| PyValueError::new_err("pool_idle_timeout: it must be seconds"))?,
            max_event_bytes,
            max_answer_bytes,
            allow_private_networks,
            ca_pem,
            http2,
            trusted,
            exact,
        };
        let target = Target::new(config.clone()).map_err(PyValueError::new_err)?;
        Ok(Upstream { config, target: Mutex::new((runtime::forks(), Arc::new(target))) })
    }

    #[staticmethod]
    fn check_foreign(base_url: &str, allow_private_networks: Vec<String>) -> PyResult<()> {
        check_foreign(base_url, &allow_private_networks).map_err(PyValueError::new_err)
    }

    #[getter]
    fn origin(&self) -> String {
        self.target.lock().1.origin()
    }

    fn connections(&self) -> (usize, usize) {
        self.target.lock().1.pool.counts()
    }
}

/// A year is as good as never, and no arithmetic on it can overflow.
fn clock(name: &str, seconds: f64) -> PyResult<Duration> {
    if !(seconds > 0.0 && seconds <= 31_536_000.0) {
        return Err(PyValueError::new_err(format!(
            "{name}: it must be more than 0 seconds and at most a year, not {seconds}"
        )));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The operation of a name.
pub fn operation(name: &str) -> PyResult<Operation> {
    Ok(match name {
        "chat" => Operation::Chat,
        "completions" => Operation::Completions,
        "embeddings" => Operation::Embeddings,
        "models" => Operation::Models,
        "responses" => Operation::Responses,
        _ => {
            return Err(PyValueError::new_err(format!(
                "operation must be chat, completions, embeddings, models or responses, not {name:?}"
            )))
        }
    })
}
