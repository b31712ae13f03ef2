//! The state machine: chunks of a chat in, the events of a response out.

use std::sync::Arc;

use serde_json::json;

use super::item::{thought, Item, Kind, Part, Speech, Status};
use super::{logprobs, write, Closing, Shape};
use crate::chat::delta::{self, Call, Choice, Chunk};
use crate::chat::observe::Usage;
use crate::error::Error;

/// A server that invents thousands of calls or parts must not fill the memory with them.
const MOST_ITEMS: usize = 1024;

/// Makes one response.
#[derive(Debug)]
pub struct Shaper {
    reader: delta::Reader,
    response: Response,
    closing: Option<Closing>,
}

/// The response as far as it has come.
#[derive(Debug)]
struct Response {
    shape: Arc<Shape>,
    sequence: u64,
    begun: bool,
    /// In the order of the output.
    items: Vec<Item>,
    finish: Option<String>,
    usage: Option<Usage>,
    /// Log probabilities whose text has not come: some tokens are half a character.
    logprobs: Vec<u8>,
}

impl Shaper {
    /// For one answer.
    pub fn new(shape: Arc<Shape>) -> Self {
        let response = Response {
            shape,
            sequence: 0,
            begun: false,
            items: Vec::new(),
            finish: None,
            usage: None,
            logprobs: Vec::new(),
        };
        Shaper { reader: delta::Reader::default(), response, closing: None }
    }

    /// Take in the data of one chunk; what the client gets is appended to `out`.
    pub fn chunk(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let response = &mut self.response;
        response.begin(out);
        match self.reader.read(data).map_err(|_| Error::InvalidEvent)? {
            Chunk::Nothing => Ok(()),
            Chunk::Text { choice: 0, part, text } => match part {
                delta::Part::Content => response.say(Speech::Text, text, out),
                delta::Part::Refusal => response.say(Speech::Refusal, text, out),
                delta::Part::Thinking => response.think(text, out),
                delta::Part::Arguments(index) => {
                    response.call(&Call { index, arguments: text.to_owned(), ..Call::default() }, out)
                }
            },
            Chunk::Text { .. } => Ok(()),
            Chunk::Whole(whole) => {
                response.usage = whole.usage.or(response.usage);
                whole.choices.iter().filter(|choice| choice.index == 0).try_for_each(|c| response.choice(c, out))
            }
        }
    }

    /// The terminal marker came. The last event is kept apart: see [`Shaper::take_closing`].
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let response = &mut self.response;
        response.begin(out);
        let reason = match response.finish.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            _ => None,
        };
        response.close(None, if reason.is_some() { Status::Incomplete } else { Status::Completed }, out);
        let (kind, status) = match reason {
            None => ("response.completed", "completed"),
            Some(_) => ("response.incomplete", "incomplete"),
        };
        let details = reason.map_or_else(|| "null".to_owned(), |reason| format!(r#"{{"reason":"{reason}"}}"#));
        self.closing = Some(response.closing(kind, response.json(status, "null", &details)));
    }

    /// The answer broke off: it never looks complete.
    pub fn fail(&mut self, error: &Error, out: &mut Vec<u8>) {
        let response = &mut self.response;
        response.begin(out);
        response.break_off();
        let public = error.public();
        let shown = json!({"code": public.code, "message": public.message}).to_string();
        self.closing = Some(response.closing("response.failed", response.json("failed", &shown, "null")));
    }

    /// The client is gone: what came is kept, and nobody is told.
    pub fn cancel(&mut self) {
        self.response.break_off();
        let response = self.response.json("cancelled", "null", "null");
        self.closing = Some(Closing { response, event: Vec::new() });
    }

    /// How it ended, once. The event that says so leaves after everything else, when the response is stored.
    pub fn take_closing(&mut self) -> Option<Closing> {
        self.closing.take()
    }
}

impl Response {
    /// An event that has the response in it.
    fn event(&mut self, out: &mut Vec<u8>, kind: &str, response: &[u8]) {
        write::event(out, kind, self.sequence, |fields| {
            fields.raw("response", response);
        });
        self.sequence += 1;
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        let response = self.json("in_progress", "null", "null");
        self.event(out, "response.created", &response);
        self.event(out, "response.in_progress", &response);
    }

    fn choice(&mut self, choice: &Choice, out: &mut Vec<u8>) -> Result<(), Error> {
        let delta = &choice.delta;
        self.think(&delta.thinking, out)?;
        // Those of a thought are of no part that is shown with any.
        if self.shape.logprobs && delta.thinking.is_empty() {
            logprobs::append(&choice.logprobs, &mut self.logprobs);
        }
        self.say(Speech::Text, &delta.content, out)?;
        self.say(Speech::Refusal, &delta.refusal, out)?;
        for call in &delta.calls {
            self.call(call, out)?;
        }
        if choice.finish.is_some() {
            self.finish.clone_from(&choice.finish);
        }
        Ok(())
    }

    fn think(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let summary = self.shape.summary;
        let open =
            matches!(self.items.last(), Some(Item { kind: Kind::Reasoning { .. }, status: Status::Running, .. }));
        if !open {
            self.add("rs_", Kind::Reasoning { text: String::new(), summary }, out)?;
            self.last_added(out);
            let (id, place) = self.last();
            let (kind, index) = match summary {
                true => ("response.reasoning_summary_part.added", "summary_index"),
                false => ("response.content_part.added", "content_index"),
            };
            write::event(out, kind, self.sequence, |fields| {
                fields.text("item_id", &id).number("output_index", place).number(index, 0);
                fields.raw("part", &thought("", summary));
            });
            self.sequence += 1;
        }
        let Some(Item { id, place, kind: Kind::Reasoning { text: whole, .. }, .. }) = self.items.last_mut() else {
            return Ok(());
        };
        whole.push_str(text);
        let (kind, index) = match summary {
            true => ("response.reasoning_summary_text.delta", "summary_index"),
            false => ("response.reasoning_text.delta", "content_index"),
        };
        write::event(out, kind, self.sequence, |fields| {
            fields.text("item_id", id).number("output_index", *place).number(index, 0).text("delta", text);
        });
        self.sequence += 1;
        Ok(())
    }

    fn say(&mut self, speech: Speech, text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let open = matches!(self.items.last(), Some(Item { kind: Kind::Message { .. }, status: Status::Running, .. }));
        if !open {
            self.add("msg_", Kind::Message { parts: Vec::new() }, out)?;
            self.last_added(out);
        }
        let same = match self.items.last() {
            Some(Item { kind: Kind::Message { parts }, .. }) => parts.last().is_some_and(|part| part.speech == speech),
            _ => false,
        };
        if !same {
            self.part_done(out);
            self.part_added(speech, out)?;
        }
        let Some(Item { id, place, kind: Kind::Message { parts }, .. }) = self.items.last_mut() else { return Ok(()) };
        let index = parts.len() as u64 - 1;
        let news = if speech == Speech::Text { std::mem::take(&mut self.logprobs) } else { Vec::new() };
        if let Some(part) = parts.last_mut() {
            part.text.push_str(text);
            if !news.is_empty() {
                if !part.logprobs.is_empty() {
                    part.logprobs.push(b',');
                }
                part.logprobs.extend_from_slice(&news);
            }
        }
        let kind = match speech {
            Speech::Text => "response.output_text.delta",
            Speech::Refusal => "response.refusal.delta",
        };
        write::event(out, kind, self.sequence, |fields| {
            fields.text("item_id", id).number("output_index", *place).number("content_index", index);
            fields.text("delta", text);
            if speech == Speech::Text {
                fields.list("logprobs", &news);
            }
        });
        self.sequence += 1;
        Ok(())
    }

    /// A fragment of a call. Calls stay open to the end: some servers send the fragments of several by turns.
    fn call(&mut self, call: &Call, out: &mut Vec<u8>) -> Result<(), Error> {
        let at = match self.place(call) {
            Some(at) => at,
            None => {
                let index = Some(call.index.unwrap_or(self.items.len() as u64));
                let kind = Kind::Call { index, id: None, name: None, arguments: String::new(), shown: false };
                self.add("fc_", kind, out)?;
                self.items.len() - 1
            }
        };
        let Item { kind: Kind::Call { id, name, arguments, shown, .. }, .. } = &mut self.items[at] else {
            return Ok(());
        };
        *id = id.take().or_else(|| call.id.clone());
        *name = name.take().or_else(|| call.name.clone());
        let from = if *shown { arguments.len() } else { 0 };
        arguments.push_str(&call.arguments);
        if name.is_some() {
            self.show(at, from, out);
        }
        Ok(())
    }

    /// Tell of a call whose name is known, and of its arguments from `from` on.
    fn show(&mut self, at: usize, from: usize, out: &mut Vec<u8>) {
        let item = &mut self.items[at];
        let Kind::Call { shown, .. } = &mut item.kind else { return };
        if !std::mem::replace(shown, true) {
            write::added(out, self.sequence, item.place, &item.json());
            self.sequence += 1;
        }
        let Kind::Call { arguments, .. } = &item.kind else { return };
        if arguments.len() > from {
            write::event(out, "response.function_call_arguments.delta", self.sequence, |fields| {
                fields.text("item_id", &item.id).number("output_index", item.place);
                fields.text("delta", &arguments[from..]);
            });
            self.sequence += 1;
        }
    }

    /// The open call that a fragment continues: the last with its index, or the last of all. Some servers give all
    /// calls the index 0, or none: another id, or without an id another name, begins another.
    fn place(&self, call: &Call) -> Option<usize> {
        let same = |item: &Item| match &item.kind {
            Kind::Call { index, .. } => {
                item.status == Status::Running && (call.index.is_none() || *index == call.index)
            }
            _ => false,
        };
        let at = self.items.iter().rposition(same)?;
        let Kind::Call { id, name, .. } = &self.items[at].kind else { return None };
        let begins = match (&call.id, id) {
            (Some(id), Some(of_known)) => id != of_known,
            (None, _) => call.index.is_none() && call.name.is_some() && name.is_some(),
            (Some(_), None) => false,
        };
        (!begins).then_some(at)
    }

    /// Another item. A call leaves other calls open; everything else that is open is complete by now.
    fn add(&mut self, prefix: &str, kind: Kind, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.items.len() >= MOST_ITEMS {
            return Err(Error::InvalidEvent);
        }
        let calls_on = matches!(kind, Kind::Call { .. });
        self.close(calls_on.then_some(()), Status::Completed, out);
        let place = self.items.len() as u64;
        let suffix = self.shape.id.split_once('_').map_or("", |(_, suffix)| suffix);
        let id = format!("{prefix}{suffix}{place:03x}");
        self.items.push(Item { id, place, kind, status: Status::Running });
        Ok(())
    }

    fn last(&self) -> (String, u64) {
        self.items.last().map(|item| (item.id.clone(), item.place)).unwrap_or_default()
    }

    fn last_added(&mut self, out: &mut Vec<u8>) {
        if let Some(item) = self.items.last() {
            write::added(out, self.sequence, item.place, &item.json());
            self.sequence += 1;
        }
    }

    fn part_added(&mut self, speech: Speech, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some(Item { id, place, kind: Kind::Message { parts }, .. }) = self.items.last_mut() else { return Ok(()) };
        if parts.len() >= MOST_ITEMS {
            return Err(Error::InvalidEvent);
        }
        let part = Part::new(speech);
        write::event(out, "response.content_part.added", self.sequence, |fields| {
            fields.text("item_id", id).number("output_index", *place).number("content_index", parts.len() as u64);
            fields.raw("part", &part.json());
        });
        self.sequence += 1;
        parts.push(part);
        Ok(())
    }

    /// The part of the message that is being written is complete, if there is one.
    fn part_done(&mut self, out: &mut Vec<u8>) {
        let Some(item @ Item { kind: Kind::Message { .. }, .. }) = self.items.last() else { return };
        self.sequence = write::part_done(out, self.sequence, item);
    }

    /// All open items are complete, or those that are no calls; the last one has `status`.
    fn close(&mut self, but_calls: Option<()>, status: Status, out: &mut Vec<u8>) {
        for at in 0..self.items.len() {
            let is_call = matches!(self.items[at].kind, Kind::Call { .. });
            if self.items[at].status != Status::Running || (is_call && but_calls.is_some()) {
                continue;
            }
            if is_call {
                // One without a name is shown all the same: it came.
                let from = match &self.items[at].kind {
                    Kind::Call { shown: true, arguments, .. } => arguments.len(),
                    _ => 0,
                };
                self.show(at, from, out);
            }
            self.sequence = write::part_done(out, self.sequence, &self.items[at]);
            let last = at + 1 == self.items.len();
            let item = &mut self.items[at];
            item.status = if last { status } else { Status::Completed };
            write::done(out, self.sequence, item.place, &item.json());
            self.sequence += 1;
        }
    }

    /// What is open stays unfinished.
    fn break_off(&mut self) {
        for item in &mut self.items {
            if item.status == Status::Running {
                item.status = Status::Incomplete;
            }
        }
    }

    fn closing(&mut self, kind: &str, response: Vec<u8>) -> Closing {
        let mut event = Vec::with_capacity(response.len() + 96);
        self.event(&mut event, kind, &response);
        Closing { response, event }
    }

    fn json(&self, status: &str, error: &str, incomplete_details: &str) -> Vec<u8> {
        let head = &self.shape.head;
        let mut out = Vec::with_capacity(head.len() + 512);
        out.extend_from_slice(head.as_bytes());
        let state =
            format!(r#","status":"{status}","error":{error},"incomplete_details":{incomplete_details},"output":["#);
        out.extend_from_slice(state.as_bytes());
        let shown = self.items.iter().filter(|item| item.status != Status::Running);
        for (place, item) in shown.enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&item.json());
        }
        out.extend_from_slice(b"],\"usage\":");
        out.extend_from_slice(usage(self.usage).as_bytes());
        out.push(b'}');
        out
    }
}

fn usage(usage: Option<Usage>) -> String {
    let Some(Usage { prompt: Some(input), completion: Some(output), total, cached, reasoning }) = usage else {
        return "null".to_owned();
    };
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": cached.unwrap_or(0), "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning.unwrap_or(0)},
        "total_tokens": total.unwrap_or(input + output),
    })
    .to_string()
}
