//! The HTTP body of a stream, which may go on after the stream has ended for the client.

use super::pool::Lease;
use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use std::{
    future::poll_fn,
    task::{ready, Context, Poll},
    time::Duration,
};

/// After the end of a stream, for the end of the HTTP body, so that the connection can be used again.
const LINGER: Duration = Duration::from_secs(1);

/// A body that is being read, with its connection.
pub(super) struct Rest {
    pub(super) lease: Lease,
    pub(super) body: Incoming,
}

impl Rest {
    /// The next piece of the body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.lease.poll_frame(&mut self.body, cx)
    }

    /// The body was read to its end.
    pub(super) fn release(self) {
        self.lease.release();
    }

    /// After `[DONE]`: nothing but the end of the HTTP body may come, or the connection is not used again.
    pub(super) async fn linger(mut self) {
        let silent = poll_fn(|cx| loop {
            match ready!(self.poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Ok(frame)) if frame.data_ref().is_none_or(Bytes::is_empty) => {}
                Some(_) => return Poll::Ready(false),
            }
        });
        if tokio::time::timeout(LINGER, silent).await == Ok(true) {
            self.release();
        }
    }
}
