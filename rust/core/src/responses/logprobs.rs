//! Log probabilities of a chat as the Responses API has them: no field is missing, and none is null.

use serde_json::{json, Map, Value};

/// Append the entries of `content`, a JSON array of a chat, to `out`, parted by commas. What is none is left out.
pub(super) fn append(content: &str, out: &mut Vec<u8>) {
    let Ok(Value::Array(entries)) = serde_json::from_str(content) else { return };
    for entry in &entries {
        let Some(mut shown) = token(entry) else { continue };
        let top = entry.get("top_logprobs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let top: Vec<Value> = top.iter().filter_map(token).map(Value::Object).collect();
        shown.insert("top_logprobs".into(), Value::Array(top));
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(Value::Object(shown).to_string().as_bytes());
    }
}

/// A token as it is shown, without its tops.
fn token(entry: &Value) -> Option<Map<String, Value>> {
    let token = entry.get("token")?.as_str()?;
    let mut shown = Map::new();
    shown.insert("token".into(), token.into());
    shown.insert("logprob".into(), entry.get("logprob").filter(|value| value.is_number())?.clone());
    let bytes = entry.get("bytes").filter(|value| value.is_array()).cloned();
    shown.insert("bytes".into(), bytes.unwrap_or_else(|| json!(token.as_bytes())));
    Some(shown)
}
