//! A streamed answer as Python holds it: attach an ASGI `send`, and the event loop's `drain` feeds it.

use crate::values::Outcome;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyIterator},
};
use sluicegate_core::{
    chat::convert::joined,
    upstream::outlet::{Cancel, Outlet, Taken},
};
use std::sync::{Arc, OnceLock};

/// Joins a running call with its Python side.
#[derive(Default)]
pub struct Link {
    pub outlet: OnceLock<Arc<Outlet>>,
    attached: Mutex<Option<Attached>>,
}

struct Attached {
    // Without one, the future is settled when there is something to take.
    send: Option<Py<PyAny>>,
    future: Py<PyAny>,
}

/// How far a stream got.
enum Pumped {
    /// All that was there is sent.
    Waiting,
    /// `send` does not want more now: await this first.
    Blocked(Py<Pending>),
    /// The answer is over.
    Ended(Box<Outcome>),
}

impl Link {
    /// Sends what is ready and settles the future if there is something to tell. Called by `drain`.
    pub fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        // Taken out while Python code runs, which may attach or cancel meanwhile.
        let Some(attached) = self.attached.lock().take() else {
            return Ok(()); // not attached yet: attach() looks for itself
        };
        let pumped = match &attached.send {
            Some(send) => self.pump(py, send),
            None => return settle(py, &attached.future, Ok(py.None())),
        };
        let settled = match pumped {
            Ok(Pumped::Waiting) => {
                *self.attached.lock() = Some(attached);
                return Ok(());
            }
            Ok(Pumped::Blocked(pending)) => Ok(pending.into_any()),
            Ok(Pumped::Ended(outcome)) => Ok(Py::new(py, *outcome)?.into_any()),
            Err(error) => Err(error),
        };
        settle(py, &attached.future, settled)
    }

    /// Settles the future, with None, as soon as the outlet has something new.
    pub fn wait(&self, future: Py<PyAny>) {
        *self.attached.lock() = Some(Attached { send: None, future });
    }

    fn pump(&self, py: Python<'_>, send: &Py<PyAny>) -> PyResult<Pumped> {
        let Some(outlet) = self.outlet.get() else { return Ok(Pumped::Waiting) };
        loop {
            match outlet.take() {
                Taken::Nothing => return Ok(Pumped::Waiting),
                Taken::Ended(outcome) => return Ok(Pumped::Ended(Box::new(Outcome::new(py, *outcome)))),
                Taken::Batch(bytes) => match send_batch(py, send, &bytes) {
                    Ok(None) => {}
                    Ok(Some(pending)) => {
                        outlet.pause();
                        return Ok(Pumped::Blocked(pending));
                    }
                    Err(error) => {
                        // A server that raises has lost its client.
                        outlet.pause();
                        outlet.cancel.client_closed();
                        return Err(error);
                    }
                },
            }
        }
    }

    fn attach(&self, py: Python<'_>, send: Py<PyAny>, future: Py<PyAny>) -> PyResult<Option<Outcome>> {
        match self.pump(py, &send)? {
            Pumped::Ended(outcome) => Ok(Some(*outcome)),
            Pumped::Waiting => {
                *self.attached.lock() = Some(Attached { send: Some(send), future });
                Ok(None)
            }
            Pumped::Blocked(pending) => {
                future.call_method1(py, intern!(py, "set_result"), (pending,))?;
                Ok(None)
            }
        }
    }
}

fn settle(py: Python<'_>, future: &Py<PyAny>, result: PyResult<Py<PyAny>>) -> PyResult<()> {
    let future = future.bind(py);
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(()); // the request's task was cancelled
    }
    match result {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// One ASGI message. `None`: sent. Otherwise what is left to await.
fn send_batch(py: Python<'_>, send: &Py<PyAny>, bytes: &[u8]) -> PyResult<Option<Py<Pending>>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.response.body"))?;
    message.set_item(intern!(py, "body"), PyBytes::new(py, bytes))?;
    message.set_item(intern!(py, "more_body"), true)?;
    let awaitable = send.bind(py).call1((message,))?;
    let mut steps = awaitable.call_method0(intern!(py, "__await__"))?.try_iter()?;
    // Granian's awaitable is already done unless its channel is full; a coroutine that does not wait ends here too.
    match steps.next() {
        None => Ok(None),
        Some(Err(error)) => Err(error),
        Some(Ok(first)) => {
            Ok(Some(Py::new(py, Pending { first: Mutex::new(Some(first.unbind())), steps: steps.unbind() })?))
        }
    }
}

/// The rest of an awaitable that was stepped once: gives out what that step yielded, then goes on.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Pending {
    first: Mutex<Option<Py<PyAny>>>,
    steps: Py<PyIterator>,
}

#[pymethods]
impl Pending {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if let Some(first) = self.first.lock().take() {
            return Ok(Some(first));
        }
        self.steps.bind(py).clone().next().transpose().map(|n| n.map(Bound::unbind))
    }

    /// A cancelled task throws into what it awaits.
    #[pyo3(signature = (*error))]
    fn throw(&self, py: Python<'_>, error: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<Py<PyAny>> {
        self.steps.bind(py).call_method1(intern!(py, "throw"), error).map(Bound::unbind)
    }
}

/// A streamed answer whose first event has arrived.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Stream {
    pub link: Arc<Link>,
    sending: Mutex<Option<Py<PyAny>>>,
}

impl Stream {
    pub fn new(link: Arc<Link>) -> Self {
        Stream { link, sending: Mutex::new(None) }
    }
}

#[pymethods]
impl Stream {
    fn attach(&self, py: Python<'_>, send: Py<PyAny>, future: Py<PyAny>) -> PyResult<Option<Outcome>> {
        *self.sending.lock() = Some(send.clone_ref(py));
        self.link.attach(py, send, future)
    }

    fn resume(&self, py: Python<'_>, future: Py<PyAny>) -> PyResult<Option<Outcome>> {
        let send = self.sending.lock().as_ref().map(|s| s.clone_ref(py));
        match send {
            Some(send) => self.link.attach(py, send, future),
            None => Err(PyValueError::new_err("resume() comes after attach()")),
        }
    }

    fn beginning<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let events = self.link.outlet.get()?.peek();
        joined(&events).map(|answer| PyBytes::new(py, &answer))
    }

    #[pyo3(signature = (cause = "client_closed"))]
    pub fn cancel(&self, cause: &str) -> PyResult<()> {
        self.link.outlet.get().map_or(Ok(()), |outlet| cancel_for(&outlet.cancel, cause))
    }
}

/// Stop a call for a cause that has a name in Python.
pub fn cancel_for(cancel: &Cancel, cause: &str) -> PyResult<()> {
    match cause {
        "client_closed" => cancel.client_closed(),
        "server_shutdown" => cancel.shutdown(),
        "api_key_revoked" => cancel.key_revoked(),
        "api_key_expired" => cancel.key_expired(),
        _ => return Err(PyValueError::new_err(format!("{cause:?} is no cause to cancel a call for"))),
    }
    Ok(())
}

impl Drop for Stream {
    /// Nobody can read it any more. After its end this does nothing.
    fn drop(&mut self) {
        if let Some(outlet) = self.link.outlet.get() {
            outlet.cancel.client_closed();
        }
    }
}
