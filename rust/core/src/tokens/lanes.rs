//! Byte pair encoding of several short pieces at once, a join of each in turns.
//!
//! One piece alone waits most of the time: for the memory of the next pair of tokens, and for branches that nobody can
//! guess. The pieces of a batch do not depend on each other, so here each goes on by one join in each step, without a
//! branch that depends on its tokens, and the memory of all is asked for before that of the first is read. What is
//! joined is what `bpe.rs` joins, in the same order.

use super::{
    bpe::units,
    pairs::{id_of, unmarked, Asked, Marked, NO_TOKEN},
    vocab::{Vocabulary, NONE},
};
use std::hint::select_unpredictable;

/// Pieces that are encoded at once.
pub(super) const LANES: usize = 16;
/// The most characters, or bytes of characters that are no token, that a piece may begin with.
const UNITS: usize = 30;
/// A place for each unit, one before them and one behind; as many as make every `u8 % ROWS` one of them.
const ROWS: usize = 32;
/// "Joins to nothing": above all others, and finite.
const NO_JOIN: f32 = f32::MAX;
const PLACE_BITS: u32 = 5;
/// Added to a join, so that as a floating-point number it is a normal one.
const NORMAL: u32 = 1 << 23;

/// The pieces that are being encoded.
pub(super) struct Lanes {
    lanes: [Lane; LANES],
    /// The lanes that are filled.
    count: usize,
}

/// One piece.
#[derive(Clone, Copy)]
struct Lane {
    /// Tokens stand at the place of their first unit; [`NO_TOKEN`] before the first and behind the last.
    tokens: [Marked; ROWS],
    /// What a token and the next one join to, above the place: the lowest is the next to join, the leftmost first.
    /// Positive floating-point numbers have the order of their bits, and every x86-64 has an instruction for the lowest
    /// of four of them, which it has not for integers.
    joins: [f32; ROWS],
    /// One bit for each place with a token, those before and behind included.
    alive: u32,
}

/// A join under way: its lane, the places that change, and what they will be.
#[derive(Clone, Copy, Default)]
struct Step {
    left: Asked,
    right: Asked,
    lane: u8,
    before: u8,
    at: u8,
}

impl Default for Lanes {
    fn default() -> Self {
        let lane = Lane { tokens: [NO_TOKEN; ROWS], joins: [NO_JOIN; ROWS], alive: 0 };
        Self { lanes: [lane; LANES], count: 0 }
    }
}

impl Lanes {
    /// Takes a piece; `false` if it has too many units. It is UTF-8. There are at most [`LANES`].
    pub(super) fn push(&mut self, vocabulary: &Vocabulary, piece: &[u8]) -> bool {
        let lane = &mut self.lanes[self.count % LANES];
        let Some(count) = units(vocabulary, piece, &mut lane.tokens[1..=UNITS]) else { return false };
        lane.tokens[count + 1] = NO_TOKEN;
        lane.alive = u32::MAX >> (UNITS - count);
        for pair in lane.tokens[1..=count].windows(2) {
            vocabulary.prefetch_join_units(pair[0], pair[1]);
        }
        self.count += 1;
        true
    }

    /// Joins the pieces to the end. [`Self::tokens`] has them then, until [`Self::clear`].
    pub(super) fn join(&mut self, vocabulary: &Vocabulary) {
        for lane in &mut self.lanes[..self.count] {
            lane.first_joins(vocabulary);
        }
        let mut active: [u8; LANES] = std::array::from_fn(|lane| lane as u8);
        let mut count = self.count;
        while count > 0 {
            count = self.step(vocabulary, &mut active, count);
        }
    }

    /// The tokens of a lane, and how many they are.
    pub(super) fn tokens(&self, lane: usize) -> ([u32; UNITS], usize) {
        let mut out = [0; UNITS];
        let mut count = 0;
        let lane = &self.lanes[lane];
        // Without the place before the first and the one behind the last.
        let mut alive = lane.alive & (lane.alive - 1);
        while alive & (alive - 1) != 0 {
            out[count % UNITS] = id_of(lane.tokens[alive.trailing_zeros() as usize % ROWS]);
            count += 1;
            alive &= alive - 1;
        }
        (out, count)
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// One join in each of the active lanes; gives how many are still active.
    #[inline(always)]
    fn step(&mut self, vocabulary: &Vocabulary, active: &mut [u8; LANES], count: usize) -> usize {
        let mut steps = [Step::default(); LANES];
        let mut still = 0;
        for at in 0..count % (LANES + 1) {
            let number = active[at % LANES];
            let lane = &mut self.lanes[usize::from(number) % LANES];
            let low = lane.lowest();
            if low >= NO_JOIN {
                continue;
            }
            active[still % LANES] = number;
            steps[still % LANES] = Step { lane: number, ..lane.begin(vocabulary, low) };
            still += 1;
        }
        for step in &steps[..still % (LANES + 1)] {
            self.lanes[usize::from(step.lane) % LANES].end(vocabulary, *step);
        }
        still
    }
}

impl Lane {
    fn first_joins(&mut self, vocabulary: &Vocabulary) {
        let end = (self.alive.trailing_ones() - 2) as usize;
        self.joins = [NO_JOIN; ROWS];
        for place in 1..end {
            self.joins[place] = join_at(vocabulary.join_units(self.tokens[place], self.tokens[place + 1]), place as u8);
        }
        for token in &mut self.tokens[1..=end] {
            *token = unmarked(*token);
        }
    }

    /// Of all places, also of those without a token: how many there are differs, and could not be guessed.
    #[inline(always)]
    fn lowest(&self) -> f32 {
        #[cfg(target_arch = "x86_64")]
        return super::x86::lowest(&self.joins);
        #[cfg(not(target_arch = "x86_64"))]
        lowest(&self.joins)
    }

    /// Joins two tokens to one, and asks what that joins to with its neighbours.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)]
    fn begin(&mut self, vocabulary: &Vocabulary, low: f32) -> Step {
        let low = low.to_bits() - NORMAL;
        let (token, at) = (low >> PLACE_BITS, low % (1 << PLACE_BITS));
        let later = self.alive & (!1 << at);
        let gone = later.trailing_zeros();
        let after = (later & later.wrapping_sub(1)).trailing_zeros();
        let before = 31 - (self.alive & ((1 << at) - 1) | 1).leading_zeros();
        self.alive &= !(1 << (gone % 32));
        self.tokens[at as usize % ROWS] = token;
        self.joins[gone as usize % ROWS] = NO_JOIN;
        let left = vocabulary.ask(self.tokens[before as usize % ROWS], token);
        let right = vocabulary.ask(token, self.tokens[after as usize % ROWS]);
        Step { left, right, lane: 0, before: before as u8, at: at as u8 }
    }

    /// Notes what the new token joins to with its neighbours.
    #[inline(always)]
    fn end(&mut self, vocabulary: &Vocabulary, step: Step) {
        self.joins[usize::from(step.at) % ROWS] = join_at(vocabulary.answer(step.right), step.at);
        self.joins[usize::from(step.before) % ROWS] = join_at(vocabulary.answer(step.left), step.before);
    }
}

/// The lowest of all.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn lowest(numbers: &[f32; ROWS]) -> f32 {
    numbers.iter().fold(NO_JOIN, |lowest, &number| if number < lowest { number } else { lowest })
}

/// A rank and its place as one number, in the order of joining; [`NONE`] is above all of them.
#[inline(always)]
fn join_at(rank: Marked, place: u8) -> f32 {
    let bits = (rank << PLACE_BITS | u32::from(place)).wrapping_add(NORMAL);
    f32::from_bits(select_unpredictable(rank == NONE, NO_JOIN.to_bits(), bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::bpe::{Merger, Sink};

    /// What `bpe.rs` makes of a piece by itself.
    fn alone(vocabulary: &Vocabulary, piece: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        let done = Merger::default().long(vocabulary, piece.as_bytes(), Sink::Tokens(&mut tokens), &mut || false);
        assert!(done.is_ok());
        tokens
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_lowest_as_the_portable_one() {
        for at in 0..ROWS {
            let mut numbers: [f32; ROWS] =
                std::array::from_fn(|place| join_at(((place * 37 + at) % 97) as u32 * 2000, place as u8));
            assert_eq!(crate::tokens::x86::lowest(&numbers), lowest(&numbers));
            numbers = [NO_JOIN; ROWS];
            assert_eq!(crate::tokens::x86::lowest(&numbers), NO_JOIN);
            numbers[at] = join_at(at as u32, at as u8);
            assert_eq!(crate::tokens::x86::lowest(&numbers), numbers[at]);
        }
    }

    #[test]
    fn as_each_piece_by_itself() {
        let letters: Vec<char> =
            "abcdefgzAZ'!! 0123äößéñłабвгдежклмнопрстيكرم中国人日本語한국어กขคงनमसते\u{301}\u{200d}👍🏽👩"
                .chars()
                .collect();
        let packed: [&[u8]; 3] = [
            include_bytes!("data/r50k_base.vocab"),
            include_bytes!("data/cl100k_base.vocab"),
            include_bytes!("data/o200k_base.vocab"),
        ];
        for packed in packed {
            let vocabulary = Vocabulary::read(packed).unwrap();
            let (mut lanes, mut pieces, mut state) = (Lanes::default(), Vec::new(), 1_u64);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            let mut taken = 0;
            for round in 0..4000 {
                // Letters that stand side by side in the list are of one script, and join.
                let (start, spread) = (random(letters.len() - 8), 2 + random(7));
                let piece: String = (0..1 + random(20)).map(|_| letters[start + random(spread)]).collect();
                if lanes.push(&vocabulary, piece.as_bytes()) {
                    pieces.push(piece);
                } else {
                    assert!(piece.len() > UNITS, "{piece:?}");
                }
                // Groups of every size.
                if !pieces.is_empty() && (pieces.len() == LANES || round % 7 == 0) {
                    taken += pieces.len();
                    lanes.join(&vocabulary);
                    for (lane, piece) in pieces.drain(..).enumerate() {
                        let (tokens, count) = lanes.tokens(lane);
                        assert_eq!(tokens[..count], alone(&vocabulary, &piece), "{piece:?}");
                    }
                    lanes.clear();
                }
            }
            assert!(taken > 2000, "{taken}");
        }
    }
}
