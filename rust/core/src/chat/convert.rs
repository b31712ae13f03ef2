//! Between the two shapes of an answer: a whole JSON where events were asked, and events where JSON was asked.
//!
//! Rare, so it works on parsed values; what it does not know, it carries along.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value};

use crate::chat::answer::{self, Form};
use crate::chat::observe::Observed;
use crate::chat::Operation;
use crate::error::Error;
use crate::relay::{Plan, Relay};
use crate::sse::decode::Decoder;
use crate::sse::encode;

type Object = Map<String, Value>;

/// A whole answer as the events of a stream, with the usage chunk unless the plan hides it. Events that came
/// without their content type pass as they are.
pub fn to_events(plan: &Plan, body: Vec<u8>) -> Result<(Vec<u8>, Observed), Error> {
    if answer::form(None, &body) == Form::Events {
        let (relay, events) = relayed(plan.clone(), &body)?;
        return Ok((events, relay.observed().clone()));
    }
    let (body, mut observed) = answer::read(plan, Some("application/json"), body)?;
    let mut head: Object = serde_json::from_slice(&body).map_err(|_| Error::InvalidAnswer)?;
    let Some(Value::Array(choices)) = head.remove("choices") else { return Err(Error::InvalidAnswer) };
    let usage = head.remove("usage").filter(|usage| usage.is_object() && !plan.hide_usage);
    if plan.operation == Operation::Chat {
        head.insert("object".into(), "chat.completion.chunk".into());
    }
    let mut out = Vec::with_capacity(body.len() + 512);
    let mut chunk = |choices: Value, usage_member: Option<Value>| {
        let mut chunk = head.clone();
        chunk.insert("choices".into(), choices);
        if let Some(usage) = usage_member {
            chunk.insert("usage".into(), usage);
        }
        observed.events += 1;
        encode::data(Value::Object(chunk).to_string().as_bytes(), &mut out);
    };
    // Where usage was asked for, every other chunk says that it has none.
    let none = usage.as_ref().map(|_| Value::Null);
    for (place, choice) in choices.into_iter().enumerate() {
        let Value::Object(choice) = choice else { return Err(Error::InvalidAnswer) };
        let (text, finish) = split(plan.operation, choice, place);
        chunk(json!([text]), none.clone());
        chunk(json!([finish]), none.clone());
    }
    if let Some(usage) = usage {
        chunk(json!([]), Some(usage));
    }
    out.extend_from_slice(encode::DONE);
    Ok((out, observed))
}

/// A choice as two: its text, and its finish.
fn split(operation: Operation, mut choice: Object, place: usize) -> (Object, Object) {
    let index = choice.get("index").cloned().unwrap_or_else(|| place.into());
    let reason = choice.insert("finish_reason".into(), Value::Null).unwrap_or_default();
    choice.insert("index".into(), index.clone());
    let mut finish = Object::new();
    finish.insert("index".into(), index);
    if operation == Operation::Chat {
        let mut delta = match choice.remove("message") {
            Some(Value::Object(message)) => message,
            _ => Object::new(),
        };
        if let Some(Value::Array(calls)) = delta.get_mut("tool_calls") {
            for (index, call) in calls.iter_mut().enumerate() {
                if let Value::Object(call) = call {
                    call.insert("index".into(), index.into());
                }
            }
        }
        choice.insert("delta".into(), Value::Object(delta));
        finish.insert("delta".into(), json!({}));
    } else {
        finish.insert("text".into(), "".into());
    }
    finish.insert("logprobs".into(), Value::Null);
    finish.insert("finish_reason".into(), reason);
    (choice, finish)
}

/// The events of a complete stream as one whole answer.
pub fn from_events(plan: &Plan, body: &[u8]) -> Result<(Vec<u8>, Observed), Error> {
    // The relay decides what is valid, complete and an error; only its output is put together here.
    let (relay, events) = relayed(Plan { hide_usage: false, keep: false, ..plan.clone() }, body)?;
    let body = put_together(&events)?.into_answer(plan.operation);
    Ok((Value::Object(body).to_string().into_bytes(), relay.observed().clone()))
}

/// The chat that a client got as these events, also of a stream that goes on; `None` where halves of characters cannot
/// be joined.
pub fn joined(events: &[u8]) -> Option<Vec<u8>> {
    let body = put_together(events).ok()?.into_answer(Operation::Chat);
    Some(Value::Object(body).to_string().into_bytes())
}

fn put_together(events: &[u8]) -> Result<Whole, Error> {
    let mut whole = Whole::default();
    let mut decoder = Decoder::new(usize::MAX);
    let mut decoded = decoder.push(events);
    while let Ok(Some(event)) = decoded.next() {
        if event.data.trim_ascii() != b"[DONE]" {
            // Valid for the relay, yet half of a surrogate pair cannot be joined here: better no answer than a hole.
            whole.chunk(serde_json::from_slice(event.data).map_err(|_| Error::InvalidEvent)?);
        }
    }
    Ok(whole)
}

fn relayed(plan: Plan, body: &[u8]) -> Result<(Relay, Vec<u8>), Error> {
    let mut relay = Relay::new(plan);
    let mut events = Vec::with_capacity(body.len());
    relay.push(body, &mut events)?;
    relay.end(&mut events)?;
    Ok((relay, events))
}

/// Chunks put together.
#[derive(Default)]
struct Whole {
    head: Object,
    choices: BTreeMap<u64, Choice>,
    usage: Option<Value>,
}

#[derive(Default)]
struct Choice {
    message: Object,
    calls: Vec<(u64, Object)>,
    /// All else: text, logprobs, the finish reason, what a provider adds.
    rest: Object,
}

impl Whole {
    fn chunk(&mut self, mut chunk: Object) {
        if let Some(usage) = chunk.remove("usage").filter(Value::is_object) {
            self.usage = Some(usage);
        }
        if let Some(Value::Array(choices)) = chunk.remove("choices") {
            for (place, choice) in choices.into_iter().enumerate() {
                if let Value::Object(choice) = choice {
                    let index = choice.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
                    self.choices.entry(index).or_default().add(choice);
                }
            }
        }
        for (key, value) in chunk {
            first(&mut self.head, key, value);
        }
    }

    fn into_answer(self, operation: Operation) -> Object {
        let mut answer = self.head;
        let chat = operation == Operation::Chat;
        answer.insert("object".into(), if chat { "chat.completion" } else { "text_completion" }.into());
        let choices = self.choices.into_iter().map(|(index, choice)| choice.into_value(index, chat)).collect();
        answer.insert("choices".into(), Value::Array(choices));
        if let Some(usage) = self.usage {
            answer.insert("usage".into(), usage);
        }
        answer
    }
}

impl Choice {
    fn add(&mut self, choice: Object) {
        for (key, value) in choice {
            match (key.as_str(), value) {
                ("index", _) => {}
                ("delta" | "message", Value::Object(delta)) => self.delta(delta),
                ("text", Value::String(text)) => append(&mut self.rest, "text", text),
                ("logprobs", Value::Object(logprobs)) => {
                    if let Value::Object(all) = object_at(&mut self.rest, "logprobs") {
                        logprobs.into_iter().for_each(|(key, value)| extend(all, key, value));
                    }
                }
                (_, value) => last(&mut self.rest, key, value),
            }
        }
    }

    fn delta(&mut self, delta: Object) {
        for (key, value) in delta {
            match (key.as_str(), value) {
                ("content" | "refusal" | "reasoning_content" | "reasoning" | "thinking", Value::String(text)) => {
                    append(&mut self.message, &key, text);
                }
                ("tool_calls", Value::Array(calls)) => {
                    for call in calls {
                        if let Value::Object(call) = call {
                            self.call(call);
                        }
                    }
                }
                ("function_call", Value::Object(call)) => {
                    if let Value::Object(whole) = object_at(&mut self.message, "function_call") {
                        function(whole, call);
                    }
                }
                (_, value @ Value::Array(_)) => extend(&mut self.message, key, value),
                (_, value) => first(&mut self.message, key, value),
            }
        }
    }

    /// A call is known by its index. Without one, an id begins another call, and no id continues the last.
    fn call(&mut self, mut call: Object) {
        let known = match (call.remove("index").and_then(|index| index.as_u64()), call.get("id")) {
            (Some(index), _) => self.calls.iter().position(|(known, _)| *known == index).ok_or(index),
            (None, Some(Value::String(id))) if !id.is_empty() => self
                .calls
                .iter()
                .position(|(_, known)| known.get("id").and_then(Value::as_str) == Some(id))
                .ok_or_else(|| self.calls.iter().map(|(index, _)| index + 1).max().unwrap_or(0)),
            _ => self.calls.len().checked_sub(1).ok_or(0),
        };
        let place = known.unwrap_or_else(|index| {
            self.calls.push((index, Object::new()));
            self.calls.len() - 1
        });
        let whole = &mut self.calls[place].1;
        for (key, value) in call {
            match value {
                Value::Object(part) if key == "function" => {
                    if let Value::Object(whole) = object_at(whole, "function") {
                        function(whole, part);
                    }
                }
                value => first(whole, key, value),
            }
        }
    }

    fn into_value(mut self, index: u64, chat: bool) -> Value {
        let mut choice = Object::new();
        choice.insert("index".into(), index.into());
        if chat {
            let mut message = Object::new();
            message.insert("role".into(), "assistant".into());
            message.insert("content".into(), Value::Null);
            message.append(&mut self.message);
            if !self.calls.is_empty() {
                self.calls.sort_by_key(|(index, _)| *index);
                let calls = self.calls.into_iter().map(|(_, mut call)| {
                    first(&mut call, "type".into(), "function".into());
                    Value::Object(call)
                });
                message.insert("tool_calls".into(), calls.collect());
            }
            choice.insert("message".into(), Value::Object(message));
        } else {
            choice.insert("text".into(), self.rest.remove("text").unwrap_or_else(|| "".into()));
        }
        for key in ["logprobs", "finish_reason"] {
            choice.insert(key.into(), self.rest.remove(key).unwrap_or_default());
        }
        choice.append(&mut self.rest);
        Value::Object(choice)
    }
}

/// The name comes once, the arguments in pieces.
fn function(whole: &mut Object, part: Object) {
    for (key, value) in part {
        match value {
            Value::String(text) if key == "arguments" => append(whole, &key, text),
            value => first(whole, key, value),
        }
    }
}

/// Keep the first value that says something.
fn first(into: &mut Object, key: String, value: Value) {
    let free = match into.get(&key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty() && !value.is_null(),
        _ => false,
    };
    if free {
        into.insert(key, value);
    }
}

/// Keep the last value that says something.
fn last(into: &mut Object, key: String, value: Value) {
    if !value.is_null() || !into.contains_key(&key) {
        into.insert(key, value);
    }
}

fn append(into: &mut Object, key: &str, text: String) {
    match into.get_mut(key) {
        Some(Value::String(whole)) => whole.push_str(&text),
        _ => {
            into.insert(key.to_owned(), Value::String(text));
        }
    }
}

fn extend(into: &mut Object, key: String, value: Value) {
    match (into.get_mut(&key), value) {
        (Some(Value::Array(whole)), Value::Array(mut items)) => whole.append(&mut items),
        (_, value) => last(into, key, value),
    }
}

fn object_at<'a>(into: &'a mut Object, key: &str) -> &'a mut Value {
    let value = into.entry(key).or_insert_with(|| Value::Object(Object::new()));
    if value.is_null() {
        *value = Value::Object(Object::new());
    }
    value
}
