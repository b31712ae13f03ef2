//! Put an assistant's settings into a client's request: bytes spliced in one pass, all others as they came.
//!
//! What is to be done is known per assistant and upstream, so it is made ready once ([`Recipe`]); a request then
//! costs a look at its fields and one copy.

use std::ops::Range;

use crate::chat::rewrite::{apply, edit_splices, Edits, Splice};
use crate::chat::scan::{Member, Scanned};
use crate::chat::switch::{rebuilt, Switch};
use crate::chat::wish::{is_named, FIELDS, SWITCHES, TEMPLATE};
use crate::json;

/// The names under which clients limit an answer, in the order in which they count.
pub const LIMITS: [&str; 3] = ["max_completion_tokens", "max_tokens", "max_output_tokens"];

/// What is always put in where a client gave no limit and no upstream prefers another name.
const USUAL_LIMIT: &str = "max_tokens";

/// A field that an assistant sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value as JSON.
    pub value: Vec<u8>,
    /// The client's own value is replaced; otherwise ours only stands in for a missing one.
    pub locked: bool,
}

/// What is done to every request for one assistant at one kind of upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The assistant's system message as JSON, quotes and braces included.
    system_message: Option<Vec<u8>>,
    /// The client's own system messages leave.
    replaces_system: bool,
    fields: Vec<Field>,
    denied: Vec<String>,
    limit_name: Option<&'static str>,
    thinking: Option<Switch>,
}

/// A request made ready for an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// `None`: nothing had to change.
    pub body: Option<Vec<u8>>,
    /// What the client gave and the upstream does not get: names of fields, `messages[0]`.
    pub dropped: Vec<String>,
}

impl Recipe {
    /// A recipe that changes nothing.
    pub fn new() -> Self {
        Recipe::default()
    }

    /// Put `text` before the client's messages, as a message of `role`. Only chats have messages.
    pub fn system_prompt(mut self, role: &str, text: &str) -> Self {
        let mut message = br#"{"role":"#.to_vec();
        json::quote(&mut message, role);
        message.extend_from_slice(br#","content":"#);
        json::quote(&mut message, text);
        message.push(b'}');
        self.system_message = Some(message);
        self
    }

    /// Take the client's own system and developer messages out.
    pub fn replace_system_messages(mut self) -> Self {
        self.replaces_system = true;
        self
    }

    /// Set this field. Not for those that the scan reads (`model`, `messages`, `stream` …), and not for [`LIMITS`].
    pub fn field(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// Leave this field out. What makes the request cannot be left out: that is ignored. A denied name of
    /// [`LIMITS`] takes the client's limit away, not ours.
    pub fn deny(mut self, name: &str) -> Self {
        if !["model", "messages", "prompt", "input", "stream"].contains(&name) {
            self.denied.push(name.to_owned());
        }
        self
    }

    /// Say how much the model thinks, and take out all that the client says of it.
    pub fn thinking(mut self, switch: Switch) -> Self {
        self.thinking = Some(switch);
        self
    }

    /// The one of [`LIMITS`] that the upstream knows. Another name gives `None`.
    pub fn limit_name(mut self, name: &str) -> Option<Self> {
        self.limit_name = Some(LIMITS.into_iter().find(|known| *known == name)?);
        Some(self)
    }
}

/// The body as `recipe` wants it, with the edits made. `max_tokens` is the limit that shall hold; `None` leaves the
/// client's own. `scanned` must come from this `body`.
pub fn compose(
    body: &[u8],
    scanned: &Scanned,
    recipe: &Recipe,
    edits: &Edits<'_>,
    max_tokens: Option<u64>,
) -> Composed {
    let denies_options = recipe.denied.iter().any(|name| name == "stream_options");
    let edits = Edits { include_usage: edits.include_usage && !denies_options, ..*edits };
    let mut work = Work {
        body,
        scanned,
        recipe,
        splices: edit_splices(body, scanned, &edits),
        gone: Vec::new(),
        dropped: Vec::new(),
    };
    work.deny();
    work.fields();
    work.thinking();
    work.limit(max_tokens);
    work.messages();
    work.cut_members();
    Composed { body: apply(body, work.splices), dropped: work.dropped }
}

struct Work<'a> {
    body: &'a [u8],
    scanned: &'a Scanned,
    recipe: &'a Recipe,
    splices: Vec<Splice>,
    /// The places of the members that leave.
    gone: Vec<usize>,
    dropped: Vec<String>,
}

impl Work<'_> {
    fn members(&self) -> &[Member] {
        &self.scanned.places.members
    }

    /// The place of the field, however its key is written.
    fn find(&self, name: &str) -> Option<usize> {
        self.members().iter().position(|member| is_named(&self.body[member.key.clone()], name))
    }

    fn value(&self, place: usize) -> &[u8] {
        &self.body[self.members()[place].value.clone()]
    }

    fn is_null(&self, place: usize) -> bool {
        self.value(place) == b"null"
    }

    fn replace(&mut self, place: Range<usize>, text: Vec<u8>) {
        self.splices.push((place, text));
    }

    /// A field that the body does not have. A required field follows, so a comma fits behind it.
    fn insert(&mut self, name: &str, value: &[u8]) {
        let mut text = Vec::with_capacity(name.len() + value.len() + 4);
        json::quote(&mut text, name);
        text.push(b':');
        text.extend_from_slice(value);
        text.push(b',');
        let inside = self.scanned.places.inside;
        self.replace(inside..inside, text);
    }

    fn deny(&mut self) {
        for name in &self.recipe.denied {
            if let Some(place) = self.find(name) {
                self.gone.push(place);
                self.dropped.push(name.clone());
            }
        }
    }

    fn fields(&mut self) {
        for field in &self.recipe.fields {
            if self.recipe.denied.contains(&field.name) {
                continue;
            }
            let Some(place) = self.find(&field.name) else {
                self.insert(&field.name, &field.value);
                continue;
            };
            // Null means absent, here as in the scan.
            let absent = self.is_null(place);
            if !(absent || field.locked) || self.value(place) == field.value {
                continue;
            }
            if !absent {
                self.dropped.push(field.name.clone());
            }
            self.replace(self.members()[place].value.clone(), field.value.clone());
        }
    }

    /// The fields of the switch, in place of what the client says under any name.
    fn thinking(&mut self) {
        let (body, recipe) = (self.body, self.recipe);
        let Some(switch) = &recipe.thinking else { return };
        for name in FIELDS.into_iter().chain([TEMPLATE]) {
            let wanted = switch.fields.iter().filter(|(field, _, _)| field == name && !self.denies(name));
            let place = self.find(name).filter(|place| !self.gone.contains(place));
            let given = place.filter(|place| !self.is_null(*place));
            let given = given.map(|place| &body[self.members()[place].value.clone()]);
            let owned = SWITCHES.iter().find(|(field, _)| *field == name).map(|(_, owned)| *owned);
            let Some(value) = rebuilt(given, owned, wanted) else {
                if let (Some(place), true) = (place, given.is_some()) {
                    self.gone.push(place);
                    self.tell(switch, name, true);
                }
                continue;
            };
            match place {
                None => self.insert(name, &value),
                Some(place) if self.value(place) == value => {}
                Some(place) => {
                    self.tell(switch, name, given.is_some());
                    self.replace(self.members()[place].value.clone(), value);
                }
            }
        }
    }

    fn denies(&self, name: &str) -> bool {
        self.recipe.denied.iter().any(|denied| denied == name)
    }

    fn tell(&mut self, switch: &Switch, name: &str, given: bool) {
        if switch.overrules && given {
            self.dropped.push(name.to_owned());
        }
    }

    /// One limit, under the name that the upstream knows. A client may have given several names with one value.
    fn limit(&mut self, wanted: Option<u64>) {
        let given: Vec<usize> =
            LIMITS.iter().filter_map(|name| self.find(name)).filter(|place| !self.gone.contains(place)).collect();
        let usual = self.find(USUAL_LIMIT);
        let mut valued = given.iter().copied().filter(|place| !self.is_null(*place));
        let valued = valued.clone().find(|place| Some(*place) == usual).or_else(|| valued.next());
        // A limit that was denied is the client's no longer.
        let Some(limit) = wanted.or(valued.and(self.scanned.max_tokens)) else { return };
        let own = valued.and_then(|place| LIMITS.into_iter().find(|name| self.find(name) == Some(place)));
        let name = self.recipe.limit_name.or(own).unwrap_or(USUAL_LIMIT);
        let place = self.find(name).filter(|place| !self.gone.contains(place)).or(valued);
        for other in given {
            if Some(other) != place {
                self.gone.push(other);
            }
        }
        let text = limit.to_string().into_bytes();
        let Some(place) = place else { return self.insert(name, &text) };
        if self.find(name) != Some(place) {
            self.replace(self.members()[place].key.clone(), name.as_bytes().to_vec());
        }
        // `5.0` is a 5 too: only another number is written anew.
        if self.is_null(place) || self.scanned.max_tokens != Some(limit) {
            self.replace(self.members()[place].value.clone(), text);
        }
    }

    fn messages(&mut self) {
        let places = &self.scanned.places;
        if places.messages_inside == 0 {
            return;
        }
        let mut left = self.scanned.message_count;
        if self.recipe.replaces_system {
            for (before, message) in places.system_messages.iter().enumerate() {
                // With something kept before it, it leaves with the comma before it; else with the one behind.
                let kept = message.index > before;
                let cut = if kept { message.before..message.at.end } else { message.at.start..message.after };
                self.splices.push((cut, Vec::new()));
                self.dropped.push(format!("messages[{}]", message.index));
                left -= 1;
            }
        }
        if let Some(message) = &self.recipe.system_message {
            let mut text = message.clone();
            if left > 0 {
                text.push(b',');
            }
            self.replace(places.messages_inside..places.messages_inside, text);
        }
    }

    fn cut_members(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let members = &self.scanned.places.members;
        let mut kept = false;
        for (place, member) in members.iter().enumerate() {
            if !self.gone.contains(&place) {
                kept = true;
                continue;
            }
            let span = member.span();
            let cut = match (kept, place.checked_sub(1).map(|n| &members[n]), members.get(place + 1)) {
                (true, Some(before), _) => before.span().end..span.end,
                (_, _, Some(after)) => span.start..after.span().start,
                _ => span,
            };
            self.splices.push((cut, Vec::new()));
        }
    }
}
