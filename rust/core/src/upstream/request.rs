//! The HTTP request of a call: what an upstream is told, and nothing of what the client's headers say by themselves.

use super::{deadline::Clocks, target::Target};
use crate::{
    chat::{logprobs::Logprobs, thoughts::Thinking, Operation},
    relay::Plan,
    responses::Shape,
    tokens::said::Shared,
};
use bytes::Bytes;
use http::{header, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use std::{
    sync::{
        atomic::{AtomicU32, Ordering},
        Arc,
    },
    time::Duration,
};

/// Builds it for the protocol of its connection; `interim` counts the 1xx responses that it gets.
pub fn build(target: &Target, call: &Call, h2: bool, interim: Arc<AtomicU32>) -> Request<Full<Bytes>> {
    let body = call.body.clone();
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = target.uri(call.operation, h2);
    let headers = request.headers_mut();
    headers.reserve(8 + call.headers.len() + target.headers.len());
    if h2 {
        *request.version_mut() = http::Version::HTTP_2;
    } else {
        headers.insert(header::HOST, target.host_header.clone());
    }
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = if call.stream { "text/event-stream" } else { "application/json" };
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("sluicegate/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in call.headers.iter().chain(&target.headers) {
        headers.insert(name.clone(), value.clone());
    }
    if !h2 {
        hyper::ext::on_informational(&mut request, move |_| {
            interim.fetch_add(1, Ordering::Relaxed);
        });
    }
    request
}

/// What to call and how.
pub struct Call {
    /// Which endpoint.
    pub operation: Operation,
    /// The JSON body; `None` sends a GET.
    pub body: Option<Bytes>,
    /// The client asked for an event stream.
    pub stream: bool,
    /// Replaces `model` in the answer.
    pub public_model: Option<String>,
    /// Replaces `id` in the answer.
    pub public_id: Option<String>,
    /// The outcome has the whole answer as well.
    pub keep: bool,
    /// The answer becomes a response of the Responses API.
    pub shape: Option<Arc<Shape>>,
    /// What becomes of the thinking in a chat.
    pub thinking: Option<Thinking>,
    /// What becomes of log-probabilities in a chat.
    pub logprobs: Option<Logprobs>,
    /// Where the texts of the answer are kept, if their tokens may have to be counted.
    pub said: Option<Shared>,
    /// The client did not ask for usage in its stream.
    pub hide_usage: bool,
    /// The stream begins when so many bytes of text are there, or all of it; 0: with its first event.
    pub hold_bytes: u64,
    /// How many choices the client asked for (`n`).
    pub choices: u32,
    /// A comment after so much silence; zero for none.
    pub keep_alive: Duration,
    /// Further request headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The clocks of this call.
    pub clocks: Clocks,
}

impl Call {
    /// What the call asked for, as far as its answer is concerned.
    pub(super) fn plan(&self, target: &Target) -> Plan {
        Plan {
            operation: self.operation,
            public_model: self.public_model.clone(),
            public_id: self.public_id.clone(),
            keep: self.keep,
            shape: self.shape.clone(),
            thinking: self.thinking,
            logprobs: self.logprobs,
            said: self.said.clone(),
            hide_usage: self.hide_usage,
            choices: self.choices,
            max_event_bytes: target.max_event_bytes,
            max_answer_bytes: target.max_answer_bytes,
        }
    }
}
