//! Reading the head of a response, and the errors of the transport: which cause each one is.

use crate::Error;
use http::{header, HeaderMap, HeaderName, HeaderValue};

/// Response headers worth passing on, already renamed.
pub type ReplyHeaders = Vec<(HeaderName, HeaderValue)>;

/// A header as text; `None` where it is absent or not text.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The headers of a response may be this long in sum, with their separators.
const HEAD_MAX: usize = 32 * 1024;

/// A response that states its length twice is where two parsers part ways. The length of the head is counted here,
/// because the reader's own limit is that of a buffer, and a read may end beyond it.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), Error> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > HEAD_MAX {
        return Err(Error::Protocol("its headers are longer than 32 KiB"));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && headers.contains_key(header::TRANSFER_ENCODING)) {
        return Err(Error::Protocol("it states its length twice"));
    }
    Ok(())
}

/// What a client may see of the upstream's headers: limits and ids under names of their own.
pub(super) fn reply_headers(headers: &HeaderMap) -> ReplyHeaders {
    let mut kept = Vec::new();
    for (name, value) in headers {
        let text = name.as_str();
        let renamed = match text {
            "openai-processing-ms" => Some(name.clone()),
            "x-request-id" => Some(HeaderName::from_static("x-upstream-request-id")),
            _ if text.starts_with("x-ratelimit-") => HeaderName::try_from(format!("x-upstream-{}", &text[2..])).ok(),
            _ => None,
        };
        if let Some(renamed) = renamed {
            kept.push((renamed, value.clone()));
        }
    }
    kept
}

/// An error before the head of the response.
pub(super) fn early(error: &hyper::Error, reused: bool) -> Error {
    if error.is_parse() {
        return Error::Protocol("its head cannot be parsed");
    }
    match h2_reason(error) {
        Some(h2::Reason::REFUSED_STREAM | h2::Reason::NO_ERROR | h2::Reason::CANCEL) | None => {
            Error::ClosedEarly { reused }
        }
        Some(_) => Error::Protocol("HTTP/2 error"),
    }
}

/// An error in the middle of the body.
pub(super) fn midway(error: &hyper::Error) -> Error {
    use std::io::ErrorKind;
    if let Some(reason) = h2_reason(error) {
        return if reason == h2::Reason::PROTOCOL_ERROR { Error::Protocol("HTTP/2 error") } else { Error::Reset };
    }
    let kind = source::<std::io::Error>(error).map(std::io::Error::kind);
    match kind {
        Some(ErrorKind::UnexpectedEof) => Error::Truncated,
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Error::Protocol("its chunks cannot be parsed"),
        Some(_) => Error::Reset,
        None if error.is_incomplete_message() || error.is_closed() => Error::Truncated,
        None if error.is_parse() => Error::Protocol("its body cannot be parsed"),
        None => Error::Reset,
    }
}

fn h2_reason(error: &hyper::Error) -> Option<h2::Reason> {
    source::<h2::Error>(error).and_then(h2::Error::reason)
}

fn source<T: std::error::Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut next = std::error::Error::source(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        next = e.source();
    }
    None
}
