//! Thinking that a model writes into its text, `<think>…</think>` before the answer, told apart while it streams.
//!
//! It works on the inside of JSON strings as they came, escapes and all, so that what is passed on keeps its bytes:
//! Go writes `<` as `\u003c`, and some servers cut an emoji into two halves of an escape. Only the start of the
//! content can open a thought. A closing tag that nothing opened (templates that put `<think>` into the prompt) counts
//! at the beginning of a line and outside of code.

/// Opening and closing tags.
const TAGS: [(&[u8], &[u8]); 4] = [
    (b"<think>", b"</think>"),
    (b"<thinking>", b"</thinking>"),
    (b"<seed:think>", b"</seed:think>"),
    (b"[THINK]", b"[/THINK]"),
];
/// White space before a tag; more is text.
const MOST_BLANKS: usize = 64;
/// A thought that may turn out to be the answer waits; beyond this it is the answer.
const MOST_PENDING: usize = 512 * 1024;
/// Stands for every character that no tag has.
const OTHER: u8 = 0xff;

/// What one piece of content was, as JSON text without its quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Thinking, without its tags and the white space before it.
    pub thinking: String,
    /// The answer.
    pub content: String,
}

/// Where the text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space and the beginning of a tag came.
    Start,
    /// In a thought; its closing tag is that of one opening, or any where the template opened it.
    Inside { tag: Option<usize>, lead: bool },
    /// A closing tag stands behind a backtick: one more behind it makes it a quotation.
    Quoted { tag: Option<usize> },
    /// Behind a thought, before the answer.
    After,
    /// At the beginning of a line of an answer that nothing opened.
    Line,
    /// Further on in such a line.
    Rest,
    /// Nothing can be a thought any more.
    Done,
}

/// One choice's text on its way.
#[derive(Clone, Debug)]
pub struct Splitter {
    place: Place,
    /// The code fence that is open: its character.
    fence: Option<u8>,
    /// What may become a tag: as it is written, and what its characters are.
    held: String,
    word: Vec<u8>,
    /// The last character of the thought.
    last: u8,
    /// A thought that is one only if its closing tag comes.
    pending: Option<String>,
    /// All of the text is at hand: what stands before an unmatched closing tag can still be a thought.
    whole: bool,
    /// The template opens the thought.
    inside: bool,
    /// A thought that says something came.
    pub thought: bool,
    /// A closing tag came that nothing had opened.
    pub unmatched: bool,
    /// The template was said to open a thought, and no closing tag came.
    pub missed: bool,
}

impl Splitter {
    /// `inside`: this model's template opens a thought, so that its text begins in one.
    pub fn new(inside: bool) -> Self {
        Splitter {
            place: Place::Start,
            fence: None,
            held: String::new(),
            word: Vec::new(),
            last: 0,
            pending: None,
            whole: false,
            inside,
            thought: false,
            unmatched: false,
            missed: false,
        }
    }

    /// Split a text that is all there.
    pub fn whole(raw: &str, inside: bool) -> (Split, Self) {
        let mut splitter = Splitter { whole: true, ..Splitter::new(inside) };
        let mut split = splitter.push(raw);
        splitter.finish(&mut split);
        (split, splitter)
    }

    /// Is the next piece content as it stands, with nothing held back? Then it is taken in; otherwise nothing happened.
    #[inline]
    pub fn passes(&mut self, raw: &str) -> bool {
        match self.place {
            Place::Done => true,
            // A line ends with an escape, in JSON.
            Place::Rest if memchr::memchr(b'\\', raw.as_bytes()).is_none() => true,
            Place::Rest | Place::Line if self.held.is_empty() => self.passes_slowly(raw),
            _ => false,
        }
    }

    fn passes_slowly(&mut self, raw: &str) -> bool {
        let (place, fence, unmatched) = (self.place, self.fence, self.unmatched);
        let split = self.push(raw);
        let passes = self.held.is_empty() && split.thinking.is_empty() && split.content.len() == raw.len();
        if !passes {
            (self.place, self.fence, self.unmatched) = (place, fence, unmatched);
            self.held.clear();
            self.word.clear();
        }
        passes
    }

    /// Take in the next piece.
    pub fn push(&mut self, raw: &str) -> Split {
        let mut split = Split::default();
        let mut at = 0;
        while at < raw.len() {
            if self.place == Place::Done {
                split.content.push_str(&raw[at..]);
                break;
            }
            let run = self.run(&raw.as_bytes()[at..]);
            if run > 0 {
                let text = &raw[at..at + run];
                if self.place == Place::Rest {
                    split.content.push_str(text);
                } else {
                    self.last = OTHER;
                    self.think(text, &mut split);
                }
                at += run;
                continue;
            }
            let (end, meaning) = unit(raw, at);
            self.step(&raw[at..end], meaning, &mut split);
            at = end;
        }
        split
    }

    /// The text has ended: what was held back is what it looked like so far.
    pub fn finish(&mut self, split: &mut Split) {
        if matches!(self.place, Place::Quoted { .. }) {
            self.close(split);
        }
        let held = std::mem::take(&mut self.held);
        self.word.clear();
        match self.place {
            Place::Inside { .. } if self.pending.is_some() => {
                self.missed = true;
                split.content.push_str(&self.pending.take().unwrap_or_default());
                split.content.push_str(&held);
            }
            Place::Inside { .. } => self.think(&held, split),
            _ => split.content.push_str(&held),
        }
        self.place = Place::Done;
    }

    /// Is something held back?
    pub fn holds(&self) -> bool {
        !self.held.is_empty() || self.pending.is_some() || matches!(self.place, Place::Quoted { .. })
    }

    /// How many of these bytes can be no part of a tag or the end of a line, where that is quickly told.
    fn run(&self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Rest => memchr::memchr(b'\\', bytes).unwrap_or(bytes.len()),
            Place::Inside { lead: false, .. } if self.word.is_empty() => {
                let end = memchr::memchr3(b'\\', b'<', b'[', bytes).unwrap_or(bytes.len());
                // What a backtick says of the tag behind it is read slowly.
                bytes[..end].iter().rposition(|byte| *byte != b'`').map_or(0, |last| last + 1)
            }
            _ => 0,
        }
    }

    /// Can no more of the text be a thought?
    pub fn is_over(&self) -> bool {
        matches!(self.place, Place::After | Place::Done)
    }

    fn step(&mut self, text: &str, meaning: u8, split: &mut Split) {
        match self.place {
            Place::Start => self.start(text, meaning, split),
            Place::Inside { tag, lead } => self.inside(text, meaning, tag, lead, split),
            Place::Quoted { tag } if meaning == b'`' => {
                let held = std::mem::take(&mut self.held);
                self.word.clear();
                self.place = Place::Inside { tag, lead: false };
                self.think(&held, split);
                self.think(text, split);
                self.last = meaning;
            }
            Place::Quoted { .. } => {
                self.close(split);
                self.step(text, meaning, split);
            }
            Place::After if is_blank(meaning) => {}
            Place::After | Place::Done => {
                self.place = Place::Done;
                split.content.push_str(text);
            }
            Place::Line => self.line(text, meaning, split),
            Place::Rest => self.rest(text, meaning, split),
        }
    }

    fn start(&mut self, text: &str, meaning: u8, split: &mut Split) {
        if self.word.is_empty() && is_blank(meaning) && self.held.len() < MOST_BLANKS {
            self.held.push_str(text);
            return;
        }
        self.word.push(meaning);
        if let Some(tag) = TAGS.iter().position(|(open, _)| *open == self.word) {
            self.held.clear();
            self.word.clear();
            self.place = Place::Inside { tag: Some(tag), lead: true };
        } else if TAGS.iter().any(|(open, _)| open.starts_with(&self.word)) {
            self.held.push_str(text);
        } else {
            // No tag: what was held is read again, as the thought that the template opened, or as the answer.
            self.place = if self.inside { Place::Inside { tag: None, lead: true } } else { Place::Line };
            self.pending = self.inside.then(String::new);
            self.again(text, split);
        }
    }

    /// Read what was held, and `text`, in the place that is now known.
    fn again(&mut self, text: &str, split: &mut Split) {
        let mut held = std::mem::take(&mut self.held);
        held.push_str(text);
        self.word.clear();
        let mut at = 0;
        while at < held.len() {
            let (end, meaning) = unit(&held, at);
            self.step(&held[at..end], meaning, split);
            at = end;
        }
    }

    fn inside(&mut self, text: &str, meaning: u8, tag: Option<usize>, lead: bool, split: &mut Split) {
        if lead && self.word.is_empty() && is_blank(meaning) {
            // Kept where it may still be the answer.
            if self.pending.is_some() {
                self.think(text, split);
            }
            return;
        }
        self.word.push(meaning);
        let closes =
            |word: &[u8]| TAGS.iter().enumerate().any(|(n, (_, close))| tag.unwrap_or(n) == n && *close == word);
        let begins = |word: &[u8]| {
            TAGS.iter().enumerate().any(|(n, (_, close))| tag.unwrap_or(n) == n && close.starts_with(word))
        };
        if closes(&self.word) {
            if self.last == b'`' {
                self.held.push_str(text);
                self.place = Place::Quoted { tag };
            } else {
                self.close(split);
            }
        } else if begins(&self.word) {
            self.held.push_str(text);
        } else {
            let held = std::mem::take(&mut self.held);
            let restarts = self.word.len() > 1;
            self.word.clear();
            self.place = Place::Inside { tag, lead: lead && held.is_empty() && restarts };
            if restarts {
                self.last = OTHER;
                self.think(&held, split);
                // This character may begin a tag itself.
                self.step(text, meaning, split);
            } else {
                self.think(text, split);
                self.last = meaning;
            }
        }
    }

    /// A closing tag has ended the thought.
    fn close(&mut self, split: &mut Split) {
        self.held.clear();
        self.word.clear();
        if let Some(pending) = self.pending.take() {
            self.think(pending.trim_start_matches(['\n', ' ']), split);
        }
        self.place = Place::After;
    }

    fn think(&mut self, text: &str, split: &mut Split) {
        if let Some(pending) = &mut self.pending {
            pending.push_str(text);
            if pending.len() > MOST_PENDING {
                self.missed = true;
                split.content.push_str(&self.pending.take().unwrap_or_default());
                self.place = Place::Done;
            }
            return;
        }
        self.thought = self.thought || !is_void(text);
        split.thinking.push_str(text);
    }

    fn line(&mut self, text: &str, meaning: u8, split: &mut Split) {
        let blank = is_blank(meaning) && meaning != b'\n' && self.held.len() < MOST_BLANKS;
        if self.word.is_empty() && blank {
            self.held.push_str(text);
            return;
        }
        self.word.push(meaning);
        let tags = self.fence.is_none();
        if tags && TAGS.iter().any(|(_, close)| *close == self.word) {
            self.unmatched = true;
            self.held.clear();
            self.word.clear();
            self.place = Place::After;
            if self.whole {
                split.thinking = trimmed(&std::mem::take(&mut split.content)).to_owned();
                self.thought = self.thought || !is_void(&split.thinking);
            }
        } else if self.word == b"```" || self.word == b"~~~" {
            self.fence = match self.fence {
                None => Some(meaning),
                Some(open) if open == meaning => None,
                open => open,
            };
            self.release(text, Place::Rest, split);
        } else if (tags && TAGS.iter().any(|(_, close)| close.starts_with(&self.word)))
            || [&b"```"[..], b"~~~"].iter().any(|fence| fence.starts_with(&self.word))
        {
            self.held.push_str(text);
        } else {
            let place = if meaning == b'\n' { Place::Line } else { Place::Rest };
            self.release(text, place, split);
        }
    }

    fn release(&mut self, text: &str, place: Place, split: &mut Split) {
        split.content.push_str(&self.held);
        split.content.push_str(text);
        self.held.clear();
        self.word.clear();
        self.place = place;
    }

    fn rest(&mut self, text: &str, meaning: u8, split: &mut Split) {
        split.content.push_str(text);
        if meaning == b'\n' {
            self.place = Place::Line;
        }
    }
}

fn is_blank(meaning: u8) -> bool {
    matches!(meaning, b' ' | b'\t' | b'\n' | b'\r')
}

/// Nothing but white space?
fn is_void(raw: &str) -> bool {
    let mut at = 0;
    while at < raw.len() {
        let (end, meaning) = unit(raw, at);
        if !is_blank(meaning) {
            return false;
        }
        at = end;
    }
    true
}

/// Without white space at both ends.
fn trimmed(raw: &str) -> &str {
    let (mut at, mut begin, mut end) = (0, None, 0);
    while at < raw.len() {
        let (next, meaning) = unit(raw, at);
        if !is_blank(meaning) {
            begin = begin.or(Some(at));
            end = next;
        }
        at = next;
    }
    &raw[begin.unwrap_or(0)..end]
}

/// The character written at `at`: where it ends, and which it is if a tag, a fence or white space can have it.
fn unit(raw: &str, at: usize) -> (usize, u8) {
    let bytes = raw.as_bytes();
    match bytes[at] {
        b'\\' => match bytes.get(at + 1) {
            Some(b'u') => {
                let digits = bytes.get(at + 2..at + 6);
                let code = digits.and_then(|digits| {
                    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
                });
                let meaning = code.and_then(|code| u8::try_from(code).ok()).filter(u8::is_ascii).unwrap_or(OTHER);
                (floor(raw, at + 6), meaning)
            }
            Some(b'n') => (at + 2, b'\n'),
            Some(b't') => (at + 2, b'\t'),
            Some(b'r') => (at + 2, b'\r'),
            Some(b'/') => (at + 2, b'/'),
            Some(_) => (floor(raw, at + 2), OTHER),
            None => (at + 1, OTHER),
        },
        byte if byte.is_ascii() => (at + 1, byte),
        _ => (at + raw[at..].chars().next().map_or(1, char::len_utf8), OTHER),
    }
}

/// What is no escape after all must not cut a character in two.
fn floor(raw: &str, at: usize) -> usize {
    let mut at = at.min(raw.len());
    while !raw.is_char_boundary(at) {
        at += 1;
    }
    at
}
