//! The message that the chunks of a streamed answer add up to.

use crate::chat::{
    delta::{Call, Choice, Chunk, Delta, Part},
    observe::Usage,
};

/// A model calls a few tools at once; a server that invents thousands must not fill the memory with empty ones.
const MOST_CALLS: usize = 1024;

/// The first choice of an answer, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// Texts and tool calls; each call has its index.
    pub message: Delta,
    /// Why it ended.
    pub finish: Option<String>,
    /// The last usage that came.
    pub usage: Option<Usage>,
}

impl Joined {
    /// Take in the next chunk.
    pub fn add(&mut self, chunk: &Chunk<'_>) {
        match chunk {
            Chunk::Nothing => {}
            Chunk::Text { choice: 0, part, text } => self.text(*part, text),
            Chunk::Text { .. } => {}
            Chunk::Whole(whole) => {
                self.usage = whole.usage.or(self.usage);
                for choice in whole.choices.iter().filter(|choice| choice.index == 0) {
                    self.choice(choice);
                }
            }
        }
    }

    fn choice(&mut self, choice: &Choice) {
        let Choice { delta, finish, .. } = choice;
        self.text(Part::Content, &delta.content);
        self.text(Part::Thinking, &delta.thinking);
        self.text(Part::Refusal, &delta.refusal);
        for call in &delta.calls {
            self.call(call);
        }
        if finish.is_some() {
            self.finish.clone_from(finish);
        }
    }

    fn text(&mut self, part: Part, text: &str) {
        match part {
            Part::Content => self.message.content.push_str(text),
            Part::Thinking => self.message.thinking.push_str(text),
            Part::Refusal => self.message.refusal.push_str(text),
            Part::Arguments(index) => {
                if let Some(at) = self.place(index) {
                    self.message.calls[at].arguments.push_str(text);
                }
            }
        }
    }

    fn call(&mut self, call: &Call) {
        let known = self.place(call.index).filter(|at| !self.begins(*at, call));
        let at = match known {
            Some(at) => at,
            None if self.message.calls.len() >= MOST_CALLS => return,
            None => {
                let index = Some(call.index.unwrap_or(self.message.calls.len() as u64));
                self.message.calls.push(Call { index, ..Call::default() });
                self.message.calls.len() - 1
            }
        };
        let joined = &mut self.message.calls[at];
        joined.id = joined.id.take().or_else(|| call.id.clone());
        joined.name = joined.name.take().or_else(|| call.name.clone());
        joined.arguments.push_str(&call.arguments);
    }

    /// The call that a fragment continues: the last with its index, or the last of all.
    fn place(&self, index: Option<u64>) -> Option<usize> {
        self.message.calls.iter().rposition(|known| index.is_none() || known.index == index)
    }

    /// Some servers give all calls the index 0, or none: another id, or without an id another name, begins another.
    fn begins(&self, at: usize, call: &Call) -> bool {
        let known = &self.message.calls[at];
        match (&call.id, &known.id) {
            (Some(id), Some(of_known)) => id != of_known,
            (None, _) => call.index.is_none() && call.name.is_some() && known.name.is_some(),
            (Some(_), None) => false,
        }
    }
}
