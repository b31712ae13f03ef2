//! `Tokenizer`, `Counter` and `count_chat`: tokens for Python, without the GIL where it takes long.

use parking_lot::Mutex;
use pyo3::{
    buffer::PyBuffer,
    exceptions::{PyKeyError, PyOSError, PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple},
};
use sluicegate_core::tokens::{
    self as core,
    chat::{self, ChatError},
    cut,
    hugging_face::FileError,
    tokenizer::{Stop, TokenError},
    AllowedSpecial,
};
use std::{
    borrow::Cow,
    collections::HashSet,
    panic::{catch_unwind, AssertUnwindSafe},
    path::Path,
};

/// Shorter texts are counted with the GIL: giving it up and taking it again costs as much as 20 bytes, and under
/// contention far more.
const DETACH_FROM: usize = 4 * 1024;

/// A tokenizer: a bundled encoding, or one from a `tokenizer.json`.
#[pyclass(frozen, subclass, module = "sluicegate._core")]
pub struct Tokenizer {
    pub(crate) inner: core::tokenizer::Tokenizer,
}

/// A panic ends this call with an error, not the interpreter.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| PyRuntimeError::new_err("an internal error in the tokenizer: please report it with the text"))
}

fn raised(error: TokenError) -> PyErr {
    match error {
        TokenError::UnknownToken(_) => PyKeyError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Run what may take long: without the GIL from some length on, and ended by Ctrl-C.
fn run<T: Send, E: Send>(
    py: Python<'_>,
    length: usize,
    fail: fn(E) -> PyErr,
    work: impl FnOnce(Stop<'_>) -> Result<T, E> + Send,
) -> PyResult<T> {
    if length < DETACH_FROM {
        return contained(|| work(&mut || false))?.map_err(fail);
    }
    let mut interrupt = None;
    let done = py.detach(|| {
        let mut stop = || {
            interrupt = Python::attach(|py| py.check_signals().err());
            interrupt.is_some()
        };
        contained(|| work(&mut stop))
    });
    match interrupt {
        Some(error) => Err(error),
        None => done?.map_err(fail),
    }
}

/// The text of a `str`: its own UTF-8, or with U+FFFD where half of a surrogate pair stands alone, as tiktoken does it.
fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    match text.to_str() {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) => {
            let units = text.call_method1("encode", ("utf-16", "surrogatepass"))?;
            Ok(Cow::Owned(units.call_method1("decode", ("utf-16", "replace"))?.extract()?))
        }
    }
}

/// Token ids: a buffer of 4-byte integers (`array("I")`, numpy's uint32) as it is, any other sequence one by one.
fn ids(tokens: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match PyBuffer::<u32>::get(tokens) {
        Ok(buffer) => buffer.to_vec(tokens.py()),
        Err(_) => tokens.try_iter()?.map(|id| id?.extract()).collect(),
    }
}

/// `"all"`, or the members of a collection of `str`.
fn chosen(given: Option<&Bound<'_, PyAny>>) -> PyResult<AllowedSpecial> {
    let Some(given) = given else { return Ok(AllowedSpecial::None) };
    match given.cast::<PyString>() {
        Ok(text) if text.to_str()? == "all" => Ok(AllowedSpecial::All),
        Ok(_) => Err(PyTypeError::new_err("expected \"all\" or a set of special tokens")),
        Err(_) => {
            let texts: HashSet<String> = given.try_iter()?.map(|token| token?.extract()).collect::<PyResult<_>>()?;
            Ok(if texts.is_empty() { AllowedSpecial::None } else { AllowedSpecial::Only(texts) })
        }
    }
}

/// The integers of o200k_harmony, which has the highest ids; others are made anew each time.
const KEPT_INTEGERS: usize = 201_088;

/// A list of Python integers. Each one is made once in a process and then shared: making it anew takes 20 ns a token,
/// which is more than encoding.
fn list<'py>(py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
    static INTEGERS: PyOnceLock<Vec<PyOnceLock<Py<PyInt>>>> = PyOnceLock::new();
    let kept = INTEGERS.get_or_init(py, || (0..KEPT_INTEGERS).map(|_| PyOnceLock::new()).collect());
    let integer = |id: &u32| match kept.get(*id as usize) {
        Some(slot) => slot.get_or_init(py, || PyInt::new(py, *id).unbind()).bind(py).clone(),
        None => PyInt::new(py, *id),
    };
    PyList::new(py, ids.iter().map(integer))
}

/// What `allowed_special` and `disallowed_special` ask for.
#[derive(Default)]
struct Special {
    allowed: AllowedSpecial,
    refused: AllowedSpecial,
}

impl Special {
    fn new(
        inner: &core::tokenizer::Tokenizer,
        allowed: Option<&Bound<'_, PyAny>>,
        disallowed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let allowed = chosen(allowed)?;
        let refused = match (chosen(disallowed)?, &allowed) {
            (AllowedSpecial::All, AllowedSpecial::All) => AllowedSpecial::None,
            (AllowedSpecial::All, AllowedSpecial::Only(allowed)) => {
                let all = inner.special_tokens().into_iter().map(|(token, _)| token.to_owned());
                AllowedSpecial::Only(all.filter(|token| !allowed.contains(token)).collect())
            }
            (refused, _) => refused,
        };
        Ok(Special { allowed, refused })
    }

    fn check(&self, inner: &core::tokenizer::Tokenizer, text: &str) -> PyResult<()> {
        if self.refused == AllowedSpecial::None {
            return Ok(());
        }
        match inner.find_special(text, &self.refused).map_err(raised)? {
            None => Ok(()),
            Some((at, token)) => Err(PyValueError::new_err(format!(
                "the special token {token:?} stands in the text at byte {at}: allow it with \
                 allowed_special={{{token:?}}}, or leave disallowed_special out to have it as text"
            ))),
        }
    }

    fn encode(&self, inner: &core::tokenizer::Tokenizer, text: &str, stop: Stop<'_>) -> Result<Vec<u32>, TokenError> {
        let mut out = Vec::with_capacity(text.len() / 4 + 1);
        match &self.allowed {
            AllowedSpecial::None => inner.encode(text, &mut out, stop)?,
            allowed => inner.encode_with_special(text, allowed, &mut out, stop)?,
        }
        Ok(out)
    }
}

impl Tokenizer {
    fn batch<'py, T: Send>(
        &self,
        texts: &Bound<'py, PyAny>,
        threads: Option<usize>,
        work: impl Fn(&core::tokenizer::Tokenizer, &str, Stop<'_>) -> Result<T, TokenError> + Sync,
    ) -> PyResult<Vec<T>> {
        if texts.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("expected a sequence of texts, not one text"));
        }
        let py = texts.py();
        let held: Vec<Bound<'py, PyString>> =
            texts.try_iter()?.map(|text| Ok(text?.cast_into::<PyString>()?)).collect::<PyResult<_>>()?;
        let texts: Vec<Cow<'_, str>> = held.iter().map(utf8).collect::<PyResult<_>>()?;
        let texts: Vec<&str> = texts.iter().map(Cow::as_ref).collect();
        let inner = &self.inner;
        run(py, usize::MAX, raised, |stop| {
            core::batch::each(&texts, threads, stop, |text, stop| work(inner, text, stop))
        })
    }
}

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (name, *, file = false))]
    fn new(py: Python<'_>, name: &str, file: bool) -> PyResult<Self> {
        let made = py.detach(|| {
            contained(|| match file {
                true => core::tokenizer::Tokenizer::load(Path::new(name)).map_err(|error| match error {
                    FileError::Io(io) => {
                        let text = io.to_string();
                        let (text, _) = text.split_once(" (os error").unwrap_or((&text, ""));
                        PyOSError::new_err((io.raw_os_error(), text.to_owned(), name.to_owned()))
                    }
                    other => PyValueError::new_err(format!("{name} {other}")),
                }),
                false => {
                    core::tokenizer::Tokenizer::bundled(name).map_err(|error| PyValueError::new_err(error.to_string()))
                }
            })
        });
        Ok(Tokenizer { inner: made?? })
    }

    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    #[getter]
    fn is_file(&self) -> bool {
        matches!(self.inner, core::tokenizer::Tokenizer::File(_))
    }

    #[getter]
    fn max_token_value(&self) -> u32 {
        self.inner.max_token_value()
    }

    #[getter]
    fn n_vocab(&self) -> u32 {
        self.inner.max_token_value() + 1
    }

    #[getter]
    fn special_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.inner.special_tokens().into_iter().try_for_each(|(token, id)| dict.set_item(token, id))?;
        Ok(dict)
    }

    fn count(&self, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let utf8 = utf8(text)?;
        run(text.py(), utf8.len(), raised, |stop| self.inner.count(&utf8, stop))
    }

    #[pyo3(signature = (texts, *, num_threads = None))]
    fn count_batch(&self, texts: &Bound<'_, PyAny>, num_threads: Option<usize>) -> PyResult<Vec<usize>> {
        self.batch(texts, num_threads, |inner, text, stop| inner.count(text, stop))
    }

    fn encode_ordinary<'py>(&self, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyList>> {
        self.encode(text, None, None)
    }

    #[pyo3(signature = (text, *, allowed_special = None, disallowed_special = None))]
    fn encode<'py>(
        &self,
        text: &Bound<'py, PyString>,
        allowed_special: Option<&Bound<'py, PyAny>>,
        disallowed_special: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let special = Special::new(&self.inner, allowed_special, disallowed_special)?;
        list(text.py(), &self.encoded(text, &special)?)
    }

    fn encode_to_bytes<'py>(&self, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = self.encoded(text, &Special::default())?;
        PyBytes::new_with(text.py(), ids.len() * 4, |bytes| {
            bytes.chunks_exact_mut(4).zip(ids).for_each(|(place, id)| place.copy_from_slice(&id.to_ne_bytes()));
            Ok(())
        })
    }

    #[pyo3(signature = (texts, *, num_threads = None))]
    fn encode_ordinary_batch<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        num_threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        self.encode_batch(texts, num_threads, None, None)
    }

    #[pyo3(signature = (texts, *, num_threads = None, allowed_special = None, disallowed_special = None))]
    fn encode_batch<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        num_threads: Option<usize>,
        allowed_special: Option<&Bound<'py, PyAny>>,
        disallowed_special: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let special = Special::new(&self.inner, allowed_special, disallowed_special)?;
        if special.refused != AllowedSpecial::None {
            for text in texts.try_iter()? {
                special.check(&self.inner, &utf8(text?.cast::<PyString>()?)?)?;
            }
        }
        let all = self.batch(texts, num_threads, |inner, text, stop| special.encode(inner, text, stop))?;
        all.iter().map(|ids| list(texts.py(), ids)).collect()
    }

    fn encode_single_token(&self, text_or_bytes: &Bound<'_, PyAny>) -> PyResult<u32> {
        let found = match text_or_bytes.cast::<PyBytes>() {
            Ok(bytes) => self.inner.token_of(bytes.as_bytes()),
            Err(_) => self.inner.token_of(utf8(text_or_bytes.cast::<PyString>()?)?.as_bytes()),
        };
        found.ok_or_else(|| PyKeyError::new_err(text_or_bytes.clone().unbind()))
    }

    #[pyo3(signature = (tokens, errors = "replace"))]
    fn decode<'py>(&self, tokens: &Bound<'py, PyAny>, errors: &str) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.joined(tokens)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(PyString::new(tokens.py(), text).into_any()),
            Err(_) => PyBytes::new(tokens.py(), &bytes).call_method1("decode", ("utf-8", errors)),
        }
    }

    fn decode_bytes<'py>(&self, tokens: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(tokens.py(), &self.joined(tokens)?))
    }

    fn decode_single_token_bytes<'py>(&self, py: Python<'py>, token: u32) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.inner.token_bytes(token).ok_or_else(|| raised(TokenError::UnknownToken(token)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (text, max_tokens, side = "end"))]
    fn truncate<'py>(
        &self,
        text: &Bound<'py, PyString>,
        max_tokens: usize,
        side: &str,
    ) -> PyResult<Bound<'py, PyString>> {
        let utf8 = utf8(text)?;
        let py = text.py();
        let part = match side {
            "end" => {
                let end = run(py, utf8.len(), raised, |stop| cut::beginning(&self.inner, &utf8, max_tokens, stop))?;
                &utf8[..end]
            }
            "start" => {
                let start = run(py, utf8.len(), raised, |stop| cut::ending(&self.inner, &utf8, max_tokens, stop))?;
                &utf8[start..]
            }
            _ => return Err(PyValueError::new_err(format!("side is \"end\" or \"start\", not {side:?}"))),
        };
        Ok(if part.len() == utf8.len() { text.clone() } else { PyString::new(py, part) })
    }

    #[pyo3(signature = (text, max_tokens, overlap = 0))]
    fn split<'py>(
        &self,
        text: &Bound<'py, PyString>,
        max_tokens: usize,
        overlap: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        if overlap >= max_tokens {
            return Err(PyValueError::new_err(format!(
                "overlap ({overlap}) must be below max_tokens ({max_tokens}), which must be at least 1"
            )));
        }
        let utf8 = utf8(text)?;
        let fail = |error: cut::SplitError| match error {
            cut::SplitError::Token(error) => raised(error),
            other => PyValueError::new_err(other.to_string()),
        };
        let chunks =
            run(text.py(), utf8.len(), fail, |stop| cut::split(&self.inner, &utf8, max_tokens, overlap, stop))?;
        PyList::new(text.py(), chunks.into_iter().map(|chunk| &utf8[chunk]))
    }
}

impl Tokenizer {
    fn encoded(&self, text: &Bound<'_, PyString>, special: &Special) -> PyResult<Vec<u32>> {
        let utf8 = utf8(text)?;
        special.check(&self.inner, &utf8)?;
        run(text.py(), utf8.len(), raised, |stop| special.encode(&self.inner, &utf8, stop))
    }

    fn joined(&self, tokens: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let ids = ids(tokens)?;
        let work = |_: Stop<'_>| {
            let mut out = Vec::with_capacity(ids.len() * 4);
            self.inner.decode(&ids, &mut out).map(|()| out)
        };
        run(tokens.py(), ids.len() * 4, raised, work)
    }
}

/// The exact count of a text that arrives in parts.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Counter {
    inner: Mutex<core::counter::Counter>,
}

#[pymethods]
impl Counter {
    #[new]
    fn new(tokenizer: &Bound<'_, Tokenizer>) -> Self {
        Counter { inner: Mutex::new(core::counter::Counter::new(tokenizer.get().inner.clone())) }
    }

    fn feed(&self, text: &Bound<'_, PyString>) -> PyResult<()> {
        let utf8 = utf8(text)?;
        // Always without the GIL: another thread may hold the lock while it counts.
        text.py().detach(|| contained(|| self.inner.lock().feed(&utf8)))?.map_err(raised)
    }

    #[getter]
    fn total(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| contained(|| self.inner.lock().total()))?.map_err(raised)
    }

    #[getter]
    fn kept_bytes(&self, py: Python<'_>) -> usize {
        py.detach(|| self.inner.lock().kept())
    }
}

/// The tokens of a chat request before its answer.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct MessageCount {
    #[pyo3(get)]
    tokens: u64,
    #[pyo3(get)]
    image_tokens: u64,
    reasons: Vec<&'static str>,
}

impl From<&chat::ChatCount> for MessageCount {
    fn from(counted: &chat::ChatCount) -> Self {
        MessageCount {
            tokens: counted.tokens,
            image_tokens: counted.image_tokens,
            reasons: counted.reasons.iter().map(|reason| reason.code()).collect(),
        }
    }
}

#[pymethods]
impl MessageCount {
    #[getter]
    fn exact(&self) -> bool {
        self.reasons.is_empty()
    }

    #[getter]
    fn reasons<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.reasons)
    }

    fn __repr__(&self) -> String {
        let exact = if self.reasons.is_empty() { "True" } else { "False" };
        format!(
            "MessageCount(tokens={}, image_tokens={}, exact={exact}, reasons={:?})",
            self.tokens, self.image_tokens, self.reasons
        )
    }
}

/// The names of the bundled encodings.
#[pyfunction]
pub fn encoding_names() -> Vec<&'static str> {
    core::ENCODINGS.to_vec()
}

/// The encoding of an OpenAI model.
#[pyfunction]
pub fn encoding_name_for_model(model: &str) -> Option<&'static str> {
    core::encoding_name_for_model(model)
}

/// Count the JSON body of a chat request.
#[pyfunction]
#[pyo3(signature = (body, model, tokenizer))]
pub fn count_chat(
    body: &Bound<'_, PyBytes>,
    model: &str,
    tokenizer: Option<&Bound<'_, Tokenizer>>,
) -> PyResult<MessageCount> {
    let inner = tokenizer.map(|tokenizer| &tokenizer.get().inner);
    let bytes = body.as_bytes();
    let fail = |error: ChatError| PyValueError::new_err(error.to_string());
    let counted = run(body.py(), bytes.len(), fail, |stop| chat::count_chat(bytes, model, inner, stop))?;
    Ok(MessageCount::from(&counted))
}
