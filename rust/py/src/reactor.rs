//! The descriptor of an inline runtime's reactor, for an event loop to watch beside its own.
//!
//! tokio does not tell it. So it is looked for among those that were opened with the runtime, and believed only when
//! it behaves like it: readable after a nudge, and not after a turn.

use pyo3::prelude::*;
use sluicegate_core::inline::Inline;
use std::os::fd::RawFd;

/// Calls on the thread of the loop that watches `fd`.
pub struct Reactor {
    pub inline: Inline,
    pub fd: RawFd,
}

impl Reactor {
    /// `None` where there is no such descriptor: then the calls need a thread of their own.
    pub fn new(py: Python<'_>, kick: impl Fn() + Send + Sync + 'static) -> PyResult<Option<Self>> {
        let before = epolls();
        let inline = Inline::new(kick)?;
        for fd in epolls().into_iter().filter(|fd| !before.contains(fd)) {
            if is_reactor(py, &inline, fd)? {
                return Ok(Some(Reactor { inline, fd }));
            }
        }
        Ok(None)
    }
}

fn is_reactor(py: Python<'_>, inline: &Inline, fd: RawFd) -> PyResult<bool> {
    inline.turn(true);
    let quiet = !readable(py, fd)?;
    inline.nudge();
    let nudged = readable(py, fd)?;
    // The first runs what the nudge has started, the second finds nothing.
    inline.turn(true);
    inline.turn(true);
    Ok(quiet && nudged && !readable(py, fd)?)
}

/// Asked through Python: from a bare number, Rust cannot do it without `unsafe`.
fn readable(py: Python<'_>, fd: RawFd) -> PyResult<bool> {
    let poll = py.import("select")?.call_method0("poll")?;
    poll.call_method1("register", (fd,))?;
    poll.call_method1("poll", (0,))?.is_truthy()
}

/// This process's epoll descriptors; none on systems without /proc.
fn epolls() -> Vec<RawFd> {
    let Ok(list) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    list.flatten()
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|l| l.as_os_str() == "anon_inode:[eventpoll]"))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
