//! What was counted inside the window of a measurement.
//!
//! Everything is counted by when it happened, not by when its request began: CPU time is read at the same two moments,
//! so what is under way at the edges weighs as much at the begin as at the end.

use serde::Serialize;
use std::collections::BTreeMap;

/// Counts and times between `begin_ns` and `end_ns`; failures count always, also while connections are opened.
pub struct Tally {
    begin_ns: u64,
    end_ns: u64,
    requests: u64,
    chunks: u64,
    latency: Vec<u64>,
    first: Vec<u64>,
    late: Vec<u64>,
    errors: BTreeMap<String, u64>,
    /// Streams that have had their first bytes and not their end.
    pub open: u64,
}

/// One line of a distribution, in microseconds.
#[derive(Serialize)]
pub struct Spread {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    count: usize,
}

/// What `load` prints.
#[derive(Serialize)]
pub struct Report {
    requests: u64,
    chunks: u64,
    requests_per_s: f64,
    chunks_per_s: f64,
    latency_us: Spread,
    first_us: Spread,
    late_us: Spread,
    open_streams: u64,
    errors: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
}

/// The process tree that was watched.
#[derive(Serialize)]
pub struct Process {
    /// Microseconds a finished request.
    pub cpu_us_per_request: Option<f64>,
    /// Microseconds a chunk that arrived.
    pub cpu_us_per_chunk: Option<f64>,
    /// Cores busy.
    pub cores: f64,
    /// Before the first connection.
    pub rss_begin_kib: u64,
    /// The highest sample, ramp and window.
    pub rss_peak_kib: u64,
}

impl Tally {
    /// For one window.
    pub fn new(begin_ns: u64, end_ns: u64) -> Self {
        Self {
            begin_ns,
            end_ns,
            requests: 0,
            chunks: 0,
            latency: Vec::new(),
            first: Vec::new(),
            late: Vec::new(),
            errors: BTreeMap::new(),
            open: 0,
        }
    }

    fn inside(&self, now_ns: u64) -> bool {
        (self.begin_ns..self.end_ns).contains(&now_ns)
    }

    /// The first bytes of an answer.
    pub fn first(&mut self, now_ns: u64, asked_ns: u64) {
        if self.inside(now_ns) {
            self.first.push(now_ns.saturating_sub(asked_ns));
        }
    }

    /// A chunk that says when it was sent.
    pub fn chunk(&mut self, now_ns: u64, sent_ns: u64) {
        if self.inside(now_ns) {
            self.chunks += 1;
            self.late.push(now_ns.saturating_sub(sent_ns));
        }
    }

    /// A whole, right answer.
    pub fn request(&mut self, now_ns: u64, asked_ns: u64) {
        if self.inside(now_ns) {
            self.requests += 1;
            self.latency.push(now_ns.saturating_sub(asked_ns));
        }
    }

    /// Anything that went wrong.
    pub fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    /// The report; `cpu` is the time and memory of the watched tree: microseconds, KiB before, KiB at most.
    pub fn report(mut self, cpu: Option<(f64, u64, u64)>) -> Report {
        let seconds = (self.end_ns - self.begin_ns) as f64 / 1e9;
        let (requests, chunks) = (self.requests, self.chunks);
        let per = |cpu_us: f64, count: u64| (count > 0).then(|| tenth(cpu_us / count as f64, 100.0));
        Report {
            requests,
            chunks,
            requests_per_s: tenth(requests as f64 / seconds, 10.0),
            chunks_per_s: tenth(chunks as f64 / seconds, 10.0),
            latency_us: spread(&mut self.latency),
            first_us: spread(&mut self.first),
            late_us: spread(&mut self.late),
            open_streams: self.open,
            errors: self.errors,
            process: cpu.map(|(cpu_us, rss_begin_kib, rss_peak_kib)| Process {
                cpu_us_per_request: per(cpu_us, requests),
                cpu_us_per_chunk: per(cpu_us, chunks),
                cores: tenth(cpu_us / 1e6 / seconds, 1000.0),
                rss_begin_kib,
                rss_peak_kib,
            }),
        }
    }
}

fn tenth(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

fn spread(times: &mut [u64]) -> Spread {
    times.sort_unstable();
    let at = |share: f64| {
        let last = times.len().saturating_sub(1);
        let value = times.get((last as f64 * share).round() as usize);
        tenth(value.map_or(0.0, |&ns| ns as f64 / 1000.0), 10.0)
    };
    Spread { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0), count: times.len() }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn only_the_window_counts_but_every_error() {
        let mut tally = Tally::new(1_000_000_000, 3_000_000_000);
        for now in [999_999_999, 1_000_000_000, 2_999_999_999, 3_000_000_000] {
            tally.request(now, now - 5_000);
            tally.chunk(now, now - 7_000);
        }
        tally.error("early".to_owned());
        let report = tally.report(Some((400.0, 10, 20)));
        assert_eq!((report.requests, report.chunks), (2, 2));
        assert_eq!(report.requests_per_s, 1.0);
        assert_eq!((report.latency_us.p50, report.late_us.max), (5.0, 7.0));
        assert_eq!(report.errors.get("early"), Some(&1));
        let process = report.process.unwrap();
        assert_eq!(process.cpu_us_per_request, Some(200.0));
        assert_eq!(process.cpu_us_per_chunk, Some(200.0));
    }

    #[test]
    fn nothing_counted_is_no_cost() {
        let report = Tally::new(0, 1_000_000_000).report(Some((5.0, 1, 1)));
        assert_eq!(report.process.unwrap().cpu_us_per_request, None);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut values: Vec<u64> = (0..=100).rev().map(|us| us * 1000).collect();
        let spread = super::spread(&mut values);
        assert_eq!((spread.p50, spread.p90, spread.p99, spread.max), (50.0, 90.0, 99.0, 100.0));
    }
}
