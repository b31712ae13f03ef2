//! Asking the processor for memory before it is read.

/// Starts to load the cache line of `place`. It changes nothing but the time the next read of it takes.
#[inline(always)]
pub(super) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    super::x86::prefetch(place);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
