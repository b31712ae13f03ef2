//! Tokens of a chat request, from its raw JSON: messages and tools as OpenAI's cookbook counts them, and images by
//! size and detail.
//!
//! A count is exact where OpenAI has published a function that gives the API's own figure: text messages of the
//! GPT-3.5, GPT-4 and GPT-4o families, their tools with plain schemas, and images in tiles whose size is known.
//! Everything else is counted by the nearest published rule, and the count names each [`Reason`] for doubt.

mod completion;
pub mod families;
pub mod images;
pub mod pixels;
mod tools;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

pub use self::completion::{count_completion, count_input};
use self::families::Family;
use super::{
    tokenizer::{Stop, TokenError, Tokenizer},
    Memo,
};
use crate::json::{self, Cursor, JsonError, Kind, Value};
use tools::{member, text_of};

/// Before each message: `<|start|>`, the role's end, `<|message|>`.
const MESSAGE: u64 = 3;
const NAME: u64 = 1;
/// Every reply is primed with `<|start|>assistant<|message|>`.
const REPLY: u64 = 3;
/// Around the schema of a response format.
const FORMAT: u64 = 10;
/// A named `tool_choice`, beside its name.
const CHOICE: u64 = 4;

/// Without a tokenizer: one token for so many bytes. English has 4.4 bytes a token with o200k, code 3.4, Chinese 4.2,
/// so for most text this is too much rather than too little.
pub const BYTES_PER_TOKEN: u64 = 3;
/// Audio costs 10 tokens a second; so many bytes of a second's tenth has MP3 at 32 kbit/s, and more any other format.
pub const AUDIO_BYTES_PER_TOKEN: u64 = 400;
/// Of a file that came with the request.
pub const FILE_BYTES_PER_TOKEN: u64 = 4;
/// Of a file, recording or video that is only named.
pub const NAMED_FILE_TOKENS: u64 = 8192;

/// A chat sends its whole history with every turn: each text of it is counted once. 32 bytes a text: 512 KiB.
static MEMO: OnceLock<Memo> = OnceLock::new();
const MEMO_TEXTS: usize = 16_384;
/// The caller is asked whether to go on after so many bytes in short texts; in longer ones the tokenizer asks.
const ASK_EVERY: usize = 64 * 1024;
/// What a text costs beside its bytes: a million empty ones take time too.
const TEXT_COST: usize = 32;

/// Why a count is an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No tokenizer is known for the model: one token for each three bytes.
    UnknownTokenizer,
    /// Nothing is published about how messages of this model are counted: the rules of GPT-4o.
    UnpublishedModel,
    /// Calls of tools in messages: the texts of name and arguments, and three tokens each.
    ToolCalls,
    /// A tool or schema that the cookbook's rules do not cover.
    ToolSchema,
    /// The schema of a response format is counted by its text.
    ResponseFormat,
    /// A forced choice of a tool.
    ToolChoice,
    /// Nothing is published about images of this model: the tiles of GPT-4o.
    ImageModel,
    /// Bills for patches differ from the published formula by some per cent.
    ImagePatches,
    /// An image that is not in the request, or whose header cannot be read: the most that one image can cost.
    ImageSize,
    /// An image of automatic detail counts as one of high detail.
    ImageDetail,
    /// Audio: a reserve by its bytes.
    Audio,
    /// A file or video: a reserve by its bytes, or a fixed one.
    File,
    /// A part of a kind that nothing is known about: by its text.
    UnknownPart,
}

impl Reason {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::UnknownTokenizer => "unknown_tokenizer",
            Reason::UnpublishedModel => "unpublished_model",
            Reason::ToolCalls => "tool_calls",
            Reason::ToolSchema => "tool_schema",
            Reason::ResponseFormat => "response_format",
            Reason::ToolChoice => "tool_choice",
            Reason::ImageModel => "image_model",
            Reason::ImagePatches => "image_patches",
            Reason::ImageSize => "image_size",
            Reason::ImageDetail => "image_detail",
            Reason::Audio => "audio",
            Reason::File => "file",
            Reason::UnknownPart => "unknown_part",
        }
    }
}

/// The tokens of a request before its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatCount {
    /// All of them.
    pub tokens: u64,
    /// Those of images, part of `tokens`.
    pub image_tokens: u64,
    /// Why it is an estimate, each reason once; empty: the count is exact.
    pub reasons: Vec<Reason>,
}

/// Why a request cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// Not JSON.
    Json(JsonError),
    /// The body is no object, or `messages` no array.
    Shape,
    /// This message is no object.
    Message(usize),
    /// Of the tokenizer, or the caller stopped it.
    Token(TokenError),
}

impl From<JsonError> for ChatError {
    fn from(error: JsonError) -> Self {
        ChatError::Json(error)
    }
}

impl From<TokenError> for ChatError {
    fn from(error: TokenError) -> Self {
        ChatError::Token(error)
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChatError::Json(error) => write!(f, "the body is not valid JSON at byte {}", error.at()),
            ChatError::Shape => write!(f, "expected a JSON object with an array `messages`"),
            ChatError::Message(index) => write!(f, "messages[{index}]: expected an object"),
            ChatError::Token(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChatError {}

/// Count the body of a chat request. `model` decides the rules; without a tokenizer the bytes are counted.
pub fn count_chat(
    body: &[u8],
    model: &str,
    tokenizer: Option<&Tokenizer>,
    stop: Stop<'_>,
) -> Result<ChatCount, ChatError> {
    let mut tally = Tally::new(model, tokenizer, stop);
    let mut cursor = Cursor::new(json::text(body)?);
    if cursor.peek()? != Kind::Object {
        return Err(ChatError::Shape);
    }
    let mut members = cursor.object()?;
    let mut messages = false;
    while let Some(key) = members.next(&mut cursor)? {
        match key.decode().as_ref() {
            "messages" => {
                tally.messages(&mut cursor)?;
                messages = true;
            }
            "tools" => tally.tools(&mut cursor, true)?,
            "functions" => tally.tools(&mut cursor, false)?,
            "response_format" => tally.response_format(cursor.value()?)?,
            "tool_choice" | "function_call" => tally.tool_choice(cursor.value()?)?,
            _ => {}
        }
    }
    cursor.finish()?;
    if messages {
        Ok(tally.finish())
    } else {
        Err(ChatError::Shape)
    }
}

struct Tally<'t> {
    tokenizer: Option<&'t Tokenizer>,
    family: Family,
    tokens: u64,
    image_tokens: u64,
    reasons: Vec<Reason>,
    stop: Stop<'t>,
    unasked: usize,
}

impl<'t> Tally<'t> {
    fn new(model: &str, tokenizer: Option<&'t Tokenizer>, stop: Stop<'t>) -> Self {
        let family = Family::of(model);
        let mut tally =
            Tally { tokenizer, family, tokens: REPLY, image_tokens: 0, reasons: Vec::new(), stop, unasked: 0 };
        if tokenizer.is_none() {
            tally.doubt(Reason::UnknownTokenizer);
        }
        if !family.published {
            tally.doubt(Reason::UnpublishedModel);
        }
        tally
    }

    fn finish(mut self) -> ChatCount {
        self.reasons.sort_unstable();
        ChatCount { tokens: self.tokens, image_tokens: self.image_tokens, reasons: self.reasons }
    }

    fn doubt(&mut self, reason: Reason) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn text(&mut self, text: &str) -> Result<(), TokenError> {
        self.unasked += text.len() + TEXT_COST;
        if self.unasked >= ASK_EVERY {
            self.unasked = 0;
            if (self.stop)() {
                return Err(TokenError::Stopped);
            }
        }
        let memo = MEMO.get_or_init(|| Memo::new(MEMO_TEXTS));
        self.tokens += match self.tokenizer {
            Some(Tokenizer::Encoding(encoding)) => {
                memo.count_until(encoding, text, self.stop).map_err(|_| TokenError::Stopped)? as u64
            }
            Some(Tokenizer::File(file)) => {
                let [a, b, c, d, e, f, g, h] = file.id().to_be_bytes();
                // No encoding's name begins with a zero.
                let owner = [0, a, b, c, d, e, f, g, h];
                let count = || Tokenizer::File(Arc::clone(file)).count(text, self.stop);
                memo.count_by(&owner, text, count)? as u64
            }
            None => (text.len() as u64).div_ceil(BYTES_PER_TOKEN),
        };
        Ok(())
    }

    fn messages(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        if cursor.peek()? != Kind::Array {
            return Err(ChatError::Shape);
        }
        let mut items = cursor.array()?;
        let mut index = 0;
        while items.next(cursor)? {
            if cursor.peek()? != Kind::Object {
                return Err(ChatError::Message(index));
            }
            self.message(cursor)?;
            index += 1;
        }
        Ok(())
    }

    fn message(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        self.tokens += MESSAGE;
        let mut members = cursor.object()?;
        while let Some(key) = members.next(cursor)? {
            match (key.decode().as_ref(), cursor.peek()?) {
                ("content", Kind::Array) => self.parts(cursor)?,
                ("tool_calls", Kind::Array) => self.calls(cursor)?,
                ("function_call", Kind::Object) => {
                    let call = cursor.value()?;
                    self.call(call)?;
                }
                ("audio", Kind::Object) => {
                    self.doubt(Reason::Audio);
                    self.tokens += NAMED_FILE_TOKENS;
                }
                (name, Kind::String) => {
                    self.tokens += if name == "name" { NAME } else { 0 };
                    let text = cursor.string()?;
                    self.text(&text.decode())?;
                }
                // Fields of other servers, and `null`: not part of what the model reads.
                _ => {}
            }
        }
        Ok(())
    }

    fn calls(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        let mut items = cursor.array()?;
        while items.next(cursor)? {
            let call = cursor.value()?;
            let inner = match member(call, "function")? {
                Some(function) => Some(function),
                None => member(call, "custom")?,
            };
            self.call(inner.unwrap_or(call))?;
        }
        Ok(())
    }

    fn call(&mut self, call: Value<'_>) -> Result<(), ChatError> {
        self.doubt(Reason::ToolCalls);
        self.tokens += MESSAGE;
        for name in ["name", "arguments", "input"] {
            if let Some(value) = member(call, name)? {
                self.text(&text_of(value))?;
            }
        }
        Ok(())
    }

    fn parts(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        let mut items = cursor.array()?;
        while items.next(cursor)? {
            let part = cursor.value()?;
            self.part(part)?;
        }
        Ok(())
    }

    fn part(&mut self, part: Value<'_>) -> Result<(), ChatError> {
        if part.kind == Kind::String {
            self.text(&text_of(part))?;
            return Ok(());
        }
        let kind = member(part, "type")?.map(text_of).unwrap_or_default();
        match kind.as_str() {
            "text" | "refusal" | "input_text" | "output_text" | "thinking" => {
                let name = if matches!(kind.as_str(), "refusal" | "thinking") { kind.as_str() } else { "text" };
                if let Some(text) = member(part, name)? {
                    self.text(&text_of(text))?;
                }
                Ok(())
            }
            "image_url" | "input_image" => self.image(part),
            "input_audio" => self.reserve(part, "input_audio", "data", (Reason::Audio, AUDIO_BYTES_PER_TOKEN)),
            "file" => self.reserve(part, "file", "file_data", (Reason::File, FILE_BYTES_PER_TOKEN)),
            "video_url" | "audio_url" | "video" => {
                self.doubt(if kind == "audio_url" { Reason::Audio } else { Reason::File });
                self.tokens += NAMED_FILE_TOKENS;
                Ok(())
            }
            _ => {
                self.doubt(Reason::UnknownPart);
                self.text(part.raw)?;
                Ok(())
            }
        }
    }

    fn image(&mut self, part: Value<'_>) -> Result<(), ChatError> {
        // `{"image_url": {"url", "detail"}}`, or as in the Responses API `{"image_url": "…", "detail": "…"}`.
        let image = member(part, "image_url")?;
        let (url, holder) = match image {
            Some(object) if object.kind == Kind::Object => (member(object, "url")?, object),
            other => (other, part),
        };
        let detail = member(holder, "detail")?.filter(|value| !value.is_null()).map(text_of);
        let url = url.and_then(|url| url.as_text());
        let url = url.as_ref().map(json::Text::decode).unwrap_or_default();
        let (tokens, doubt) = images::image_tokens(&url, detail.as_deref(), &self.family);
        self.tokens += tokens;
        self.image_tokens += tokens;
        if let Some(reason) = doubt {
            self.doubt(reason);
        }
        Ok(())
    }

    /// Audio and files: by their bytes where these came with the request.
    fn reserve(
        &mut self,
        part: Value<'_>,
        field: &str,
        data: &str,
        (reason, bytes_per_token): (Reason, u64),
    ) -> Result<(), ChatError> {
        self.doubt(reason);
        let inner = member(part, field)?.unwrap_or(part);
        let base64 = member(inner, data)?.and_then(|data| data.as_text()).map(|data| data.raw().len() as u64);
        self.tokens += base64.map_or(NAMED_FILE_TOKENS, |length| (length * 3 / 4).div_ceil(bytes_per_token));
        Ok(())
    }

    fn response_format(&mut self, format: Value<'_>) -> Result<(), ChatError> {
        if let Some(schema) = member(format, "json_schema")? {
            self.doubt(Reason::ResponseFormat);
            self.tokens += FORMAT;
            self.text(schema.raw)?;
        }
        Ok(())
    }

    fn tool_choice(&mut self, choice: Value<'_>) -> Result<(), ChatError> {
        if choice.kind == Kind::Object {
            self.doubt(Reason::ToolChoice);
            let function = member(choice, "function")?.unwrap_or(choice);
            let name = member(function, "name")?.map(text_of).unwrap_or_default();
            self.tokens += CHOICE;
            self.text(&name)?;
        }
        Ok(())
    }
}
