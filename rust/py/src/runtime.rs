//! The one tokio thread of a process: made at first use, made anew after a fork.

use crate::wake;
use parking_lot::Mutex;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::runtime::{Builder, Handle};

/// Counted up in each child after a fork: threads and connections from before are not the child's.
static FORKS: AtomicU32 = AtomicU32::new(0);

static RUNTIME: Mutex<Option<(u32, Handle)>> = Mutex::new(None);

/// The number of forks between the first process and this one.
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

#[pyfunction]
fn after_fork_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Has Python tell the child of a fork.
pub fn watch_forks(py: Python<'_>) -> PyResult<()> {
    let hook = wrap_pyfunction!(after_fork_in_child, py)?;
    let kwargs = [("after_in_child", hook)];
    let kwargs = pyo3::types::IntoPyDict::into_py_dict(kwargs, py)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&kwargs))?;
    Ok(())
}

/// Where calls run. Called with the GIL held, so no fork can happen while the lock is taken.
pub fn handle() -> PyResult<Handle> {
    let mut slot = RUNTIME.lock();
    if let Some((made, handle)) = slot.as_ref() {
        if *made == forks() {
            return Ok(handle.clone());
        }
    }
    let handle = start().map_err(|e| PyRuntimeError::new_err(format!("the I/O thread cannot be started: {e}")))?;
    // The old handle belongs to threads that do not exist in this process: it must not be dropped here.
    std::mem::forget(slot.replace((forks(), handle.clone())));
    Ok(handle)
}

/// One thread: what it does for a chunk is a few microseconds, and a second one would only add wake-ups.
fn start() -> std::io::Result<Handle> {
    // 64 threads at most for getaddrinfo: so many dead resolvers at once are needed to hold up a live one.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(wake::tell)
        .max_blocking_threads(64)
        .thread_name("sluicegate-dns")
        .build()?;
    let handle = runtime.handle().clone();
    // A timer that is always near keeps the timers of calls (minutes away) from waking the thread when they are
    // set from another one: it only has to be woken for a timer that is earlier than all others.
    let tick = async {
        wake::begin_deferring();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    std::thread::Builder::new().name("sluicegate-io".into()).spawn(move || runtime.block_on(tick))?;
    Ok(handle)
}
