//! `scan` and `Request`: one pass over a request body, and the splices that follow from it.

use pyo3::{create_exception, exceptions::PyValueError, prelude::*, types::PyBytes};
use sluicegate_core::chat::{
    canonical,
    compose::{self as core_compose, compose, Field},
    rewrite::Edits,
    scan::{self as core_scan, Scanned},
    switch::Switch,
    wish::{wish, FIELDS, TEMPLATE},
};

create_exception!(
    sluicegate._core,
    RequestError,
    PyValueError,
    "A request body that cannot be accepted: (code, message, param)."
);

/// One scanned request body.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Request {
    body: Py<PyBytes>,
    scanned: Scanned,
}

/// Bodies beyond this are scanned without the GIL; below it, giving it up costs more than the scan (1 GB/s).
const DETACH_FROM: usize = 64 * 1024;

#[pyfunction]
pub fn scan(operation: &str, body: Bound<'_, PyBytes>) -> PyResult<Request> {
    let operation = crate::upstream::operation(operation)?;
    let bytes = body.as_bytes();
    let scanned = if bytes.len() < DETACH_FROM {
        core_scan::scan(operation, bytes)
    } else {
        body.py().detach(|| core_scan::scan(operation, bytes))
    };
    let scanned = scanned.map_err(|e| RequestError::new_err((e.code, e.message, e.param)))?;
    Ok(Request { body: body.unbind(), scanned })
}

#[pymethods]
impl Request {
    #[getter]
    fn model(&self) -> Option<&str> {
        self.scanned.model.as_deref()
    }
    #[getter]
    fn stream(&self) -> bool {
        self.scanned.stream
    }
    #[getter]
    fn include_usage(&self) -> bool {
        self.scanned.include_usage
    }
    #[getter]
    fn max_tokens(&self) -> Option<u64> {
        self.scanned.max_tokens
    }
    #[getter]
    fn n(&self) -> u64 {
        self.scanned.n
    }
    #[getter]
    fn store(&self) -> bool {
        self.scanned.store
    }
    #[getter]
    fn thinking(&self, py: Python<'_>) -> Option<String> {
        wish(self.body.as_bytes(py), &self.scanned)
    }
    #[getter]
    fn message_count(&self) -> usize {
        self.scanned.message_count
    }
    #[getter]
    fn system_count(&self) -> usize {
        self.scanned.system_count
    }
    #[getter]
    fn media_count(&self) -> usize {
        self.scanned.media_count
    }
    #[getter]
    fn prompt_bytes(&self) -> usize {
        self.scanned.prompt_bytes
    }
    #[getter]
    fn input_count(&self) -> usize {
        self.scanned.input_count
    }
    #[getter]
    fn body(&self, py: Python<'_>) -> Py<PyBytes> {
        self.body.clone_ref(py)
    }
    #[getter]
    fn size(&self, py: Python<'_>) -> usize {
        self.body.as_bytes(py).len()
    }

    fn field<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyBytes>> {
        let body = self.body.as_bytes(py);
        canonical::field(body, &self.scanned, name).map(|at| PyBytes::new(py, &body[at]))
    }

    fn messages(&self, py: Python<'_>) -> PyResult<Vec<Message>> {
        let body = self.body.as_bytes(py);
        let found = if body.len() < DETACH_FROM {
            canonical::messages(body, &self.scanned)
        } else {
            py.detach(|| canonical::messages(body, &self.scanned))
        };
        Ok(found.map_err(no_message)?.into_iter().map(|inner| Message { inner }).collect())
    }

    fn inject(&self, py: Python<'_>, texts: Vec<Bound<'_, PyBytes>>) -> PyResult<Request> {
        let body = self.body.as_bytes(py);
        let messages = canonical::messages(body, &self.scanned).map_err(no_message)?;
        let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let Some(changed) = canonical::inject(body, &messages, &texts) else {
            return Ok(Request { body: self.body.clone_ref(py), scanned: self.scanned.clone() });
        };
        scan("chat", PyBytes::new(py, &changed))
    }

    fn compose(
        &self,
        py: Python<'_>,
        recipe: &Recipe,
        model: Option<&str>,
        include_usage: bool,
        max_tokens: Option<u64>,
    ) -> (Py<PyBytes>, Vec<String>) {
        let edits = Edits { model, include_usage };
        let done = compose(self.body.as_bytes(py), &self.scanned, &recipe.inner, &edits, max_tokens);
        let body = match done.body {
            Some(changed) => PyBytes::new(py, &changed).unbind(),
            None => self.body.clone_ref(py),
        };
        (body, done.dropped)
    }
}

/// One message, as far as conversations are compared by it.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Message {
    inner: canonical::Message,
}

#[pymethods]
impl Message {
    #[new]
    fn new(text: &[u8]) -> PyResult<Self> {
        Ok(Message { inner: canonical::message(text).map_err(no_message)? })
    }
    #[getter]
    fn role(&self) -> &str {
        &self.inner.role
    }
    #[getter]
    fn is_system(&self) -> bool {
        canonical::is_system(&self.inner.role)
    }
    #[getter]
    fn start(&self) -> usize {
        self.inner.at.start
    }
    #[getter]
    fn end(&self) -> usize {
        self.inner.at.end
    }
    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.digest)
    }
    #[getter]
    fn calls(&self) -> Vec<String> {
        self.inner.calls.clone()
    }
    #[getter]
    fn answers(&self) -> Option<&str> {
        self.inner.answers.as_deref()
    }
}

/// The digests of conversations that grow by one message each, behind the one with the digest `previous`.
#[pyfunction]
pub fn chain<'py>(py: Python<'py>, previous: &[u8], digests: Vec<Bound<'py, PyBytes>>) -> Vec<Bound<'py, PyBytes>> {
    let found = canonical::chain(previous, digests.iter().map(|digest| digest.as_bytes()));
    found.iter().map(|digest| PyBytes::new(py, digest)).collect()
}

/// A text without what a model thought in front of it.
#[pyfunction]
pub fn without_thoughts(text: &str) -> &str {
    canonical::without_thoughts(text)
}

fn no_message(error: sluicegate_core::json::JsonError) -> PyErr {
    PyValueError::new_err(format!("no message: see byte {}", error.at()))
}

/// What is done to every request for one assistant at one upstream.
#[pyclass(frozen, module = "sluicegate._core")]
pub struct Recipe {
    inner: core_compose::Recipe,
}

#[pymethods]
impl Recipe {
    #[new]
    #[pyo3(signature = (*, system_prompt=None, system_role="system", replace_system=false, fields=vec![], denied=vec![],
                        max_tokens_field=None, thinking=None))]
    #[allow(clippy::too_many_arguments, clippy::type_complexity)] // named one by one in Python
    fn new(
        system_prompt: Option<&str>,
        system_role: &str,
        replace_system: bool,
        fields: Vec<(String, Vec<u8>, bool)>,
        denied: Vec<String>,
        max_tokens_field: Option<&str>,
        thinking: Option<(Vec<(String, Option<String>, Vec<u8>)>, bool)>,
    ) -> PyResult<Self> {
        let mut inner = denied.iter().fold(core_compose::Recipe::new(), |recipe, name| recipe.deny(name));
        for (name, value, locked) in fields {
            inner = inner.field(Field { name, value, locked });
        }
        if let Some(text) = system_prompt {
            inner = inner.system_prompt(system_role, text);
        }
        if replace_system {
            inner = inner.replace_system_messages();
        }
        if let Some(name) = max_tokens_field {
            let wrong =
                || PyValueError::new_err(format!("max_tokens_field: expected one of {:?}", core_compose::LIMITS));
            inner = inner.limit_name(name).ok_or_else(wrong)?;
        }
        if let Some((fields, overrules)) = thinking {
            if let Some((name, _, _)) =
                fields.iter().find(|(name, _, _)| name != TEMPLATE && !FIELDS.contains(&&**name))
            {
                return Err(PyValueError::new_err(format!("thinking: {name} is no field of it")));
            }
            inner = inner.thinking(Switch { fields, overrules });
        }
        Ok(Recipe { inner })
    }
}
