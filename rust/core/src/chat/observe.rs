//! What the gateway learns from an answer on its way: usage, finish reasons, the model's own name.
//!
//! One pass over a chunk (or a whole answer) proves that it is JSON, observes it, and notes which bytes have to
//! change. Nothing is kept of the text itself.

use std::ops::Range;

use crate::chat::escapes::{decoded_length, mask_surrogates};
use crate::chat::{usage, Operation};
use crate::json::{self, Cursor, JsonError, Kind, Text, Value};
use crate::quality::certainty::Certainty;
use crate::tokens::said::{Part, Place, Shared};

/// `n` is at most 128 in the OpenAI API; the finish of each choice is one bit.
const MAX_CHOICES: u64 = 128;
/// Names (a model, a finish reason) are cut here: they go to logs and metrics.
const MAX_NAME: usize = 256;

/// Token counts as an upstream reports them; `None` where it says nothing, or nothing credible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `prompt_tokens`
    pub prompt: Option<u64>,
    /// `completion_tokens`
    pub completion: Option<u64>,
    /// `total_tokens`
    pub total: Option<u64>,
    /// `prompt_tokens_details.cached_tokens`
    pub cached: Option<u64>,
    /// `completion_tokens_details.reasoning_tokens`
    pub reasoning: Option<u64>,
}

/// Everything observed in one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The last usage that came.
    pub usage: Option<Usage>,
    /// That usage was negative, absurd, or contradicted itself: count for yourself.
    pub usage_suspect: bool,
    /// By choice index; at most 128.
    pub finish_reasons: Vec<Option<String>>,
    /// What the upstream calls the model.
    pub model: Option<String>,
    /// Events with data; a plain answer has none.
    pub events: u64,
    /// Bytes read of the answer.
    pub bytes: u64,
    /// Bytes made of it for the client; of a plain answer its body tells.
    pub sent: u64,
    /// Bytes of generated text: content, refusal, reasoning and tool arguments, escapes resolved.
    pub content_bytes: u64,
    /// Of these the thinking, as far as it was told apart.
    pub thinking_bytes: u64,
    /// A closing tag of a thought came that nothing had opened: this model's template opens it.
    pub thought_unmatched: bool,
    /// The template was said to open a thought, and did not.
    pub thought_missed: bool,
    /// What the log-probabilities say, where they are looked at: once the answer is complete.
    pub certainty: Option<Certainty>,
    /// Where its texts are kept, if somebody may have to count their tokens.
    pub said: Option<Shared>,
    /// A bit for each choice index that was seen.
    seen: u128,
    /// A bit for each choice index that has its finish reason.
    finished: u128,
    /// A choice with an index that cannot be: only `[DONE]` can finish such a stream.
    odd_index: bool,
}

/// What has to change in an answer.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    operation: Operation,
    /// The public model name as JSON.
    model: Option<Vec<u8>>,
    /// The public id as JSON.
    id: Option<Vec<u8>>,
    hide_usage: bool,
}

/// A range of the answer to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub at: Range<usize>,
    pub with: With,
}

/// What stands there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    Nothing,
    PublicModel,
    PublicId,
}

/// What one chunk is.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// It is an error object.
    pub error: bool,
    /// It has choices.
    pub choices: usize,
    /// It has a usage object.
    pub usage: bool,
    /// One of its choices has a finish reason.
    pub finish: bool,
    /// The text inside the quotes of its generated text, where there is just one.
    pub payload: Option<Range<usize>>,
    /// That text is thinking.
    pub thinks: bool,
    /// Where its texts belong, if they are kept.
    texts: Vec<(Place, Range<usize>)>,
    payloads: usize,
}

/// Why bytes are no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Utf8,
    Json,
}

impl Observed {
    /// Nothing yet; the texts of the answer go to `said`.
    pub fn keeping(said: Option<Shared>) -> Self {
        Observed { said, ..Observed::default() }
    }

    /// Is there a finish reason for every choice that was seen, and were there as many as asked for?
    pub fn all_finished(&self, choices: u32) -> bool {
        self.seen.count_ones() >= choices.max(1) && self.seen == self.finished && !self.odd_index
    }

    /// One more piece of the text that belongs there.
    pub(crate) fn says(&self, place: Place, raw: &str) {
        if let Some(said) = &self.said {
            said.0.lock().push(place, raw);
        }
    }

    pub(crate) fn generated(&mut self, text: &str, thinks: bool) {
        let length = decoded_length(text);
        self.content_bytes += length;
        self.thinking_bytes += if thinks { length } else { 0 };
    }

    /// Bytes of everything but thinking.
    pub fn answer_bytes(&self) -> u64 {
        self.content_bytes.saturating_sub(self.thinking_bytes)
    }

    fn choice(&mut self, index: Option<u64>, finish: Option<Text<'_>>) {
        let Some(index) = index.filter(|index| *index < MAX_CHOICES) else {
            self.odd_index = true;
            return;
        };
        let bit = 1u128 << index;
        self.seen |= bit;
        if let Some(reason) = finish {
            self.finished |= bit;
            let index = index as usize;
            if self.finish_reasons.len() <= index {
                self.finish_reasons.resize(index + 1, None);
            }
            self.finish_reasons[index] = Some(name(&reason.decode()));
        }
    }

    pub(super) fn settle(&mut self, mut usage: Usage, mut suspect: bool) {
        let sum = match (usage.prompt, usage.completion) {
            (Some(prompt), Some(completion)) => Some(prompt + completion),
            _ => None,
        };
        // Some count reasoning apart from completion and only add it to the total.
        let apart = sum.zip(usage.reasoning).map(|(sum, reasoning)| sum + reasoning);
        let reasoning_apart = usage.total.is_some() && usage.total == apart;
        if usage.total.is_some() && sum.is_some() && usage.total != sum && !reasoning_apart {
            usage.total = None;
            suspect = true;
        }
        if more(usage.cached, usage.prompt) {
            usage.cached = None;
            suspect = true;
        }
        if more(usage.reasoning, usage.completion) && !reasoning_apart {
            usage.reasoning = None;
            suspect = true;
        }
        if usage != Usage::default() || suspect {
            self.usage = Some(usage);
            self.usage_suspect = suspect;
        }
    }
}

impl Rules {
    pub fn new(operation: Operation, public_model: Option<&str>, public_id: Option<&str>, hide_usage: bool) -> Self {
        let quoted = |text: &str| {
            let mut quoted = Vec::with_capacity(text.len() + 2);
            json::quote(&mut quoted, text);
            quoted
        };
        Rules { operation, model: public_model.map(quoted), id: public_id.map(quoted), hide_usage }
    }

    /// Append `bytes` with the edits made; those that begin at `moved_from` or later are moved by `moved_by`.
    pub fn splice(&self, bytes: &[u8], edits: &[Edit], moved_from: usize, moved_by: isize, out: &mut Vec<u8>) {
        let mut from = 0;
        for edit in edits {
            let by = if edit.at.start >= moved_from { moved_by } else { 0 };
            out.extend_from_slice(&bytes[from..edit.at.start.wrapping_add_signed(by)]);
            let text = match edit.with {
                With::Nothing => None,
                With::PublicModel => self.model.as_deref(),
                With::PublicId => self.id.as_deref(),
            };
            out.extend_from_slice(text.unwrap_or_default());
            from = edit.at.end.wrapping_add_signed(by);
        }
        out.extend_from_slice(&bytes[from..]);
    }

    /// Is the chunk the one that only `include_usage` brings?
    pub fn drops(&self, chunk: &Chunk) -> bool {
        self.hide_usage && chunk.usage && chunk.choices == 0
    }

    /// Read a chunk or a whole answer: prove it is a JSON object in UTF-8, observe it, note the edits in order.
    pub fn read(&self, bytes: &[u8], observed: &mut Observed, edits: &mut Vec<Edit>) -> Result<Chunk, Invalid> {
        let text = json::text(bytes).map_err(|_| Invalid::Utf8)?;
        let before = (observed.content_bytes, observed.thinking_bytes);
        let read = match self.read_text(text, observed, edits) {
            Ok(chunk) => Ok(chunk),
            Err(JsonError::LoneSurrogate { .. }) => {
                // Servers that cut text by UTF-16 units send an emoji as two deltas, half an escape each, and
                // clients put them together again. The halves are masked for reading; what is sent stays.
                (observed.content_bytes, observed.thinking_bytes) = before;
                self.read_text(&mask_surrogates(text), observed, edits).map_err(|_| Invalid::Json)
            }
            Err(_) => Err(Invalid::Json),
        };
        if let Ok(chunk) = &read {
            for (place, at) in &chunk.texts {
                observed.says(*place, &text[at.clone()]);
            }
        }
        read
    }

    fn read_text(&self, text: &str, observed: &mut Observed, edits: &mut Vec<Edit>) -> Result<Chunk, JsonError> {
        edits.clear();
        let mut chunk = Chunk::default();
        let mut cursor = Cursor::new(text);
        let mut members = cursor.object()?;
        let mut kept = false;
        while let Some(key) = members.next(&mut cursor)? {
            let mut keep = true;
            match &*key.decode() {
                "choices" => self.choices(&mut cursor, observed, &mut chunk)?,
                "model" => self.model(&mut cursor, observed, edits)?,
                "id" if self.id.is_some() => {
                    edits.push(Edit { at: cursor.value()?.span(), with: With::PublicId });
                }
                "usage" => {
                    chunk.usage |= usage::read(&mut cursor, observed)?;
                    if self.hide_usage {
                        keep = false;
                        edits.push(Edit {
                            at: member(text, key.span().start - 1, cursor.position(), kept),
                            with: With::Nothing,
                        });
                    }
                }
                "error" => chunk.error |= is_error(&cursor.value()?),
                // Older vLLM puts the error's fields at the top.
                "object" => chunk.error |= cursor.value()?.as_text().is_some_and(|object| object.is("error")),
                _ => {}
            }
            kept |= keep;
        }
        cursor.finish()?;
        if chunk.payloads > 1 {
            chunk.payload = None;
        }
        Ok(chunk)
    }

    fn model(&self, cursor: &mut Cursor<'_>, observed: &mut Observed, edits: &mut Vec<Edit>) -> Result<(), JsonError> {
        let value = cursor.value()?;
        if observed.model.is_none() {
            // Azure's first chunk has an empty one.
            let named = value.as_text().filter(|model| !model.raw().is_empty());
            observed.model = named.map(|model| name(&model.decode()));
        }
        if self.model.as_deref().is_some_and(|public| public != value.raw.as_bytes()) {
            edits.push(Edit { at: value.span(), with: With::PublicModel });
        }
        Ok(())
    }

    fn choices(&self, cursor: &mut Cursor<'_>, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
        if !matches!(self.operation, Operation::Chat | Operation::Completions) || cursor.peek()? != Kind::Array {
            return Ok(());
        }
        let mut items = cursor.array()?;
        while items.next(cursor)? {
            if cursor.peek()? == Kind::Object {
                choice(cursor, observed, chunk)?;
            }
            chunk.choices += 1;
        }
        Ok(())
    }
}

impl Chunk {
    /// Where the one text of its own belongs.
    pub fn place(&self) -> Place {
        self.texts
            .iter()
            .rfind(|(_, at)| Some(at) == self.payload.as_ref())
            .map(|(place, _)| *place)
            .unwrap_or_default()
    }

    fn payload(&mut self, text: &Text<'_>, part: Part, observed: &mut Observed) {
        observed.generated(text.raw(), false);
        if !text.raw().is_empty() {
            self.keep(text, part, observed);
            self.payloads += 1;
            self.thinks = false;
            self.payload = Some(text.span());
        }
    }

    fn keep(&mut self, text: &Text<'_>, part: Part, observed: &Observed) {
        if observed.said.is_some() {
            self.texts.push((Place { choice: 0, part }, text.span()));
        }
    }
}

fn choice(cursor: &mut Cursor<'_>, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
    // Without an index it stands for its place in the array.
    let (mut index, mut finish) = (Some(chunk.choices as u64), None);
    let first = chunk.texts.len();
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "index" => index = cursor.value()?.as_u64(),
            "finish_reason" => finish = cursor.value()?.as_text().filter(|reason| !reason.raw().is_empty()),
            "text" => payload(cursor, Part::Content, observed, chunk)?,
            "delta" | "message" if cursor.peek()? == Kind::Object => message(cursor, observed, chunk)?,
            _ => {}
        }
    }
    for (place, _) in &mut chunk.texts[first..] {
        place.choice = index.unwrap_or_default();
    }
    chunk.finish |= finish.is_some();
    observed.choice(index, finish);
    Ok(())
}

fn message(cursor: &mut Cursor<'_>, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "content" => payload(cursor, Part::Content, observed, chunk)?,
            "refusal" => payload(cursor, Part::Refusal, observed, chunk)?,
            name @ ("reasoning_content" | "reasoning") => {
                let part = if name == "reasoning" { Part::ThinkingAgain } else { Part::Thinking };
                let before = observed.content_bytes;
                payload(cursor, part, observed, chunk)?;
                observed.thinking_bytes += observed.content_bytes - before;
                chunk.thinks |= observed.content_bytes > before;
            }
            "function_call" => function(cursor, 0, observed, chunk)?,
            "tool_calls" if cursor.peek()? == Kind::Array => {
                let mut calls = cursor.array()?;
                let mut place = 0;
                while calls.next(cursor)? {
                    tool_call(cursor, place, observed, chunk)?;
                    place += 1;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn tool_call(cursor: &mut Cursor<'_>, place: u64, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
    if cursor.peek()? != Kind::Object {
        return Ok(());
    }
    let (first, mut call) = (chunk.texts.len(), place);
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        if key.is("function") {
            function(cursor, place, observed, chunk)?;
        } else if key.is("index") {
            call = cursor.value()?.as_u64().unwrap_or(place);
        }
    }
    // The index may stand behind what it is for.
    for (place, _) in &mut chunk.texts[first..] {
        if let Part::Arguments(index) | Part::Name(index) = &mut place.part {
            *index = call;
        }
    }
    Ok(())
}

fn function(cursor: &mut Cursor<'_>, call: u64, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
    if cursor.peek()? != Kind::Object {
        return Ok(());
    }
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        if key.is("arguments") {
            payload(cursor, Part::Arguments(call), observed, chunk)?;
        } else if key.is("name") && cursor.peek()? == Kind::String {
            chunk.keep(&cursor.string()?, Part::Name(call), observed);
        }
    }
    Ok(())
}

fn payload(cursor: &mut Cursor<'_>, part: Part, observed: &mut Observed, chunk: &mut Chunk) -> Result<(), JsonError> {
    if cursor.peek()? == Kind::String {
        chunk.payload(&cursor.string()?, part, observed);
    }
    Ok(())
}

fn more(part: Option<u64>, whole: Option<u64>) -> bool {
    part.zip(whole).is_some_and(|(part, whole)| part > whole)
}

/// As SDKs see it: an `error` that is null, false or empty is none.
pub(super) fn is_error(value: &Value<'_>) -> bool {
    match value.kind {
        Kind::Null => false,
        Kind::Bool => value.raw == "true",
        Kind::String => value.raw.len() > 2,
        Kind::Number => value.as_f64() != Some(0.0),
        Kind::Array | Kind::Object => true,
    }
}

fn name(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// The range to cut so that a member leaves with just one comma: `key` is its first byte, `end` lies behind its
/// value, `kept` says that a member stays before it.
fn member(text: &str, key: usize, end: usize, kept: bool) -> Range<usize> {
    let bytes = text.as_bytes();
    if kept {
        let before = bytes[..key].trim_ascii_end();
        return before.len() - usize::from(before.ends_with(b","))..end;
    }
    let after = bytes[end..].trim_ascii_start();
    match after.strip_prefix(b",") {
        Some(rest) => key..bytes.len() - rest.trim_ascii_start().len(),
        None => key..end,
    }
}
