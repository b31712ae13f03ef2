//! One call to an upstream, from the request to the last byte of the answer.
//!
//! `run` is the whole life of a call: get a connection, send, read the head, then read a plain answer whole or
//! relay a stream. All ways end in `finish`, which alone decides what the caller is told.

use super::{
    deadline::{Deadline, Expiry},
    decoding::Decoder,
    linger::Rest,
    outlet::{Cancel, End, Outcome, Outlet, BATCH},
    pool::Lease,
    request::build,
    response::{check_head, early, header_text, midway, reply_headers, ReplyHeaders},
    sniff::sniff,
    target::Target,
    whole,
};
use crate::{
    chat::{
        answer::{self, Form},
        observe::Observed,
    },
    relay::{Plan, Relay, State},
    responses::Closing,
    Error,
};
use http::{header, HeaderMap, Response, StatusCode};
use hyper::body::{Body, Incoming};
use std::{
    future::{poll_fn, Future},
    pin::pin,
    sync::{
        atomic::{AtomicU32, Ordering},
        Arc,
    },
    task::{Context, Poll},
    time::Duration,
};

pub use super::request::Call;

/// Interim responses (100, 103) before the real one; more is a flood.
const INTERIM_MAX: u32 = 16;
/// So much of an error's body is read: enough for a message, too little to hurt.
const ERROR_BODY: usize = 4096;
/// A request up to this size is sent once more when a pooled connection turns out to be closed.
const REPLAY_MAX: usize = 64 * 1024;
/// Frames read in a row before other streams get their turn.
const TURN: usize = 32;

/// What the caller is told, once.
pub enum Reply {
    /// The whole answer.
    Plain {
        /// Renamed upstream headers.
        headers: ReplyHeaders,
        /// The body for the client.
        body: Vec<u8>,
        /// What was seen.
        outcome: Box<Outcome>,
    },
    /// A stream whose first bytes are in the outlet.
    Stream {
        /// Renamed upstream headers.
        headers: ReplyHeaders,
        /// Where it arrives.
        outlet: Arc<Outlet>,
    },
}

/// The caller's side of a call.
pub trait Sink: Send + Sync {
    /// Called exactly once, unless the task is dropped.
    fn reply(&self, reply: Result<Reply, Error>);
    /// The outlet has something new; only after a stream's `reply`.
    fn ready(&self, outlet: &Arc<Outlet>);
}

/// Makes the call. Ends when the answer has ended, whether or not anybody still listens.
pub async fn run<S: Sink>(target: Arc<Target>, call: Call, cancel: Arc<Cancel>, sink: &S) {
    let plan = call.plan(&target);
    let tick = if call.stream { call.keep_alive } else { Duration::ZERO };
    let large = call.body.as_ref().is_some_and(|b| b.len() > REPLAY_MAX);
    let mut exchange = Exchange {
        deadline: Deadline::start(call.clocks, tick),
        relay: Relay::new(plan.clone()),
        outlet: Arc::new(Outlet::new(cancel.clone())),
        headers: Vec::new(),
        out: Vec::new(),
        replied: false,
        first_event: None,
        attempts: 0,
        large,
        target,
        plan,
        call,
        cancel,
        sink,
    };
    let answered = exchange.answer().await;
    Box::pin(exchange.finish(answered)).await;
}

struct Exchange<'s, S: Sink> {
    target: Arc<Target>,
    call: Call,
    plan: Plan,
    cancel: Arc<Cancel>,
    sink: &'s S,
    deadline: Deadline,
    relay: Relay,
    outlet: Arc<Outlet>,
    headers: ReplyHeaders,
    // Client-facing bytes that are not in the outlet yet.
    out: Vec<u8>,
    replied: bool,
    first_event: Option<Duration>,
    attempts: u32,
    // The request is above `REPLAY_MAX`.
    large: bool,
}

/// What is left to do once the answer is complete.
enum Answered {
    Plain {
        body: Vec<u8>,
        observed: Observed,
    },
    Stream {
        // Of a converted answer; else the relay has them.
        observed: Option<(Observed, Option<Closing>)>,
        rest: Option<Rest>,
    },
}

impl<S: Sink> Exchange<'_, S> {
    async fn answer(&mut self) -> Result<Answered, Error> {
        // Boxed where a phase is over soon: an open stream should hold the state of streaming and no other.
        let (mut lease, response) = Box::pin(self.open()).await?;
        // Sent, and never again: a long prompt must not stay in memory for as long as its answer streams.
        self.call.body = None;
        let (head, mut body) = response.into_parts();
        self.relay.enter(State::FirstEvent);
        check_head(&head.headers)?;
        let status = head.status;
        if status != StatusCode::OK && !(status.is_success() && status != StatusCode::NO_CONTENT) {
            return Err(Box::pin(self.read_error(status, &head.headers, lease, body)).await);
        }
        self.headers = reply_headers(&head.headers);
        let encoding = header_text(&head.headers, &header::CONTENT_ENCODING);
        let mut decoder = Decoder::new(encoding)?;
        let kind = header_text(&head.headers, &header::CONTENT_TYPE);
        let mut first = Vec::new();
        let form = match kind.filter(|k| !k.trim().is_empty()) {
            Some(kind) => answer::form(Some(kind), b""),
            None if self.call.stream && !body.is_end_stream() => {
                let form;
                (first, form) = Box::pin(self.wait(sniff(&mut lease, &mut body, &mut decoder))).await??;
                form
            }
            // Read whole first: `answer::read` looks at all of it.
            None => Form::Json,
        };
        if self.call.stream && form == Form::Events {
            // Its values hold the buffer that it was read into.
            drop(head);
            return self.relay_stream(Rest { lease, body }, decoder, first).await;
        }
        if first.is_empty() && body.is_end_stream() {
            return Err(Error::Empty);
        }
        if form == Form::Other {
            return Err(Error::BadContentType);
        }
        let kind = kind.map(str::to_owned);
        let whole = Box::pin(self.read_whole(lease, body, &mut decoder, first)).await?;
        let shown = whole::shown(&self.plan, self.call.stream, kind.as_deref(), whole)?;
        if !self.call.stream {
            return Ok(Answered::Plain { body: shown.bytes, observed: shown.observed });
        }
        self.out.extend_from_slice(&shown.bytes);
        self.first_event = Some(self.deadline.started().elapsed());
        Ok(Answered::Stream { observed: Some((shown.observed, shown.closing)), rest: None })
    }

    /// Sends the request, once more on a fresh connection where a pooled one was already closed.
    async fn open(&mut self) -> Result<(Lease, Response<Incoming>), Error> {
        loop {
            self.attempts += 1;
            let by = self.deadline.connect_by();
            let target = self.target.clone();
            let fresh = self.attempts > 1;
            let mut lease = self.wait(async move { Lease::get(&target, fresh, by).await }).await??;
            let interim = Arc::new(AtomicU32::new(0));
            let request = build(&self.target, &self.call, lease.is_h2(), interim.clone());
            self.relay.enter(State::Headers);
            let sent = {
                let mut sending = pin!(lease.send(request));
                let watched = poll_fn(|cx| {
                    let polled = sending.as_mut().poll(cx);
                    if interim.load(Ordering::Relaxed) > INTERIM_MAX {
                        return Poll::Ready(Err(Error::Protocol("too many interim responses")));
                    }
                    polled.map(Ok)
                });
                self.wait(watched).await??
            };
            match sent {
                Ok(response) => return Ok((lease, response)),
                Err(e) => match early(&e, lease.reused) {
                    Error::ClosedEarly { reused: true } if !self.large && self.attempts < 2 => continue,
                    error => return Err(error),
                },
            }
        }
    }

    /// Waits for `future`, the cancel switch or a clock; sends keep-alives meanwhile.
    async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.cancel.poll(cx) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.poll_clocks(cx).map(Err)
        })
        .await
    }

    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            match self.deadline.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Expiry::Over(error)) => return Poll::Ready(error),
                Poll::Ready(Expiry::Tick) => {
                    self.out.extend_from_slice(b": keep-alive\n\n");
                    self.publish();
                }
            }
        }
    }

    async fn read_error(
        &mut self,
        status: StatusCode,
        head: &HeaderMap,
        mut lease: Lease,
        mut body: Incoming,
    ) -> Error {
        let mut prefix = Vec::new();
        let complete = self
            .wait(poll_fn(|cx| loop {
                match std::task::ready!(lease.poll_frame(&mut body, cx)) {
                    None => return Poll::Ready(true),
                    Some(Err(_)) => return Poll::Ready(false),
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        prefix.extend_from_slice(&data[..data.len().min(ERROR_BODY - prefix.len())]);
                        if prefix.len() >= ERROR_BODY {
                            return Poll::Ready(false);
                        }
                    }
                }
            }))
            .await;
        match complete {
            Err(error) if error.stops_call() => return error,
            _ => {}
        }
        // A server often refuses a large request without having read it, and then closes. The next large one must not
        // meet that connection, for it could not be sent again.
        if complete == Ok(true) && !self.large {
            lease.release();
        }
        let text = |name: &str| head.get(name).and_then(|v| v.to_str().ok());
        answer::read_error(
            status.as_u16(),
            text("retry-after"),
            text("retry-after-ms"),
            text("x-should-retry"),
            &prefix,
        )
    }

    async fn read_whole(
        &mut self,
        mut lease: Lease,
        mut body: Incoming,
        decoder: &mut Decoder,
        mut whole: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        self.deadline.touch(true);
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.cancel.poll(cx) {
                return Poll::Ready(Err(error));
            }
            for turn in 0.. {
                if turn == TURN {
                    cx.waker().wake_by_ref();
                    break;
                }
                match lease.poll_frame(&mut body, cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(midway(&e))),
                    Poll::Ready(Some(Ok(frame))) => {
                        let Ok(data) = frame.into_data() else { continue };
                        if let Err(e) = self.keep(&data, decoder, &mut whole) {
                            return Poll::Ready(Err(e));
                        }
                    }
                }
            }
            self.poll_clocks(cx).map(Err)
        })
        .await?;
        decoder.finish()?;
        lease.release();
        Ok(whole)
    }

    /// Adds a part of a plain answer. Each part starts the idle clock anew: some upstreams send white space while
    /// the model thinks.
    fn keep(&mut self, data: &[u8], decoder: &mut Decoder, whole: &mut Vec<u8>) -> Result<(), Error> {
        whole.extend_from_slice(&decoder.decode(data)?);
        let limit = self.target.max_answer_bytes;
        if whole.len() as u64 > limit {
            return Err(Error::AnswerTooLarge { limit });
        }
        self.deadline.touch(true);
        Ok(())
    }

    /// `first` is what was read of the body already, decoded.
    async fn relay_stream(&mut self, mut rest: Rest, mut decoder: Decoder, first: Vec<u8>) -> Result<Answered, Error> {
        if !first.is_empty() && self.feed(&first)? {
            return Ok(Answered::Stream { observed: None, rest: Some(rest) });
        }
        drop(first);
        let mut stalled = false;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(error) = self.cancel.poll(cx) {
                return Poll::Ready(Err(error));
            }
            for turn in 0.. {
                if turn == TURN {
                    cx.waker().wake_by_ref();
                    break;
                }
                if self.out.len() >= BATCH {
                    self.publish();
                }
                if self.outlet.poll_room(cx).is_pending() {
                    stalled = true;
                    self.deadline.suspend();
                    break;
                }
                if std::mem::take(&mut stalled) {
                    self.deadline.touch(true);
                }
                match rest.poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(self.relay.end(&mut self.out).map(|()| true)),
                    Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(midway(&e))),
                    Poll::Ready(Some(Ok(frame))) => {
                        let Ok(data) = frame.into_data() else { continue };
                        match decoder.decode(&data).and_then(|decoded| self.feed(&decoded)) {
                            Ok(false) => {}
                            Ok(true) => return Poll::Ready(Ok(false)),
                            Err(e) => return Poll::Ready(Err(e)),
                        }
                    }
                }
            }
            self.publish();
            self.poll_clocks(cx).map(Err)
        })
        .await;
        match ended {
            Ok(at_eof) if at_eof => {
                rest.release();
                Ok(Answered::Stream { observed: None, rest: None })
            }
            Ok(_) => Ok(Answered::Stream { observed: None, rest: Some(rest) }),
            // Cut off without a last event: whether it was complete is still the relay's to say.
            Err(Error::Truncated) => {
                self.relay.end(&mut self.out).map(|()| Answered::Stream { observed: None, rest: None })
            }
            Err(e) => Err(e),
        }
    }

    /// True when the terminal marker was seen.
    fn feed(&mut self, decoded: &[u8]) -> Result<bool, Error> {
        let before = self.out.len();
        let progress = self.relay.push(decoded, &mut self.out)?;
        if progress.events > 0 {
            // A client that sees nothing of a long thought needs its keep-alives.
            self.deadline.touch(self.out.len() > before);
            if self.first_event.is_none() {
                self.first_event = Some(self.deadline.started().elapsed());
            }
        }
        Ok(progress.finished)
    }

    /// Hands over what is ready; the first time, together with the reply.
    fn publish(&mut self) {
        if self.out.is_empty() || self.holds() {
            return;
        }
        let tell = self.outlet.put(&mut self.out);
        if !self.replied {
            self.replied = true;
            let headers = std::mem::take(&mut self.headers);
            self.sink.reply(Ok(Reply::Stream { headers, outlet: self.outlet.clone() }));
        } else if tell {
            self.sink.ready(&self.outlet);
        }
    }

    /// Too little is there yet to say whether the client should have it.
    #[inline]
    fn holds(&self) -> bool {
        !self.replied && self.call.hold_bytes > 0 && self.relay.observed().answer_bytes() < self.call.hold_bytes
    }

    /// The one exit: the only place where a call is told how it ended.
    async fn finish(mut self, answered: Result<Answered, Error>) {
        let (end, error, observed, rest) = match answered {
            Ok(Answered::Plain { body, observed }) => {
                let outcome = Box::new(self.outcome(End::Finished, None, observed));
                let headers = std::mem::take(&mut self.headers);
                return self.sink.reply(Ok(Reply::Plain { headers, body, outcome }));
            }
            Ok(Answered::Stream { observed, rest }) => (End::Finished, None, observed, rest),
            // Nothing was sent, so the error keeps its status.
            Err(error) if !self.replied && (self.out.is_empty() || self.call.hold_bytes > 0) => {
                return self.sink.reply(Err(error));
            }
            Err(error @ Error::Cancelled) => {
                self.relay.fail(&error, &mut self.out);
                (End::Cancelled, Some(error), None, None)
            }
            Err(error) => {
                self.relay.fail(&error, &mut self.out);
                let end = if error.stops_call() { End::Cancelled } else { End::Failed };
                (end, Some(error), None, None)
            }
        };
        let (observed, closing) =
            observed.unwrap_or_else(|| (self.relay.observed().clone(), self.relay.take_closing()));
        let outcome = Outcome { closing, ..self.outcome(end, error, observed) };
        let tell = self.outlet.end(&mut self.out, outcome);
        if !self.replied {
            let headers = std::mem::take(&mut self.headers);
            self.sink.reply(Ok(Reply::Stream { headers, outlet: self.outlet.clone() }));
        } else if tell {
            self.sink.ready(&self.outlet);
        }
        if let Some(rest) = rest {
            Box::pin(rest.linger()).await;
        }
    }

    fn outcome(&self, end: End, error: Option<Error>, observed: Observed) -> Outcome {
        let duration = self.deadline.started().elapsed();
        Outcome {
            end,
            error,
            tail: Vec::new(),
            closing: None,
            observed,
            first_event: self.first_event,
            duration,
            attempts: self.attempts,
        }
    }
}
