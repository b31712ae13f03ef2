//! Byte pair encoding of one piece: join the two neighbours with the lowest rank, the leftmost first, until none join.
//!
//! A short piece is joined in place. A long one goes through in windows. That rests on one fact: a sequence of tokens
//! is the encoding of its bytes exactly if each two neighbours are the encoding of theirs. So the tokens of a window
//! are right if its first token may follow the last one of the window before; where it may not, the window starts
//! earlier. Time is linear in the piece, whatever its bytes are.

use super::{
    vocab::{Vocabulary, NONE},
    Stopped,
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// What is encoded at once: as long as the longest token, and so short that looking for the lowest rank in all of it
/// is cheaper than a heap.
const WINDOW: usize = 128;
/// Tokens that end in the last bytes of a window are encoded again, with what follows them. It only saves windows
/// that turn out to start at a wrong place.
const MARGIN: usize = 16;
/// How many tokens of a long piece a count keeps, to be able to go back.
const KEPT: usize = 4096;

/// The working memory of the encoder, reused from piece to piece.
pub(super) struct Merger {
    /// The tokens of the last piece or window.
    tokens: Vec<u32>,
    /// The bytes `tokens` was made from, where it was a window.
    window: Vec<u8>,
    places: Box<Places>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

/// A window being joined: tokens stay at the place of their first byte, linked to their neighbours. 256 places for
/// at most 128 bytes, so that a `u8` is always in bounds.
struct Places {
    tokens: [u32; 256],
    /// For each place with a token: what it and the next one join to, and below it the place: the lowest is the next
    /// to join, the leftmost first.
    joins: [i32; 256],
    next: [u8; 256],
    previous: [u8; 256],
}

const PLACE_BITS: u32 = 8;
/// "Joins to nothing."
const NO_JOIN: i32 = i32::MAX;
const NO_PLACE: u8 = u8::MAX;

impl Default for Merger {
    fn default() -> Self {
        let places = Places { tokens: [0; 256], joins: [0; 256], next: [0; 256], previous: [0; 256] };
        Self { tokens: Vec::new(), window: Vec::new(), places: Box::new(places), heap: BinaryHeap::new() }
    }
}

impl Places {
    /// Joins the bytes of a piece of at most [`WINDOW`] bytes and appends its tokens to `out`. `text`: they are UTF-8.
    fn merge(&mut self, vocabulary: &Vocabulary, bytes: &[u8], text: bool, out: &mut Vec<u32>) {
        let count = if text && !bytes.is_ascii() {
            self.place_units(vocabulary, bytes)
        } else {
            self.place_bytes(vocabulary, bytes)
        };
        for at in 0..count {
            self.next[at as usize] = at + 1;
            self.previous[at as usize] = at.wrapping_sub(1);
        }
        // The joins are looked through eight at a time.
        let padded = usize::from(count).next_multiple_of(8);
        self.joins[usize::from(count) - 1..padded].fill(NO_JOIN);
        for at in 0..count {
            self.prefetch(vocabulary, at, count);
        }
        loop {
            let lowest = self.joins[..padded].iter().copied().fold(NO_JOIN, i32::min);
            if lowest == NO_JOIN {
                break;
            }
            self.join(vocabulary, lowest, count);
        }
        let mut at = 0;
        while at < count {
            out.push(self.tokens[at as usize]);
            at = self.next[at as usize];
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn place_bytes(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> u8 {
        for (at, pair) in (0..).zip(bytes.windows(2)) {
            self.joins[at as usize] = join_at(vocabulary.join_bytes(pair[0], pair[1]), at);
        }
        for (there, &byte) in self.tokens.iter_mut().zip(bytes) {
            *there = vocabulary.byte(byte);
        }
        bytes.len() as u8
    }

    #[allow(clippy::cast_possible_truncation)]
    fn place_units(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> u8 {
        // There are more places than bytes in a window.
        let count = units(vocabulary, bytes, &mut self.tokens).unwrap_or(0);
        for pair in self.tokens[..count].windows(2) {
            vocabulary.prefetch_join(pair[0], pair[1]);
        }
        for (place, (pair, join)) in (0..).zip(self.tokens[..count].windows(2).zip(&mut self.joins)) {
            *join = join_at(vocabulary.join(pair[0], pair[1]), place);
        }
        count as u8
    }

    /// Asks for the memory of the two joins that become possible when the tokens at `at` and after it have joined:
    /// waiting for it is half of the time that encoding a new word takes.
    #[inline(always)]
    fn prefetch(&self, vocabulary: &Vocabulary, at: u8, count: u8) {
        let join = self.joins[at as usize];
        if join == NO_JOIN {
            return;
        }
        let token = token_of(join);
        let after = self.next[self.next[at as usize] as usize];
        if after < count {
            vocabulary.prefetch_join(token, self.tokens[after as usize]);
        }
        let before = self.previous[at as usize];
        if before != NO_PLACE {
            vocabulary.prefetch_join(self.tokens[before as usize], token);
        }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn join(&mut self, vocabulary: &Vocabulary, lowest: i32, count: u8) {
        let at = lowest as u8;
        let token = token_of(lowest);
        let gone = self.next[at as usize];
        let after = self.next[gone as usize];
        self.tokens[at as usize] = token;
        self.joins[gone as usize] = NO_JOIN;
        self.next[at as usize] = after;
        self.previous[after as usize] = at;
        self.joins[at as usize] =
            if after < count { join_at(vocabulary.join(token, self.tokens[after as usize]), at) } else { NO_JOIN };
        let before = self.previous[at as usize];
        if before != NO_PLACE {
            self.joins[before as usize] = join_at(vocabulary.join(self.tokens[before as usize], token), before);
            self.prefetch(vocabulary, before, count);
        }
        self.prefetch(vocabulary, at, count);
    }
}

/// What the joining of a piece begins with: its characters instead of its bytes, which spares half of the joins or
/// more outside ASCII. Gives how many there are, or `None` if `out` has no room for them. `bytes` is UTF-8.
///
/// Where no token spans a place with only a part of a character beside it, nothing joins across it before both
/// characters are whole. And a rank is always higher than those of its two halves, so the joins come in the order
/// of the ranks: making a character whole early changes nothing that comes before it. A character at any other
/// place, or one that is no token, begins as its bytes.
#[inline(always)]
pub(super) fn units(vocabulary: &Vocabulary, bytes: &[u8], out: &mut [u32]) -> Option<usize> {
    let mut count = 0;
    let mut at = 0;
    let mut apart_before = true;
    while at < bytes.len() {
        let (whole, end) = vocabulary.character(bytes, at);
        let apart = end == bytes.len() || !vocabulary.bridges.spans_in_parts(bytes[end - 1], bytes[end]);
        let whole = if apart && apart_before { whole } else { NONE };
        if whole == NONE {
            for &byte in &bytes[at..end] {
                *out.get_mut(count)? = vocabulary.byte(byte);
                count += 1;
            }
        } else {
            *out.get_mut(count)? = whole;
            count += 1;
        }
        apart_before = apart;
        at = end;
    }
    Some(count)
}

/// A rank and its place as one number, in the order of joining.
#[inline(always)]
#[allow(clippy::cast_possible_wrap)]
fn join_at(rank: u32, place: u8) -> i32 {
    if rank == NONE {
        NO_JOIN
    } else {
        (rank << PLACE_BITS | u32::from(place)) as i32
    }
}

/// The token that a join makes.
#[inline(always)]
#[allow(clippy::cast_sign_loss)]
fn token_of(join: i32) -> u32 {
    (join >> PLACE_BITS) as u32
}

/// What to do with the tokens of a long piece.
pub(super) enum Sink<'a> {
    /// Add how many there are.
    Count(&'a mut usize),
    /// Append them.
    Tokens(&'a mut Vec<u32>),
}

impl Merger {
    /// The tokens of a piece of at most [`WINDOW`] bytes, which are UTF-8.
    pub(super) fn short(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> &[u32] {
        self.window.clear();
        self.tokens.clear();
        self.places.merge(vocabulary, bytes, true, &mut self.tokens);
        &self.tokens
    }

    /// Encodes a piece of any length. `stop` is asked about every 64 KiB.
    pub(super) fn long(
        &mut self,
        vocabulary: &Vocabulary,
        bytes: &[u8],
        sink: Sink<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(), Stopped> {
        match sink {
            Sink::Tokens(out) => {
                let before = out.len();
                self.windows(vocabulary, bytes, out, stop, None).map(|_| ()).inspect_err(|_| out.truncate(before))
            }
            Sink::Count(count) => {
                let mut kept = Vec::with_capacity(KEPT);
                let mut dropped = 0;
                if !self.windows(vocabulary, bytes, &mut kept, stop, Some(&mut dropped))? {
                    // Never seen: going back needed more tokens than were kept. So keep all of them.
                    kept.clear();
                    dropped = 0;
                    self.windows(vocabulary, bytes, &mut kept, stop, None)?;
                }
                *count += dropped + kept.len();
                Ok(())
            }
        }
    }

    /// Appends the tokens of `bytes` to `out`. With `dropped`, only the last ones are kept there, and the number of
    /// the others is added to it; then `false` means that a dropped one was wanted again.
    fn windows(
        &mut self,
        vocabulary: &Vocabulary,
        bytes: &[u8],
        out: &mut Vec<u32>,
        stop: &mut dyn FnMut() -> bool,
        mut dropped: Option<&mut usize>,
    ) -> Result<bool, Stopped> {
        let first = out.len();
        let mut at = 0;
        let mut size = WINDOW;
        let mut asked = 0;
        loop {
            if at >= asked + 65_536 {
                asked = at;
                if stop() {
                    return Err(Stopped);
                }
            }
            let end = bytes.len().min(at + size);
            self.merge_window(vocabulary, &bytes[at..end]);
            let previous = if out.len() > first { out.last().copied() } else { None };
            if previous.is_none_or(|previous| may_follow(vocabulary, previous, self.tokens[0])) {
                if end == bytes.len() {
                    out.extend_from_slice(&self.tokens);
                    return Ok(true);
                }
                at += self.keep(vocabulary, end - at, out);
                size = WINDOW;
            } else if let Some(wrong) = out.pop() {
                let length = vocabulary.token(wrong).len();
                at -= length;
                // Twice as large each time: however far it goes back, the work stays in proportion.
                size *= 2;
                if out.len() == first && at > 0 {
                    return Ok(false);
                }
            }
            if let Some(dropped) = dropped.as_deref_mut() {
                if out.len() >= KEPT {
                    *dropped += KEPT / 2;
                    out.drain(..KEPT / 2);
                }
            }
        }
    }

    /// Appends the tokens that end before the margin of the window, at least one; gives their length in bytes.
    fn keep(&self, vocabulary: &Vocabulary, length: usize, out: &mut Vec<u32>) -> usize {
        let mut kept = 0;
        for &token in &self.tokens {
            let after = kept + vocabulary.token(token).len();
            if kept > 0 && after + MARGIN > length {
                break;
            }
            out.push(token);
            kept = after;
        }
        kept
    }

    fn merge_window(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) {
        // One letter a million times, or any other text with a short period: the same window again.
        if self.window == bytes {
            return;
        }
        self.window.clear();
        self.window.extend_from_slice(bytes);
        self.merge(vocabulary, bytes);
    }

    fn merge(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) {
        self.tokens.clear();
        if bytes.len() <= WINDOW {
            self.places.merge(vocabulary, bytes, std::str::from_utf8(bytes).is_ok(), &mut self.tokens);
        } else {
            self.merge_by_heap(vocabulary, bytes);
        }
    }

    /// The same for windows that had to grow: O(n log n). Joined places are marked with [`NONE`] and dropped at the end.
    #[allow(clippy::cast_possible_truncation)]
    fn merge_by_heap(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) {
        let tokens = &mut self.tokens;
        tokens.extend(bytes.iter().map(|&byte| vocabulary.byte(byte)));
        let mut ranks: Vec<u32> = bytes.windows(2).map(|pair| vocabulary.join_bytes(pair[0], pair[1])).collect();
        ranks.push(NONE);
        let count = tokens.len();
        let mut next: Vec<u32> = (1..=count as u32).collect();
        let mut previous: Vec<u32> = (0..count as u32).map(|at| at.wrapping_sub(1)).collect();
        self.heap.clear();
        self.heap
            .extend(ranks.iter().zip(0..).filter(|(&rank, _)| rank != NONE).map(|(&rank, at)| Reverse((rank, at))));
        while let Some(Reverse((rank, place))) = self.heap.pop() {
            let at = place as usize;
            if ranks[at] != rank || tokens[at] == NONE {
                continue;
            }
            let joined = next[at] as usize;
            tokens[at] = rank;
            tokens[joined] = NONE;
            ranks[joined] = NONE;
            let after = next[joined];
            next[at] = after;
            ranks[at] = NONE;
            if let Some(&right) = tokens.get(after as usize) {
                previous[after as usize] = place;
                ranks[at] = vocabulary.join(rank, right);
                if ranks[at] != NONE {
                    self.heap.push(Reverse((ranks[at], place)));
                }
            }
            if let Some(&left) = tokens.get(previous[at] as usize) {
                let before = previous[at];
                ranks[before as usize] = vocabulary.join(left, rank);
                if ranks[before as usize] != NONE {
                    self.heap.push(Reverse((ranks[before as usize], before)));
                }
            }
        }
        tokens.retain(|&token| token != NONE);
    }
}

/// Whether encoding the bytes of both tokens gives these two tokens.
///
/// The merges of both are undone in reverse order. At each step, the two tokens that touch must not join to one with
/// a lower rank than the merge that is undone next: that one would have come first.
fn may_follow(vocabulary: &Vocabulary, mut left: u32, mut right: u32) -> bool {
    let mut limit = NONE;
    loop {
        // `NONE` is larger than every rank, so no join means no conflict.
        if vocabulary.join(left, right) < limit {
            return false;
        }
        let (_, inner_left) = vocabulary.halves(left);
        let (inner_right, _) = vocabulary.halves(right);
        let (left_is_byte, right_is_byte) = (inner_left == left, inner_right == right);
        if left_is_byte && right_is_byte {
            return true;
        }
        if right_is_byte || (!left_is_byte && left > right) {
            limit = left;
            left = inner_left;
        } else {
            limit = right + 1;
            right = inner_right;
        }
    }
}
