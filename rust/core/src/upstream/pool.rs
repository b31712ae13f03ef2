//! The connections of one upstream: idle HTTP/1.1 ones, shared HTTP/2 ones, and how a call holds one.
//!
//! An HTTP/1.1 connection is driven by the task of its call, not by a task of its own: no channel between two
//! tasks, and nothing runs while it is idle. Before it is used again it is polled once, which finds a close and
//! unasked bytes alike. HTTP/2 connections are shared, so each is driven by a task of its own.

use super::{connect::Stream, target::Target};
use crate::{inline, Error};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::{poll_fn, Future},
    pin::{pin, Pin},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// The largest read, and so a part of what a client that does not read can make us hold. A head that does not end
/// within two of them is refused while it is read; `response.rs` has the exact limit.
const READ_BUFFER: usize = 32 * 1024;
/// More headers than this are a flood.
const HEADERS_MAX: usize = 100;
/// Idle connections kept for one upstream; beyond it they are closed at once.
const IDLE_MAX: usize = 1024;
/// Streams on one HTTP/2 connection, and the window of each. Their product is the window of the connection, so
/// that 64 clients which do not read cannot starve the 65th.
const H2_STREAMS: usize = 64;
const H2_WINDOW: u32 = 128 * 1024;

type H1Connection = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// One HTTP/1.1 connection with the future that drives it.
struct H1 {
    sender: http1::SendRequest<Full<Bytes>>,
    // None once it has ended: it must not be polled again.
    connection: Option<Pin<Box<H1Connection>>>,
}

struct Idle {
    h1: H1,
    until: Instant,
    // See `inline::owner`.
    owner: usize,
}

struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    streams: Arc<AtomicUsize>,
    owner: usize,
}

#[derive(Default)]
struct Connections {
    idle: VecDeque<Idle>,
    shared: Vec<H2>,
}

/// All connections of one upstream.
#[derive(Default)]
pub struct Pool {
    connections: Mutex<Connections>,
    in_use: AtomicUsize,
}

impl Pool {
    /// Empty.
    pub fn new() -> Self {
        Pool::default()
    }

    /// (idle, in use): of HTTP/2 the connections count as idle, the streams as in use.
    pub fn counts(&self) -> (usize, usize) {
        let c = self.connections.lock();
        (c.idle.len() + c.shared.len(), self.in_use.load(Ordering::Relaxed))
    }

    /// Close what is idle.
    pub fn clear(&self) {
        let mut c = self.connections.lock();
        c.idle.clear();
        c.shared.clear();
    }

    /// A usable idle connection, the one used last first: the others can then grow old and be closed.
    fn take(&self) -> Option<Transport> {
        let mut c = self.connections.lock();
        let (now, owner) = (Instant::now(), inline::owner());
        while c.idle.front().is_some_and(|i| i.until <= now) {
            c.idle.pop_front();
        }
        while let Some(mut idle) = c.idle.pop_back() {
            if idle.until > now && idle.owner == owner && idle.h1.is_usable() {
                return Some(Transport::H1(idle.h1));
            }
        }
        c.shared.retain(|h| !h.sender.is_closed());
        let free = |h: &&H2| h.sender.is_ready() && h.streams.load(Ordering::Relaxed) < H2_STREAMS;
        let shared = c.shared.iter().filter(|h| h.owner == owner).find(free)?;
        Some(Transport::H2 { sender: shared.sender.clone(), streams: shared.streams.clone() })
    }

    fn put(&self, h1: H1, keep: Duration) {
        let mut c = self.connections.lock();
        if c.idle.len() < IDLE_MAX && !keep.is_zero() {
            c.idle.push_back(Idle { h1, until: Instant::now() + keep, owner: inline::owner() });
        }
    }
}

impl H1 {
    /// Still open, and silent since its last answer.
    fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match &mut self.connection {
            Some(c) => c.as_mut().poll(&mut cx).is_pending() && self.sender.is_ready(),
            None => false,
        }
    }
}

enum Transport {
    H1(H1),
    H2 {
        sender: http2::SendRequest<Full<Bytes>>,
        streams: Arc<AtomicUsize>,
    },
    /// Given back to the pool.
    Released,
}

/// A connection in the hands of one call. Dropping it closes it (HTTP/1.1) or resets the stream (HTTP/2).
pub struct Lease {
    target: Arc<Target>,
    transport: Transport,
    /// It came from the pool: the peer may have closed it just now.
    pub reused: bool,
    // How long it may wait for its next call. Known from the head of the answer, which is not kept for it: header
    // values are slices of the buffer that the head was read into, 8 KiB for each open stream.
    keep: Duration,
}

impl Lease {
    /// From the pool, or a new connection.
    pub async fn get(target: &Arc<Target>, fresh: bool, by: Instant) -> Result<Self, Error> {
        let pooled = if fresh { None } else { target.pool.take() };
        let (transport, reused) = match pooled {
            Some(t) => (t, true),
            // Boxed: connecting needs kilobytes of state, and most calls of a busy upstream never do.
            None => (Box::pin(open(target, by)).await?, false),
        };
        target.pool.in_use.fetch_add(1, Ordering::Relaxed);
        if let Transport::H2 { streams, .. } = &transport {
            streams.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Lease { target: target.clone(), transport, reused, keep: Duration::ZERO })
    }

    /// HTTP/2 wants the full URI and no `Host`.
    pub fn is_h2(&self) -> bool {
        matches!(self.transport, Transport::H2 { .. })
    }

    /// Sends the request and waits for the head of the response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let response = match &mut self.transport {
            Transport::Released => std::future::pending().await,
            Transport::H2 { sender, .. } => sender.send_request(request).await,
            Transport::H1(h1) => {
                let mut response = pin!(h1.sender.send_request(request));
                let connection = &mut h1.connection;
                poll_fn(|cx| {
                    // First the request into its channel, then the connection takes and writes it, then a look
                    // at the response: all in one poll, so a reused connection costs no wake-up of its own.
                    if let Poll::Ready(r) = response.as_mut().poll(cx) {
                        return Poll::Ready(r);
                    }
                    drive(connection, cx);
                    response.as_mut().poll(cx)
                })
                .await
            }
        }?;
        self.keep = keep_for(response.headers(), self.target.pool_idle_timeout);
        Ok(response)
    }

    /// The next piece of the body.
    pub fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        match &mut self.transport {
            Transport::H2 { .. } | Transport::Released => Poll::Pending,
            Transport::H1(h1) => {
                drive(&mut h1.connection, cx);
                Pin::new(body).poll_frame(cx)
            }
        }
    }

    /// The answer was read to its end: keep the connection where both sides agree to that.
    pub fn release(mut self) {
        // A stream of HTTP/2 is given back by dropping it.
        if self.is_h2() {
            return;
        }
        if let Transport::H1(mut h1) = std::mem::replace(&mut self.transport, Transport::Released) {
            if h1.is_usable() {
                self.target.pool.put(h1, self.keep);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.pool.in_use.fetch_sub(1, Ordering::Relaxed);
        if let Transport::H2 { streams, .. } = &self.transport {
            streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Polls the connection; forgets it once it has ended.
fn drive(connection: &mut Option<Pin<Box<H1Connection>>>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|c| c.as_mut().poll(cx).is_ready()) {
        *connection = None;
    }
}

async fn open(target: &Arc<Target>, by: Instant) -> Result<Transport, Error> {
    let stream = super::connect::connect(target, by).await?;
    if stream.is_h2() {
        return open_h2(target, stream).await;
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Error::Connect)?;
    Ok(Transport::H1(H1 { sender, connection: Some(Box::pin(connection)) }))
}

/// Where HTTP/2 runs its own tasks.
#[derive(Clone, Copy)]
struct Spawner;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        inline::spawn(future);
    }
}

async fn open_h2(target: &Arc<Target>, stream: Stream) -> Result<Transport, Error> {
    let (sender, connection) = http2::Builder::new(Spawner)
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW * H2_STREAMS as u32)
        .max_header_list_size(READ_BUFFER as u32)
        // A connection that died silently would otherwise take new streams until TCP gives up, after minutes.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Error::Protocol("the HTTP/2 connection could not be set up"))?;
    inline::spawn(async move {
        // Its error reaches each stream by itself.
        let _ = connection.await;
    });
    let streams = Arc::new(AtomicUsize::new(0));
    let mut c = target.pool.connections.lock();
    c.shared.push(H2 { sender: sender.clone(), streams: streams.clone(), owner: inline::owner() });
    Ok(Transport::H2 { sender, streams })
}

/// How long a connection may wait for its next call: our own setting, or a second less than what the server
/// announces in `Keep-Alive: timeout=5`, for it closes without asking.
fn keep_for(head: &HeaderMap, ours: Duration) -> Duration {
    let announced = head
        .get("keep-alive")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(',').find_map(|p| p.trim().strip_prefix("timeout=")))
        .and_then(|n| n.trim().parse::<u64>().ok());
    match announced {
        Some(s) => ours.min(Duration::from_secs(s.saturating_sub(1))),
        None => ours,
    }
}
