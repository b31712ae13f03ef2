//! The messages of a chat in the form in which they are compared: what clients write differently and mean alike has
//! one digest, so that a conversation is recognised when it is sent again.
//!
//! Compared are the role, the content, the tool calls and the call that a result answers. A text is compared without
//! the white space around it, a string like the one text part that it stands for, JSON without the order of its keys.
//! What a model thought is no part of it: clients drop it, keep it or rename it.

use std::ops::Range;

use ring::digest::{Context, SHA256};
use serde_json::Value as Json;

use super::scan::Scanned;
use crate::json::{self, Cursor, JsonError, Kind, Text, Value};

/// Half of a SHA-256: enough that nobody finds two messages with the same one.
pub type Digest = [u8; 16];

const OPENING: &str = "<think>";
const CLOSING: &str = "</think>";

/// One message of a request or of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// Where it lies in the body.
    pub at: Range<usize>,
    /// Of everything that is compared.
    pub digest: Digest,
    /// The ids of the tools that it calls.
    pub calls: Vec<String>,
    /// The call that it is the result of.
    pub answers: Option<String>,
}

/// The messages of a scanned body, in their order.
pub fn messages(body: &[u8], scanned: &Scanned) -> Result<Vec<Message>, JsonError> {
    let Some(at) = field(body, scanned, "messages") else { return Ok(Vec::new()) };
    let text = json::text(&body[at.clone()])?;
    let mut cursor = Cursor::new(text);
    let mut found = Vec::with_capacity(scanned.message_count);
    if cursor.peek()? != Kind::Array {
        return Ok(found);
    }
    let mut items = cursor.array()?;
    while items.next(&mut cursor)? {
        let start = cursor.position();
        let mut message = read(&mut cursor)?;
        message.at = at.start + start..at.start + cursor.position();
        found.push(message);
    }
    Ok(found)
}

/// One message that stands alone.
pub fn message(text: &[u8]) -> Result<Message, JsonError> {
    let mut cursor = Cursor::new(json::text(text)?);
    let mut found = read(&mut cursor)?;
    cursor.finish()?;
    found.at = 0..text.len();
    Ok(found)
}

/// Where the value of a top-level field lies.
pub fn field(body: &[u8], scanned: &Scanned, name: &str) -> Option<Range<usize>> {
    let members = &scanned.places.members;
    members.iter().find(|member| json::means(&body[member.key.clone()], name)).map(|member| member.value.clone())
}

/// The body with `texts`, which are messages, before its first message that is not the system's.
pub fn inject(body: &[u8], messages: &[Message], texts: &[&[u8]]) -> Option<Vec<u8>> {
    let first = messages.iter().find(|message| !is_system(&message.role))?;
    let at = first.at.start;
    let mut out = Vec::with_capacity(body.len() + texts.iter().map(|text| text.len() + 1).sum::<usize>());
    out.extend_from_slice(&body[..at]);
    for text in texts {
        out.extend_from_slice(text);
        out.push(b',');
    }
    out.extend_from_slice(&body[at..]);
    Some(out)
}

/// The digests of conversations that grow by one message each, behind one with the digest `previous`.
pub fn chain<'a>(previous: &[u8], digests: impl IntoIterator<Item = &'a [u8]>) -> Vec<Digest> {
    let mut last = previous.to_vec();
    let step = |digest: &'a [u8]| {
        let mut context = Context::new(&SHA256);
        context.update(&last);
        context.update(digest);
        let next = half(context);
        last = next.to_vec();
        next
    };
    digests.into_iter().map(step).collect()
}

/// A message of these is not compared: assistants have prompts of their own, and clients put dates in theirs.
pub fn is_system(role: &str) -> bool {
    role == "system" || role == "developer"
}

/// What a model thought in front of its answer, where a server leaves it in the text.
pub fn without_thoughts(text: &str) -> &str {
    let rest = text.trim_start();
    match rest.strip_prefix(OPENING).and_then(|thoughts| thoughts.split_once(CLOSING)) {
        Some((_, said)) => said.trim_start(),
        None => text,
    }
}

#[derive(Default)]
struct Fields<'a> {
    content: Option<Value<'a>>,
    refusal: Option<Value<'a>>,
    tool_calls: Option<Value<'a>>,
    function_call: Option<Value<'a>>,
    audio: Option<Value<'a>>,
}

fn read(cursor: &mut Cursor<'_>) -> Result<Message, JsonError> {
    let (mut role, mut answers, mut fields) = (String::new(), None, Fields::default());
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        let value = cursor.value()?;
        match &*key.decode() {
            "role" => role = value.as_text().map(|text| text.decode().into_owned()).unwrap_or_default(),
            "tool_call_id" => answers = value.as_text().map(|text| text.decode().into_owned()),
            "content" => fields.content = Some(value),
            "refusal" => fields.refusal = Some(value),
            "tool_calls" => fields.tool_calls = Some(value),
            "function_call" => fields.function_call = Some(value),
            "audio" => fields.audio = Some(value),
            _ => {}
        }
    }
    let mut form = Form { context: Context::new(&SHA256), calls: Vec::new() };
    form.put(b'r', role.as_bytes());
    if let Some(content) = fields.content {
        form.content(&content, role == "assistant")?;
    }
    if let Some(refusal) = fields.refusal.and_then(|refusal| refusal.as_text()) {
        form.text(b'R', &refusal, false);
    }
    if let Some(calls) = fields.tool_calls {
        form.calls(&calls)?;
    }
    if let Some(call) = fields.function_call.filter(|call| call.kind == Kind::Object) {
        form.put(b'f', b"");
        form.function(&call)?;
    }
    if let Some(audio) = fields.audio.filter(|audio| audio.kind == Kind::Object) {
        // Clients send it back by its id alone.
        if let Ok(Json::Object(fields)) = serde_json::from_str(audio.raw) {
            form.put(b'A', fields.get("id").and_then(Json::as_str).unwrap_or_default().as_bytes());
        }
    }
    if let Some(id) = &answers {
        form.put(b'i', id.as_bytes());
    }
    let Form { context, calls } = form;
    Ok(Message { role, at: 0..0, digest: half(context), calls, answers })
}

/// What is compared, as a digest takes it in: each piece with its kind and its length.
struct Form {
    context: Context,
    calls: Vec<String>,
}

impl Form {
    fn put(&mut self, kind: u8, bytes: &[u8]) {
        self.context.update(&[kind]);
        self.context.update(&(bytes.len() as u64).to_le_bytes());
        self.context.update(bytes);
    }

    fn text(&mut self, kind: u8, text: &Text<'_>, thinks: bool) {
        let meant = text.decode();
        let said = if thinks { without_thoughts(&meant) } else { &meant };
        let said = said.trim();
        if !said.is_empty() {
            self.put(kind, said.as_bytes());
        }
    }

    fn content(&mut self, content: &Value<'_>, thinks: bool) -> Result<(), JsonError> {
        if let Some(text) = content.as_text().filter(|_| content.kind == Kind::String) {
            self.text(b't', &text, thinks);
            return Ok(());
        }
        if content.kind != Kind::Array {
            return Ok(());
        }
        let mut cursor = Cursor::new(content.raw);
        let mut items = cursor.array()?;
        while items.next(&mut cursor)? {
            let part = cursor.value()?;
            if part.kind == Kind::Object {
                self.part(&part, thinks)?;
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &Value<'_>, thinks: bool) -> Result<(), JsonError> {
        let (mut kind, mut text, mut refusal) = (None, None, None);
        let mut cursor = Cursor::new(part.raw);
        let mut members = cursor.object()?;
        while let Some(key) = members.next(&mut cursor)? {
            let value = cursor.value()?;
            match &*key.decode() {
                "type" => kind = value.as_text(),
                "text" => text = value.as_text(),
                "refusal" => refusal = value.as_text(),
                _ => {}
            }
        }
        let is = |name: &str| kind.is_some_and(|kind| kind.is(name));
        match (text, refusal) {
            (Some(text), _) if is("text") => self.text(b't', &text, thinks),
            (_, Some(refusal)) if is("refusal") => self.text(b'R', &refusal, false),
            _ if is("thinking") || is("reasoning") => {}
            _ => self.json(b'o', part.raw),
        }
        Ok(())
    }

    fn calls(&mut self, calls: &Value<'_>) -> Result<(), JsonError> {
        if calls.kind != Kind::Array {
            return Ok(());
        }
        let mut cursor = Cursor::new(calls.raw);
        let mut items = cursor.array()?;
        while items.next(&mut cursor)? {
            if cursor.peek()? != Kind::Object {
                continue;
            }
            let mut members = cursor.object()?;
            let (mut id, mut function) = (String::new(), None);
            while let Some(key) = members.next(&mut cursor)? {
                let value = cursor.value()?;
                if key.is("id") {
                    id = value.as_text().map(|text| text.decode().into_owned()).unwrap_or_default();
                } else if key.is("function") || key.is("custom") {
                    function = Some(value);
                }
            }
            self.put(b'c', id.as_bytes());
            self.calls.push(id);
            if let Some(function) = function.filter(|function| function.kind == Kind::Object) {
                self.function(&function)?;
            }
        }
        Ok(())
    }

    fn function(&mut self, function: &Value<'_>) -> Result<(), JsonError> {
        let mut cursor = Cursor::new(function.raw);
        let mut members = cursor.object()?;
        let (mut name, mut arguments) = (None, None);
        while let Some(key) = members.next(&mut cursor)? {
            let value = cursor.value()?;
            if key.is("name") {
                name = value.as_text();
            } else if key.is("arguments") || key.is("input") {
                arguments = value.as_text();
            }
        }
        self.put(b'n', name.map(|name| name.decode()).unwrap_or_default().as_bytes());
        let arguments = arguments.map(|text| text.decode()).unwrap_or_default();
        match arguments.trim() {
            "" => self.put(b'a', b"{}"),
            text => self.json(b'a', text),
        }
        Ok(())
    }

    /// Without the order of keys and the space between them; what is no JSON, as it is.
    fn json(&mut self, kind: u8, text: &str) {
        match serde_json::from_str::<Json>(text) {
            Ok(value) => {
                let mut out = Vec::with_capacity(text.len());
                write(&value, &mut out);
                self.put(kind, &out);
            }
            Err(_) => self.put(kind, text.as_bytes()),
        }
    }
}

/// Not deeper than serde_json reads: 128.
fn write(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (key, value) in fields {
                json::quote(out, key);
                out.push(b':');
                write(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Json::Array(items) => {
            out.push(b'[');
            for item in items {
                write(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Json::String(text) => json::quote(out, text),
        plain => out.extend_from_slice(plain.to_string().as_bytes()),
    }
}

fn half(context: Context) -> Digest {
    let whole = context.finish();
    let mut digest = Digest::default();
    digest.copy_from_slice(&whole.as_ref()[..16]);
    digest
}
