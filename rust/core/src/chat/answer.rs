//! Answers that are no stream: plain bodies, and the bodies of error statuses.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::chat::convert;
use crate::chat::logprobs;
use crate::chat::observe::{Invalid, Observed, Rules};
use crate::chat::thoughts::{Filter, Shown};
use crate::chat::Operation;
use crate::error::{Error, UpstreamError, RETRY_AFTER_MAX};
use crate::relay::Plan;

/// An upstream's message is cut here: it goes into a client's error object and into logs.
const MAX_MESSAGE: usize = 4096;
/// So are the type, code and parameter of an upstream's error.
const MAX_WORD: usize = 256;
/// Codes of a 429 where waiting does not help.
const QUOTA: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"];

/// What a successful body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON text.
    Json,
    /// Server-sent events.
    Events,
    /// Anything else.
    Other,
}

/// Is this content type that of server-sent events?
pub fn is_event_stream(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case("text/event-stream")
}

/// Is this content type one of JSON?
pub fn is_json(content_type: &str) -> bool {
    let media = media_type(content_type).to_ascii_lowercase();
    matches!(media.as_str(), "application/json" | "text/json") || media.ends_with("+json")
}

/// What a body is, by its content type; without one, by how it begins.
pub fn form(content_type: Option<&str>, body: &[u8]) -> Form {
    match content_type {
        Some(content_type) if is_event_stream(content_type) => return Form::Events,
        Some(content_type) if is_json(content_type) => return Form::Json,
        Some(content_type) if !content_type.trim().is_empty() => return Form::Other,
        _ => {}
    }
    let start = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii_start();
    if start.starts_with(b"{") {
        Form::Json
    } else if [&b"data:"[..], b"event:", b":"].iter().any(|field| start.starts_with(field)) {
        Form::Events
    } else {
        Form::Other
    }
}

/// Check and observe a plain answer; the body comes back with its model renamed, and otherwise as it was.
pub fn read(plan: &Plan, content_type: Option<&str>, body: Vec<u8>) -> Result<(Vec<u8>, Observed), Error> {
    if body.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    if body.len() as u64 > plan.max_answer_bytes {
        return Err(Error::AnswerTooLarge { limit: plan.max_answer_bytes });
    }
    match form(content_type, &body) {
        Form::Json => {}
        Form::Events => return convert::from_events(plan, &body),
        Form::Other => return Err(Error::BadContentType),
    }
    let rules = Rules::new(plan.operation, plan.public_model.as_deref(), plan.public_id.as_deref(), false);
    let mut observed = Observed::keeping(plan.said.clone());
    observed.bytes = body.len() as u64;
    let body = match plan.logprobs.filter(|_| plan.operation == Operation::Chat) {
        None => body,
        Some(wanted) => {
            let mut reader = logprobs::Reader::new(wanted);
            let changed = reader.take(&body);
            observed.certainty = Some(reader.certainty());
            changed.unwrap_or(body)
        }
    };
    let mut edits = Vec::new();
    let chunk = match rules.read(&body, &mut observed, &mut edits) {
        Ok(chunk) => chunk,
        Err(Invalid::Utf8) => return Err(Error::InvalidUtf8),
        Err(Invalid::Json) => return Err(Error::InvalidAnswer),
    };
    if chunk.error {
        return Err(in_band(&body));
    }
    let body = match plan.thinking.filter(|_| plan.operation == Operation::Chat) {
        None => body,
        Some(thinking) => match Filter::whole(thinking, &body, &mut observed).map_err(|_| Error::InvalidAnswer)? {
            Shown::Changed(other) => {
                // What else has to change is at other places now.
                rules.read(&other, &mut Observed::default(), &mut edits).map_err(|_| Error::InvalidAnswer)?;
                other
            }
            Shown::Same | Shown::Nothing => body,
        },
    };
    if edits.is_empty() {
        return Ok((body, observed));
    }
    let mut changed = Vec::with_capacity(body.len() + 64);
    rules.splice(&body, &edits, usize::MAX, 0, &mut changed);
    Ok((changed, observed))
}

/// The error of a status that is no success. `body_prefix` is what was read of its body.
pub fn read_error(
    status: u16,
    retry_after: Option<&str>,
    retry_after_ms: Option<&str>,
    should_retry: Option<&str>,
    body_prefix: &[u8],
) -> Error {
    let (mut said, _) = parse(body_prefix);
    let retry_after = wait(retry_after, retry_after_ms, SystemTime::now());
    match status {
        204 | 205 => Error::Empty,
        300..=399 => Error::Redirect { status },
        401 | 403 => Error::Auth { status },
        404 => {
            // What a web framework says of a path that does not exist helps nobody.
            said.message.take_if(|message| message.eq_ignore_ascii_case("not found"));
            Error::ModelNotFound { upstream_message: said.message }
        }
        429 => Error::RateLimited { retry_after, quota: is_quota(&said), upstream_message: said.message },
        400..=599 => Error::Status {
            status,
            body: Box::new(said),
            retry_after,
            should_retry: should_retry.and_then(|text| text.trim().to_ascii_lowercase().parse().ok()),
        },
        _ => Error::Protocol("a status that no answer can have"),
    }
}

/// The error that a body or an event with status 200 holds.
pub(crate) fn in_band(body: &[u8]) -> Error {
    let (mut said, status) = parse(body);
    let of_key = |word: &Option<String>| {
        matches!(
            word.as_deref(),
            Some("invalid_api_key" | "authentication_error" | "permission_error" | "permission_denied")
        )
    };
    if matches!(status, Some(401 | 403)) || of_key(&said.code) || of_key(&said.kind) {
        return Error::Auth { status: status.filter(|status| *status == 403).unwrap_or(401) };
    }
    // A number is no code that a client may see, but it is all that tells what happened: it becomes the word.
    let (code, kind) = match status {
        Some(429) => (Some("rate_limit_exceeded"), None),
        Some(404) => (Some("model_not_found"), None),
        Some(503 | 529) => (None, Some("overloaded_error")),
        Some(400 | 413 | 422) => (None, Some("invalid_request_error")),
        _ => (None, None),
    };
    if let Some(code) = code {
        said.code = Some(code.to_owned());
    }
    if let Some(kind) = kind {
        said.kind = Some(kind.to_owned());
    }
    Error::InBand(Box::new(said))
}

fn is_quota(said: &UpstreamError) -> bool {
    [&said.code, &said.kind].into_iter().flatten().any(|word| QUOTA.contains(&word.as_str()))
}

/// What an error body says, and the HTTP status where it names one as its code.
fn parse(body: &[u8]) -> (UpstreamError, Option<u16>) {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(value) => said(&value),
        // HTML, text, or cut off: nothing that a client should see.
        Err(_) => (UpstreamError::default(), None),
    }
}

fn said(value: &Value) -> (UpstreamError, Option<u16>) {
    match value {
        Value::String(message) => {
            (UpstreamError { message: clean(message, MAX_MESSAGE), ..UpstreamError::default() }, None)
        }
        // Google's compatible endpoint wraps the object in an array.
        Value::Array(items) => items.first().map(said).unwrap_or_default(),
        Value::Object(object) => match (object.get("error"), object.get("detail"), object.get("errors")) {
            (Some(error @ (Value::Object(_) | Value::String(_))), _, _) => match said(error) {
                (UpstreamError { message: None, .. }, _) if object.contains_key("message") => fields(object),
                found => found,
            },
            (_, Some(Value::Array(details)), _) => (of_details(details), None),
            (_, Some(detail @ (Value::Object(_) | Value::String(_))), _) => said(detail),
            (_, _, Some(Value::Array(errors))) if !object.contains_key("message") => {
                errors.first().map(said).unwrap_or_default()
            }
            _ => fields(object),
        },
        _ => Default::default(),
    }
}

fn fields(object: &Map<String, Value>) -> (UpstreamError, Option<u16>) {
    let word = |key: &str| match object.get(key) {
        Some(Value::String(text)) => clean(text, MAX_WORD),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let code = word("code");
    let status = code.as_deref().and_then(|code| code.parse().ok()).filter(|code| (100..600).contains(code));
    let message = ["message", "msg"].iter().find_map(|key| object.get(*key)?.as_str());
    let said = UpstreamError {
        message: message.and_then(|message| clean(message, MAX_MESSAGE)),
        kind: word("type"),
        param: word("param"),
        code: code.filter(|_| status.is_none()),
    };
    (said, status)
}

/// FastAPI's list of what is wrong with a body.
fn of_details(details: &[Value]) -> UpstreamError {
    let texts: Vec<&str> = details.iter().filter_map(|detail| detail.get("msg")?.as_str()).take(8).collect();
    UpstreamError { message: clean(&texts.join("; "), MAX_MESSAGE), ..UpstreamError::default() }
}

/// Without control characters, cut to `limit` bytes; `None` if nothing is left.
fn clean(text: &str, limit: usize) -> Option<String> {
    let mut cleaned = String::new();
    for c in text.trim().chars() {
        let c = if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c };
        if c.is_control() {
            continue;
        }
        if cleaned.len() + c.len_utf8() > limit {
            break;
        }
        cleaned.push(c);
    }
    Some(cleaned).filter(|cleaned| !cleaned.is_empty())
}

/// How long to leave the upstream alone: milliseconds win, then seconds, then a date.
fn wait(seconds: Option<&str>, milliseconds: Option<&str>, now: SystemTime) -> Option<Duration> {
    let number = |text: &str, unit: f64| {
        // Only plain decimals: f64's own parser also knows `inf`, `nan` and `1e9`.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = text.parse().ok().filter(|_| plain)?;
        Some(Duration::from_secs_f64((number * unit).clamp(0.0, RETRY_AFTER_MAX.as_secs_f64())))
    };
    if let Some(wait) = milliseconds.and_then(|text| number(text.trim(), 0.001)) {
        return Some(wait);
    }
    let text = seconds?.trim();
    number(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default().min(RETRY_AFTER_MAX))
    })
}

fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}
