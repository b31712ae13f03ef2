//! The text of an answer on its way, so that its tokens can be counted where the upstream does not tell them.
//!
//! Texts come as JSON writes them and are joined as such: the halves of a character that came in two chunks are one then.
//! With a bundled encoding only the last kilobytes of each text are kept, because all before them is counted already.

use super::{
    counter::Counter,
    tokenizer::{Stop, TokenError, Tokenizer},
};
use crate::{chat::escapes, json::Cursor};
use parking_lot::Mutex;
use std::{borrow::Cow, sync::Arc};

/// A text is counted and let go when so much of it waits: at 30 MB a second and more that is 0.1 ms.
const STEP: usize = 4096;
/// An answer has a few texts. What a server invents beyond that is counted with the last one.
const MOST_TEXTS: usize = 1024;

/// Which text of an answer: each is counted by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// `content`, or `text` of a completion.
    #[default]
    Content,
    /// `refusal`
    Refusal,
    /// `reasoning_content`
    Thinking,
    /// `reasoning`: some servers send the same thought under both names.
    ThinkingAgain,
    /// The arguments of the tool call with this index.
    Arguments(u64),
    /// Its name.
    Name(u64),
}

/// A text of one choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The index of the choice.
    pub choice: u64,
    /// Which of its texts.
    pub part: Part,
}

struct Text {
    place: Place,
    /// What is not counted yet, with its escapes.
    raw: String,
    counter: Option<Counter>,
}

/// What one answer has said so far.
pub struct Said {
    tokenizer: Option<Tokenizer>,
    texts: Vec<Text>,
    last: usize,
}

/// One answer, as the relay and whoever counts in the end have it.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<Said>>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Said")
    }
}

impl Said {
    /// Nothing yet. Without a tokenizer all text is kept until `total` has one.
    pub fn new(tokenizer: Option<Tokenizer>) -> Self {
        Said { tokenizer, texts: Vec::new(), last: 0 }
    }

    /// The next part of a text, between its quotes.
    pub fn push(&mut self, place: Place, raw: &str) {
        if raw.is_empty() {
            return;
        }
        if self.texts.get(self.last).is_none_or(|text| text.place != place) {
            self.last = self.find(place);
        }
        let text = &mut self.texts[self.last];
        text.raw.push_str(raw);
        if text.raw.len() < STEP {
            return;
        }
        if let Some(tokenizer @ Tokenizer::Encoding(_)) = &self.tokenizer {
            let counter = text.counter.get_or_insert_with(|| Counter::new(tokenizer.clone()));
            let rest = text.raw.split_off(escapes::whole_characters(&text.raw));
            // A bundled encoding has tokens for every text.
            let _ = counter.feed(&decoded(&text.raw));
            text.raw = rest;
        }
    }

    /// Bytes that `total` has still to count.
    pub fn pending(&self) -> usize {
        self.texts.iter().map(|text| text.raw.len()).sum()
    }

    /// The tokens of all texts; `tokenizer` is for an answer that began without one. None: nobody has one.
    pub fn total(&mut self, tokenizer: Option<&Tokenizer>, stop: Stop<'_>) -> Result<Option<u64>, TokenError> {
        let Some(tokenizer) = self.tokenizer.clone().or_else(|| tokenizer.cloned()) else { return Ok(None) };
        let thinks: Vec<u64> =
            self.texts.iter().filter(|t| t.place.part == Part::Thinking).map(|t| t.place.choice).collect();
        let mut total = 0;
        for text in &mut self.texts {
            if text.place.part == Part::ThinkingAgain && thinks.contains(&text.place.choice) {
                continue;
            }
            let rest = decoded(&text.raw);
            total += match &mut text.counter {
                None => tokenizer.count(&rest, &mut *stop)? as u64,
                Some(counter) => {
                    counter.feed(&rest)?;
                    counter.total()? as u64
                }
            };
            if text.counter.is_some() {
                text.raw.clear();
            }
        }
        Ok(Some(total))
    }

    fn find(&mut self, place: Place) -> usize {
        let known = self.texts.iter().position(|text| text.place == place);
        known.unwrap_or_else(|| {
            if self.texts.len() < MOST_TEXTS {
                self.texts.push(Text { place, raw: String::new(), counter: None });
            }
            self.texts.len() - 1
        })
    }
}

/// The text that is meant; half of a pair that stays alone is U+FFFD.
fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let quoted = format!("\"{}\"", escapes::mask_surrogates(raw));
    let text = Cursor::new(&quoted).string().map(|text| text.decode().into_owned());
    Cow::Owned(text.unwrap_or_default())
}
