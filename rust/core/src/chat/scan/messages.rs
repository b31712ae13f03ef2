//! The messages of a chat: their shape, which of them are the system's, and which parts are no text.

use crate::json::Kind;

use super::rules::{empty, items, missing, too_many, wrong_type, Refusal};
use super::{duplicate, Pass, SystemMessage};

const MAX_MESSAGES: usize = 100_000;

impl Pass<'_> {
    pub(super) fn messages(&mut self) -> Result<(), Refusal> {
        match self.cursor.peek()? {
            Kind::Null => return Ok(self.cursor.skip()?),
            Kind::Array => {}
            _ => return Err(wrong_type("messages", "an array of objects", &self.cursor.value()?).into()),
        }
        let mut items = self.cursor.array()?;
        self.found.places.messages_inside = self.cursor.position();
        let (mut count, mut before, mut was_system) = (0, None, false);
        while items.next(&mut self.cursor)? {
            if self.cursor.peek()? != Kind::Object {
                return Err(wrong_type(&format!("messages[{count}]"), "an object", &self.cursor.value()?).into());
            }
            if count == MAX_MESSAGES {
                return Err(too_many("messages", MAX_MESSAGES).into());
            }
            let start = self.cursor.position();
            let system = &mut self.found.places.system_messages;
            if let Some(last) = system.last_mut().filter(|_| was_system) {
                last.after = start;
            }
            was_system = self.message(count)?;
            let end = self.cursor.position();
            if was_system {
                let place = SystemMessage { index: count, at: start..end, before: before.unwrap_or(start), after: end };
                self.found.places.system_messages.push(place);
            }
            before = Some(end);
            count += 1;
        }
        self.found.system_count = self.found.places.system_messages.len();
        if count == 0 {
            return Err(empty("messages").into());
        }
        self.found.message_count = count;
        self.required = true;
        Ok(())
    }

    /// One message; true where it is the system's.
    fn message(&mut self, index: usize) -> Result<bool, Refusal> {
        const KNOWN: [&str; 5] = ["role", "content", "tool_calls", "tool_call_id", "name"];
        let mut seen = [false; KNOWN.len()];
        let mut role = None;
        let mut members = self.cursor.object()?;
        while let Some(key) = members.next(&mut self.cursor)? {
            let Some(which) = KNOWN.iter().position(|name| key.is(name)) else { continue };
            let path = || format!("messages[{index}].{}", KNOWN[which]);
            if std::mem::replace(&mut seen[which], true) {
                return Err(duplicate(&path()).into());
            }
            match (KNOWN[which], self.cursor.peek()?) {
                ("role", Kind::String) => role = Some(self.cursor.string()?),
                ("role", _) => return Err(wrong_type(&path(), "a string", &self.cursor.value()?).into()),
                (_, Kind::Null) | ("content" | "tool_call_id" | "name", Kind::String) => {}
                ("content", Kind::Array) => self.parts(path)?,
                ("tool_calls", Kind::Array) => {
                    items(&mut self.cursor, path, usize::MAX, Kind::Object, "an object")?;
                }
                (known, _) => {
                    let expected = match known {
                        "content" => "a string or an array of objects",
                        "tool_calls" => "an array of objects",
                        _ => "a string",
                    };
                    return Err(wrong_type(&path(), expected, &self.cursor.value()?).into());
                }
            }
        }
        if let Some(role) = role {
            return Ok(role.is("system") || role.is("developer"));
        }
        Err(missing(&format!("messages[{index}].role"), "who speaks: system, user, assistant or tool").into())
    }

    /// The content parts of a message. What is no text is counted, and its bytes are not taken for a text's: an
    /// image of a megabyte is a thousand tokens, and its address is too.
    fn parts(&mut self, path: impl Fn() -> String) -> Result<(), Refusal> {
        let mut items = self.cursor.array()?;
        let mut count = 0;
        while items.next(&mut self.cursor)? {
            if self.cursor.peek()? != Kind::Object {
                return Err(wrong_type(&format!("{}[{count}]", path()), "an object", &self.cursor.value()?).into());
            }
            let (start, mut media) = (self.cursor.position(), false);
            let mut members = self.cursor.object()?;
            while let Some(key) = members.next(&mut self.cursor)? {
                if key.is("type") && self.cursor.peek()? == Kind::String {
                    let kind = self.cursor.string()?;
                    media = !(kind.is("text") || kind.is("refusal"));
                }
            }
            if media {
                self.found.media_count += 1;
                self.media_bytes += self.cursor.position() - start;
            }
            count += 1;
        }
        Ok(())
    }
}
