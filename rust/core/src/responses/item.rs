//! The items of a response's output: what the model thought, said, refused, and the tools that it calls.

use crate::json;

/// Whether an item is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Completed,
    Incomplete,
}

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Text,
    Refusal,
}

/// A part of a message, as far as it has come.
#[derive(Debug)]
pub(super) struct Part {
    pub speech: Speech,
    pub text: String,
    /// Entries of log probabilities as JSON, parted by commas.
    pub logprobs: Vec<u8>,
}

/// What an item is.
#[derive(Debug)]
pub(super) enum Kind {
    Reasoning {
        text: String,
        /// Shown as a summary.
        summary: bool,
    },
    Message {
        /// The last one is being written.
        parts: Vec<Part>,
    },
    Call {
        /// The index by which the upstream tells its fragments.
        index: Option<u64>,
        id: Option<String>,
        name: Option<String>,
        arguments: String,
        /// The client knows of it: its name has come.
        shown: bool,
    },
}

/// One item.
#[derive(Debug)]
pub(super) struct Item {
    pub id: String,
    /// Its place in the output.
    pub place: u64,
    pub kind: Kind,
    pub status: Status,
}

impl Item {
    /// As JSON. A running item is shown empty: its text follows in events.
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(br#"{"id":"#);
        json::quote(&mut out, &self.id);
        match &self.kind {
            Kind::Reasoning { text, summary } => self.reasoning(text, *summary, &mut out),
            Kind::Message { parts } => self.message(parts, &mut out),
            Kind::Call { id, name, arguments, .. } => self.call(id.as_deref(), name.as_deref(), arguments, &mut out),
        }
        out.extend_from_slice(br#","status":"#);
        out.extend_from_slice(match self.status {
            Status::Running => br#""in_progress"}"#,
            Status::Completed => br#""completed"}"#,
            Status::Incomplete => br#""incomplete"}"#.as_slice(),
        });
        out
    }

    fn reasoning(&self, text: &str, summary: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","type":"reasoning","summary":["#);
        let shown = self.status != Status::Running;
        if shown && summary {
            out.extend_from_slice(&thought(text, true));
        }
        out.extend_from_slice(br#"],"content":["#);
        if shown && !summary {
            out.extend_from_slice(&thought(text, false));
        }
        out.extend_from_slice(br#"],"encrypted_content":null"#);
    }

    fn message(&self, parts: &[Part], out: &mut Vec<u8>) {
        out.extend_from_slice(br#","type":"message","role":"assistant","content":["#);
        if self.status != Status::Running {
            for (place, part) in parts.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&part.json());
            }
        }
        out.push(b']');
    }

    fn call(&self, id: Option<&str>, name: Option<&str>, arguments: &str, out: &mut Vec<u8>) {
        let shown = if self.status == Status::Running { "" } else { arguments };
        out.extend_from_slice(br#","type":"function_call","call_id":"#);
        json::quote(out, id.unwrap_or(&self.id));
        out.extend_from_slice(br#","name":"#);
        json::quote(out, name.unwrap_or_default());
        out.extend_from_slice(br#","arguments":"#);
        json::quote(out, shown);
    }
}

impl Part {
    pub fn new(speech: Speech) -> Self {
        Part { speech, text: String::new(), logprobs: Vec::new() }
    }

    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 72);
        match self.speech {
            Speech::Text => {
                out.extend_from_slice(br#"{"type":"output_text","annotations":[],"logprobs":["#);
                out.extend_from_slice(&self.logprobs);
                out.extend_from_slice(br#"],"text":"#);
            }
            Speech::Refusal => out.extend_from_slice(br#"{"type":"refusal","refusal":"#),
        }
        json::quote(&mut out, &self.text);
        out.push(b'}');
        out
    }
}

/// A part of what the model thought.
pub(super) fn thought(text: &str, summary: bool) -> Vec<u8> {
    let kind = if summary { "summary_text" } else { "reasoning_text" };
    let mut out = format!(r#"{{"type":"{kind}","text":"#).into_bytes();
    json::quote(&mut out, text);
    out.push(b'}');
    out
}
