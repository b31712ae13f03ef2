//! A panic in one call stays in that call.

use std::{
    future::Future,
    panic::{catch_unwind, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

/// Runs a future; `Err` if it panicked. The panic itself is reported by the panic hook.
pub struct Contained<F>(Pin<Box<F>>);

/// The future panicked.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

impl<F: Future> Contained<F> {
    /// Boxed, so that a runtime's own copy of the task stays one pointer wide.
    pub fn new(future: F) -> Self {
        Contained(Box::pin(future))
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Unwind safety: after a panic the future is never polled again, only dropped.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_value() {
        assert_eq!(Contained::new(async { 7 }).await, Ok(7));
        let boom = async {
            if std::hint::black_box(true) {
                panic!("on purpose")
            }
        };
        assert_eq!(Contained::new(boom).await, Err(Panicked));
    }
}
