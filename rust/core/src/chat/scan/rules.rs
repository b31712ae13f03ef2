//! What the known fields of a request may hold, and the sentence that refuses all else.

use crate::chat::Operation;
use crate::json::{Cursor, JsonError, Kind, Value};

use super::ScanError;

/// Above 2^53 readers that keep numbers as f64 (JavaScript's) see another number than we do.
pub(super) const INTEGER_MAX: i64 = 1 << 53;
const MAX_TOOLS: usize = 10_000;
const MAX_STOPS: usize = 1_024;
/// How much of a client's own text an error message repeats.
const QUOTED_CHARS: usize = 64;

/// Why the pass ends early: the text is not JSON, or a rule says no.
pub(super) enum Refusal {
    Json(JsonError),
    Rule(ScanError),
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        Refusal::Json(error)
    }
}

impl From<ScanError> for Refusal {
    fn from(error: ScanError) -> Self {
        Refusal::Rule(error)
    }
}

/// What a field may hold. `null` is always allowed beside it and means that the field is absent.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Bool,
    Text,
    Object,
    Integer(i64, i64),
    Number(f64, f64),
    BoolOrInteger,
    TextOrObject,
    /// An array of at most so many objects.
    Objects(usize),
    /// One string, or an array of at most so many.
    Texts(usize),
}

/// The shape of a field that the gateway checks and does not otherwise read.
pub(super) fn shape_of(operation: Operation, name: &str) -> Option<Shape> {
    use Shape::*;
    if operation == Operation::Embeddings {
        return Some(match name {
            "dimensions" => Integer(1, INTEGER_MAX),
            "encoding_format" | "user" => Text,
            _ => return None,
        });
    }
    Some(match (operation, name) {
        (_, "temperature") => Number(0.0, 2.0),
        (_, "top_p") => Number(0.0, 1.0),
        (_, "presence_penalty" | "frequency_penalty") => Number(-2.0, 2.0),
        (_, "stop") => Texts(MAX_STOPS),
        (_, "seed") => Integer(i64::MIN, i64::MAX),
        (_, "user") => Text,
        (_, "metadata" | "logit_bias") => Object,
        (_, "logprobs") => BoolOrInteger,
        (Operation::Completions, "best_of") => Integer(0, 128),
        (Operation::Completions, "echo") => Bool,
        (Operation::Completions, "suffix") => Text,
        (Operation::Chat, "tools" | "functions") => Objects(MAX_TOOLS),
        (Operation::Chat, "tool_choice" | "function_call") => TextOrObject,
        (Operation::Chat, "parallel_tool_calls" | "store") => Bool,
        (Operation::Chat, "response_format" | "prediction") => Object,
        (Operation::Chat, "top_logprobs") => Integer(i64::MIN, i64::MAX),
        (Operation::Chat, "reasoning_effort" | "service_tier") => Text,
        _ => return None,
    })
}

/// Read the value at the cursor and refuse what does not have the shape.
pub(super) fn check(cursor: &mut Cursor<'_>, name: &str, shape: Shape) -> Result<(), Refusal> {
    let kind = cursor.peek()?;
    match (shape, kind) {
        (Shape::Objects(most), Kind::Array) => items(cursor, || name.to_owned(), most, Kind::Object, "an object"),
        (Shape::Texts(most), Kind::Array) => items(cursor, || name.to_owned(), most, Kind::String, "a string"),
        (Shape::Integer(least, most), _) => {
            integer(&cursor.value()?, name, least, most)?;
            Ok(())
        }
        (Shape::Number(least, most), Kind::Number) => {
            let value = cursor.value()?;
            match value.as_f64() {
                Some(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(out_of_range(name, &expected(shape), &value).into()),
            }
        }
        (_, Kind::Null)
        | (Shape::Bool | Shape::BoolOrInteger, Kind::Bool)
        | (Shape::Text | Shape::TextOrObject | Shape::Texts(_), Kind::String)
        | (Shape::Object | Shape::TextOrObject, Kind::Object) => Ok(cursor.skip()?),
        (Shape::BoolOrInteger, Kind::Number) => {
            let value = cursor.value()?;
            match value.as_i64() {
                Some(_) => Ok(()),
                None => Err(wrong_type(name, &expected(shape), &value).into()),
            }
        }
        _ => Err(wrong_type(name, &expected(shape), &cursor.value()?).into()),
    }
}

/// The integer of a field, or `None` for null.
pub(super) fn integer(value: &Value<'_>, name: &str, least: i64, most: i64) -> Result<Option<i64>, ScanError> {
    let expected = || expected(Shape::Integer(least, most));
    match (value.kind, value.as_i64()) {
        (Kind::Null, _) => Ok(None),
        (_, Some(number)) if (least..=most).contains(&number) => Ok(Some(number)),
        (_, Some(_)) => Err(out_of_range(name, &expected(), value)),
        // Whole, but too large for an i64 (2^63), or for an f64 to tell it from its neighbour.
        _ if value.as_f64().is_some_and(|number| number.fract() == 0.0) => Err(out_of_range(name, &expected(), value)),
        _ => Err(wrong_type(name, &expected(), value)),
    }
}

/// The bool of a field; null is false.
pub(super) fn truth(value: &Value<'_>, name: &str) -> Result<bool, ScanError> {
    match value.as_bool() {
        None if !value.is_null() => Err(wrong_type(name, &expected(Shape::Bool), value)),
        truth => Ok(truth.unwrap_or(false)),
    }
}

/// The items of an array, each of one kind. The count is checked as it grows, so nothing is kept of a flood.
pub(super) fn items(
    cursor: &mut Cursor<'_>,
    path: impl Fn() -> String,
    most: usize,
    kind: Kind,
    what: &str,
) -> Result<(), Refusal> {
    let mut items = cursor.array()?;
    let mut count = 0;
    while items.next(cursor)? {
        if cursor.peek()? != kind {
            return Err(wrong_type(&format!("{}[{count}]", path()), what, &cursor.value()?).into());
        }
        count += 1;
        if count > most {
            return Err(too_many(&path(), most).into());
        }
    }
    Ok(())
}

/// `prompt` or `input`: a string, or a list of strings, of token ids, or of lists of token ids. Embeddings also
/// take a list of objects, which some servers use for images; what is in them is the upstream's to judge.
///
/// Returns how many texts these are: a list of token ids is one.
pub(super) fn inputs(cursor: &mut Cursor<'_>, name: &str, objects: bool) -> Result<usize, Refusal> {
    let mut items = cursor.array()?;
    let (mut first, mut count) = (None, 0);
    while items.next(cursor)? {
        let kind = cursor.peek()?;
        let fits = match kind {
            Kind::String | Kind::Number | Kind::Array => true,
            Kind::Object => objects,
            Kind::Null | Kind::Bool => false,
        };
        if !fits || *first.get_or_insert(kind) != kind {
            let expected = "a string, a token id or an array of token ids, like the items before it";
            return Err(wrong_type(&format!("{name}[{count}]"), expected, &cursor.value()?).into());
        }
        match kind {
            Kind::Number => token_id(cursor, || format!("{name}[{count}]"))?,
            Kind::Array => {
                let (mut ids, mut place) = (cursor.array()?, 0);
                while ids.next(cursor)? {
                    token_id(cursor, || format!("{name}[{count}][{place}]"))?;
                    place += 1;
                }
                if place == 0 {
                    return Err(empty(&format!("{name}[{count}]")).into());
                }
            }
            _ => {}
        }
        count += 1;
    }
    if count == 0 {
        return Err(empty(name).into());
    }
    Ok(if first == Some(Kind::Number) { 1 } else { count })
}

fn token_id(cursor: &mut Cursor<'_>, param: impl FnOnce() -> String) -> Result<(), Refusal> {
    let value = cursor.value()?;
    match value.as_i64() {
        Some(0..=INTEGER_MAX) => Ok(()),
        _ => {
            let param = param();
            let refused = integer(&value, &param, 0, INTEGER_MAX);
            let null = || wrong_type(&param, &expected(Shape::Integer(0, INTEGER_MAX)), &value);
            Err(refused.err().unwrap_or_else(null).into())
        }
    }
}

pub(super) fn wrong_type(param: &str, expected: &str, value: &Value<'_>) -> ScanError {
    refuse("invalid_type", param, format!("'{param}' must be {expected}, not {}.", shown(value)))
}

pub(super) fn out_of_range(param: &str, expected: &str, value: &Value<'_>) -> ScanError {
    refuse("invalid_value", param, format!("'{param}' must be {expected}, not {}.", shown(value)))
}

pub(super) fn too_many(param: &str, most: usize) -> ScanError {
    refuse("invalid_value", param, format!("'{param}' has more than {most} items. Send fewer."))
}

pub(super) fn empty(param: &str) -> ScanError {
    refuse("invalid_value", param, format!("'{param}' is empty. It needs at least one item."))
}

pub(super) fn missing(param: &str, expected: &str) -> ScanError {
    refuse("missing_required_parameter", param, format!("'{param}' is missing. Send {expected}."))
}

pub(super) fn refuse(code: &'static str, param: &str, message: String) -> ScanError {
    ScanError { code, message, param: Some(param.to_owned()) }
}

/// A client's own text in a message or `param`, cut: keys may be megabytes long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn shown(value: &Value<'_>) -> String {
    match value.kind {
        Kind::Null | Kind::Bool | Kind::Number => cut(value.raw),
        Kind::String => "a string".to_owned(),
        Kind::Array => "an array".to_owned(),
        Kind::Object => "an object".to_owned(),
    }
}

fn expected(shape: Shape) -> String {
    match shape {
        Shape::Bool => "true or false".to_owned(),
        Shape::Text => "a string".to_owned(),
        Shape::Object => "an object".to_owned(),
        Shape::Integer(i64::MIN, i64::MAX) => "an integer of at most 64 bits".to_owned(),
        Shape::Integer(least, most) => format!("an integer between {least} and {most}"),
        Shape::Number(least, most) => format!("a number between {least} and {most}"),
        Shape::BoolOrInteger => "true, false or an integer".to_owned(),
        Shape::TextOrObject => "a string or an object".to_owned(),
        Shape::Objects(_) => "an array of objects".to_owned(),
        Shape::Texts(_) => "a string or an array of strings".to_owned(),
    }
}
