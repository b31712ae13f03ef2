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

/// What is encoded at once. It is twice the longest token, and small enough that looking for the lowest rank in the
/// whole window is cheaper than a heap.
const WINDOW: usize = 256;
/// Tokens that begin in the last bytes of a window are encoded again, with what follows them. It only saves windows
/// that turn out to start at a wrong place.
const MARGIN: usize = 32;
/// How many tokens of a long piece a count keeps, to be able to go back.
const KEPT: usize = 4096;

/// The working memory of the encoder, reused from piece to piece.
#[derive(Default)]
pub(super) struct Merger {
    /// The tokens of the last piece or window.
    tokens: Vec<u32>,
    /// What each token and the one after it join to.
    ranks: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
    /// The bytes `tokens` was made from, where it was a window.
    window: Vec<u8>,
}

/// What to do with the tokens of a long piece.
pub(super) enum Sink<'a> {
    /// Add how many there are.
    Count(&'a mut usize),
    /// Append them.
    Tokens(&'a mut Vec<u32>),
}

impl Merger {
    /// The tokens of a piece of at most [`WINDOW`] bytes.
    pub(super) fn short(&mut self, vocabulary: &Vocabulary, bytes: &[u8]) -> &[u32] {
        self.window.clear();
        self.merge(vocabulary, bytes);
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
        self.tokens.extend(bytes.iter().map(|&byte| vocabulary.byte(byte)));
        self.ranks.clear();
        self.ranks.extend(bytes.windows(2).map(|pair| vocabulary.join_bytes(pair[0], pair[1])));
        self.ranks.push(NONE);
        if bytes.len() <= WINDOW {
            self.merge_in_place(vocabulary);
        } else {
            self.merge_by_heap(vocabulary);
        }
    }

    fn merge_in_place(&mut self, vocabulary: &Vocabulary) {
        let (tokens, ranks) = (&mut self.tokens, &mut self.ranks);
        loop {
            let lowest = ranks.iter().copied().fold(NONE, u32::min);
            if lowest == NONE {
                return;
            }
            let Some(at) = ranks.iter().position(|&rank| rank == lowest) else { return };
            tokens[at] = lowest;
            tokens.remove(at + 1);
            ranks.remove(at + 1);
            ranks[at] = tokens.get(at + 1).map_or(NONE, |&right| vocabulary.join(lowest, right));
            if at > 0 {
                ranks[at - 1] = vocabulary.join(tokens[at - 1], lowest);
            }
        }
    }

    /// The same for windows that had to grow: O(n log n). Joined places are marked with [`NONE`] and dropped at the end.
    #[allow(clippy::cast_possible_truncation)]
    fn merge_by_heap(&mut self, vocabulary: &Vocabulary) {
        let (tokens, ranks) = (&mut self.tokens, &mut self.ranks);
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
