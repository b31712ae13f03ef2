//! The last chunk that was read in full, where only its generated text is expected to differ in the next one.
//!
//! A chunk that equals it before and after that text is valid JSON if the text is the inside of a valid JSON string,
//! and says nothing else that is new. It saves reading id, model and so on again for each token.

use crate::json::{Cursor, Text};
use std::ops::Range;

/// Larger chunks make no template: they are rare, and each open stream keeps one.
const MOST_BYTES: usize = 4096;

/// One chunk and the place of its text.
#[derive(Debug, Default)]
pub(crate) struct Template {
    data: Vec<u8>,
    /// The text inside the quotes; empty at 0 while there is no template.
    payload: Range<usize>,
}

impl Template {
    /// Keep a chunk whose only text lies, without its quotes, at `payload`; false if it is too large.
    pub fn learn(&mut self, data: &[u8], payload: Range<usize>) -> bool {
        if data.len() > MOST_BYTES {
            return false;
        }
        self.data.clear();
        self.data.extend_from_slice(data);
        self.payload = payload;
        true
    }

    /// The string where `data` differs from the template, if that is all that differs.
    #[inline]
    pub fn text<'a>(&self, data: &'a [u8]) -> Option<Text<'a>> {
        let (before, after) = (&self.data[..self.payload.start], &self.data[self.payload.end..]);
        if before.is_empty() || data.len() < before.len() + after.len() {
            return None;
        }
        let end = data.len() - after.len();
        if &data[..before.len()] != before || &data[end..] != after {
            return None;
        }
        // With its quotes, which `before` ends and `after` begins with.
        let quoted = simdutf8::basic::from_utf8(&data[before.len() - 1..=end]).ok()?;
        let mut cursor = Cursor::new(quoted);
        let text = cursor.string().ok()?;
        (cursor.position() == quoted.len()).then_some(text)
    }

    /// Where the text ends in the template.
    pub fn payload_end(&self) -> usize {
        self.payload.end
    }

    /// The length of the template.
    pub fn len(&self) -> usize {
        self.data.len()
    }
}
