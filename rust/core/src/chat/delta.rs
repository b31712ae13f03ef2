//! Reading the chunks of a streamed chat answer: text, thinking, fragments of tool calls, finish, usage.
//!
//! Most chunks differ from the one before in their text alone; those cost a comparison and the search for the string's
//! end ([`Template`]), and allocate nothing. Any other chunk is read in full.

use crate::{
    chat::{
        escapes,
        observe::{self, Observed, Usage},
        template::Template,
        usage,
    },
    json::{self, Cursor, JsonError, Kind, Text},
};
use std::ops::Range;

/// Which text a chunk adds to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// `content`
    #[default]
    Content,
    /// `reasoning_content`, or `reasoning` as OpenRouter and newer vLLM call it.
    Thinking,
    /// `refusal`
    Refusal,
    /// `tool_calls[].function.arguments` of the call with this `index`.
    Arguments(Option<u64>),
}

/// What one chunk says.
#[derive(Debug, PartialEq)]
pub enum Chunk<'a> {
    /// `[DONE]`, or no data at all.
    Nothing,
    /// Only text is new.
    Text {
        /// The index of its choice.
        choice: u64,
        /// What the text belongs to.
        part: Part,
        /// The text, escapes resolved.
        text: &'a str,
    },
    /// Anything else.
    Whole(Whole),
}

/// A chunk that was read in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// Mostly one; none in the chunk that carries the usage.
    pub choices: Vec<Choice>,
    /// The token counts, where they are credible.
    pub usage: Option<Usage>,
    /// It is an error object.
    pub error: bool,
}

/// The news of one choice. Texts are empty where the chunk has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// `index`, or its place in the array.
    pub index: u64,
    /// `finish_reason`
    pub finish: Option<String>,
    /// The rest, from `delta`.
    pub delta: Delta,
    /// `logprobs.content` as the JSON array that it is; empty where there is none.
    pub logprobs: String,
}

/// The `delta` of one choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// `content`
    pub content: String,
    /// `reasoning_content`, else `reasoning`
    pub thinking: String,
    /// `refusal`
    pub refusal: String,
    /// `tool_calls`
    pub calls: Vec<Call>,
}

/// A fragment of a tool call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// Fragments with the same index belong together; some servers leave it out.
    pub index: Option<u64>,
    /// Only in the first fragment.
    pub id: Option<String>,
    /// Only in the first fragment.
    pub name: Option<String>,
    /// A piece of JSON.
    pub arguments: String,
}

/// Reads the chunks of one answer, in their order.
#[derive(Debug, Default)]
pub struct Reader {
    template: Template,
    choice: u64,
    part: Part,
    scratch: String,
    /// The first half of a surrogate pair, as its escape, that ended the last content: servers that cut text by UTF-16
    /// units send one emoji in two chunks.
    half: String,
}

/// What is learned while a chunk is read in full.
#[derive(Default)]
struct Seen {
    /// Texts that are not empty, and the last one's part and place.
    texts: usize,
    part: Part,
    span: Range<usize>,
    /// It names a tool call: the next chunk that looks alike would name another.
    names: bool,
    /// Where the first choice's content lies.
    content: Option<Range<usize>>,
}

impl Whole {
    /// Would a chunk with another text of this part be told by that text alone?
    fn is_text_alone(&self, part: Part) -> bool {
        let [choice] = self.choices.as_slice() else { return false };
        let calls = usize::from(matches!(part, Part::Arguments(_)));
        let bare = choice.finish.is_none() && choice.logprobs.is_empty();
        bare && choice.delta.calls.len() == calls && self.usage.is_none() && !self.error
    }
}

impl Reader {
    /// Read the data of one event. An error leaves the reader as it was.
    pub fn read<'a>(&'a mut self, data: &'a [u8]) -> Result<Chunk<'a>, JsonError> {
        if let (Some(text), true) = (self.template.text(data), self.half.is_empty()) {
            let text = text.resolve(&mut self.scratch);
            return Ok(Chunk::Text { choice: self.choice, part: self.part, text });
        }
        let bare = data.trim_ascii();
        if bare.is_empty() || bare == b"[DONE]" {
            return Ok(Chunk::Nothing);
        }
        let text = json::text(data)?;
        let mut seen = Seen::default();
        let mut whole = match whole(text, &mut seen) {
            Err(JsonError::LoneSurrogate { .. }) => {
                seen = Seen::default();
                let mut read = whole_of_halves(text, &mut seen)?;
                seen.texts = 0;
                self.join_halves(text, &seen, &mut read);
                return Ok(Chunk::Whole(read));
            }
            read => read?,
        };
        self.drop_half(&mut whole);
        if seen.texts == 1 && !seen.names && whole.is_text_alone(seen.part) && self.template.learn(data, seen.span) {
            self.part = seen.part;
            self.choice = whole.choices[0].index;
        }
        Ok(Chunk::Whole(whole))
    }

    /// A half that no other half follows is a character that cannot be shown.
    fn drop_half(&mut self, whole: &mut Whole) {
        if self.half.is_empty() {
            return;
        }
        if let Some(choice) = whole.choices.first_mut() {
            self.half.clear();
            choice.delta.content.insert(0, char::REPLACEMENT_CHARACTER);
        }
    }

    /// Puts the halves of surrogate pairs in the content together; `whole` was read with each half masked.
    fn join_halves(&mut self, text: &str, seen: &Seen, whole: &mut Whole) {
        let (Some(span), Some(choice)) = (seen.content.clone(), whole.choices.first_mut()) else { return };
        let mut raw = std::mem::take(&mut self.half);
        raw.push_str(&text[span]);
        self.half = raw.split_off(escapes::whole_characters(&raw));
        let quoted = format!("\"{}\"", escapes::mask_surrogates(&raw));
        choice.delta.content = Cursor::new(&quoted).string().map(|text| text.decode().into_owned()).unwrap_or_default();
    }
}

/// Reads a chunk in which some surrogate stands alone: each such half becomes U+FFFD.
fn whole_of_halves(text: &str, seen: &mut Seen) -> Result<Whole, JsonError> {
    whole(&escapes::mask_surrogates(text), seen)
}

fn whole(text: &str, seen: &mut Seen) -> Result<Whole, JsonError> {
    let mut whole = Whole::default();
    let mut cursor = Cursor::new(text);
    let mut members = cursor.object()?;
    while let Some(key) = members.next(&mut cursor)? {
        match &*key.decode() {
            "choices" => whole.choices = choices(&mut cursor, seen)?,
            "usage" => {
                let mut observed = Observed::default();
                usage::read(&mut cursor, &mut observed)?;
                whole.usage = observed.usage;
            }
            "error" => whole.error |= observe::is_error(&cursor.value()?),
            "object" => whole.error |= cursor.value()?.as_text().is_some_and(|object| object.is("error")),
            _ => {}
        }
    }
    cursor.finish()?;
    Ok(whole)
}

fn choices(cursor: &mut Cursor<'_>, seen: &mut Seen) -> Result<Vec<Choice>, JsonError> {
    let mut found = Vec::new();
    if cursor.peek()? != Kind::Array {
        return Ok(found);
    }
    let mut items = cursor.array()?;
    while items.next(cursor)? {
        let mut choice = Choice { index: found.len() as u64, ..Choice::default() };
        if cursor.peek()? == Kind::Object {
            let mut members = cursor.object()?;
            while let Some(key) = members.next(cursor)? {
                match &*key.decode() {
                    "index" => choice.index = cursor.value()?.as_u64().unwrap_or(choice.index),
                    "finish_reason" => choice.finish = word(cursor)?,
                    "logprobs" if cursor.peek()? == Kind::Object => choice.logprobs = logprobs(cursor)?,
                    "delta" if cursor.peek()? == Kind::Object => choice.delta = delta(cursor, seen, found.is_empty())?,
                    _ => {}
                }
            }
        }
        found.push(choice);
    }
    Ok(found)
}

fn logprobs(cursor: &mut Cursor<'_>) -> Result<String, JsonError> {
    let mut found = String::new();
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "content" if cursor.peek()? == Kind::Array => found = cursor.value()?.raw.to_owned(),
            _ => cursor.skip()?,
        }
    }
    Ok(found)
}

fn delta(cursor: &mut Cursor<'_>, seen: &mut Seen, first: bool) -> Result<Delta, JsonError> {
    let mut delta = Delta::default();
    let mut reasoning = String::new();
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "content" => {
                if let Some(text) = string(cursor)? {
                    seen.content = first.then(|| text.span()).or(seen.content.take());
                    delta.content = seen.take(&text, Part::Content);
                }
            }
            "reasoning_content" => delta.thinking = seen.text(cursor, Part::Thinking)?,
            "reasoning" => reasoning = seen.text(cursor, Part::Thinking)?,
            "refusal" => delta.refusal = seen.text(cursor, Part::Refusal)?,
            "tool_calls" if cursor.peek()? == Kind::Array => delta.calls = calls(cursor, seen)?,
            _ => {}
        }
    }
    if delta.thinking.is_empty() {
        delta.thinking = reasoning;
    }
    Ok(delta)
}

fn calls(cursor: &mut Cursor<'_>, seen: &mut Seen) -> Result<Vec<Call>, JsonError> {
    let mut found = Vec::new();
    let mut items = cursor.array()?;
    while items.next(cursor)? {
        if cursor.peek()? != Kind::Object {
            continue;
        }
        let mut call = Call::default();
        let mut arguments = Seen::default();
        let mut members = cursor.object()?;
        while let Some(key) = members.next(cursor)? {
            match &*key.decode() {
                "index" => call.index = cursor.value()?.as_u64(),
                "id" => call.id = word(cursor)?,
                "function" if cursor.peek()? == Kind::Object => {
                    let mut function = cursor.object()?;
                    while let Some(key) = function.next(cursor)? {
                        match &*key.decode() {
                            "name" => call.name = word(cursor)?,
                            "arguments" => call.arguments = arguments.text(cursor, Part::Content)?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        seen.names |= call.id.is_some() || call.name.is_some();
        // The index may stand behind the arguments.
        seen.add(arguments, Part::Arguments(call.index));
        found.push(call);
    }
    // Two calls in one chunk: which of them the next one continues is not known.
    seen.names |= found.len() > 1;
    Ok(found)
}

impl Seen {
    fn text(&mut self, cursor: &mut Cursor<'_>, part: Part) -> Result<String, JsonError> {
        Ok(string(cursor)?.map(|text| self.take(&text, part)).unwrap_or_default())
    }

    fn take(&mut self, text: &Text<'_>, part: Part) -> String {
        if !text.raw().is_empty() {
            self.add(Seen { texts: 1, span: text.span(), ..Seen::default() }, part);
        }
        text.decode().into_owned()
    }

    fn add(&mut self, other: Seen, part: Part) {
        if other.texts > 0 {
            self.texts += other.texts;
            self.part = part;
            self.span = other.span;
        }
    }
}

/// A string; any other value is none.
fn string<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Text<'a>>, JsonError> {
    match cursor.peek()? {
        Kind::String => cursor.string().map(Some),
        _ => cursor.skip().map(|()| None),
    }
}

/// A string that is not empty: some servers repeat names and ids as empty strings.
fn word(cursor: &mut Cursor<'_>) -> Result<Option<String>, JsonError> {
    Ok(string(cursor)?.filter(|text| !text.raw().is_empty()).map(|text| text.decode().into_owned()))
}
