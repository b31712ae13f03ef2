//! Running calls on a thread that has an event loop already: that loop polls, no second thread takes part.
//!
//! tokio gives the sockets, the timers and the name look-ups; the tasks are kept here. One `turn` asks tokio once,
//! without waiting, what has happened, and then runs every task that was woken.

use parking_lot::Mutex;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// So many tasks run in one turn; what is left waits for the next, so that the loop's other work gets its time.
const TURN: usize = 1024;

/// Shorter than any clock of a call.
const NEAR: Duration = Duration::from_millis(250);

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

thread_local! {
    /// The queue whose task is running on this thread.
    static CURRENT: RefCell<Option<Arc<Queue>>> = const { RefCell::new(None) };
}

impl Task {
    fn new(queue: &Arc<Queue>, future: Boxed) -> Arc<Self> {
        Arc::new(Task { future: Mutex::new(Some(future)), queued: AtomicBool::new(false), queue: queue.clone() })
    }

    fn run(self: Arc<Self>) {
        // Before the poll: what wakes it meanwhile must queue it again.
        self.queued.store(false, Ordering::Release);
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else { return };
        let outer = CURRENT.replace(Some(self.queue.clone()));
        let waker = Waker::from(self.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            *slot = None;
        }
        CURRENT.set(outer);
    }
}

/// Starts a task beside the one that is running: on the same thread where that is one of ours, else on tokio.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match CURRENT.with_borrow(Clone::clone) {
        Some(queue) => Task::new(&queue, Box::pin(future)).wake(),
        None => drop(tokio::spawn(future)),
    }
}

/// Tells apart whose sockets a thread may wait for: those of one loop never wake a call of another that stopped.
/// Zero: the sockets of a tokio runtime, which always runs.
pub fn owner() -> usize {
    CURRENT.with_borrow(|queue| queue.as_ref().map_or(0, |queue| Arc::as_ptr(queue) as usize))
}

/// Calls on the thread of an event loop that is not tokio's.
pub struct Inline {
    // None only while it is dropped.
    runtime: Option<Runtime>,
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
        // A timer that is always nearer than those of calls (minutes away): tokio wakes its reactor for a timer that
        // is earlier than all others, which here would be a write and a turn of the loop for each call.
        runtime.spawn(async {
            loop {
                tokio::time::sleep(NEAR).await;
            }
        });
        let queue = Queue {
            woken: Mutex::default(),
            turning: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            kick: Box::new(kick),
        };
        Ok(Inline { runtime: Some(runtime), queue: Arc::new(queue) })
    }

    /// Has tokio's reactor wake up, as a socket would: for its descriptor to be found by that.
    pub fn nudge(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async {});
        }
    }

    /// Starts a task with its first poll here and now. It must not panic.
    pub fn start(&self, future: Boxed) {
        let Some(runtime) = &self.runtime else { return };
        let _context = runtime.enter();
        Task::new(&self.queue, future).run();
    }

    /// Runs what was woken; with `io`, asks the sockets and timers first. Never waits.
    pub fn turn(&self, io: bool) {
        let Some(runtime) = &self.runtime else { return };
        self.queue.turning.store(true, Ordering::Release);
        if io {
            // Pending once: in between, tokio asks its reactor without waiting.
            runtime.block_on(tokio::task::yield_now());
        }
        let _context = runtime.enter();
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
        if let Some(runtime) = self.runtime.take() {
            // A name look-up that hangs must not hold up the end.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{atomic::AtomicUsize, mpsc},
        thread,
        time::Instant,
    };

    /// A loop that only listens for kicks, and asks for I/O every millisecond.
    fn run_until(inline: &Inline, kicks: &mpsc::Receiver<()>, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "nobody woke the task");
            let kicked = kicks.recv_timeout(Duration::from_millis(1)).is_ok();
            inline.turn(!kicked);
        }
    }

    fn inline() -> (Inline, mpsc::Receiver<()>) {
        let (kick, kicks) = mpsc::channel();
        let kick = Mutex::new(kick);
        let kick = move || {
            // The test may be over.
            let _ = kick.lock().send(());
        };
        let inline = Inline::new(kick).expect("a runtime");
        (inline, kicks)
    }

    #[test]
    fn everything_runs_on_the_thread_that_turns() {
        let (inline, kicks) = inline();
        let here = thread::current().id();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        inline.start(Box::pin(async move {
            assert_ne!(owner(), 0);
            tokio::time::sleep(Duration::from_millis(5)).await;
            let found = tokio::net::lookup_host(("localhost", 80)).await.expect("localhost").count();
            assert!(found > 0);
            let inner = count.clone();
            spawn(async move {
                assert_eq!(thread::current().id(), here);
                inner.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(thread::current().id(), here);
            count.fetch_add(1, Ordering::SeqCst);
        }));
        run_until(&inline, &kicks, || seen.load(Ordering::SeqCst) == 2);
        assert_eq!(owner(), 0);
    }

    #[test]
    fn a_wake_up_from_another_thread_is_heard() {
        let (inline, kicks) = inline();
        for _ in 0..500 {
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            let done = Arc::new(AtomicBool::new(false));
            let ended = done.clone();
            inline.start(Box::pin(async move {
                gone.await.expect("sent");
                ended.store(true, Ordering::SeqCst);
            }));
            let sender = thread::spawn(move || go.send(()).expect("waited for"));
            run_until(&inline, &kicks, || done.load(Ordering::SeqCst));
            sender.join().expect("sent");
        }
    }

    #[test]
    fn a_task_that_always_wakes_itself_does_not_keep_the_thread() {
        let (inline, kicks) = inline();
        inline.start(Box::pin(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        assert!(kicks.try_recv().is_ok());
        inline.turn(true);
        assert!(kicks.try_recv().is_ok(), "what is left has to be announced");
    }

    #[test]
    fn what_is_woken_after_the_end_stays_asleep() {
        let (inline, kicks) = inline();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        inline.start(Box::pin(async move { drop(gone.await) }));
        drop(inline);
        drop(go);
        assert!(kicks.try_recv().is_err());
    }
}
