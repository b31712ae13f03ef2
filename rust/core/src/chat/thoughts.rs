//! The thinking in a chat's answer, shown apart from the content or left out, whichever way the server sends it:
//! as text in tags ([`think`](crate::chat::think)), as `reasoning_content`, or as `reasoning`.
//!
//! It changes chunks on their way; one in which nothing has to change keeps its bytes.

use std::ops::Range;

use crate::chat::escapes::{decoded_length, mask_surrogates};
use crate::chat::observe::Observed;
use crate::chat::rewrite::{apply, Splice};
use crate::chat::think::{Split, Splitter};
use crate::json::{self, Cursor, JsonError, Kind};

/// The field that thinking is shown in.
const SHOWN: &str = "reasoning_content";
/// Fields of a message that hold thinking as text; the first that has some counts.
const FIELDS: [&str; 2] = [SHOWN, "reasoning"];
/// What else holds thinking, in other shapes: OpenRouter's details, LiteLLM's blocks.
const OTHERS: [&str; 4] = ["reasoning_details", "reasoning_text", "thinking", "thinking_blocks"];
/// `n` is at most so much; an index beyond it is not followed.
const MOST_CHOICES: u64 = 128;
/// The members of a chunk that one made here has as well.
const HEAD: [&str; 5] = ["id", "object", "created", "model", "system_fingerprint"];
const MOST_HEAD: usize = 4096;

/// What becomes of the thinking in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nothing: it is only noticed whether there is some.
    Watch,
    /// It is in `reasoning_content`, and nowhere else.
    Separate,
    /// It is left out.
    Hide,
}

/// What is wanted of a [`Filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// What becomes of it.
    pub output: Output,
    /// This model's template opens the thought, so that its text begins in one.
    pub inside: bool,
}

/// What the client gets of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The chunk as it is.
    Same,
    /// Nothing: all that it said is left out, or is held back.
    Nothing,
    /// This instead.
    Changed(Vec<u8>),
}

/// What the next chunk is if it differs from the last one in its text only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Repeated {
    /// Not known.
    #[default]
    Unknown,
    /// Shown as it is.
    Same,
    /// Content of the choice at this place of `choices`.
    Content(usize),
    /// Thinking that is left out.
    Nothing,
}

/// One answer on its way.
#[derive(Debug)]
pub(crate) struct Filter {
    wanted: Thinking,
    choices: Vec<Choice>,
    /// Of the last chunk, and of the one that is the template.
    repeated: Repeated,
    learned: Repeated,
    /// The first chunk's members, for one that is made here.
    head: Option<String>,
    /// Usage is shown, so that a chunk with some says something.
    usage: bool,
    /// It is one whole answer.
    whole: bool,
}

#[derive(Debug)]
struct Choice {
    index: u64,
    splitter: Splitter,
    role: bool,
    thought: bool,
}

/// A member of a message: its name, where it is from the key's quote on, and its value.
struct Member {
    name: String,
    at: Range<usize>,
    value: Range<usize>,
    kind: Kind,
}

/// One choice of a chunk.
#[derive(Default)]
struct Found {
    index: Option<u64>,
    finish: bool,
    /// Its `delta` or `message`.
    message: Option<(Range<usize>, Vec<Member>)>,
    logprobs: Option<Range<usize>>,
}

impl Filter {
    /// `usage`: chunks show usage.
    pub fn new(wanted: Thinking, usage: bool) -> Self {
        Filter {
            wanted,
            choices: Vec::new(),
            repeated: Repeated::Unknown,
            learned: Repeated::Unknown,
            head: None,
            usage,
            whole: false,
        }
    }

    /// Change a whole answer, which was checked before.
    pub fn whole(wanted: Thinking, body: &[u8], observed: &mut Observed) -> Result<Shown, JsonError> {
        let mut filter = Filter { whole: true, ..Filter::new(wanted, true) };
        filter.chunk(body, None, false, observed)
    }

    /// Nothing is left to be noticed.
    pub fn is_done(&self) -> bool {
        let over = |choice: &Choice| choice.splitter.is_over();
        self.wanted.output == Output::Watch && !self.choices.is_empty() && self.choices.iter().all(over)
    }

    /// The last chunk is the template from now on.
    pub fn learn(&mut self) {
        self.learned = self.repeated;
    }

    /// Is a chunk shown that differs from the template in its only text, `raw`? `None`: look at all of it, and nothing
    /// has happened.
    #[inline]
    pub fn repeats(&mut self, raw: &str) -> Option<bool> {
        match self.learned {
            Repeated::Unknown => None,
            Repeated::Same => Some(true),
            Repeated::Nothing => Some(false),
            Repeated::Content(at) => self.choices[at].splitter.passes(raw).then_some(true),
        }
    }

    /// Take in a chunk that was checked before. `payload`: its only text; `has_usage`: it has some.
    pub fn chunk(
        &mut self,
        data: &[u8],
        payload: Option<&Range<usize>>,
        has_usage: bool,
        observed: &mut Observed,
    ) -> Result<Shown, JsonError> {
        self.repeated = Repeated::Unknown;
        let text = json::text(data)?;
        // The same places: a masked text is as long as it was.
        let masked = mask_surrogates(text);
        let found = self.read(&masked, text)?;
        let mut splices: Vec<Splice> = Vec::new();
        let (mut says, mut repeated) = (found.is_empty() || (has_usage && self.usage), Repeated::Same);
        for choice in &found {
            let Some(place) = self.place(choice.index) else {
                says = true;
                continue;
            };
            let before = splices.len();
            says |= self.choice(text, choice, place, &mut splices, observed) || choice.finish;
            if let Some(member) = member_of(choice, payload) {
                repeated = if member.name == "content" { Repeated::Content(place) } else { Repeated::Same };
                if splices.len() > before {
                    let hides = self.wanted.output == Output::Hide && FIELDS.contains(&&*member.name);
                    repeated = if hides { Repeated::Nothing } else { Repeated::Unknown };
                }
            }
        }
        if splices.is_empty() {
            self.repeated = repeated;
            return Ok(Shown::Same);
        }
        if !says && !self.whole {
            self.repeated = if repeated == Repeated::Nothing { repeated } else { Repeated::Unknown };
            return Ok(Shown::Nothing);
        }
        Ok(apply(data, splices).map_or(Shown::Same, Shown::Changed))
    }

    /// What is held back, where the answer ends without the finish of a choice: one chunk.
    pub fn flush(&mut self, observed: &mut Observed) -> Option<Vec<u8>> {
        let head = self.head.clone()?;
        let mut chunk = String::new();
        for choice in &mut self.choices {
            if !choice.splitter.holds() {
                continue;
            }
            let mut split = Split::default();
            choice.splitter.finish(&mut split);
            observed.thought(&choice.splitter, &split.thinking);
            let mut members = Vec::new();
            if self.wanted.output == Output::Separate && !split.thinking.is_empty() {
                members.push(format!(r#""{SHOWN}":"{}""#, split.thinking));
            }
            if !split.content.is_empty() {
                members.push(format!(r#""content":"{}""#, split.content));
            }
            if members.is_empty() || self.wanted.output == Output::Watch {
                continue;
            }
            let (comma, index, delta) = (if chunk.is_empty() { "" } else { "," }, choice.index, members.join(","));
            chunk.push_str(&format!(r#"{comma}{{"index":{index},"delta":{{{delta}}},"finish_reason":null}}"#));
        }
        (!chunk.is_empty()).then(|| format!(r#"{{{head}"choices":[{chunk}]}}"#).into_bytes())
    }

    fn place(&mut self, index: Option<u64>) -> Option<usize> {
        let index = index.filter(|index| *index < MOST_CHOICES)?;
        if let Some(place) = self.choices.iter().position(|choice| choice.index == index) {
            return Some(place);
        }
        self.choices.push(Choice { index, splitter: Splitter::new(self.wanted.inside), role: false, thought: false });
        Some(self.choices.len() - 1)
    }

    /// Note what has to change in one choice; true if something in it is left for the client.
    fn choice(
        &mut self,
        text: &str,
        found: &Found,
        place: usize,
        splices: &mut Vec<Splice>,
        observed: &mut Observed,
    ) -> bool {
        let Some((at, members)) = &found.message else { return false };
        let inner = |member: &Member| &text[member.value.start + 1..member.value.end - 1];
        let strings = |name: &str| {
            members.iter().find(|member| member.name == name && member.kind == Kind::String).map(inner).unwrap_or("")
        };
        let field = FIELDS.iter().map(|name| strings(name)).find(|raw| !raw.is_empty()).unwrap_or("");
        let content = members.iter().find(|member| member.name == "content" && member.kind == Kind::String);
        let raw = content.map(inner).unwrap_or("");
        let choice = &mut self.choices[place];
        let split = if self.whole {
            let (split, splitter) = Splitter::whole(raw, self.wanted.inside);
            choice.splitter = splitter;
            split
        } else {
            let mut split = choice.splitter.push(raw);
            if found.finish {
                choice.splitter.finish(&mut split);
            }
            split
        };
        observed.thought(&choice.splitter, &split.thinking);
        choice.thought |= !field.is_empty() || choice.splitter.thought;
        let first_role = !choice.role;
        choice.role |= members.iter().any(|member| member.name == "role" && member.kind != Kind::Null);
        if self.wanted.output == Output::Watch {
            return true;
        }
        let hide = self.wanted.output == Output::Hide;
        let thinking = if hide { String::new() } else { [field, &split.thinking].concat() };
        let (mut kept, mut says, mut same) = (Vec::with_capacity(members.len() + 1), false, true);
        let (mut shown, mut has_content) = (thinking.is_empty(), false);
        let mut show = |kept: &mut Vec<String>| {
            if !std::mem::replace(&mut shown, true) {
                kept.push(format!(r#""{SHOWN}":"{thinking}""#));
            }
        };
        for member in members {
            let whole = &text[member.at.clone()];
            let name = member.name.as_str();
            let is_null = member.kind == Kind::Null;
            let empty = is_null || (member.kind == Kind::String && member.value.len() == 2);
            if FIELDS.contains(&name) && member.kind == Kind::String {
                same &= name == SHOWN && inner(member) == thinking;
                show(&mut kept);
            } else if hide && OTHERS.contains(&name) && !empty {
                same = false;
            } else if name == "content" && member.kind == Kind::String {
                has_content = true;
                if raw == split.content {
                    kept.push(whole.to_owned());
                } else {
                    same = false;
                    show(&mut kept);
                    // An empty one says nothing in a chunk; in a whole answer the field is expected.
                    if self.whole || !split.content.is_empty() {
                        kept.push(format!(r#""content":"{}""#, split.content));
                    }
                }
                says |= !split.content.is_empty();
            } else {
                says |= !empty && (name != "role" || first_role);
                kept.push(whole.to_owned());
            }
        }
        if !shown {
            same = false;
            kept.push(format!(r#""{SHOWN}":"{thinking}""#));
        }
        if !has_content && !split.content.is_empty() {
            same = false;
            says = true;
            kept.push(format!(r#""content":"{}""#, split.content));
        }
        says |= !thinking.is_empty();
        if !same {
            splices.push((at.clone(), format!("{{{}}}", kept.join(",")).into_bytes()));
        }
        // The tokens of what is left out, or comes in another chunk, would say it after all.
        if let (true, true, Some(logprobs)) = (hide, choice.thought && !same, &found.logprobs) {
            splices.push((logprobs.clone(), b"null".to_vec()));
        }
        says
    }

    /// `masked` is `text` with every half of a surrogate pair made readable.
    fn read(&mut self, masked: &str, text: &str) -> Result<Vec<Found>, JsonError> {
        let mut found = Vec::new();
        let mut cursor = Cursor::new(masked);
        let mut members = cursor.object()?;
        let mut head = self.head.is_none().then(String::new);
        while let Some(key) = members.next(&mut cursor)? {
            if key.is("choices") && cursor.peek()? == Kind::Array {
                let mut items = cursor.array()?;
                while items.next(&mut cursor)? {
                    let mut choice = Found { index: Some(found.len() as u64), ..Found::default() };
                    if cursor.peek()? == Kind::Object {
                        read_choice(&mut cursor, &mut choice)?;
                    }
                    found.push(choice);
                }
            } else if let (Some(head), true) = (&mut head, HEAD.iter().any(|name| key.is(name))) {
                let value = cursor.value()?;
                if head.len() + value.raw.len() < MOST_HEAD {
                    head.push_str(&text[key.span().start - 1..value.span().end]);
                    head.push(',');
                }
            } else {
                cursor.skip()?;
            }
        }
        self.head = head.or(self.head.take());
        Ok(found)
    }
}

fn read_choice(cursor: &mut Cursor<'_>, found: &mut Found) -> Result<(), JsonError> {
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "index" => found.index = cursor.value()?.as_u64(),
            "finish_reason" => found.finish = cursor.value()?.as_text().is_some_and(|reason| !reason.raw().is_empty()),
            "logprobs" => found.logprobs = Some(cursor.value()?).filter(|value| !value.is_null()).map(|v| v.span()),
            "delta" | "message" if cursor.peek()? == Kind::Object => {
                let start = cursor.position();
                let (mut read, mut message) = (cursor.object()?, Vec::new());
                while let Some(key) = read.next(cursor)? {
                    let value = cursor.value()?;
                    message.push(Member {
                        name: key.decode().into_owned(),
                        at: key.span().start - 1..value.span().end,
                        value: value.span(),
                        kind: value.kind,
                    });
                }
                found.message = Some((start..cursor.position(), message));
            }
            _ => cursor.skip()?,
        }
    }
    Ok(())
}

/// The member whose text this is.
fn member_of<'a>(choice: &'a Found, payload: Option<&Range<usize>>) -> Option<&'a Member> {
    let (payload, (_, members)) = (payload?, choice.message.as_ref()?);
    members.iter().find(|member| member.value.start <= payload.start && payload.end <= member.value.end)
}

impl Observed {
    /// What the splitter found in a piece of content.
    fn thought(&mut self, splitter: &Splitter, thinking: &str) {
        self.thinking_bytes += decoded_length(thinking);
        self.thought_unmatched |= splitter.unmatched;
        self.thought_missed |= splitter.missed;
    }
}
