//! Running calls on a thread that has an event loop already: that loop polls, no second thread takes part.
//!
//! tokio gives the sockets, the timers and the name look-ups; the tasks are kept here. One `turn` asks tokio once,
//! without waiting, what has happened, and then runs every task that was woken.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    task::{Context, Poll, Wake, Waker},
};
use tokio::runtime::{Builder, Runtime};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// So many tasks run in one turn; what is left waits for the next, so that the loop's other work gets its time.
const TURN: usize = 1024;

/// The tasks that were woken, and how the loop hears of them while it does not turn.
struct Queue {
    woken: Mutex<VecDeque<Arc<Task>>>,
    turning: AtomicBool,
    closed: AtomicBool,
    kick: Box<dyn Fn() + Send + Sync>,
}

struct Task {
    // None once it has ended.
    future: Mutex<Option<Boxed>>,
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queue.closed.load(Ordering::Acquire) || self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.queue.woken.lock().push_back(self.clone());
        if !self.queue.turning.load(Ordering::Acquire) {
            (self.queue.kick)();
        }
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        // Before the poll: what wakes it meanwhile must queue it again.
        self.queued.store(false, Ordering::Release);
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else { return };
        let waker = Waker::from(self.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            *slot = None;
        }
    }
}

/// Calls on the thread of an event loop that is not tokio's.
pub struct Inline {
    runtime: Runtime,
    queue: Arc<Queue>,
}

impl Inline {
    /// `kick` is called from any thread when a turn is needed that no descriptor announces.
    pub fn new(kick: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // 64 threads at most for getaddrinfo: so many dead resolvers at once are needed to hold up a live one.
            .max_blocking_threads(64)
            .thread_name("sluicegate-dns")
            .build()?;
        let queue = Queue {
            woken: Mutex::default(),
            turning: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            kick: Box::new(kick),
        };
        Ok(Inline { runtime, queue: Arc::new(queue) })
    }

    /// tokio's side, for its reactor to be found.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Starts a task with its first poll here and now.
    pub fn start(&self, future: Boxed) {
        let _context = self.runtime.enter();
        Arc::new(Task {
            future: Mutex::new(Some(future)),
            queued: AtomicBool::new(false),
            queue: self.queue.clone(),
        })
        .run();
    }

    /// Runs what was woken; with `io`, asks the sockets and timers first.
    pub fn turn(&self, io: bool) {
        self.queue.turning.store(true, Ordering::Release);
        if io {
            // Pending once: in between, tokio polls its reactor without waiting.
            self.runtime.block_on(tokio::task::yield_now());
        }
        let _context = self.runtime.enter();
        for _ in 0..TURN {
            let Some(task) = self.queue.woken.lock().pop_front() else { break };
            task.run();
        }
        self.queue.turning.store(false, Ordering::Release);
        if !self.queue.woken.lock().is_empty() {
            (self.queue.kick)();
        }
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Release);
        self.queue.woken.lock().clear();
    }
}
