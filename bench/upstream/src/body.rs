//! The bodies of the upstream's answers: all at once, or events at their times.

use crate::{script::Script, stamps::now_ns};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// What the server sends.
pub enum Answer {
    /// A plain answer.
    Whole(Option<Bytes>),
    /// A streamed one.
    Stream(Box<Events>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Stream(events) => match events.poll_next(context) {
                Poll::Ready(bytes) => bytes,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The events of one stream: chunks with text, the finish, the usage if asked for, `[DONE]`.
pub struct Events {
    script: Script,
    head: String,
    tail: String,
    usage: bool,
    next: u64,
    begin: Instant,
    clock: Option<Pin<Box<Sleep>>>,
}

impl Events {
    /// `phase` moves all chunks but the first by that much: streams that begin together must not tick together.
    pub fn new(model: &str, script: Script, usage: bool, phase: Duration) -> Self {
        let begin = Instant::now() + Duration::from_millis(script.first_ms) + phase;
        let model = serde_json::Value::from(model);
        Self {
            script,
            head: format!(
                "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1700000000,\"model\":{model},\"choices\":["
            ),
            tail: format!("@{}\"}},\"finish_reason\":null}}]}}\n\n", script.filler(1)),
            usage,
            next: 0,
            begin,
            clock: None,
        }
    }

    /// When the next event is due. A fixed plan, not a pause after each: a late chunk does not delay all others.
    fn due(&self) -> Option<Instant> {
        let index = self.next.min(self.script.chunks);
        let planned = (self.script.first_ms > 0 && index == 0)
            || (self.script.gap_ms > 0 && index > 0 && self.next < self.script.chunks);
        planned.then(|| self.begin + Duration::from_millis(self.script.gap_ms * index))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(due) = self.due() {
            if due > Instant::now() {
                let clock = self.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                if clock.deadline() != due {
                    clock.as_mut().reset(due);
                }
                if clock.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        let event = self.event();
        self.next += 1;
        Poll::Ready(event)
    }

    fn event(&self) -> Option<Bytes> {
        let chunks = self.script.chunks;
        let (head, tail) = (&self.head, &self.tail);
        let text = if self.next < chunks {
            format!("{head}{{\"index\":0,\"delta\":{{\"content\":\"@{}{tail}", now_ns())
        } else {
            match (self.next - chunks, self.usage) {
                (0, _) => {
                    format!("{head}{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n")
                }
                (1, true) => format!("{head}],\"usage\":{}}}\n\n", usage(chunks)),
                (1, false) | (2, true) => "data: [DONE]\n\n".to_owned(),
                _ => return None,
            }
        };
        Some(Bytes::from(text))
    }
}

/// The usage object of a chat answer.
pub fn usage(completion: u64) -> String {
    let total = completion + 20;
    format!("{{\"prompt_tokens\":20,\"completion_tokens\":{completion},\"total_tokens\":{total}}}")
}
