//! What only x86 processors do: the masks of a window with AVX-512, where there is one, and prefetching.
//!
//! The only file with unsafe code, for two local reasons. A function that uses AVX-512 may only be called where it
//! exists, which [`Avx512::detect`] proves. And what reads through a pointer must stay in bounds, which the types of the
//! references prove.
#![allow(unsafe_code)]

use super::scan::{Classify, Masks, CLASS_BITS, WINDOW};
use std::arch::x86_64::{
    _mm512_loadu_si512, _mm512_maskz_permutex2var_epi8, _mm512_movepi8_mask, _mm512_set1_epi8, _mm512_test_epi8_mask,
    _mm_cvtss_f32, _mm_min_ps, _mm_movehl_ps, _mm_prefetch, _mm_setr_ps, _mm_shuffle_ps, _MM_HINT_T0,
};

/// Proof that the processor has the instructions: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` where the instructions are missing.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi"))
        .then_some(Self(()))
    }
}

impl Classify for Avx512 {
    #[inline(always)]
    fn classify(self, window: &[u8; WINDOW]) -> Masks {
        // SAFETY: `self` exists, so the processor has the instructions.
        unsafe { classify(window) }
    }
}

/// See [`super::prefetch`].
#[inline(always)]
pub(super) fn prefetch<T>(place: &T) {
    // SAFETY: every x86-64 processor has the instruction, and a reference is a valid address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
}

/// The lowest of all; none is NaN. Written out, because compilers make six times as many instructions of a loop.
#[inline(always)]
pub(super) fn lowest(numbers: &[f32; 32]) -> f32 {
    // SAFETY: every x86-64 processor has SSE, which is all that this needs.
    unsafe { lowest_by_four(numbers) }
}

#[inline]
#[target_feature(enable = "sse")]
fn lowest_by_four(numbers: &[f32; 32]) -> f32 {
    let mut lowest = [0, 4, 8, 12].map(|at| {
        let four = |at: usize| _mm_setr_ps(numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]);
        _mm_min_ps(four(at), four(at + 16))
    });
    lowest[0] = _mm_min_ps(_mm_min_ps(lowest[0], lowest[1]), _mm_min_ps(lowest[2], lowest[3]));
    let two = _mm_min_ps(lowest[0], _mm_movehl_ps(lowest[0], lowest[0]));
    _mm_cvtss_f32(_mm_min_ps(two, _mm_shuffle_ps::<1>(two, two)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn classify(window: &[u8; WINDOW]) -> Masks {
    // SAFETY: the window has 64 bytes and the table 128, and these loads need no alignment.
    let (bytes, low, high) = unsafe {
        (
            _mm512_loadu_si512(window.as_ptr().cast()),
            _mm512_loadu_si512(CLASS_BITS.as_ptr().cast()),
            _mm512_loadu_si512(CLASS_BITS.as_ptr().add(64).cast()),
        )
    };
    let not_ascii = _mm512_movepi8_mask(bytes);
    let classes = _mm512_maskz_permutex2var_epi8(!not_ascii, low, bytes, high);
    #[allow(clippy::cast_possible_wrap)]
    let mask = |bit: u32| _mm512_test_epi8_mask(classes, _mm512_set1_epi8((1_u8 << bit) as i8));
    Masks {
        upper: mask(0),
        lower: mask(1),
        digit: mask(2),
        space: mask(3),
        tab: mask(4),
        newline: mask(5),
        apostrophe: mask(6),
        slash: mask(7),
        high: not_ascii,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::scan::Portable;

    #[test]
    fn as_the_portable_one() {
        let Some(avx512) = Avx512::detect() else { return };
        let mut state = 1_u64;
        for round in 0..20_000_u32 {
            let window: [u8; WINDOW] = std::array::from_fn(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8 & if round % 4 == 0 { 0xFF } else { 0x7F }
            });
            assert_eq!(avx512.classify(&window), Portable.classify(&window), "{window:?}");
        }
    }
}
