//! The `usage` of an answer: what an upstream says of tokens, as far as it can be right.

use crate::{
    chat::observe::{Observed, Usage},
    json::{Cursor, JsonError, Kind, Value},
};

/// 2^53: above it readers that hold numbers as f64 see another number.
const MAX_TOKENS: u64 = 1 << 53;

/// Read a `usage` member; true if it is an object.
pub(super) fn read(cursor: &mut Cursor<'_>, observed: &mut Observed) -> Result<bool, JsonError> {
    if cursor.peek()? != Kind::Object {
        let value = cursor.value()?;
        if !value.is_null() {
            observed.usage_suspect = true;
        }
        return Ok(false);
    }
    let (mut usage, mut suspect) = (Usage::default(), false);
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        match &*key.decode() {
            "prompt_tokens" => usage.prompt = tokens(&cursor.value()?, &mut suspect),
            "completion_tokens" => usage.completion = tokens(&cursor.value()?, &mut suspect),
            "total_tokens" => usage.total = tokens(&cursor.value()?, &mut suspect),
            "prompt_tokens_details" => detail(cursor, "cached_tokens", &mut usage.cached, &mut suspect)?,
            "completion_tokens_details" => detail(cursor, "reasoning_tokens", &mut usage.reasoning, &mut suspect)?,
            _ => {}
        }
    }
    observed.settle(usage, suspect);
    Ok(true)
}

fn detail(cursor: &mut Cursor<'_>, wanted: &str, into: &mut Option<u64>, suspect: &mut bool) -> Result<(), JsonError> {
    if cursor.peek()? != Kind::Object {
        return Ok(());
    }
    let mut members = cursor.object()?;
    while let Some(key) = members.next(cursor)? {
        if key.is(wanted) {
            *into = tokens(&cursor.value()?, suspect);
        }
    }
    Ok(())
}

fn tokens(value: &Value<'_>, suspect: &mut bool) -> Option<u64> {
    let count = value.as_u64().filter(|count| *count <= MAX_TOKENS);
    *suspect |= count.is_none() && !value.is_null();
    count
}
