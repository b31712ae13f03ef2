//! Log-probabilities that the gateway has asked for: asked in a request, weighed in the answer, and taken out of it.

use std::ops::Range;

use crate::chat::escapes::{decoded_length, mask_surrogates};
use crate::chat::rewrite::{apply, Splice};
use crate::json::{self, Cursor, JsonError, Kind, Value};
use crate::quality::certainty::{Certainty, Tally};

/// What the request asks for.
const FIELDS: [&str; 2] = ["logprobs", "top_logprobs"];
/// `n` is at most so much; an index beyond it is not followed.
const MOST_CHOICES: usize = 128;
/// More alternatives of one token than any server gives.
const MOST_TOPS: usize = 32;

/// What becomes of the log-probabilities of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logprobs {
    /// They are weighed, and stay: the client has asked for them.
    Read,
    /// They are weighed and taken out.
    Strip,
}

/// A chat's body that asks for log-probabilities with `tops` alternatives, or none where the client asks itself.
/// The body was checked before.
pub fn asked(body: &[u8], tops: u32) -> (Option<Vec<u8>>, Logprobs) {
    let Ok(text) = json::text(body) else { return (None, Logprobs::Read) };
    asked_in(text, body, tops).unwrap_or((None, Logprobs::Read))
}

fn asked_in(text: &str, body: &[u8], tops: u32) -> Result<(Option<Vec<u8>>, Logprobs), JsonError> {
    let masked = mask_surrogates(text);
    let mut cursor = Cursor::new(&masked);
    let mut members = cursor.object()?;
    let (inside, mut found): (usize, [Option<Range<usize>>; 2]) = (cursor.position(), [None, None]);
    while let Some(key) = members.next(&mut cursor)? {
        let Some(place) = FIELDS.iter().position(|name| key.is(name)) else {
            cursor.skip()?;
            continue;
        };
        let value = cursor.value()?;
        if place == 0 && value.as_bool() == Some(true) {
            return Ok((None, Logprobs::Read));
        }
        found[place] = Some(value.span());
    }
    let mut splices: Vec<Splice> = Vec::new();
    for (place, value) in ["true".to_owned(), tops.to_string()].into_iter().enumerate() {
        splices.push(match found[place].clone() {
            Some(span) => (span, value.into_bytes()),
            // A chat has its messages, so that a member follows.
            None => (inside..inside, format!(r#""{}":{value},"#, FIELDS[place]).into_bytes()),
        });
    }
    Ok((apply(body, splices), Logprobs::Strip))
}

/// The log-probabilities of one answer on their way.
#[derive(Debug)]
pub(crate) struct Reader {
    strips: bool,
    choices: Vec<Choice>,
    tops: Vec<f64>,
}

#[derive(Debug)]
struct Choice {
    index: u64,
    tally: Tally,
    text_bytes: u64,
}

/// What a chunk has of one choice.
#[derive(Default)]
struct Found<'a> {
    index: u64,
    content: Option<&'a str>,
    reasons: bool,
    /// It is a whole message, not a piece of one.
    whole: bool,
    logprobs: Option<Value<'a>>,
}

impl Reader {
    pub fn new(wanted: Logprobs) -> Self {
        Reader { strips: wanted == Logprobs::Strip, choices: Vec::new(), tops: Vec::new() }
    }

    /// Take in a chunk or a whole answer. What the client gets instead of it; `None`: the same bytes, also of what
    /// cannot be read.
    pub fn take(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let text = json::text(data).ok()?;
        let masked = mask_surrogates(text);
        match self.read(&masked) {
            Ok(splices) => apply(data, splices),
            // Python writes `NaN`, which is no JSON. As it comes because we have asked, we put it right.
            Err(_) if self.strips => {
                let repaired = without_bare_words(&masked)?;
                let splices = self.read(&repaired).ok()?;
                // The halves of characters are wrong in what was masked; such a chunk is left to fail.
                let original = without_bare_words(text).filter(|original| original.len() == repaired.len())?;
                apply(original.as_bytes(), splices).or(Some(original.into_bytes()))
            }
            Err(_) => None,
        }
    }

    /// What they say of the whole answer.
    pub fn certainty(&self) -> Certainty {
        let all = self.choices.iter().map(|choice| choice.tally.certainty(choice.text_bytes));
        Certainty::worst(all).unwrap_or(Certainty::Unknown("no_text"))
    }

    fn read(&mut self, text: &str) -> Result<Vec<Splice>, JsonError> {
        let mut cursor = Cursor::new(text);
        let (mut found, mut place) = (Vec::new(), 0);
        let mut members = cursor.object()?;
        while let Some(key) = members.next(&mut cursor)? {
            if !key.is("choices") || cursor.peek()? != Kind::Array {
                cursor.skip()?;
                continue;
            }
            let mut items = cursor.array()?;
            while items.next(&mut cursor)? {
                let mut choice = Found { index: place, ..Found::default() };
                if cursor.peek()? == Kind::Object {
                    read_choice(&mut cursor, &mut choice)?;
                    found.push(choice);
                } else {
                    cursor.skip()?;
                }
                place += 1;
            }
        }
        cursor.finish()?;
        let mut splices = Vec::new();
        for choice in &found {
            self.choice(choice);
            if let Some(value) = choice.logprobs.filter(|value| self.strips && !value.is_null()) {
                splices.push((value.span(), b"null".to_vec()));
            }
        }
        Ok(splices)
    }

    fn choice(&mut self, found: &Found<'_>) {
        let at = match self.choices.iter().position(|choice| choice.index == found.index) {
            Some(at) => at,
            None if self.choices.len() >= MOST_CHOICES => return,
            None => {
                self.choices.push(Choice { index: found.index, tally: Tally::default(), text_bytes: 0 });
                self.choices.len() - 1
            }
        };
        let content = found.content.unwrap_or_default();
        self.choices[at].text_bytes += decoded_length(content);
        let Some(value) = found.logprobs.filter(|value| !value.is_null()) else { return };
        // Tokens of a piece of thinking, which the server tells apart itself.
        if found.reasons && content.is_empty() && !found.whole {
            return;
        }
        let tokens = tokens_of(value.raw);
        // Some servers count the thinking in: then the answer's tokens are the last of them.
        let from = if found.reasons && found.whole { beginning(&tokens, content) } else { 0 };
        let tally = &mut self.choices[at].tally;
        if tokens.is_empty() && value.kind != Kind::Object {
            tally.token(b"", None, &[]);
        }
        for token in &tokens[from..] {
            self.tops.clear();
            self.tops.extend(token.tops.iter().flatten().take(MOST_TOPS));
            tally.token(token.text.as_bytes(), token.logprob, &self.tops);
        }
    }
}

#[derive(Default)]
struct Token {
    text: String,
    logprob: Option<f64>,
    tops: Vec<Option<f64>>,
}

fn read_choice<'a>(cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), JsonError> {
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        let key = key.decode();
        match &*key {
            "index" => found.index = cursor.value()?.as_u64().unwrap_or(found.index),
            "logprobs" => found.logprobs = Some(cursor.value()?),
            "delta" | "message" if cursor.peek()? == Kind::Object => {
                found.whole = key == "message";
                let mut message = cursor.object()?;
                while let Some(name) = message.next(cursor)? {
                    let value = cursor.value()?;
                    match &*name.decode() {
                        "content" => found.content = value.as_text().map(|text| text.raw()),
                        "reasoning_content" | "reasoning" => {
                            found.reasons |= value.as_text().is_some_and(|text| !text.raw().is_empty());
                        }
                        _ => {}
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    Ok(())
}

/// `{"content": [{"token": …, "logprob": …, "top_logprobs": [{"logprob": …}]}]}`; whatever else it is has no tokens.
fn tokens_of(raw: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    // What was read before it went wrong counts; what is missing will be seen.
    let _ = read_tokens(&mut Cursor::new(raw), &mut tokens);
    tokens
}

fn read_tokens(cursor: &mut Cursor<'_>, tokens: &mut Vec<Token>) -> Result<(), JsonError> {
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        if !key.is("content") || cursor.peek()? != Kind::Array {
            cursor.skip()?;
            continue;
        }
        let mut items = cursor.array()?;
        while items.next(cursor)? {
            let mut token = Token::default();
            if cursor.peek()? == Kind::Object {
                read_token(cursor, &mut token)?;
            } else {
                cursor.skip()?;
            }
            tokens.push(token);
        }
    }
    Ok(())
}

fn read_token(cursor: &mut Cursor<'_>, token: &mut Token) -> Result<(), JsonError> {
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "token" => {
                token.text = cursor.value()?.as_text().map(|text| text.decode().into_owned()).unwrap_or_default()
            }
            "logprob" => token.logprob = cursor.value()?.as_f64(),
            "top_logprobs" if cursor.peek()? == Kind::Array => {
                let mut items = cursor.array()?;
                while items.next(cursor)? {
                    if cursor.peek()? != Kind::Object {
                        cursor.skip()?;
                        continue;
                    }
                    let mut top = cursor.object()?;
                    while let Some(name) = top.next(cursor)? {
                        let value = cursor.value()?;
                        if name.is("logprob") {
                            token.tops.push(value.as_f64());
                        }
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    Ok(())
}

/// The first token of the content, of tokens that may begin with those of the thinking.
fn beginning(tokens: &[Token], content: &str) -> usize {
    // The tag of a thought is looked for by the tally.
    let length = decoded_length(content) as usize;
    let (mut bytes, mut at) = (0, tokens.len());
    while at > 0 && bytes < length {
        at -= 1;
        bytes += tokens[at].text.len();
    }
    at
}

/// A JSON text with `null` for each `NaN` and `Infinity` outside of its strings; `None` where there is none.
fn without_bare_words(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let (mut out, mut rest, mut inside, mut changed) = (String::with_capacity(text.len()), text, false, false);
    while let Some(at) = rest.find(['"', '\\', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word = WORDS.iter().find(|word| !inside && from.starts_with(**word));
        let taken = match (from.as_bytes()[0], word) {
            (_, Some(word)) => {
                changed = true;
                out.push_str("null");
                rest = &from[word.len()..];
                continue;
            }
            (b'\\', _) => from.char_indices().nth(2).map_or(from.len(), |(at, _)| at),
            (b'"', _) => {
                inside = !inside;
                1
            }
            _ => 1,
        };
        out.push_str(&from[..taken]);
        rest = &from[taken..];
    }
    out.push_str(rest);
    changed.then_some(out)
}
