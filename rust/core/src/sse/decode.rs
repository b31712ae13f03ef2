//! Bytes to server-sent events, exactly as the WHATWG HTML standard parses them, at any split of the bytes.
//!
//! Events are slices of the read that holds them whole; only an event cut by the end of a read is copied, into
//! a buffer that is used again. Bytes are not checked for UTF-8 here: who needs text decides what is wrong text.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];
const BOM_DONE: usize = BOM.len();
/// A larger buffer is given back after its event: thousands of open streams must not each keep their largest one.
const KEEP: usize = 16 * 1024;

/// One event is larger than the decoder's limit; the decoder is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// One event, borrowed from the read or from the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// All `data` lines, joined by LF.
    pub data: &'a [u8],
    /// The `event` field; `None` where it is missing or empty (then the type is `message`).
    pub event: Option<&'a [u8]>,
    /// The last event id, which stays in force until another comes.
    pub id: &'a [u8],
    /// The `retry` field of this event, in milliseconds.
    pub retry: Option<u64>,
    /// The bytes of the event as they came: from its first field to the end of the blank line, without comments
    /// before it, and without the LF of a blank line `CR LF` (see [`Event::write_raw`]).
    pub raw: &'a [u8],
    /// Where `data` stands in `raw`; `None` if it is joined from many lines.
    pub data_at: Option<usize>,
}

/// An event that owns its text, as a library hands it out; wrong UTF-8 is replaced, as the standard says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The type, `message` where none was given.
    pub event: String,
    /// The data.
    pub data: String,
    /// The last event id.
    pub id: String,
    /// The `retry` field, in milliseconds.
    pub retry: Option<u64>,
}

/// The push decoder of one stream.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// Bytes of a byte order mark seen at the very start.
    bom: usize,
    /// The last byte was a CR that ended a line: an LF now belongs to it.
    after_cr: bool,
    /// The block that began in an earlier read.
    carry: Vec<u8>,
    /// `carry` holds an event that was handed out.
    spent: bool,
    block: Block,
    joined: Vec<u8>,
    last_id: Vec<u8>,
    retry: Option<u64>,
}

/// What is known of the block under way; all places count from its first byte.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Where the line under way begins.
    line: usize,
    data_lines: usize,
    data: (usize, usize),
    event: (usize, usize),
    id: Option<(usize, usize)>,
    retry: Option<u64>,
}

/// The events of one read: call [`Events::next`] until it gives `None`, or bytes are lost.
#[derive(Debug)]
pub struct Events<'d, 'b> {
    decoder: &'d mut Decoder,
    bytes: &'b [u8],
    at: usize,
}

/// Where a whole block lies.
enum Place {
    Read(usize, usize),
    Carry,
}

impl Decoder {
    /// A decoder whose events, as bytes on the wire, may have `limit` bytes each.
    pub fn new(limit: usize) -> Self {
        Decoder {
            limit,
            bom: 0,
            after_cr: false,
            carry: Vec::new(),
            spent: false,
            block: Block::default(),
            joined: Vec::new(),
            last_id: Vec::new(),
            retry: None,
        }
    }

    /// Take in one read.
    pub fn push<'d, 'b>(&'d mut self, bytes: &'b [u8]) -> Events<'d, 'b> {
        self.release();
        let mut at = 0;
        while self.bom < BOM_DONE && at < bytes.len() {
            if bytes[at] == BOM[self.bom] {
                self.bom += 1;
                at += 1;
            } else {
                // No mark after all: what looked like one is the beginning of the first line.
                self.carry.extend_from_slice(&BOM[..self.bom]);
                self.bom = BOM_DONE;
            }
        }
        Events { decoder: self, bytes, at }
    }

    /// The reconnection time that the stream asked for last, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Bytes of an event that is not complete; at the end of the stream they are nothing.
    pub fn pending(&self) -> usize {
        if self.spent {
            0
        } else {
            self.carry.len()
        }
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.carry.capacity() + self.joined.capacity() + self.last_id.capacity()
    }

    fn release(&mut self) {
        if self.spent {
            self.spent = false;
            clear(&mut self.carry);
            clear(&mut self.joined);
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let needed = self.carry.len() + bytes.len();
        // One more than the limit: the end of a comment's line is no part of what is measured.
        if needed > self.limit.saturating_add(1) {
            return Err(TooLarge { limit: self.limit });
        }
        append(&mut self.carry, bytes, self.limit);
        Ok(())
    }

    fn check(&self, size: usize) -> Result<(), TooLarge> {
        if size > self.limit {
            return Err(TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// The blank line: is there an event to hand out? `block_bytes` is where the block's spans point into.
    fn settle(block: &Block, last_id: &mut Vec<u8>, block_bytes: &[u8]) -> bool {
        if let Some((from, to)) = block.id {
            last_id.clear();
            last_id.extend_from_slice(&block_bytes[from..to]);
        }
        block.data_lines > 0
    }
}

impl Events<'_, '_> {
    /// The next event of this read; `None` when it is used up.
    #[allow(clippy::should_implement_trait)] // It lends: an `Iterator` cannot.
    pub fn next(&mut self) -> Result<Option<Event<'_>>, TooLarge> {
        self.decoder.release();
        let place = if self.decoder.carry.is_empty() { self.in_read()? } else { self.in_carry()? };
        let decoder = &mut *self.decoder;
        let block = match place {
            None => return Ok(None),
            Some(_) => std::mem::take(&mut decoder.block),
        };
        let raw = match place {
            Some(Place::Read(from, to)) => &self.bytes[from..to],
            _ => decoder.carry.as_slice(),
        };
        let (single, data) = if block.data_lines > 1 {
            decoder.spent = true;
            (None, decoder.joined.as_slice())
        } else {
            (Some(block.data.0), &raw[block.data.0..block.data.1])
        };
        let event = &raw[block.event.0..block.event.1];
        Ok(Some(Event {
            data,
            event: if event.is_empty() { None } else { Some(event) },
            id: &decoder.last_id,
            retry: block.retry,
            raw,
            data_at: single,
        }))
    }

    /// Blocks that lie in this read from their first byte on.
    fn in_read(&mut self) -> Result<Option<Place>, TooLarge> {
        let (bytes, decoder) = (self.bytes, &mut *self.decoder);
        let mut start = self.at;
        if decoder.after_cr && start < bytes.len() {
            decoder.after_cr = false;
            start += usize::from(bytes[start] == b'\n');
        }
        let mut line = start;
        loop {
            let Some(length) = line_length(&bytes[line..]) else {
                decoder.check(bytes.len() - start)?;
                decoder.keep(&bytes[start..])?;
                decoder.block.line = line - start;
                self.at = bytes.len();
                return Ok(None);
            };
            let end = line + length;
            let mut next = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => decoder.after_cr = true,
                }
            }
            let block = &bytes[start..];
            if length == 0 {
                self.at = next;
                if Decoder::settle(&decoder.block, &mut decoder.last_id, block) {
                    decoder.check(end + 1 - start)?;
                    return Ok(Some(Place::Read(start, end + 1)));
                }
                decoder.block = Block::default();
                start = next;
            } else if !decoder.block.field(&mut decoder.joined, decoder.limit, block, (line - start, end - start))
                && line == start
            {
                decoder.check(length)?;
                start = next;
            } else if decoder.block.retry.is_some() {
                decoder.retry = decoder.block.retry;
            }
            line = next;
        }
    }

    /// The block that began in an earlier read, and those after it.
    fn in_carry(&mut self) -> Result<Option<Place>, TooLarge> {
        let decoder = &mut *self.decoder;
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if std::mem::take(&mut decoder.after_cr) && rest[0] == b'\n' {
                decoder.keep(&rest[..1])?;
                decoder.block.line += 1;
                self.at += 1;
                continue;
            }
            let length = line_length(rest);
            let piece = length.map_or(rest, |length| &rest[..=length]);
            decoder.keep(piece)?;
            self.at += piece.len();
            if length.is_none() {
                break;
            }
            let (line, end) = (decoder.block.line, decoder.carry.len() - 1);
            decoder.after_cr = decoder.carry[end] == b'\r';
            if line == end {
                if Decoder::settle(&decoder.block, &mut decoder.last_id, &decoder.carry) {
                    decoder.check(decoder.carry.len())?;
                    decoder.spent = true;
                    return Ok(Some(Place::Carry));
                }
            } else if decoder.block.field(&mut decoder.joined, decoder.limit, &decoder.carry, (line, end)) || line > 0 {
                decoder.block.line = end + 1;
                decoder.retry = decoder.block.retry.or(decoder.retry);
                continue;
            }
            // A block without data, or a comment before the first field: nothing of it is kept.
            decoder.block = Block::default();
            clear(&mut decoder.carry);
            return self.in_read();
        }
        decoder.check(decoder.carry.len())?;
        Ok(None)
    }
}

impl Block {
    /// Take in one line, without its end; false for a comment.
    fn field(&mut self, joined: &mut Vec<u8>, limit: usize, block: &[u8], (from, to): (usize, usize)) -> bool {
        let line = &block[from..to];
        let (name, mut value) = if line.starts_with(b"data:") {
            (&line[..4], from + 5)
        } else {
            match memchr(b':', line) {
                Some(0) => return false,
                Some(colon) => (&line[..colon], from + colon + 1),
                None => (line, to),
            }
        };
        if value < to && block[value] == b' ' {
            value += 1;
        }
        match name {
            b"data" => {
                if self.data_lines == 0 {
                    self.data = (value, to);
                } else {
                    if self.data_lines == 1 {
                        joined.clear();
                        append(joined, &block[self.data.0..self.data.1], limit);
                    }
                    append(joined, b"\n", limit);
                    append(joined, &block[value..to], limit);
                }
                self.data_lines += 1;
            }
            b"event" => self.event = (value, to),
            b"id" if memchr(0, &block[value..to]).is_none() => self.id = Some((value, to)),
            b"retry" => self.retry = digits(&block[value..to]).or(self.retry),
            _ => {}
        }
        true
    }
}

impl Event<'_> {
    /// Append the event as it came, whatever the reads were.
    pub fn write_raw(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw);
        out.extend_from_slice(self.rest_of_end());
    }

    /// What `raw` lacks of its blank line. A CR alone ends it, and whether an LF follows is not known yet; after
    /// a line that ended with LF (or CR LF) it will, and clients that look for `\n\r\n` need it.
    pub fn rest_of_end(&self) -> &'static [u8] {
        if self.raw.ends_with(b"\n\r") {
            b"\n"
        } else {
            b""
        }
    }

    /// The event as text that owns itself.
    pub fn message(&self) -> Message {
        let text = |bytes: &[u8]| text(bytes).into_owned();
        Message {
            event: text(self.event.unwrap_or(b"message")),
            data: text(self.data),
            id: text(self.id),
            retry: self.retry,
        }
    }
}

/// A field as text; wrong UTF-8 is replaced, as the standard says.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// How far the line goes; most lines after an event's data are empty, so that is looked at first.
#[inline]
fn line_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'\n' | b'\r' => Some(0),
        _ => memchr2(b'\n', b'\r', bytes),
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Doubling, as a Vec does by itself, could take nearly twice `most`.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let wanted = (buffer.capacity() * 2).max(256).min(most).max(needed);
        buffer.reserve_exact(wanted - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

fn clear(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEEP {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}
