//! The exact count of a text that arrives in parts.

use super::tokenizer::{TokenError, Tokenizer};

/// The text that is kept is looked through again when it has grown by so much.
const STEP: usize = 1024;
/// So much of the end is never settled: what follows can change the pieces before it (a contraction, digits).
const OPEN: usize = 16;

/// Counts what it is fed as one text.
///
/// Pieces far enough back can never change, so only the end is kept: about a kilobyte of ordinary text, and up to
/// twice the length of a run that has no break in it. Of a tokenizer from a file, whose rules can be any, all text is kept.
#[derive(Clone)]
pub struct Counter {
    tokenizer: Tokenizer,
    settled: usize,
    open: String,
    look_at: usize,
}

impl Counter {
    /// Nothing was fed yet.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Counter { tokenizer, settled: 0, open: String::new(), look_at: STEP }
    }

    /// The next part. Parts may end anywhere between two characters.
    pub fn feed(&mut self, text: &str) -> Result<(), TokenError> {
        self.open.push_str(text);
        if self.open.len() >= self.look_at {
            self.settle()?;
        }
        Ok(())
    }

    /// The tokens of all parts joined. Takes as long as what is kept is long.
    pub fn total(&mut self) -> Result<usize, TokenError> {
        if self.open.len() >= STEP {
            self.settle()?;
        }
        Ok(self.settled + self.tokenizer.count(&self.open, &mut || false)?)
    }

    /// The bytes that are kept.
    pub fn kept(&self) -> usize {
        self.open.len()
    }

    fn settle(&mut self) -> Result<(), TokenError> {
        let cut = self.last_final_break();
        if cut > 0 {
            self.settled += self.tokenizer.count(&self.open[..cut], &mut || false)?;
            self.open.drain(..cut);
        }
        // Twice as much where nothing could be settled: a run without a break is looked at a few times, not often.
        self.look_at = (self.open.len() * 2).max(self.open.len() + STEP);
        Ok(())
    }

    /// The last start of a piece behind a character that is no white space. What is before it is final: patterns
    /// look ahead only in white space, and two more characters behind letters.
    fn last_final_break(&self) -> usize {
        let Tokenizer::Encoding(encoding) = &self.tokenizer else { return 0 };
        let limit = self.open.len().saturating_sub(OPEN);
        let (mut at, mut found, mut blank) = (0, 0, true);
        for piece in encoding.pieces(&self.open) {
            if at > limit {
                break;
            }
            if !blank {
                found = at;
            }
            at += piece.len();
            blank = piece.ends_with(char::is_whitespace);
        }
        found
    }
}
