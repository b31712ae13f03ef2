//! Checks of a chat's whole answer that cost next to nothing: is it empty, cut off, a refusal, a loop, broken JSON?
//!
//! They say what is wrong for certain, not how good the rest is. Each that fails caps the score.

pub mod certainty;
mod text;

use serde_json::{Map, Value};

use crate::chat::think::Splitter;
pub use text::Script;

/// Of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// No text and no call of a tool.
    Empty,
    /// The end is missing: `finish_reason` is `length`, or a filter has cut it.
    Truncated,
    /// The model says that it will not.
    Refused,
    /// The same again and again at the end.
    Repeats,
    /// JSON was asked for, and this is none, or lacks what its schema requires.
    Json,
    /// A tool that was not offered, or arguments that are no JSON object.
    ToolCall,
    /// Tags of a thought stand in the text.
    ThinkTags,
    /// Most letters are of another script than the wanted one.
    Script,
    /// A text that must not be there.
    Banned,
    /// A text that must be there is not.
    Required,
}

impl Check {
    /// Its name, and the highest score that an answer has which fails it.
    pub fn describe(self) -> (&'static str, u8) {
        match self {
            Check::Empty => ("empty", 0),
            Check::Json => ("json", 0),
            Check::ToolCall => ("tool_call", 0),
            Check::Banned => ("banned", 0),
            Check::Repeats => ("repeats", 10),
            Check::Refused => ("refused", 20),
            Check::Required => ("required", 20),
            Check::Truncated => ("truncated", 30),
            Check::Script => ("script", 30),
            Check::ThinkTags => ("think_tags", 40),
        }
    }
}

/// What an assistant wants of its answers, beyond what each should be.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Most letters are of this script.
    pub script: Option<Script>,
    /// Lower case; none of them is in the text.
    pub banned: Vec<String>,
    /// Lower case; all of them are in the text.
    pub required: Vec<String>,
}

/// What was found; of several choices the worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 0 to 100; 100 says that nothing failed, not that the answer is right.
    pub score: u8,
    /// In the order of the enum.
    pub failed: Vec<Check>,
}

/// Look at a chat's whole answer. `request` is the body that asked for it. `None`: it is no answer of a chat, so that
/// nothing can be said of it.
pub fn check(request: &[u8], answer: &[u8], wanted: &Wanted) -> Option<Verdict> {
    look(request, answer, wanted, false)
}

/// As [`check`], of an answer that may not be complete: what only its end can tell is left out.
pub fn begins(request: &[u8], answer: &[u8], wanted: &Wanted) -> Option<Verdict> {
    look(request, answer, wanted, true)
}

fn look(request: &[u8], answer: &[u8], wanted: &Wanted, partial: bool) -> Option<Verdict> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let asked: Map<String, Value> = serde_json::from_slice(request).unwrap_or_default();
    let choices = answer.get("choices")?.as_array().filter(|choices| !choices.is_empty())?;
    let mut failed = Vec::new();
    for choice in choices {
        let message = choice.get("message")?.as_object()?;
        let before = failed.len();
        of_choice(&asked, choice, message, wanted, &mut failed);
        if partial && choice.get("finish_reason").is_none_or(Value::is_null) {
            let open = [Check::Empty, Check::Json, Check::ToolCall, Check::Required];
            let late: Vec<Check> = failed.drain(before..).filter(|check| !open.contains(check)).collect();
            failed.extend(late);
        }
    }
    failed.sort_unstable();
    failed.dedup();
    let score = failed.iter().map(|check| check.describe().1).min().unwrap_or(100);
    Some(Verdict { score, failed })
}

fn of_choice(
    asked: &Map<String, Value>,
    choice: &Value,
    message: &Map<String, Value>,
    wanted: &Wanted,
    failed: &mut Vec<Check>,
) {
    let content = message.get("content").and_then(Value::as_str).unwrap_or_default();
    let refusal = message.get("refusal").and_then(Value::as_str).unwrap_or_default();
    let calls = message.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut fails = |check: Check, is: bool| {
        if is {
            failed.push(check);
        }
    };
    fails(Check::Empty, content.trim().is_empty() && refusal.is_empty() && calls.is_empty());
    let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    fails(Check::Truncated, matches!(finish, "length" | "content_filter"));
    fails(Check::Refused, !refusal.is_empty() || text::refuses(content));
    fails(Check::Repeats, text::loops(content.as_bytes()));
    fails(Check::ToolCall, calls.iter().any(|call| !is_call(asked, call)));
    let (_, splitter) = Splitter::whole(content, false);
    fails(Check::ThinkTags, splitter.thought || splitter.unmatched);
    if content.trim().is_empty() {
        return;
    }
    fails(Check::Json, !is_shaped(asked, content));
    fails(Check::Script, wanted.script.is_some_and(|script| !script.is_of(content)));
    if wanted.banned.is_empty() && wanted.required.is_empty() {
        return;
    }
    let lower = content.to_lowercase();
    fails(Check::Banned, wanted.banned.iter().any(|text| lower.contains(text)));
    fails(Check::Required, !wanted.required.iter().all(|text| lower.contains(text)));
}

/// A call of a tool that was offered, with an object as its arguments.
fn is_call(asked: &Map<String, Value>, call: &Value) -> bool {
    let Some(function) = call.get("function") else { return true };
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let offered = asked.get("tools").and_then(Value::as_array).is_none_or(|tools| {
        tools.iter().any(|tool| tool.pointer("/function/name").and_then(Value::as_str) == Some(name))
    });
    let arguments = function.get("arguments").and_then(Value::as_str).unwrap_or_default();
    // Without parameters some models write nothing at all.
    let is_object = arguments.trim().is_empty() || serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
    offered && is_object
}

/// JSON, where it was asked for, with what the schema requires at its top.
fn is_shaped(asked: &Map<String, Value>, content: &str) -> bool {
    let format = asked.get("response_format");
    let kind = format.and_then(|format| format.get("type")).and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "json_object" | "json_schema") {
        return true;
    }
    let Ok(found) = serde_json::from_str::<Value>(content) else { return false };
    let required = format.and_then(|format| format.pointer("/json_schema/schema/required")).and_then(Value::as_array);
    match (kind, required) {
        ("json_schema", Some(required)) => {
            required.iter().filter_map(Value::as_str).all(|name| found.get(name).is_some())
        }
        ("json_object", _) => found.is_object(),
        _ => true,
    }
}
