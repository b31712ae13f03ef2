//! CPU time and memory of a process tree, from /proc.

use std::{
    collections::BTreeMap,
    fs,
    sync::mpsc::{channel, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::Duration,
};

/// Reading a process takes about 20 µs; twice a second it is not to be seen in what is measured.
const PAUSE: Duration = Duration::from_millis(500);

/// One process tree, its members found once: gateways do not start processes under load.
pub struct Tree {
    members: Vec<u32>,
    tick_us: f64,
    page_kib: u64,
}

impl Tree {
    /// The process and everything below it.
    pub fn of(root: u32) -> Result<Self, String> {
        let parents = parents();
        if !parents.contains_key(&root) {
            return Err(format!("there is no process {root}"));
        }
        let below = |mut process: u32| loop {
            if process == root {
                return true;
            }
            match parents.get(&process) {
                Some(&parent) if parent != 0 => process = parent,
                _ => return false,
            }
        };
        Ok(Self {
            members: parents.keys().copied().filter(|&id| below(id)).collect(),
            tick_us: 1e6 / rustix::param::clock_ticks_per_second() as f64,
            page_kib: rustix::param::page_size() as u64 / 1024,
        })
    }

    /// Microseconds of user and system time so far.
    pub fn cpu_us(&self) -> f64 {
        let ticks: u64 = self
            .members
            .iter()
            .filter_map(|&id| stat(id))
            .map(|fields| number(&fields, 11) + number(&fields, 12))
            .sum();
        ticks as f64 * self.tick_us
    }

    /// Resident KiB now.
    pub fn rss_kib(&self) -> u64 {
        let pages: u64 = self.members.iter().filter_map(|&id| stat(id)).map(|fields| number(&fields, 21)).sum();
        pages * self.page_kib
    }
}

/// Samples memory on a thread of its own until it is asked for the peak.
pub struct Peak {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
}

impl Peak {
    /// Begins to sample.
    pub fn start(root: u32) -> Result<Self, String> {
        let tree = Tree::of(root)?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut peak = tree.rss_kib();
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(tree.rss_kib());
            }
            peak.max(tree.rss_kib())
        });
        Ok(Self { stop, thread })
    }

    /// Ends sampling; the highest sum of resident KiB seen.
    pub fn stop(self) -> u64 {
        drop(self.stop);
        self.thread.join().unwrap_or(0)
    }
}

fn parents() -> BTreeMap<u32, u32> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, u32::try_from(number(&stat(id)?, 1)).ok()?)))
        .collect()
}

/// The fields of /proc/ID/stat from the third on; the second is a name that may hold anything, in parentheses.
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn number(fields: &[String], at: usize) -> u64 {
    fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Peak, Tree};

    #[test]
    fn this_process_has_used_time_and_memory() {
        let tree = Tree::of(std::process::id()).unwrap();
        let before = tree.cpu_us();
        let begin = std::time::Instant::now();
        let mut sum = 0u64;
        while begin.elapsed().as_millis() < 100 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(tree.cpu_us() >= before + 20_000.0);
        assert!(tree.rss_kib() > 500);
        assert!(Peak::start(std::process::id()).unwrap().stop() > 500);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Tree::of(u32::MAX).is_err());
    }
}
