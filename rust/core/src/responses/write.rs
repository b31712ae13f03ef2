//! One event of a response as bytes.

use super::item::{thought, Item, Kind, Speech};
use crate::json;

/// Fields of an event, each with the comma behind it; the sequence number follows them.
pub(super) struct Fields<'a> {
    out: &'a mut Vec<u8>,
}

impl Fields<'_> {
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        json::quote(self.out, value);
        self.out.push(b',');
        self
    }

    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        decimal(self.out, value);
        self.out.push(b',');
        self
    }

    /// `value` is JSON.
    pub fn raw(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(value);
        self.out.push(b',');
        self
    }

    /// `entries` are JSON, parted by commas.
    pub fn list(&mut self, name: &str, entries: &[u8]) -> &mut Self {
        self.name(name);
        self.out.push(b'[');
        self.out.extend_from_slice(entries);
        self.out.extend_from_slice(b"],");
        self
    }

    fn name(&mut self, name: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Append the event `kind`; `fill` adds its fields.
pub(super) fn event(out: &mut Vec<u8>, kind: &str, sequence: u64, fill: impl FnOnce(&mut Fields<'_>)) {
    for part in ["event: ", kind, "\ndata: {\"type\":\"", kind, "\","] {
        out.extend_from_slice(part.as_bytes());
    }
    fill(&mut Fields { out });
    out.extend_from_slice(b"\"sequence_number\":");
    decimal(out, sequence);
    out.extend_from_slice(b"}\n\n");
}

pub(super) fn decimal(out: &mut Vec<u8>, value: u64) {
    // 20 digits hold any u64.
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), value);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// An item begins; `item` is its JSON.
pub(super) fn added(out: &mut Vec<u8>, sequence: u64, place: u64, item: &[u8]) {
    event(out, "response.output_item.added", sequence, |fields| {
        fields.number("output_index", place).raw("item", item);
    });
}

/// An item is over.
pub(super) fn done(out: &mut Vec<u8>, sequence: u64, place: u64, item: &[u8]) {
    event(out, "response.output_item.done", sequence, |fields| {
        fields.number("output_index", place).raw("item", item);
    });
}

/// What ends the text of an item, before the item itself ends. Gives the next sequence number.
pub(super) fn part_done(out: &mut Vec<u8>, sequence: u64, item: &Item) -> u64 {
    let (id, place) = (&item.id, item.place);
    match &item.kind {
        Kind::Reasoning { text, summary } => {
            let (text_done, part, index) = match summary {
                true => {
                    ("response.reasoning_summary_text.done", "response.reasoning_summary_part.done", "summary_index")
                }
                false => ("response.reasoning_text.done", "response.content_part.done", "content_index"),
            };
            event(out, text_done, sequence, |fields| {
                fields.text("item_id", id).number("output_index", place).number(index, 0).text("text", text);
            });
            event(out, part, sequence + 1, |fields| {
                fields.text("item_id", id).number("output_index", place).number(index, 0);
                fields.raw("part", &thought(text, *summary));
            });
            sequence + 2
        }
        Kind::Message { parts } => {
            let Some(part) = parts.last() else { return sequence };
            let index = parts.len() as u64 - 1;
            let (kind, name) = match part.speech {
                Speech::Text => ("response.output_text.done", "text"),
                Speech::Refusal => ("response.refusal.done", "refusal"),
            };
            event(out, kind, sequence, |fields| {
                fields.text("item_id", id).number("output_index", place).number("content_index", index);
                fields.text(name, &part.text);
                if part.speech == Speech::Text {
                    fields.list("logprobs", &part.logprobs);
                }
            });
            event(out, "response.content_part.done", sequence + 1, |fields| {
                fields.text("item_id", id).number("output_index", place).number("content_index", index);
                fields.raw("part", &part.json());
            });
            sequence + 2
        }
        Kind::Call { name, arguments, .. } => {
            event(out, "response.function_call_arguments.done", sequence, |fields| {
                fields.text("item_id", id).number("output_index", place);
                fields.text("name", name.as_deref().unwrap_or_default()).text("arguments", arguments);
            });
            sequence + 1
        }
    }
}
