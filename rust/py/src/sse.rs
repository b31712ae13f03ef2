//! Server-sent events as Python values: the decoder and the encoder of `sluicegate.sse`.

use parking_lot::Mutex;
use pyo3::{
    buffer::PyBuffer,
    create_exception,
    exceptions::{PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyBytes, PyList, PyString},
};
use sluicegate_core::sse::{
    decode::{self, Decoder, Message, TooLarge},
    encode::{self, Encoder},
};
use std::ops::Range;

create_exception!(sluicegate.sse, EventTooLargeError, PyValueError, "One event is larger than the decoder's limit.");

/// The data of an event: a string only once somebody wants one, which takes longer than all else of an event.
enum Data {
    /// A part of the bytes that were fed.
    Read(Py<PyBytes>, Range<usize>),
    /// Of an event that came in several reads.
    Own(Box<[u8]>),
    Text(Py<PyString>),
}

impl Data {
    fn of(read: &Bound<'_, PyBytes>, data: &[u8]) -> Self {
        let bytes = read.as_bytes().as_ptr_range();
        let own = data.as_ptr_range();
        if bytes.start <= own.start && own.end <= bytes.end {
            let start = own.start as usize - bytes.start as usize;
            Data::Read(read.clone().unbind(), start..start + data.len())
        } else {
            Data::Own(data.into())
        }
    }

    fn text(&self, py: Python<'_>) -> Py<PyString> {
        match self {
            Data::Read(read, at) => text(py, &read.as_bytes(py)[at.clone()]).unbind(),
            Data::Own(bytes) => text(py, bytes).unbind(),
            Data::Text(text) => text.clone_ref(py),
        }
    }
}

/// One event, as the standard dispatches it.
#[pyclass(frozen, module = "sluicegate.sse")]
pub struct Event {
    data: Mutex<Data>,
    #[pyo3(get)]
    event: Py<PyString>,
    #[pyo3(get)]
    id: Py<PyString>,
    #[pyo3(get)]
    retry: Option<u64>,
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (data, *, event = "message", id = "", retry = None))]
    fn new(py: Python<'_>, data: Py<PyString>, event: &str, id: &str, retry: Option<u64>) -> PyResult<Self> {
        if event.contains(['\n', '\r']) || id.contains(['\n', '\r', '\0']) {
            return Err(PyValueError::new_err(
                "event and id are one line each, and an id holds no NUL: nothing else can be sent",
            ));
        }
        let event = if event.is_empty() { "message" } else { event };
        let data = Mutex::new(Data::Text(data));
        Ok(Event { data, event: PyString::new(py, event).unbind(), id: PyString::new(py, id).unbind(), retry })
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyString> {
        // Making a string runs no Python code, so nothing can come back here while the lock is held.
        let mut data = self.data.lock();
        let text = data.text(py);
        if !matches!(*data, Data::Text(_)) {
            *data = Data::Text(text.clone_ref(py));
        }
        text
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Event>() else { return Ok(false) };
        let (one, two) = (self.message(py)?, other.get().message(py)?);
        Ok(one == two)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.data(py), &self.event, &self.id, self.retry).into_pyobject(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut shown = format!("Event({}", self.data(py).bind(py).repr()?);
        for (name, text, usual) in [("event", &self.event, "message"), ("id", &self.id, "")] {
            if text.bind(py).to_str()? != usual {
                shown += &format!(", {name}={}", text.bind(py).repr()?);
            }
        }
        if let Some(retry) = self.retry {
            shown += &format!(", retry={retry}");
        }
        Ok(shown + ")")
    }

    /// The bytes of this event alone.
    fn encode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::new();
        encode::message(&self.message(py)?, &mut out);
        Ok(PyBytes::new(py, &out))
    }
}

impl Event {
    fn message(&self, py: Python<'_>) -> PyResult<Message> {
        let text = |text: &Py<PyString>| text.bind(py).to_str().map(str::to_owned);
        Ok(Message { event: text(&self.event)?, data: text(&self.data(py))?, id: text(&self.id)?, retry: self.retry })
    }
}

/// A text that mostly stays the same from event to event.
struct Same {
    bytes: Vec<u8>,
    text: Py<PyString>,
}

impl Same {
    fn get(&mut self, py: Python<'_>, bytes: &[u8]) -> Py<PyString> {
        // Empty ones are not compared: memcmp's masked load from where an empty Vec points costs 80 ns on AVX-512.
        let same = self.bytes.len() == bytes.len() && (bytes.is_empty() || self.bytes == bytes);
        if !same {
            self.bytes = bytes.to_vec();
            self.text = text(py, bytes).unbind();
        }
        self.text.clone_ref(py)
    }
}

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &decode::text(bytes))
}

/// The incremental decoder of one stream.
#[pyclass(module = "sluicegate._core")]
pub struct EventDecoder {
    decoder: Decoder,
    event: Same,
    id: Same,
    too_large: Option<TooLarge>,
    closed: bool,
}

#[pymethods]
impl EventDecoder {
    #[new]
    #[pyo3(signature = (max_event_bytes = 1_048_576))]
    fn new(py: Python<'_>, max_event_bytes: usize) -> Self {
        let empty = || Same { bytes: Vec::new(), text: intern!(py, "").clone().unbind() };
        EventDecoder {
            decoder: Decoder::new(max_event_bytes),
            event: empty(),
            id: empty(),
            too_large: None,
            closed: false,
        }
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        self.check()?;
        if self.closed {
            return Err(PyValueError::new_err("the decoder is closed: make a new one for a new stream"));
        }
        match data.cast::<PyBytes>() {
            Ok(bytes) => self.decode(py, bytes),
            Err(_) => {
                let wrong = |_| PyTypeError::new_err(format!("a stream of events is bytes, not {}", data.get_type()));
                let copy = PyBuffer::<u8>::get(data).map_err(wrong)?.to_vec(py)?;
                self.decode(py, &PyBytes::new(py, &copy))
            }
        }
    }

    fn close(&mut self) -> PyResult<()> {
        self.closed = true;
        self.check()
    }

    #[getter]
    fn pending(&self) -> usize {
        self.decoder.pending()
    }

    #[getter]
    fn retry(&self) -> Option<u64> {
        self.decoder.retry()
    }
}

impl EventDecoder {
    fn check(&self) -> PyResult<()> {
        let Some(TooLarge { limit }) = self.too_large else { return Ok(()) };
        Err(EventTooLargeError::new_err(format!("one event has more than {limit} bytes (max_event_bytes)")))
    }

    fn decode<'py>(&mut self, py: Python<'py>, read: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut events = self.decoder.push(read.as_bytes());
        loop {
            match events.next() {
                Ok(None) => return Ok(list),
                Ok(Some(decode::Event { data, event, id, retry, .. })) => {
                    let event = match event {
                        None => intern!(py, "message").clone().unbind(),
                        Some(name) => self.event.get(py, name),
                    };
                    let data = Mutex::new(Data::of(read, data));
                    list.append(Event { data, event, id: self.id.get(py, id), retry })?;
                }
                Err(too_large) => {
                    self.too_large = Some(too_large);
                    break;
                }
            }
        }
        // What came before it is still given; the next call tells.
        if list.is_empty() {
            self.check()?;
        }
        Ok(list)
    }
}

/// The encoder of one stream.
#[pyclass(module = "sluicegate._core")]
pub struct EventEncoder {
    encoder: Encoder,
}

#[pymethods]
impl EventEncoder {
    #[new]
    fn new() -> Self {
        EventEncoder { encoder: Encoder::default() }
    }

    fn encode<'py>(&mut self, py: Python<'py>, event: &Bound<'py, Event>) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::new();
        self.encoder.push(&event.get().message(py)?, &mut out);
        Ok(PyBytes::new(py, &out))
    }

    fn comment<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        encode::comment(text.as_bytes(), &mut out);
        PyBytes::new(py, &out)
    }
}
