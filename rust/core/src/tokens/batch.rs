//! Many texts on several threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::tokenizer::{Stop, TokenError};

/// More threads than this gain little: the tables are shared, and so is the memory's bandwidth.
const MOST_THREADS: usize = 8;
/// A thread takes so many texts at once, so that short texts do not cost an atomic operation each.
const BLOCK: usize = 16;
/// Below so many bytes for each thread, starting it costs more than it saves.
const BYTES_A_THREAD: usize = 64 * 1024;
const ASK: Duration = Duration::from_millis(20);

/// `work` on each text, results in the order of the texts. The first error, or `stop`, ends the work of all threads.
pub fn each<T: Send>(
    texts: &[&str],
    threads: Option<usize>,
    stop: Stop<'_>,
    work: impl Fn(&str, Stop<'_>) -> Result<T, TokenError> + Sync,
) -> Result<Vec<T>, TokenError> {
    let threads = threads_for(texts, threads);
    if threads < 2 {
        return texts.iter().map(|text| work(text, stop)).collect();
    }
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let caller = std::thread::current();
    let one = || {
        let mut done = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let start = next.fetch_add(BLOCK, Ordering::Relaxed);
            let Some(block) = texts.get(start..).filter(|rest| !rest.is_empty()) else { break };
            let results: Result<Vec<T>, TokenError> =
                block.iter().take(BLOCK).map(|text| work(text, &mut || ended.load(Ordering::Relaxed))).collect();
            if results.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            done.push((start, results));
        }
        caller.unpark();
        done
    };
    let mut blocks = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            if stop() {
                ended.store(true, Ordering::Relaxed);
                break;
            }
            std::thread::park_timeout(ASK);
        }
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    blocks.sort_unstable_by_key(|(start, _)| *start);
    let mut all = Vec::with_capacity(texts.len());
    for (_, block) in blocks {
        all.extend(block?);
    }
    if all.len() == texts.len() {
        Ok(all)
    } else {
        Err(TokenError::Stopped)
    }
}

fn threads_for(texts: &[&str], asked: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    asked.unwrap_or_else(|| cores().min(bytes / BYTES_A_THREAD + 1)).min(texts.len()).min(64)
}
