//! A streamed answer without a content type: its first bytes say what it is.

use super::{decoding::Decoder, pool::Lease, response::midway};
use crate::{
    chat::answer::{self, Form},
    Error,
};
use hyper::body::Incoming;
use std::future::poll_fn;

/// So much may come without saying what it is, white space for example.
const UNDECIDED_MAX: usize = 1024;

/// Reads until that is clear; gives what was read, decoded, and what it is.
pub(super) async fn sniff(
    lease: &mut Lease,
    body: &mut Incoming,
    decoder: &mut Decoder,
) -> Result<(Vec<u8>, Form), Error> {
    let mut first = Vec::new();
    while first.len() < UNDECIDED_MAX {
        let Some(frame) = poll_fn(|cx| lease.poll_frame(body, cx)).await else {
            if first.trim_ascii().is_empty() {
                return Err(Error::Empty);
            }
            break;
        };
        let Ok(data) = frame.map_err(|e| midway(&e))?.into_data() else { continue };
        first.extend_from_slice(&decoder.decode(&data)?);
        let form = answer::form(None, &first);
        if form != Form::Other {
            return Ok((first, form));
        }
    }
    Ok((first, Form::Other))
}
