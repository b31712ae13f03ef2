//! Where the time of a request went, and the buckets in which times are counted.

use std::fmt::Write;

/// The phases of a request, in order.
pub const PHASES: [&str; 8] = ["authenticate", "read", "resolve", "admit", "prepare", "upstream", "relay", "settle"];
const PREPARE: usize = 4;
const UPSTREAM: usize = 5;
const RELAY: usize = 6;
const SETTLE: usize = 7;

/// Upper bounds in microseconds: of what the gateway does itself, from 10 µs on.
pub const FINE: [u64; 21] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
];
/// Of what is waited for, from 1 ms to ten minutes.
pub const COARSE: [u64; 18] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    600_000_000,
];

/// Cells of a histogram: its buckets, the one above all bounds, and the sum.
pub const fn cells(bounds: &[u64]) -> usize {
    bounds.len() + 2
}

/// The bucket of a value.
pub fn bucket(bounds: &[u64], micros: u64) -> usize {
    bounds.partition_point(|bound| *bound < micros)
}

/// Readings of one monotonic clock in seconds, in the order of the stages; 0 where a stage was not reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// The request came.
    pub began: f64,
    /// Its caller is known, its body read, its plan made, its limits passed.
    pub passed: [f64; 4],
    /// The last upstream was asked.
    pub asked: f64,
    /// It answered: the head of a stream, or all of a plain answer.
    pub answered: f64,
    /// Seconds that upstreams were waited for, over all that were asked.
    pub waited: f64,
    /// The end began: limits and the record come now.
    pub closing: f64,
    /// They are done.
    pub now: f64,
}

fn micros(seconds: f64) -> u64 {
    // Saturates, and is 0 for what is negative or no number.
    (seconds * 1e6).round() as u64
}

impl Marks {
    /// Microseconds of each phase; None: the request did not come so far. `relayed`: an answer was passed on.
    pub fn phases(&self, relayed: bool) -> [Option<u64>; PHASES.len()] {
        let mut found = [None; PHASES.len()];
        found[SETTLE] = Some(micros(self.now - self.closing));
        let mut since = self.began;
        for (phase, mark) in found.iter_mut().zip(self.passed) {
            if mark == 0.0 {
                // Here it ended.
                *phase = Some(micros(self.closing - since));
                return found;
            }
            *phase = Some(micros(mark - since));
            since = mark;
        }
        // Ended while the upstream was waited for.
        let is_waiting = self.asked > self.answered;
        let waited = self.waited + if is_waiting { self.closing - self.asked } else { 0.0 };
        let passed_on = relayed && !is_waiting && self.answered > 0.0;
        let until = if passed_on { self.answered } else { self.closing };
        found[PREPARE] = Some(micros(until - since - waited));
        if self.asked > 0.0 {
            found[UPSTREAM] = Some(micros(waited));
        }
        if passed_on {
            found[RELAY] = Some(micros(self.closing - self.answered));
        }
        found
    }

    /// Microseconds of the gateway's own part: all but the waiting for the client's body and for upstreams.
    /// `answer_us`: from the call to the end of the answer, by the call's own clock: what is added to it is ours.
    pub fn overhead(&self, answer_us: Option<u64>) -> u64 {
        let mut waited = self.waited;
        if self.asked > self.answered {
            waited += self.closing - self.asked;
        } else if let Some(took) = answer_us {
            waited += took as f64 / 1e6 - (self.answered - self.asked);
        }
        let [known, read, ..] = self.passed;
        if known > 0.0 {
            waited += if read > 0.0 { read } else { self.closing } - known;
        }
        micros(self.closing - self.began - waited)
    }

    /// The same as one short text for the record: numbers with commas, empty where the request did not come so far.
    pub fn line(&self, relayed: bool) -> String {
        let mut line = String::with_capacity(48);
        for (place, took) in self.phases(relayed).into_iter().enumerate() {
            if place > 0 {
                line.push(',');
            }
            if let Some(took) = took {
                let _ = write!(line, "{took}");
            }
        }
        line
    }

    /// From the first byte to the end.
    pub fn duration(&self) -> u64 {
        micros(self.closing - self.began)
    }
}
