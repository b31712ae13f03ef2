//! Special tokens: texts like `<|endoftext|>` that stand for one token where the caller allows it.

use memchr::memmem;
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// Which special tokens a text may hold as tokens. The others are text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedSpecial {
    /// None: everything is text.
    #[default]
    None,
    /// All of the encoding.
    All,
    /// These, by their texts.
    Only(HashSet<String>),
}

impl AllowedSpecial {
    fn allows(&self, text: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(texts) => texts.contains(text),
        }
    }
}

/// The special tokens of an encoding. Each begins with `<|`, ends with the next `|>` and has no other `<|` in it.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    ids: HashMap<String, u32>,
    texts: HashMap<u32, String>,
    longest: usize,
}

impl SpecialTokens {
    pub(super) fn new(tokens: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut ids = HashMap::new();
        let mut texts = HashMap::new();
        for (text, id) in tokens {
            // o200k_harmony has two texts for one number: the first one is what it decodes to.
            texts.entry(id).or_insert_with(|| text.clone());
            ids.insert(text, id);
        }
        let longest = ids.keys().map(|text: &String| text.len()).max().unwrap_or(0);
        Self { ids, texts, longest }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().map(|(text, &id)| (text.as_str(), id))
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    pub(super) fn max_id(&self) -> u32 {
        self.texts.keys().copied().max().unwrap_or(0)
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The first allowed special token of `text` from `from` on: where it stands, and its id.
    pub(super) fn next(&self, text: &str, from: usize, allowed: &AllowedSpecial) -> Option<(Range<usize>, u32)> {
        if *allowed == AllowedSpecial::None {
            return None;
        }
        memmem::find_iter(&text.as_bytes()[from..], b"<|").find_map(|offset| {
            let start = from + offset;
            let window = &text.as_bytes()[start..text.len().min(start + self.longest)];
            let end = start + memmem::find(window, b"|>")? + 2;
            let found = text.get(start..end)?;
            let id = self.id(found)?;
            allowed.allows(found).then_some((start..end, id))
        })
    }
}
