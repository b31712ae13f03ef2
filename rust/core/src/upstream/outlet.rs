//! Where a streamed answer waits for its reader: a bounded buffer between the relay and the event loop.

use crate::{chat::observe::Observed, responses::Closing, Error};
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// One batch to the client is at most this long. A server keeps a few batches queued for a slow client
/// (Granian: 4), so this times its queue is what a client that does not read can hold there.
pub const BATCH: usize = 8 * 1024;
/// With so much waiting, the upstream is not read further: backpressure.
const HIGH_WATER: usize = 16 * 1024;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its terminal marker.
    Finished,
    /// With an error.
    Failed,
    /// The client left, or the worker stopped.
    Cancelled,
}

/// How an answer ended and what was seen in it.
#[derive(Debug)]
pub struct Outcome {
    /// Which way.
    pub end: End,
    /// Why, unless finished.
    pub error: Option<Error>,
    /// Bytes that have not left yet.
    pub tail: Vec<u8>,
    /// The whole of it, where it is kept or shaped; its event follows the tail.
    pub closing: Option<Closing>,
    /// Usage, finish reasons and the like.
    pub observed: Observed,
    /// From the call's start to the first event.
    pub first_event: Option<Duration>,
    /// From the call's start to its end.
    pub duration: Duration,
    /// Connections tried.
    pub attempts: u32,
}

/// Tells a running call to stop, and why.
#[derive(Default)]
pub struct Cancel {
    cause: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Cancel {
    /// Stop: the client has gone.
    pub fn client_closed(&self) {
        self.set(1);
    }

    /// Stop: the worker ends.
    pub fn shutdown(&self) {
        self.set(2);
    }

    /// Stop: the key of the request is none any more.
    pub fn key_revoked(&self) {
        self.set(3);
    }

    /// Stop: the time of the request's key is over.
    pub fn key_expired(&self) {
        self.set(4);
    }

    fn set(&self, cause: u8) {
        // The first cause stays.
        let _ = self.cause.compare_exchange(0, cause, Ordering::AcqRel, Ordering::Acquire);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Ready with the error to end with.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Error> {
        remember(&mut self.waker.lock(), cx);
        match self.cause.load(Ordering::Acquire) {
            0 => Poll::Pending,
            1 => Poll::Ready(Error::Cancelled),
            2 => Poll::Ready(Error::Shutdown),
            3 => Poll::Ready(Error::KeyRevoked),
            _ => Poll::Ready(Error::KeyExpired),
        }
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

#[derive(Default)]
struct State {
    ready: Vec<u8>,
    outcome: Option<Box<Outcome>>,
    // In the queue of the event loop already: no need to put it there again.
    queued: bool,
    // The relay, waiting for room.
    waiting: Option<Waker>,
}

/// The buffer of one stream.
#[derive(Default)]
pub struct Outlet {
    state: Mutex<State>,
    /// Set by the reader's side.
    pub cancel: std::sync::Arc<Cancel>,
}

/// What a reader gets.
pub enum Taken {
    /// Nothing yet; the outlet is queued again when there is something.
    Nothing,
    /// Bytes to send on, more to follow.
    Batch(Vec<u8>),
    /// The end; its tail holds the last bytes.
    Ended(Box<Outcome>),
}

impl Outlet {
    /// With the cancel switch of its call.
    pub fn new(cancel: std::sync::Arc<Cancel>) -> Self {
        Outlet { state: Mutex::default(), cancel }
    }

    /// Adds bytes; true when the event loop has to be told.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> bool {
        let mut s = self.state.lock();
        if s.ready.is_empty() {
            std::mem::swap(&mut s.ready, out);
        } else {
            s.ready.append(out);
        }
        !std::mem::replace(&mut s.queued, true)
    }

    /// The last bytes and how it ended; true when the event loop has to be told.
    pub(super) fn end(&self, out: &mut Vec<u8>, outcome: Outcome) -> bool {
        let mut s = self.state.lock();
        s.ready.append(out);
        s.outcome = Some(Box::new(outcome));
        !std::mem::replace(&mut s.queued, true)
    }

    /// Ready when there is room for more.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut s = self.state.lock();
        if s.ready.len() < HIGH_WATER {
            return Poll::Ready(());
        }
        remember(&mut s.waiting, cx);
        Poll::Pending
    }

    /// A copy of what waits, which is all that has come while nothing was taken.
    pub fn peek(&self) -> Vec<u8> {
        self.state.lock().ready.clone()
    }

    /// The next batch, or the end. After `Nothing` the outlet is no longer queued.
    pub fn take(&self) -> Taken {
        let mut s = self.state.lock();
        if s.ready.len() <= BATCH {
            if let Some(mut outcome) = s.outcome.take() {
                outcome.tail = std::mem::take(&mut s.ready);
                return Taken::Ended(outcome);
            }
        }
        if s.ready.is_empty() {
            s.queued = false;
            return Taken::Nothing;
        }
        let rest = if s.ready.len() > BATCH { s.ready.split_off(BATCH) } else { Vec::new() };
        let batch = std::mem::replace(&mut s.ready, rest);
        if s.ready.len() < HIGH_WATER {
            if let Some(waker) = s.waiting.take() {
                waker.wake();
            }
        }
        Taken::Batch(batch)
    }

    /// Ends a stream whose relay is gone (it panicked): the client gets an error event, not silence.
    pub fn abort(&self, error: Error) -> bool {
        let mut s = self.state.lock();
        if s.outcome.is_some() {
            return false;
        }
        crate::sse::encode::error(&error, &mut s.ready);
        s.outcome = Some(Box::new(Outcome {
            end: End::Failed,
            error: Some(error),
            tail: Vec::new(),
            closing: None,
            observed: Observed::default(),
            first_event: None,
            duration: Duration::ZERO,
            attempts: 0,
        }));
        !std::mem::replace(&mut s.queued, true)
    }

    /// The reader stops taking for now, as its own client is slow: keep the outlet out of the queue until
    /// `resume`, whatever arrives.
    pub fn pause(&self) {
        self.state.lock().queued = true;
    }
}
