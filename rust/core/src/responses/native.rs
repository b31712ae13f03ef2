//! An upstream that has the Responses API itself: its events pass as they are, but for what the gateway owns.
//!
//! The gateway keeps the responses, so that the id, the name of the model, and what came before are its own.

use std::sync::Arc;

use serde_json::{json, Map, Value};

use super::{write, Closing, Shape};
use crate::chat::observe::{Observed, Usage};
use crate::error::Error;
use crate::json::{self, Cursor};
use crate::sse::decode::Event;

/// What the gateway puts into a response, whatever the upstream says.
const OURS: [&str; 8] =
    ["id", "model", "store", "previous_response_id", "conversation", "background", "metadata", "created_at"];

/// One response of an upstream.
#[derive(Debug)]
pub struct Native {
    shape: Arc<Shape>,
    ours: Map<String, Value>,
    /// The response as it was shown last.
    shown: Option<Map<String, Value>>,
    /// The number of the next event, if we have to make one.
    sequence: u64,
    closing: Option<Closing>,
}

impl Native {
    /// For one answer.
    pub fn new(shape: Arc<Shape>) -> Self {
        let mut ours = head(&shape);
        ours.retain(|name, _| OURS.contains(&name.as_str()));
        Native { shape, ours, shown: None, sequence: 0, closing: None }
    }

    /// Pass an event on. True for the one that ends the response, which is kept apart.
    pub fn event(&mut self, event: &Event<'_>, observed: &mut Observed, out: &mut Vec<u8>) -> Result<bool, Error> {
        let seen = Seen::of(event.data)?;
        observed.events += 1;
        self.sequence = seen.sequence.map_or(self.sequence, |number| number + 1);
        let Some(response) = seen.response else {
            if let Some(delta) = seen.delta {
                observed.generated(delta, false);
            }
            event.write_raw(out);
            return Ok(false);
        };
        let mut response: Map<String, Value> = serde_json::from_str(response).map_err(|_| Error::InvalidEvent)?;
        self.own(&mut response);
        let body = Value::Object(response.clone()).to_string().into_bytes();
        let mut written = Vec::with_capacity(body.len() + 128);
        write::event(&mut written, &seen.kind, seen.sequence.unwrap_or(self.sequence), |fields| {
            fields.raw("response", &body);
        });
        let ends = ["response.completed", "response.incomplete", "response.failed"].contains(&seen.kind.as_str());
        if ends {
            observed.usage = usage(&response).or(observed.usage);
            self.closing = Some(Closing { response: body, event: written });
        } else {
            out.append(&mut written);
            self.shown = Some(response);
        }
        Ok(ends)
    }

    /// A whole response.
    pub fn whole(&self, body: &[u8], observed: &mut Observed) -> Result<Vec<u8>, Error> {
        let mut response: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Error::InvalidAnswer)?;
        if !response.get("output").is_some_and(Value::is_array) {
            return Err(Error::InvalidAnswer);
        }
        self.own(&mut response);
        observed.usage = usage(&response);
        Ok(Value::Object(response).to_string().into_bytes())
    }

    /// The answer broke off: it never looks complete.
    pub fn fail(&mut self, error: &Error, out: &mut Vec<u8>) {
        if self.closing.is_some() {
            return;
        }
        let public = error.public();
        let response = self.ended("failed", json!({"code": public.code, "message": public.message}));
        if self.shown.is_none() {
            // A stream begins with this event, whatever comes after it.
            write::event(out, "response.created", 0, |fields| {
                fields.raw("response", &response);
            });
            self.sequence = 1;
        }
        let mut event = Vec::with_capacity(response.len() + 96);
        write::event(&mut event, "response.failed", self.sequence, |fields| {
            fields.raw("response", &response);
        });
        self.closing = Some(Closing { response, event });
    }

    /// The client is gone.
    pub fn cancel(&mut self) {
        let response = self.ended("cancelled", Value::Null);
        self.closing = Some(Closing { response, event: Vec::new() });
    }

    /// How it ended, once.
    pub fn take_closing(&mut self) -> Option<Closing> {
        self.closing.take()
    }

    fn own(&self, response: &mut Map<String, Value>) {
        for (name, value) in &self.ours {
            response.insert(name.clone(), value.clone());
        }
    }

    fn ended(&self, status: &str, error: Value) -> Vec<u8> {
        let mut response = self.shown.clone().unwrap_or_else(|| {
            let mut response = head(&self.shape);
            response.insert("output".into(), json!([]));
            response.insert("incomplete_details".into(), Value::Null);
            response.insert("usage".into(), Value::Null);
            response
        });
        response.insert("status".into(), status.into());
        response.insert("error".into(), error);
        Value::Object(response).to_string().into_bytes()
    }
}

/// What has to be known of an event.
#[derive(Default)]
struct Seen<'a> {
    kind: String,
    sequence: Option<u64>,
    response: Option<&'a str>,
    delta: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn of(data: &'a [u8]) -> Result<Self, Error> {
        let text = json::text(data).map_err(|_| Error::InvalidUtf8)?;
        Self::read(text).map_err(|_| Error::InvalidEvent)
    }

    fn read(text: &'a str) -> Result<Self, json::JsonError> {
        let (mut seen, mut cursor) = (Seen::default(), Cursor::new(text));
        let mut members = cursor.object()?;
        while let Some(key) = members.next(&mut cursor)? {
            match &*key.decode() {
                "type" => seen.kind = cursor.value()?.as_text().map_or_else(String::new, |kind| kind.decode().into()),
                "sequence_number" => seen.sequence = cursor.value()?.as_u64(),
                "response" => seen.response = Some(cursor.value()?.raw),
                "delta" => seen.delta = cursor.value()?.as_text().map(|delta| delta.raw()),
                _ => {}
            }
        }
        cursor.finish()?;
        Ok(seen)
    }
}

fn head(shape: &Shape) -> Map<String, Value> {
    serde_json::from_str(&format!("{}}}", shape.head)).unwrap_or_default()
}

fn usage(response: &Map<String, Value>) -> Option<Usage> {
    let usage = response.get("usage")?.as_object()?;
    let count = |value: Option<&Value>| value.and_then(Value::as_u64);
    let detail = |group: &str, name: &str| count(usage.get(group).and_then(|details| details.get(name)));
    Some(Usage {
        prompt: count(usage.get("input_tokens")),
        completion: count(usage.get("output_tokens")),
        total: count(usage.get("total_tokens")),
        cached: detail("input_tokens_details", "cached_tokens"),
        reasoning: detail("output_tokens_details", "reasoning_tokens"),
    })
}
