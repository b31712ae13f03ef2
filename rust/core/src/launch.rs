//! Starting a call on the caller's thread: its first poll there, all later ones on the runtime.
//!
//! On a pooled connection the first poll writes the request. Done on the thread that asks for it, the runtime's
//! thread sleeps until the answer comes: one wake-up and one switch less for each call.

use parking_lot::Mutex;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};
use tokio::runtime::Handle;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

enum State {
    /// The first poll is running; nobody woke it yet.
    Polling,
    /// Woken during its first poll.
    Woken,
    /// Waiting for its first wake-up.
    Parked(Task),
    /// With the runtime, or over.
    Gone,
}

struct FirstWake {
    state: Mutex<State>,
    runtime: Handle,
}

impl Wake for FirstWake {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Parked(task) => drop(self.runtime.spawn(task)),
            State::Polling | State::Woken => *state = State::Woken,
            State::Gone => {}
        }
    }
}

/// Polls `task` once on this thread, and hands it to the runtime at its first wake-up. It must not panic.
pub fn launch(runtime: &Handle, mut task: Task) {
    let first = Arc::new(FirstWake { state: Mutex::new(State::Polling), runtime: runtime.clone() });
    let waker = Waker::from(first.clone());
    let polled = {
        let _context = runtime.enter();
        task.as_mut().poll(&mut Context::from_waker(&waker))
    };
    let mut state = first.state.lock();
    *state = match (polled, &*state) {
        (Poll::Ready(()), _) => State::Gone,
        (Poll::Pending, State::Woken) => {
            drop(runtime.spawn(task));
            State::Gone
        }
        (Poll::Pending, _) => State::Parked(task),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};
    use tokio::sync::oneshot;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime")
    }

    #[test]
    fn the_first_poll_is_here_and_the_rest_there() {
        let runtime = runtime();
        let (go, gone) = oneshot::channel::<()>();
        let (done, finished) = std::sync::mpsc::channel();
        let task = async move {
            let before = thread::current().id();
            gone.await.expect("sent");
            done.send((before, thread::current().id())).expect("heard");
        };
        launch(runtime.handle(), Box::pin(task));
        go.send(()).expect("waited for");
        let (before, after) = finished.recv_timeout(Duration::from_secs(5)).expect("in time");
        assert_eq!(before, thread::current().id());
        assert_ne!(after, thread::current().id());
    }

    #[test]
    fn a_wake_up_during_the_first_poll_is_not_lost() {
        let runtime = runtime();
        for _ in 0..2000 {
            let (done, finished) = std::sync::mpsc::channel();
            let task = async move {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_micros(50)).await;
                done.send(()).expect("heard");
            };
            launch(runtime.handle(), Box::pin(task));
            finished.recv_timeout(Duration::from_secs(5)).expect("in time");
        }
    }
}
