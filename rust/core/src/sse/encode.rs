//! Server-sent events to bytes: the way back of `decode`.

use memchr::memchr2;

use super::decode::Message;
use crate::error::Error;

/// The last event of a stream that is complete.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Append one event of the type `message`; a line break in `data` begins another data line.
pub fn data(data: &[u8], out: &mut Vec<u8>) {
    event(None, data, out);
}

/// Append one event; `name` is cut at a line break, which no field but data can hold.
pub fn event(name: Option<&[u8]>, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 8);
    if let Some(name) = name {
        field(b"event: ", name, out);
    }
    lines(b"data: ", data, out);
    out.push(b'\n');
}

/// Append a comment, which every client skips; it keeps a silent connection alive.
pub fn comment(text: &[u8], out: &mut Vec<u8>) {
    lines(b": ", text, out);
    out.push(b'\n');
}

/// Append the error event that ends a stream which failed.
pub fn error(error: &Error, out: &mut Vec<u8>) {
    event(None, &error.to_json(), out);
}

/// Append an event with all its fields; an empty id and the type `message` are left out.
pub fn message(message: &Message, out: &mut Vec<u8>) {
    if !message.id.is_empty() {
        field(b"id: ", message.id.as_bytes(), out);
    }
    if let Some(retry) = message.retry {
        field(b"retry: ", retry.to_string().as_bytes(), out);
    }
    let name = Some(message.event.as_bytes()).filter(|name| !name.is_empty() && *name != b"message");
    event(name, message.data.as_bytes(), out);
}

/// Writes the events of one stream, each with its id only where that is another than the last one's.
#[derive(Debug, Default)]
pub struct Encoder {
    last_id: String,
}

impl Encoder {
    /// Append one event. An id stays in force until another comes, so that one is taken back by an empty one.
    pub fn push(&mut self, event: &Message, out: &mut Vec<u8>) {
        if event.id == self.last_id {
            return message(&Message { id: String::new(), ..event.clone() }, out);
        }
        self.last_id.clone_from(&event.id);
        if event.id.is_empty() {
            out.extend_from_slice(b"id\n");
        }
        message(event, out);
    }
}

fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let end = memchr2(b'\n', b'\r', value).unwrap_or(value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(&value[..end]);
    out.push(b'\n');
}

fn lines(name: &[u8], mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        field(name, text, out);
        let Some(end) = memchr2(b'\n', b'\r', text) else { return };
        let pair = text[end] == b'\r' && text.get(end + 1) == Some(&b'\n');
        text = &text[end + 1 + usize::from(pair)..];
    }
}
