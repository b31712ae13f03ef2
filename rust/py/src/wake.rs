//! What tokio has ready for one event loop, and the descriptor that tells the loop so.
//!
//! The tokio thread never takes the GIL: it pushes here, and writes to the descriptor only if nobody has yet, and only
//! when it has nothing else to do: what came in one turn of its loop is one wake-up of the other. One `drain` then
//! settles everything, so under load a wake-up serves many calls.

use parking_lot::Mutex;
use pyo3::prelude::*;
use std::{
    cell::RefCell,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use crate::stream::Link;
use sluicegate_core::{upstream::exchange::Reply, Error};

/// Something the loop has to do.
pub enum Completion {
    /// Settle the future of a call.
    Reply { future: Py<PyAny>, reply: Result<Reply, Error>, link: Arc<Link> },
    /// Send what a stream has.
    Ready(Arc<Link>),
}

/// The queue of one loop.
pub struct Wake {
    queue: Mutex<Vec<Completion>>,
    signalled: AtomicBool,
    // Somebody takes from the queue right after this: no need to tell.
    attended: AtomicBool,
    reader: OwnedFd,
    writer: Option<OwnedFd>,
}

impl Wake {
    pub fn new() -> std::io::Result<Self> {
        let (reader, writer) = descriptor()?;
        Ok(Wake {
            queue: Mutex::default(),
            signalled: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            reader,
            writer,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    pub fn push(self: &Arc<Self>, completion: Completion) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.push(completion);
            queue.len()
        };
        if self.attended.load(Ordering::Acquire) {
            return;
        }
        if waiting >= AT_ONCE || !defer(self) {
            self.signal();
        }
    }

    /// Tells the loop, unless it has been told and has not heard yet.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            let writer = self.writer.as_ref().unwrap_or(&self.reader);
            // It can only fail when full, and then the loop is being told already.
            let _ = rustix::io::write(writer, &1u64.to_ne_bytes());
        }
    }

    /// Somebody will `take` soon, or will not.
    pub fn attended(&self, soon: bool) {
        self.attended.store(soon, Ordering::Release);
    }

    /// The descriptor was found readable: what is said from now on needs a new signal.
    pub fn hear(&self) {
        let _ = rustix::io::read(&self.reader, &mut [0u8; 64]);
        self.signalled.store(false, Ordering::Release);
    }

    /// Everything that is ready now.
    pub fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.queue.lock())
    }
}

/// So many completions are announced at once: a thread that always has more to do must still be heard.
const AT_ONCE: usize = 16;

thread_local! {
    /// On the I/O thread: whom to tell before it sleeps. Elsewhere `None`: tell at once.
    static UNTOLD: RefCell<Option<Vec<Arc<Wake>>>> = const { RefCell::new(None) };
}

/// Makes this the I/O thread, which calls `tell` before it sleeps.
pub fn begin_deferring() {
    UNTOLD.with_borrow_mut(|untold| *untold = Some(Vec::new()));
}

/// Tells the loops that have something waiting.
pub fn tell() {
    UNTOLD.with_borrow_mut(|untold| {
        for wake in untold.iter_mut().flat_map(|list| list.drain(..)) {
            wake.signal();
        }
    });
}

fn defer(wake: &Arc<Wake>) -> bool {
    UNTOLD.with_borrow_mut(|untold| match untold {
        None => false,
        Some(list) => {
            if !list.iter().any(|known| Arc::ptr_eq(known, wake)) {
                list.push(wake.clone());
            }
            true
        }
    })
}

/// An eventfd: one descriptor, one counter.
#[cfg(target_os = "linux")]
fn descriptor() -> std::io::Result<(OwnedFd, Option<OwnedFd>)> {
    use rustix::event::{eventfd, EventfdFlags};
    Ok((eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?, None))
}

/// A pair of sockets where there is no eventfd.
#[cfg(not(target_os = "linux"))]
fn descriptor() -> std::io::Result<(OwnedFd, Option<OwnedFd>)> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader.into(), Some(writer.into())))
}
