//! Nanoseconds and allocations an event: this decoder beside `sse-stream`, `eventsource-stream` and memchr alone.
//!
//! One pinned core, the parsers interleaved, CPU time of the thread, minimum of the passes. The stream is made like a
//! recorded one: chunks of chat completions in many scripts, read in pieces of random sizes.

mod stream;

use bytes::Bytes;
use futures_util::{stream::iter, Stream, StreamExt};
use sluicegate_core::{
    chat::delta::{Chunk, Reader},
    sse::decode::Decoder,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
    time::Instant,
};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: each call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const PASSES: usize = 12;

/// Each takes the reads and returns (events, bytes of data).
type Parser = fn(&[Bytes]) -> (usize, usize);

const PARSERS: [(&str, Parser); 5] = [
    ("memchr for LF alone", line_ends),
    ("sluicegate", own),
    ("sluicegate + content delta", own_with_delta),
    ("sse-stream 0.3", by_sse_stream),
    ("eventsource-stream 0.2", by_eventsource_stream),
];

fn line_ends(reads: &[Bytes]) -> (usize, usize) {
    let found: usize = reads.iter().map(|read| memchr::memchr_iter(b'\n', read).count()).sum();
    (found / 2, 0)
}

fn own(reads: &[Bytes]) -> (usize, usize) {
    let mut decoder = Decoder::new(1 << 20);
    let (mut count, mut size) = (0, 0);
    for read in reads {
        let mut events = decoder.push(read);
        while let Ok(Some(event)) = events.next() {
            count += 1;
            size += black_box(event.data).len();
        }
    }
    (count, size)
}

fn own_with_delta(reads: &[Bytes]) -> (usize, usize) {
    let mut decoder = Decoder::new(1 << 20);
    let mut reader = Reader::default();
    let (mut count, mut size) = (0, 0);
    for read in reads {
        let mut events = decoder.push(read);
        while let Ok(Some(event)) = events.next() {
            count += 1;
            size += event.data.len();
            match reader.read(event.data) {
                Ok(Chunk::Text { text, .. }) => drop(black_box(text.len())),
                Ok(chunk) => drop(black_box(chunk)),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    (count, size)
}

/// Nothing in here ever waits, so that no runtime is measured.
fn drive<S: Stream>(stream: S, mut each: impl FnMut(S::Item)) {
    let mut stream = pin!(stream);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(item)) = stream.as_mut().poll_next(&mut context) {
        each(item);
    }
}

fn by_sse_stream(reads: &[Bytes]) -> (usize, usize) {
    let bytes = iter(reads.iter().cloned().map(Ok::<_, Infallible>));
    let (mut count, mut size) = (0, 0);
    drive(sse_stream::SseStream::from_bytes_stream(bytes), |event| {
        let event = event.expect("valid");
        count += 1;
        size += black_box(event).data.map_or(0, |data| data.len());
    });
    (count, size)
}

fn by_eventsource_stream(reads: &[Bytes]) -> (usize, usize) {
    use eventsource_stream::Eventsource;
    let bytes = iter(reads.iter().cloned().map(Ok::<_, Infallible>));
    let (mut count, mut size) = (0, 0);
    drive(bytes.eventsource().boxed(), |event| {
        count += 1;
        size += black_box(event.expect("valid")).data.len();
    });
    (count, size)
}

fn main() {
    let (bytes, events) = stream::chat(9_523, 7);
    println!("{events} events, {:.0} B each on average, {PASSES} passes, minimum", bytes.len() as f64 / events as f64);
    for (name, sizes) in [("random 1 B to 8 KB", 1..8_193), ("tiny, 1 to 32 B", 1..33), ("16 KB", 16_384..16_385)] {
        let reads = stream::cut(&bytes, sizes, 11);
        let mut best = [(f64::INFINITY, 0.0); PARSERS.len()];
        for _ in 0..PASSES {
            for (slot, (parser, run)) in best.iter_mut().zip(PARSERS) {
                let (before, started) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
                let (count, _) = run(&reads);
                let took = started.elapsed().as_nanos() as f64 / events as f64;
                assert_eq!(count, events, "{parser}");
                if took < slot.0 {
                    *slot = (took, (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / events as f64);
                }
            }
        }
        println!("\nreads of {name}:");
        for ((took, allocations), (parser, _)) in best.iter().zip(PARSERS) {
            println!("  {parser:28} {took:9.1} ns an event   {allocations:6.2} allocations an event");
        }
        let own = best[1].0;
        println!("  sluicegate is {:.1} x sse-stream and {:.1} x eventsource-stream", best[3].0 / own, best[4].0 / own);
    }
}
