//! A whole answer in the shape that was asked for: as it is, as the stream it would have been, or as a response.

use crate::{
    chat::{answer, convert, observe::Observed, Operation},
    relay::Plan,
    responses::{self, Closing},
    Error,
};

/// What the client gets of it.
pub struct Shown {
    /// The body, or all events of a stream but the closing one.
    pub bytes: Vec<u8>,
    /// What was seen.
    pub observed: Observed,
    /// Of a stream that is kept or shaped.
    pub closing: Option<Closing>,
}

/// `stream`: events were asked for.
pub fn shown(plan: &Plan, stream: bool, content_type: Option<&str>, body: Vec<u8>) -> Result<Shown, Error> {
    if stream && plan.operation == Operation::Responses {
        return Err(Error::BadContentType);
    }
    if plan.shape.is_some() {
        let (events, closing, observed) = responses::whole(plan, content_type, body)?;
        return Ok(if stream {
            Shown { bytes: events, observed, closing: Some(closing) }
        } else {
            Shown { bytes: closing.response, observed, closing: None }
        });
    }
    if !stream {
        let (bytes, observed) = answer::read(plan, content_type, body)?;
        return Ok(Shown { bytes, observed, closing: None });
    }
    let (bytes, observed) = convert::to_events(plan, body)?;
    let kept = plan.keep.then(|| convert::joined(&bytes)).flatten();
    let closing = kept.map(|response| Closing { response, event: Vec::new() });
    Ok(Shown { bytes, observed, closing })
}
