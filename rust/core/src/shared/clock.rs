//! The clocks: that of limits never steps back, runs on in sleep, and begins anew with the machine.

use rustix::time::{clock_gettime, ClockId};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Nanoseconds since the machine started; the same in all of its processes.
pub fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// Seconds by the clock that Python's `time.monotonic` reads: for the phases of a request.
pub fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// A number of this start of the machine; 1 where the system does not tell, and then only a clock that is behind
/// tells of a new start.
pub fn boot() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(1, |id| {
        let mut hasher = SipHasher13::new();
        hasher.write(&id);
        hasher.finish() | 1
    })
}
