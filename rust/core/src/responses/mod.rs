//! The Responses API over an upstream that only chats: its chunks in, the events of one response out.
//!
//! The gateway's Python side makes the head of the response, once; everything that follows from the answer is
//! made here. `response.completed` and `response.incomplete` follow a terminal marker only.

mod item;
mod logprobs;
mod native;
mod shape;
mod write;

use crate::chat::observe::Observed;
use crate::chat::{answer, convert, Operation};
use crate::error::Error;
use crate::relay::{Plan, Relay};
pub use native::Native;
pub use shape::Shaper;

/// The response that an answer becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `resp_…`; the ids of its items are made of what follows the underscore.
    pub id: String,
    /// The response as a JSON object, without its closing brace and without what the answer decides: `status`,
    /// `error`, `incomplete_details`, `output` and `usage`.
    pub head: String,
    /// Show what the model thinks as the summary that the client asked for; otherwise as the reasoning itself.
    pub summary: bool,
    /// Show the log probabilities of what the model says, which the client asked for.
    pub logprobs: bool,
}

/// How a response ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// The response as one JSON object.
    pub response: Vec<u8>,
    /// The event that ends its stream; none for a client that is gone.
    pub event: Vec<u8>,
}

/// A whole answer as the events of a response. `plan` must have a shape.
pub fn whole(plan: &Plan, content_type: Option<&str>, body: Vec<u8>) -> Result<(Vec<u8>, Closing, Observed), Error> {
    if plan.operation == Operation::Responses {
        return native_whole(plan, content_type, body);
    }
    let chat = Plan { shape: None, hide_usage: false, ..plan.clone() };
    let (body, observed) = answer::read(&chat, content_type, body)?;
    let (chunks, _) = convert::to_events(&Plan { thinking: None, logprobs: None, said: None, ..chat }, body)?;
    // What was read within the caps is larger as events.
    let unbounded = Plan {
        max_event_bytes: usize::MAX,
        max_answer_bytes: u64::MAX,
        thinking: None,
        logprobs: None,
        said: None,
        ..plan.clone()
    };
    let mut relay = Relay::new(unbounded);
    let mut events = Vec::with_capacity(chunks.len() * 2);
    relay.push(&chunks, &mut events)?;
    relay.end(&mut events)?;
    let closing = relay.take_closing().ok_or(Error::Internal)?;
    Ok((events, closing, observed))
}

/// A whole response of an upstream that has the API itself.
fn native_whole(plan: &Plan, content_type: Option<&str>, body: Vec<u8>) -> Result<(Vec<u8>, Closing, Observed), Error> {
    let shape = plan.shape.clone().ok_or(Error::Internal)?;
    if answer::form(content_type, &body) != answer::Form::Json {
        return Err(Error::BadContentType);
    }
    let unnamed = Plan { public_model: None, shape: None, ..plan.clone() };
    let (body, mut observed) = answer::read(&unnamed, content_type, body)?;
    let response = Native::new(shape).whole(&body, &mut observed)?;
    Ok((Vec::new(), Closing { response, event: Vec::new() }, observed))
}
