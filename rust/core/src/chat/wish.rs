//! How much a client wants the model to think, under whichever of the names in use it says so.

use crate::chat::scan::Scanned;
use crate::json::{self, Cursor, JsonError, Kind, Value};

/// Fields of a request that are about thinking and nothing else; which server knows which differs.
pub const FIELDS: [&str; 7] = [
    "reasoning_effort",
    "reasoning",
    "thinking",
    "think",
    "enable_thinking",
    "thinking_budget",
    "thinking_token_budget",
];
/// Holds a switch among other things.
pub const TEMPLATE: &str = "chat_template_kwargs";
/// Members of these fields that are about how much it thinks; others, such as `exclude`, are kept.
pub(super) const SWITCHES: [(&str, &[&str]); 2] =
    [(TEMPLATE, &["enable_thinking", "thinking"]), ("reasoning", &["effort", "enabled", "max_tokens"])];
/// A longer word is none that any server knows.
const MOST_WORD: usize = 16;

/// What the client says: `off`, `on`, `budget:N`, or a level as it is written. The first field that says something
/// counts. `scanned` must come from this `body`.
pub fn wish(body: &[u8], scanned: &Scanned) -> Option<String> {
    let members = &scanned.places.members;
    let mut names = FIELDS.iter().chain([&TEMPLATE]);
    names.find_map(|name| {
        let member = members.iter().find(|member| is_named(&body[member.key.clone()], name))?;
        let text = json::text(&body[member.value.clone()]).ok()?;
        of_field(name, text).ok().flatten()
    })
}

/// However the key is written. An escape makes it longer than what it means.
pub(super) fn is_named(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (key.len() > name.len() && json::means(key, name))
}

fn of_field(name: &str, text: &str) -> Result<Option<String>, JsonError> {
    let mut cursor = Cursor::new(text);
    if cursor.peek()? != Kind::Object {
        return Ok(of_value(&cursor.value()?));
    }
    let mut members = cursor.object()?;
    let mut found = None;
    while let Some(key) = members.next(&mut cursor)? {
        let value = cursor.value()?;
        let said = match (name, &*key.decode()) {
            (TEMPLATE, "enable_thinking" | "thinking") => of_value(&value),
            ("reasoning", "effort" | "enabled" | "max_tokens") => of_value(&value),
            ("thinking", "type" | "budget_tokens") => of_value(&value),
            _ => None,
        };
        // A budget or a level says more than that it is on.
        found = match (found, said) {
            (None, said) => said,
            (Some(before), Some(said)) if before == "on" => Some(said),
            (before, _) => before,
        };
    }
    Ok(found)
}

fn of_value(value: &Value<'_>) -> Option<String> {
    match value.kind {
        Kind::Bool => Some(if value.raw == "true" { "on" } else { "off" }.to_owned()),
        Kind::Number => {
            value.as_u64().map(|tokens| if tokens == 0 { "off".to_owned() } else { format!("budget:{tokens}") })
        }
        Kind::String => {
            let text = value.as_text()?;
            let word = text.decode();
            match &*word {
                "none" | "disabled" | "off" => Some("off".to_owned()),
                "enabled" | "on" | "auto" | "adaptive" | "default" => Some("on".to_owned()),
                word if word.len() <= MOST_WORD && !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()) => {
                    Some(word.to_owned())
                }
                _ => None,
            }
        }
        _ => None,
    }
}
