//! The bridge between tokio and one asyncio loop: the only file that knows asyncio's futures.

use crate::{
    prompt::Said,
    reactor::Reactor,
    runtime,
    stream::{cancel_for, Link, Stream},
    upstream::{operation, Upstream},
    values::{self, Failure},
    wake::{Completion, Wake},
};
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    types::PyBytes,
};
use sluicegate_core::{
    chat::{
        logprobs::Logprobs,
        thoughts::{Output, Thinking},
    },
    contain::Contained,
    launch::launch,
    responses::Shape,
    upstream::{
        exchange::{self, Reply, Sink},
        outlet::{Cancel, Outlet},
    },
    Error,
};
use std::{
    collections::HashMap,
    mem::ManuallyDrop,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    time::Duration,
};

/// A body up to this size is copied; a larger one stays in Python's memory until it is sent.
const COPY_MAX: usize = 16 * 1024;

/// The calls of one loop that have not ended, to be cancelled when it closes.
#[derive(Default)]
struct OpenCalls {
    next: AtomicU64,
    calls: Mutex<HashMap<u64, Arc<Cancel>>>,
}

/// A call under way.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Call {
    cancel: Arc<Cancel>,
    // Once Python has the reply, a stream lives on without its call.
    replied: Arc<AtomicBool>,
}

#[pymethods]
impl Call {
    #[pyo3(signature = (cause = "client_closed"))]
    fn cancel(&self, cause: &str) -> PyResult<()> {
        cancel_for(&self.cancel, cause)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.replied.load(Ordering::Acquire) {
            self.cancel.client_closed();
        }
    }
}

/// Carries what a call says to the loop.
struct LoopSink {
    wake: Arc<Wake>,
    link: Arc<Link>,
    future: Mutex<Option<Py<PyAny>>>,
    replied: Arc<AtomicBool>,
}

impl Sink for LoopSink {
    fn reply(&self, reply: Result<Reply, Error>) {
        let Some(future) = self.future.lock().take() else { return };
        if let Ok(Reply::Stream { outlet, .. }) = &reply {
            let _ = self.link.outlet.set(outlet.clone());
        }
        self.replied.store(true, Ordering::Release);
        self.wake.push(Completion::Reply { future, reply, link: self.link.clone() });
    }

    fn ready(&self, _: &Arc<Outlet>) {
        self.wake.push(Completion::Ready(self.link.clone()));
    }
}

impl LoopSink {
    fn panicked(&self) {
        match self.link.outlet.get() {
            Some(outlet) if outlet.abort(Error::Internal) => self.wake.push(Completion::Ready(self.link.clone())),
            Some(_) => {}
            None => self.reply(Err(Error::Internal)),
        }
    }
}

/// Completions of one event loop.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Bridge {
    wake: Arc<Wake>,
    open: Arc<OpenCalls>,
    forks: u32,
    closed: AtomicBool,
    // Leaked after a fork: dropping it would take the parent's sockets out of the epoll set that both share.
    reactor: ManuallyDrop<Option<Reactor>>,
}

#[pymethods]
impl Bridge {
    /// With `inline`, calls run on the loop's own thread where the system allows it: see `reactor_fileno`.
    #[new]
    #[pyo3(signature = (*, inline = false))]
    fn new(py: Python<'_>, inline: bool) -> PyResult<Self> {
        let wake = Arc::new(Wake::new()?);
        let kick = wake.clone();
        let reactor = if inline { Reactor::new(py, move || kick.signal())? } else { None };
        Ok(Bridge {
            wake,
            open: Arc::default(),
            forks: runtime::forks(),
            closed: AtomicBool::new(false),
            reactor: ManuallyDrop::new(reactor),
        })
    }

    fn fileno(&self) -> i32 {
        self.wake.fd()
    }

    #[getter]
    fn open_calls(&self) -> usize {
        self.open.calls.lock().len()
    }

    fn reactor_fileno(&self) -> Option<i32> {
        self.reactor.as_ref().map(|r| r.fd)
    }

    /// The reactor has something, or a timer may be due.
    fn turn(&self, py: Python<'_>) {
        self.run_calls(true);
        self.settle_all(py);
    }

    fn drain(&self, py: Python<'_>) {
        self.wake.hear();
        self.run_calls(false);
        self.settle_all(py);
    }
    #[pyo3(signature = (cause = "client_closed"))]
    fn cancel_all(&self, cause: &str) {
        for cancel in self.open.calls.lock().values() {
            if cause == "server_shutdown" {
                cancel.shutdown()
            } else {
                cancel.client_closed()
            }
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.cancel_all("server_shutdown");
    }

    #[pyo3(signature = (upstream, operation, body, future, *, stream = false, public_model = None, public_id = None,
        keep = false, shape = None, thinking = None, logprobs = None, hold_bytes = 0, said = None, hide_usage = false, choices = 1, keep_alive = 0.0, request_id = None, headers = Vec::new(), first_event_timeout = None, idle_timeout = None,
        total_timeout = None))]
    #[allow(clippy::too_many_arguments)] // named one by one in Python
    fn exchange(
        &self,
        upstream: &Upstream,
        operation: &str,
        body: Option<Bound<'_, PyBytes>>,
        future: Py<PyAny>,
        stream: bool,
        public_model: Option<String>,
        public_id: Option<String>,
        keep: bool,
        shape: Option<(String, String, bool, bool)>,
        thinking: Option<(String, bool)>,
        logprobs: Option<bool>,
        hold_bytes: u64,
        said: Option<&Bound<'_, Said>>,
        hide_usage: bool,
        choices: u32,
        keep_alive: f64,
        request_id: Option<&str>,
        headers: Vec<(String, String)>,
        first_event_timeout: Option<f64>,
        idle_timeout: Option<f64>,
        total_timeout: Option<f64>,
    ) -> PyResult<Call> {
        if self.forks != runtime::forks() {
            return Err(PyRuntimeError::new_err("this Bridge was made before a fork: make a new one in the child"));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(PyRuntimeError::new_err("this Bridge is closed"));
        }
        let target = upstream.target()?;
        let mut clocks = target.clocks;
        clocks.first_event = limit("first_event_timeout", first_event_timeout)?.unwrap_or(clocks.first_event);
        clocks.idle = limit("idle_timeout", idle_timeout)?.unwrap_or(clocks.idle);
        clocks.total = limit("total_timeout", total_timeout)?.unwrap_or(clocks.total);
        let mut sent = Vec::with_capacity(headers.len() + 1);
        if let Some(id) = request_id {
            let id = http::HeaderValue::from_str(id)
                .map_err(|_| PyValueError::new_err("request_id cannot be sent in a header"))?;
            sent.push((http::HeaderName::from_static("x-request-id"), id));
        }
        for header in &headers {
            sent.push(parse_header(header)?);
        }
        let call = exchange::Call {
            operation: self::operation(operation)?,
            body: body.map(shared),
            stream,
            public_model,
            public_id,
            keep,
            shape: shape.map(|(id, head, summary, logprobs)| Arc::new(Shape { id, head, summary, logprobs })),
            thinking: thinking.map(|(output, inside)| self::thinking(&output, inside)).transpose()?,
            logprobs: logprobs.map(|strip| if strip { Logprobs::Strip } else { Logprobs::Read }),
            hold_bytes,
            said: said.map(|said| said.get().inner.clone()),
            hide_usage,
            choices,
            keep_alive: limit("keep_alive", Some(keep_alive))?.unwrap_or_default(),
            headers: sent,
            clocks,
        };
        self.spawn(target, call, future)
    }
}

impl Bridge {
    /// What the calls of this thread have to say is settled right after: no need to tell the loop.
    fn run_calls(&self, io: bool) {
        if let Some(reactor) = &*self.reactor {
            self.wake.attended(true);
            reactor.inline.turn(io);
            self.wake.attended(false);
        }
    }

    fn settle_all(&self, py: Python<'_>) {
        for completion in self.wake.take() {
            // One broken callback or panic must not cost the other calls their turn.
            let settled = catch_unwind(AssertUnwindSafe(|| settle(py, completion)));
            match settled {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error.write_unraisable(py, None),
                Err(_) => PyRuntimeError::new_err("panic while a reply was settled").write_unraisable(py, None),
            }
        }
    }

    fn spawn(
        &self,
        target: Arc<sluicegate_core::upstream::target::Target>,
        call: exchange::Call,
        future: Py<PyAny>,
    ) -> PyResult<Call> {
        let cancel = Arc::new(Cancel::default());
        let replied = Arc::new(AtomicBool::new(false));
        let id = self.open.next.fetch_add(1, Ordering::Relaxed);
        self.open.calls.lock().insert(id, cancel.clone());
        let sink = LoopSink {
            wake: self.wake.clone(),
            link: Arc::default(),
            future: Mutex::new(Some(future)),
            replied: replied.clone(),
        };
        let (open, cancelled) = (self.open.clone(), cancel.clone());
        let task = async move {
            let ended = Contained::new(exchange::run(target, call, cancelled, &sink)).await;
            if ended.is_err() {
                sink.panicked();
            }
            open.calls.lock().remove(&id);
        };
        match &*self.reactor {
            Some(reactor) => reactor.inline.start(Box::pin(task)),
            None => launch(&runtime::handle()?, Box::pin(task)),
        }
        Ok(Call { cancel, replied })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if self.forks == runtime::forks() {
            drop(self.reactor.take());
        }
    }
}

fn thinking(output: &str, inside: bool) -> PyResult<Thinking> {
    let output = match output {
        "watch" => Output::Watch,
        "separate" => Output::Separate,
        "hide" => Output::Hide,
        _ => return Err(PyValueError::new_err(format!("thinking: expected watch, separate or hide, not {output:?}"))),
    };
    Ok(Thinking { output, inside })
}

/// Settles one completion on the loop's thread.
fn settle(py: Python<'_>, completion: Completion) -> PyResult<()> {
    match completion {
        Completion::Ready(link) => link.deliver(py),
        Completion::Reply { future, reply, link } => {
            let future = future.bind(py);
            let reply = to_python(py, reply, link)?;
            // A cancelled request no longer waits; dropping the reply cancels its stream.
            if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
                future.call_method1(intern!(py, "set_result"), (reply,))?;
            }
            Ok(())
        }
    }
}

fn to_python(py: Python<'_>, reply: Result<Reply, Error>, link: Arc<Link>) -> PyResult<values::Reply> {
    let nothing = || PyBytes::new(py, b"").unbind();
    Ok(match reply {
        Err(error) => values::Reply {
            failure: Some(Failure::from(&error)),
            body: nothing(),
            outcome: None,
            stream: None,
            reply_headers: Vec::new(),
        },
        Ok(Reply::Plain { headers, body, outcome }) => values::Reply {
            failure: None,
            body: PyBytes::new(py, &body).unbind(),
            outcome: Some(Py::new(py, values::Outcome::new(py, *outcome))?),
            stream: None,
            reply_headers: headers,
        },
        Ok(Reply::Stream { headers, .. }) => values::Reply {
            failure: None,
            body: nothing(),
            outcome: None,
            stream: Some(Py::new(py, Stream::new(link))?),
            reply_headers: headers,
        },
    })
}

fn shared(body: Bound<'_, PyBytes>) -> Bytes {
    let bytes = body.as_bytes();
    if bytes.len() <= COPY_MAX {
        Bytes::copy_from_slice(bytes)
    } else {
        Bytes::from_owner(PyBackedBytes::from(body))
    }
}

fn limit(name: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    seconds
        .map(|s| {
            Duration::try_from_secs_f64(s)
                .map_err(|_| PyValueError::new_err(format!("{name} must be seconds, not {s}")))
        })
        .transpose()
}

fn parse_header((name, value): &(String, String)) -> PyResult<(http::HeaderName, http::HeaderValue)> {
    let wrong = || PyValueError::new_err(format!("{name:?} is not a header that can be sent"));
    let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    Ok((name, http::HeaderValue::from_str(value).map_err(|_| wrong())?))
}
