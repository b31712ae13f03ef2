//! How often a loop looks at its sockets while chunks come one by one: at most once a millisecond.
//!
//! A chunk costs two wake-ups, the loop's and the server's; two that are sent together cost the same two. So between
//! 1,000 and 4,000 wake-ups a second a clock wakes the loop instead of each chunk. Below, waiting would gain nothing;
//! above, chunks come together by themselves.

use std::time::{Duration, Instant};

/// Between two looks by the clock.
pub const TICK: Duration = Duration::from_millis(1);
/// Wake-ups, or ticks, after which the rate is looked at.
const WINDOW: u32 = 32;
/// `WINDOW` wake-ups take so long where the clock had better wake the loop: from 4,000 to 1,000 a second.
const SHORTEST: Duration = Duration::from_millis(8);
const LONGEST: Duration = Duration::from_millis(32);
/// Chunks in `WINDOW` ticks: fewer are not worth a clock, more need none.
const FEWEST: u32 = WINDOW;
const MOST: u32 = 8 * WINDOW;

/// Who wakes the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waking {
    /// Each of them when it has something.
    Sockets,
    /// At each `TICK`.
    Clock,
}

/// Decides who wakes one loop.
#[derive(Debug)]
pub struct Pace {
    waking: Waking,
    since: Instant,
    // Wake-ups for chunks, or ticks, of this window; and the chunks.
    wakes: u32,
    chunks: u32,
}

impl Pace {
    /// The sockets begin.
    pub fn new(now: Instant) -> Self {
        Pace { waking: Waking::Sockets, since: now, wakes: 0, chunks: 0 }
    }

    /// The sockets woke the loop, for so many chunks. Who is to wake it from now on, where that changes.
    pub fn woken(&mut self, chunks: u32, now: impl FnOnce() -> Instant) -> Option<Waking> {
        if self.waking == Waking::Clock || chunks == 0 || !self.is_over(chunks) {
            return None;
        }
        let now = now();
        let took = now.saturating_duration_since(self.since);
        let waking = if (SHORTEST..=LONGEST).contains(&took) { Waking::Clock } else { Waking::Sockets };
        self.begin(waking, now)
    }

    /// As `woken`, by the clock.
    pub fn ticked(&mut self, chunks: u32, now: impl FnOnce() -> Instant) -> Option<Waking> {
        if self.waking == Waking::Sockets || !self.is_over(chunks) {
            return None;
        }
        let waking = if (FEWEST..=MOST).contains(&self.chunks) { Waking::Clock } else { Waking::Sockets };
        self.begin(waking, now())
    }

    fn is_over(&mut self, chunks: u32) -> bool {
        self.wakes += 1;
        self.chunks = self.chunks.saturating_add(chunks);
        self.wakes >= WINDOW
    }

    fn begin(&mut self, waking: Waking, now: Instant) -> Option<Waking> {
        let before = std::mem::replace(self, Pace { waking, ..Pace::new(now) }).waking;
        (before != waking).then_some(waking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks that come alone, `apart` from each other.
    fn alone(pace: &mut Pace, now: &mut Instant, apart: Duration, count: u32) -> Vec<Waking> {
        (0..count)
            .filter_map(|_| {
                *now += apart;
                pace.woken(1, || *now)
            })
            .collect()
    }

    fn ticks(pace: &mut Pace, now: &mut Instant, chunks: u32, count: u32) -> Vec<Waking> {
        (0..count)
            .filter_map(|_| {
                *now += TICK;
                pace.ticked(chunks, || *now)
            })
            .collect()
    }

    #[test]
    fn the_clock_takes_over_at_rates_where_it_gains() {
        for (micros, clock) in [(2000, false), (1100, false), (900, true), (500, true), (300, true), (200, false)] {
            let mut now = Instant::now();
            let mut pace = Pace::new(now);
            let told = alone(&mut pace, &mut now, Duration::from_micros(micros), 3 * WINDOW);
            assert_eq!(told, if clock { vec![Waking::Clock] } else { vec![] }, "{micros} us apart");
        }
    }

    #[test]
    fn the_sockets_take_over_when_chunks_become_rare_or_many() {
        for (chunks, stays) in [(0, false), (1, true), (2, true), (8, true), (9, false), (u32::MAX, false)] {
            let mut now = Instant::now();
            let mut pace = Pace::new(now);
            assert_eq!(alone(&mut pace, &mut now, Duration::from_micros(500), WINDOW), [Waking::Clock]);
            let told = ticks(&mut pace, &mut now, chunks, 3 * WINDOW);
            assert_eq!(told, if stays { vec![] } else { vec![Waking::Sockets] }, "{chunks} a tick");
        }
    }

    #[test]
    fn wake_ups_without_chunks_and_late_reports_do_not_count() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..10 * WINDOW {
            now += Duration::from_micros(500);
            assert_eq!(pace.woken(0, || unreachable!("no chunk, no look at the time")), None);
        }
        assert_eq!(ticks(&mut pace, &mut now, 0, 2 * WINDOW), []);
    }
}
