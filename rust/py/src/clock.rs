//! A clock that an event loop can watch, for when it is to wake the loop in place of the sockets.

use parking_lot::Mutex;
use sluicegate_core::pace::{Pace, Waking, TICK};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// The clock of one loop, and who wakes the loop.
pub struct Clock {
    timer: OwnedFd,
    pace: Mutex<Pace>,
}

impl Clock {
    /// Fails where the system has no such clock.
    pub fn new() -> io::Result<Self> {
        Ok(Clock { timer: timer()?, pace: Mutex::new(Pace::new(Instant::now())) })
    }

    /// Readable at each tick.
    pub fn fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// The sockets woke the loop, for so many chunks. Is the clock to wake it from now on?
    pub fn takes_over(&self, chunks: u32) -> bool {
        let mut pace = self.pace.lock();
        if pace.woken(chunks, Instant::now) != Some(Waking::Clock) {
            return false;
        }
        let runs = set(&self.timer, TICK).is_ok();
        if !runs {
            *pace = Pace::new(Instant::now());
        }
        runs
    }

    /// It woke the loop, for so many chunks. Are the sockets to wake it again?
    pub fn gives_back(&self, chunks: u32) -> bool {
        let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        let ends = self.pace.lock().ticked(chunks, Instant::now) == Some(Waking::Sockets);
        if ends {
            // A tick that comes all the same finds a loop that does not listen.
            let _ = set(&self.timer, Duration::ZERO);
        }
        ends
    }
}

#[cfg(target_os = "linux")]
fn timer() -> io::Result<OwnedFd> {
    use rustix::time::{timerfd_create, TimerfdClockId, TimerfdFlags};
    Ok(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)
}

/// Ticks from now on; zero: none.
#[cfg(target_os = "linux")]
fn set(timer: &OwnedFd, every: Duration) -> io::Result<()> {
    use rustix::time::{timerfd_settime, Itimerspec, TimerfdTimerFlags, Timespec};
    let time = Timespec { tv_sec: 0, tv_nsec: every.subsec_nanos().into() };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: time, it_value: time })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn timer() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn set(_: &OwnedFd, _: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
