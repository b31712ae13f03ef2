//! The scores of answers, by assistant: how they are spread, what followed, and what that cost.

use super::{
    metrics::{position, Metrics, ASSISTANT},
    phases::cells,
    samples::{named, Sums},
};

/// Upper bounds of the buckets of scores.
pub const SCORES: [u64; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
/// What became of an answer: good enough, not and given all the same, not and refused.
pub const VERDICTS: [&str; 3] = ["passed", "flagged", "blocked"];
// Cells of an assistant.
const VERDICT: usize = cells(&SCORES);
const UNSCORED: usize = VERDICT + VERDICTS.len();
const AGAIN: usize = UNSCORED + 1;
const MICROS: usize = AGAIN + 1;
const WAITED: usize = MICROS + 1;
pub(super) const CELLS: usize = WAITED + 1;

/// One answer whose assistant wants a score.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scored<'a> {
    /// Its workspace and its assistant's name.
    pub of: (&'a str, &'a str),
    /// 0 to 100; None: nothing can be said of it.
    pub score: Option<u64>,
    /// One of `VERDICTS`.
    pub verdict: &'a str,
    /// Further answers that were asked for.
    pub again: u64,
    /// What answers cost that nobody got, in millionths of a dollar.
    pub micros: u64,
    /// How long the client waited after the first answer was there, in microseconds.
    pub waited: u64,
}

impl Metrics {
    /// An answer was scored.
    pub fn scored(&self, answer: &Scored<'_>) {
        let (workspace, assistant) = answer.of;
        // No id of a workspace has a slash in it.
        let at = ASSISTANT + self.assistants.number(&format!("{workspace}/{assistant}")) * CELLS;
        match answer.score {
            Some(score) => self.observe(at, &SCORES, score),
            None => self.add(at + UNSCORED, 1),
        }
        self.add(at + VERDICT + position(&VERDICTS, answer.verdict, 0), 1);
        self.add(at + AGAIN, answer.again);
        self.add(at + MICROS, answer.micros);
        self.add(at + WAITED, answer.waited);
    }
}

impl Sums<'_> {
    pub(super) fn scores(&mut self) {
        for (number, name) in named(&self.metrics.assistants) {
            let at = ASSISTANT + number * CELLS;
            let (workspace, assistant) = name.split_once('/').unwrap_or((&name, &name));
            let of = [workspace, assistant];
            self.add("score", &of, at, cells(&SCORES));
            for (verdict, told) in VERDICTS.into_iter().enumerate() {
                self.add("scored", &[workspace, assistant, told], at + VERDICT + verdict, 1);
            }
            self.add("unscored", &of, at + UNSCORED, 1);
            self.add("asked_again", &of, at + AGAIN, 1);
            self.add("score_cost", &of, at + MICROS, 1);
            self.add("score_wait", &of, at + WAITED, 1);
        }
    }
}
