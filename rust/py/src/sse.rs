//! Server-sent events as Python values: the decoder and the encoder of `sluicegate.sse`.

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

create_exception!(sluicegate.sse, EventTooLargeError, PyValueError, "One event is larger than the decoder's limit.");

/// One event, as the standard dispatches it.
#[pyclass(frozen, get_all, module = "sluicegate.sse", freelist = 256)]
pub struct Event {
    data: Py<PyString>,
    event: Py<PyString>,
    id: Py<PyString>,
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
        Ok(Event { data, event: PyString::new(py, event).unbind(), id: PyString::new(py, id).unbind(), retry })
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Event>() else { return Ok(false) };
        let (one, two) = (self.message(py)?, other.get().message(py)?);
        Ok(one == two)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.data, &self.event, &self.id, self.retry).into_pyobject(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut shown = format!("Event({}", self.data.bind(py).repr()?);
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
        Ok(Message { event: text(&self.event)?, data: text(&self.data)?, id: text(&self.id)?, retry: self.retry })
    }
}

/// A text that mostly stays the same from event to event.
struct Same {
    bytes: Vec<u8>,
    text: Py<PyString>,
}

impl Same {
    fn get(&mut self, py: Python<'_>, bytes: &[u8]) -> Py<PyString> {
        if self.bytes != bytes {
            self.bytes = bytes.to_vec();
            self.text = text(py, bytes).unbind();
        }
        self.text.clone_ref(py)
    }
}

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
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
            Ok(bytes) => self.decode(py, bytes.as_bytes()),
            Err(_) => {
                let wrong = |_| PyTypeError::new_err(format!("a stream of events is bytes, not {}", data.get_type()));
                self.decode(py, &PyBuffer::<u8>::get(data).map_err(wrong)?.to_vec(py)?)
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

    fn decode<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut events = self.decoder.push(bytes);
        loop {
            match events.next() {
                Ok(None) => return Ok(list),
                Ok(Some(decode::Event { data, event, id, retry, .. })) => {
                    let event = match event {
                        None => intern!(py, "message").clone().unbind(),
                        Some(name) => self.event.get(py, name),
                    };
                    list.append(Event { data: text(py, data).unbind(), event, id: self.id.get(py, id), retry })?;
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
