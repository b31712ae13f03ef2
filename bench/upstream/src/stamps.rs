//! The send time that each chunk carries, `"@<monotonic ns>@`, and its reader.
//!
//! Both ends run on one machine, so the monotonic clock of one is the clock of the other.

use memchr::memmem::Finder;

const OPENING: &[u8] = b"\"@";
/// More than `"@` + 20 digits + `@`: what may have to wait for the next read.
const LONGEST: usize = 32;

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    let part = u64::try_from(time.tv_nsec).unwrap_or(0);
    whole * 1_000_000_000 + part
}

/// Finds the stamps and the `[DONE]` in a stream that may be cut anywhere.
pub struct Reader {
    opening: Finder<'static>,
    done: Finder<'static>,
    kept: Vec<u8>,
    finished: bool,
}

impl Reader {
    /// Ready for the first bytes of an answer.
    pub fn new() -> Self {
        Self { opening: Finder::new(OPENING), done: Finder::new(b"data: [DONE]"), kept: Vec::new(), finished: false }
    }

    /// Whether `[DONE]` was there.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Takes the next bytes; calls `found` with the send time of each chunk that is now whole.
    pub fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        if self.kept.is_empty() {
            let rest = self.scan(bytes, &mut found);
            self.kept.extend_from_slice(&bytes[rest..]);
        } else {
            let mut joined = std::mem::take(&mut self.kept);
            joined.extend_from_slice(bytes);
            let rest = self.scan(&joined, &mut found);
            joined.drain(..rest);
            self.kept = joined;
        }
    }

    /// Reads whole lines only, and says where the rest begins.
    fn scan(&mut self, bytes: &[u8], found: &mut impl FnMut(u64)) -> usize {
        let whole = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        for at in self.opening.find_iter(&bytes[..whole]) {
            let from = at + OPENING.len();
            let window = &bytes[from..whole.min(from + LONGEST)];
            if let Some(stamp) = number_before_at_sign(window) {
                found(stamp);
            }
        }
        self.finished |= self.done.find(&bytes[..whole]).is_some();
        whole
    }
}

fn number_before_at_sign(window: &[u8]) -> Option<u64> {
    let end = memchr::memchr(b'@', window)?;
    std::str::from_utf8(&window[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Reader;

    const STREAM: &[u8] =
        b"data: {\"c\":\"@12@a\"}\n\ndata: {\"c\":\"@345@\"}\n\ndata: {\"c\":\"@x@\"}\n\ndata: [DONE]\n\n";

    #[test]
    fn any_cut_gives_the_same_stamps() {
        for cut in 0..STREAM.len() {
            let mut reader = Reader::new();
            let mut stamps = Vec::new();
            reader.feed(&STREAM[..cut], |stamp| stamps.push(stamp));
            reader.feed(&STREAM[cut..], |stamp| stamps.push(stamp));
            assert_eq!(stamps, [12, 345], "cut at {cut}");
            assert!(reader.finished(), "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_without_its_end_is_not_finished() {
        let mut reader = Reader::new();
        reader.feed(b"data: {\"c\":\"@1@\"}\n\ndata: [DO", |_| {});
        assert!(!reader.finished());
    }
}
