//! One pass over a request body: is it JSON that every reader reads alike, are the known fields sane, and what
//! the gateway has to know of it.
//!
//! The rule of the route for unknown fields: they are forwarded untouched, except for those that choose another
//! server, credential or model behind the gateway's back ([`ROUTING`]), which are refused.

mod messages;
mod rules;

use std::ops::Range;

use crate::chat::Operation;
use crate::json::{self, Cursor, JsonError, Keys, Kind, Text};

use rules::{check, cut, inputs, integer, missing, refuse, shape_of, truth, wrong_type, Refusal, INTEGER_MAX};

/// Far above any real request (about 60 fields are documented), and it bounds the memory of the duplicate check.
const MAX_FIELDS: usize = 1_024;
const MAX_MODEL_BYTES: usize = 512;
/// Most requests have fewer, so that one allocation holds them.
const USUAL_FIELDS: usize = 16;
/// What a model reads of a request. `input` is that of embeddings.
const PROMPT: [&str; 7] = ["messages", "tools", "functions", "response_format", "prompt", "suffix", "input"];
const MAX_N: i64 = 128;

/// Fields by which some servers let a client choose the server, the credential or other models. Who may use
/// what is decided before the call, by `model` alone.
pub const ROUTING: [&str; 9] = [
    "api_base",
    "api_key",
    "base_url",
    "custom_llm_provider",
    "extra_headers",
    "fallbacks",
    "model_list",
    "models",
    "user_config",
];

/// A body that is refused. The status is always 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanError {
    /// The stable code, e.g. `invalid_type`.
    pub code: &'static str,
    /// What is wrong and what to do, for the client.
    pub message: String,
    /// The field, e.g. `messages[3].role`.
    pub param: Option<String>,
}

/// What the gateway knows of a body, and where in it the fields lie that it may replace.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned {
    /// `model`, where it is given and not null.
    pub model: Option<String>,
    /// `stream`; always false for embeddings, which do not stream.
    pub stream: bool,
    /// The client itself asked for `stream_options.include_usage`.
    pub include_usage: bool,
    /// `max_completion_tokens`, else `max_tokens`, else `max_output_tokens`.
    pub max_tokens: Option<u64>,
    /// How many answers are asked for; 1 where nothing is said.
    pub n: u64,
    /// `store`: the answer is to be kept.
    pub store: bool,
    /// Messages of a chat.
    pub message_count: usize,
    /// Those of them whose role is `system` or `developer`.
    pub system_count: usize,
    /// Content parts that are no text: images, audio, files. How many tokens they are, no length tells.
    pub media_count: usize,
    /// Bytes, as written, of all that becomes the prompt, media left out: messages, tools, a schema, `prompt`.
    /// No tokenizer makes more tokens of it than these, but for what a chat template adds.
    pub prompt_bytes: usize,
    /// Texts of `prompt` or `input` that are answered each for itself; 1 for a chat.
    pub input_count: usize,
    pub(super) places: Places,
}

/// Offsets into the body, for the splices of `rewrite`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Places {
    /// The length of the whole body.
    pub size: usize,
    /// Just behind the body's opening brace. A required field follows, so a comma fits behind what is put here.
    pub inside: usize,
    /// The value of `model`, null included.
    pub model: Option<Range<usize>>,
    pub stream_options: StreamOptions,
    /// All fields of the body, in its order.
    pub members: Vec<Member>,
    /// Just behind the opening bracket of `messages`.
    pub messages_inside: usize,
    /// In the order of `messages`.
    pub system_messages: Vec<SystemMessage>,
}

/// One field of the body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// The key, without its quotes.
    pub key: Range<usize>,
    pub value: Range<usize>,
}

impl Member {
    /// From the key's first quote to the value's last byte.
    pub fn span(&self) -> Range<usize> {
        self.key.start - 1..self.value.end
    }
}

/// A message of the role `system` or `developer`, and where its neighbours are: it may have to leave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SystemMessage {
    pub index: usize,
    pub at: Range<usize>,
    /// The end of the message before it, or its own start.
    pub before: usize,
    /// The start of the message behind it, or its own end.
    pub after: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum StreamOptions {
    #[default]
    Absent,
    Null(Range<usize>),
    Object {
        /// Just behind its opening brace.
        inside: usize,
        empty: bool,
        /// The value of `include_usage`, null included.
        include_usage: Option<Range<usize>>,
    },
}

/// Read a request body. What is accepted is JSON for every reader, and the known fields have the right types.
pub fn scan(operation: Operation, body: &[u8]) -> Result<Scanned, ScanError> {
    let text = json::text(body).map_err(|error| explain(error, body, None))?;
    let mut pass = Pass::new(operation, text);
    pass.run().map_err(|refusal| match refusal {
        Refusal::Json(error) => explain(error, body, pass.field),
        Refusal::Rule(error) => error,
    })?;
    Ok(pass.found)
}

struct Pass<'a> {
    operation: Operation,
    cursor: Cursor<'a>,
    /// The top-level field at which the cursor is.
    field: Option<Text<'a>>,
    found: Scanned,
    /// Of the content parts that are no text.
    media_bytes: usize,
    /// `messages`, `prompt` or `input` was there.
    required: bool,
    /// In the order in which they count.
    token_limits: [(&'static str, Option<u64>); 3],
}

impl<'a> Pass<'a> {
    fn new(operation: Operation, text: &'a str) -> Self {
        Pass {
            operation,
            cursor: Cursor::new(text),
            field: None,
            found: Scanned {
                model: None,
                stream: false,
                include_usage: false,
                max_tokens: None,
                n: 1,
                store: false,
                message_count: 0,
                system_count: 0,
                media_count: 0,
                prompt_bytes: 0,
                input_count: 1,
                places: Places { size: text.len(), ..Places::default() },
            },
            media_bytes: 0,
            required: false,
            token_limits: [("max_completion_tokens", None), ("max_tokens", None), ("max_output_tokens", None)],
        }
    }

    fn run(&mut self) -> Result<(), Refusal> {
        if self.cursor.peek()? != Kind::Object {
            // Read to the end first: what is no JSON at all, or too deep, has its own code.
            self.cursor.skip()?;
            self.cursor.finish()?;
            let message = "The body must be a JSON object: { … }.".to_owned();
            return Err(ScanError { code: "invalid_type", message, param: None }.into());
        }
        let mut members = self.cursor.object()?;
        self.found.places.inside = self.cursor.position();
        self.found.places.members.reserve(USUAL_FIELDS);
        let (mut keys, mut count) = (Keys::default(), 0);
        while let Some(key) = members.next(&mut self.cursor)? {
            self.field = Some(key);
            if !keys.insert(&key) {
                return Err(duplicate(&cut(&key.decode())).into());
            }
            count += 1;
            if count > MAX_FIELDS {
                let message = format!("The body has more than {MAX_FIELDS} fields. Send fewer.");
                return Err(ScanError { code: "invalid_value", message, param: None }.into());
            }
            let (name, at) = (key.decode(), self.cursor.position());
            self.member(&name)?;
            if self.cursor.position() == at {
                self.cursor.skip()?;
            }
            let value = at..self.cursor.position();
            if PROMPT.contains(&&*name) {
                self.found.prompt_bytes += value.len();
            }
            self.found.places.members.push(Member { key: key.span(), value });
        }
        self.field = None;
        self.cursor.finish()?;
        Ok(self.conclude()?)
    }

    /// One field of the body. What nobody reads here is skipped by the iteration, and checked as JSON all the same.
    fn member(&mut self, name: &str) -> Result<(), Refusal> {
        if name == "model" {
            return self.model();
        }
        match self.operation {
            Operation::Chat if name == "messages" => return self.messages(),
            Operation::Completions if name == "prompt" => return self.input(name, false),
            Operation::Embeddings if name == "input" => return self.input(name, true),
            Operation::Chat | Operation::Completions => match name {
                "stream" => {
                    self.found.stream = truth(&self.cursor.value()?, name)?;
                    return Ok(());
                }
                "stream_options" => return self.stream_options(),
                "store" if self.operation == Operation::Chat => {
                    self.found.store = truth(&self.cursor.value()?, name)?;
                    return Ok(());
                }
                "n" => {
                    let n = integer(&self.cursor.value()?, name, 1, MAX_N)?;
                    self.found.n = n.map_or(1, i64::unsigned_abs);
                    return Ok(());
                }
                "max_tokens" | "max_completion_tokens" | "max_output_tokens" => return self.token_limit(name),
                _ => {}
            },
            Operation::Embeddings | Operation::Models | Operation::Responses => {}
        }
        if let Some(shape) = shape_of(self.operation, name) {
            return check(&mut self.cursor, name, shape);
        }
        if ROUTING.contains(&name) {
            let message = format!(
                "'{name}' would choose a server, a credential or another model, which is the gateway's to decide. \
                 Remove it, and choose with 'model'."
            );
            return Err(refuse("invalid_value", name, message).into());
        }
        Ok(())
    }

    fn model(&mut self) -> Result<(), Refusal> {
        let value = self.cursor.value()?;
        self.found.places.model = Some(value.span());
        if value.is_null() {
            return Ok(());
        }
        let Some(text) = value.as_text() else {
            return Err(wrong_type("model", "a string", &value).into());
        };
        // Before it is decoded: an escape is never shorter than a sixth of what it is written with.
        let long = text.raw().len() > 6 * MAX_MODEL_BYTES || text.decode().len() > MAX_MODEL_BYTES;
        let model = if long { String::new() } else { text.decode().into_owned() };
        let wrong = match () {
            () if long => format!("is longer than {MAX_MODEL_BYTES} bytes"),
            () if model.is_empty() => "is empty".to_owned(),
            () if model.chars().any(char::is_control) => "has control characters in it".to_owned(),
            () => {
                self.found.model = Some(model);
                return Ok(());
            }
        };
        let message = format!("'model' {wrong}. Send the name of a model; GET /v1/models lists them.");
        Err(refuse("invalid_value", "model", message).into())
    }

    fn stream_options(&mut self) -> Result<(), Refusal> {
        const NAME: &str = "stream_options";
        if self.cursor.peek()? != Kind::Object {
            let value = self.cursor.value()?;
            if !value.is_null() {
                return Err(wrong_type(NAME, "an object", &value).into());
            }
            self.found.places.stream_options = StreamOptions::Null(value.span());
            return Ok(());
        }
        let mut members = self.cursor.object()?;
        let inside = self.cursor.position();
        let (mut empty, mut include_usage) = (true, None);
        while let Some(key) = members.next(&mut self.cursor)? {
            empty = false;
            if !key.is("include_usage") {
                continue;
            }
            let value = self.cursor.value()?;
            self.found.include_usage = truth(&value, "stream_options.include_usage")?;
            if include_usage.replace(value.span()).is_some() {
                return Err(duplicate("stream_options.include_usage").into());
            }
        }
        self.found.places.stream_options = StreamOptions::Object { inside, empty, include_usage };
        Ok(())
    }

    fn token_limit(&mut self, name: &str) -> Result<(), Refusal> {
        // The completions of the specification allow 0: with `echo` it scores a text and writes nothing.
        let least = i64::from(self.operation == Operation::Chat);
        let limit = integer(&self.cursor.value()?, name, least, INTEGER_MAX)?;
        for (known, value) in &mut self.token_limits {
            if *known == name {
                *value = limit.map(i64::unsigned_abs);
            }
        }
        Ok(())
    }

    fn input(&mut self, name: &str, embeddings: bool) -> Result<(), Refusal> {
        match self.cursor.peek()? {
            Kind::Null => return Ok(self.cursor.skip()?),
            Kind::Array => self.found.input_count = inputs(&mut self.cursor, name, embeddings)?,
            Kind::String => {
                let text = self.cursor.string()?;
                if embeddings && text.raw().is_empty() {
                    return Err(refuse("invalid_value", name, format!("'{name}' is empty. Send some text.")).into());
                }
            }
            _ => return Err(wrong_type(name, "a string or an array", &self.cursor.value()?).into()),
        }
        self.required = true;
        Ok(())
    }

    /// What can be said only when all fields are known.
    fn conclude(&mut self) -> Result<(), ScanError> {
        self.found.prompt_bytes -= self.media_bytes;
        if !self.required {
            return match self.operation {
                Operation::Chat => Err(missing("messages", "the messages of the chat as an array of objects")),
                Operation::Completions => Err(missing("prompt", "the text to be continued, or an array")),
                Operation::Embeddings => Err(missing("input", "the text to be embedded, or an array")),
                Operation::Models | Operation::Responses => Ok(()),
            };
        }
        let mut given = self.token_limits.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let Some((name, limit)) = given.next() else { return Ok(()) };
        if let Some((other, _)) = given.find(|(_, value)| *value != limit) {
            let message = format!("'{name}' and '{other}' are both given and differ. Send one of them.");
            return Err(refuse("invalid_value", other, message));
        }
        self.found.max_tokens = Some(limit);
        Ok(())
    }
}

fn duplicate(param: &str) -> ScanError {
    let message = format!("'{param}' is given twice. Send it once: readers disagree which one counts.");
    refuse("duplicate_key", param, message)
}

/// What is wrong with the JSON, in words; `field` is the top-level field in which it is.
fn explain(error: JsonError, body: &[u8], field: Option<Text<'_>>) -> ScanError {
    let at = error.at();
    let rest = body.get(at..).unwrap_or_default();
    let begins = |words: [&str; 3]| words.iter().any(|word| rest.starts_with(word.as_bytes()));
    let (code, message) = match error {
        JsonError::Utf8 { .. } => {
            ("invalid_utf8", format!("The body is not valid UTF-8: see byte {at}. Encode it as UTF-8."))
        }
        JsonError::TooDeep { .. } => (
            "json_too_deep",
            format!("The body nests objects and arrays more than {} levels deep: see byte {at}.", json::MAX_DEPTH),
        ),
        JsonError::NumberRange { .. } => {
            let name = field.map(|field| cut(&field.decode()));
            let message = match &name {
                Some(name) => format!("'{name}' holds a number that is too large or too long: see byte {at}."),
                None => format!("The body holds a number that is too large or too long: see byte {at}."),
            };
            return ScanError { code: "invalid_value", message, param: name };
        }
        JsonError::LoneSurrogate { .. } => {
            let message = "The body is not valid text: it holds half of a surrogate pair, such as \\ud800";
            ("invalid_json", format!("{message}, at byte {at}. Send whole characters."))
        }
        JsonError::Trailing { .. } => {
            ("invalid_json", format!("The body goes on behind the JSON object: see byte {at}. Send one object."))
        }
        JsonError::Syntax { .. } => {
            let what = match () {
                () if body.is_empty() => "it is empty. Send a JSON object".to_owned(),
                () if rest.is_empty() => "it ends too early".to_owned(),
                () if at == 0 && body.starts_with(b"\xef\xbb\xbf") => {
                    "it begins with a byte order mark (BOM). Send it without".to_owned()
                }
                () if begins(["NaN", "Infinity", "-Infinity"]) => {
                    format!("NaN and Infinity are no JSON numbers: see byte {at}")
                }
                () => format!("see byte {at}"),
            };
            ("invalid_json", format!("The body is not valid JSON: {what}."))
        }
    };
    ScanError { code, message, param: None }
}
