//! What a model's name asks for: `bench-n100-d10-t50-b40`.

/// How an answer is made. Every part of a name is optional, and parts that mean nothing are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// `n`: chunks with text.
    pub chunks: u64,
    /// `d`: milliseconds between two chunks.
    pub gap_ms: u64,
    /// `t`: milliseconds before the first chunk, or before a plain answer.
    pub first_ms: u64,
    /// `b`: bytes of text in a chunk.
    pub text: usize,
    /// `e`: numbers in an embedding.
    pub dimensions: usize,
}

impl Script {
    /// Reads a model's name.
    pub fn of(model: &str) -> Self {
        let mut script = Self { chunks: 20, gap_ms: 0, first_ms: 0, text: 40, dimensions: 256 };
        for part in model.split('-') {
            let mut letters = part.chars();
            let letter = letters.next();
            let Ok(number) = letters.as_str().parse::<u32>() else {
                continue;
            };
            match letter {
                Some('n') => script.chunks = number.into(),
                Some('d') => script.gap_ms = number.into(),
                Some('t') => script.first_ms = number.into(),
                Some('b') => script.text = number as usize,
                Some('e') => script.dimensions = number as usize,
                _ => {}
            }
        }
        script
    }

    /// As much filler text as asked for.
    pub fn filler(&self, chunks: u64) -> String {
        let length = self.text * usize::try_from(chunks).unwrap_or(usize::MAX);
        "lorem ipsum ".chars().cycle().take(length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Script;

    #[test]
    fn every_letter_is_read() {
        let script = Script::of("bench-n100-d10-t50-b40-e8");
        let wanted = Script { chunks: 100, gap_ms: 10, first_ms: 50, text: 40, dimensions: 8 };
        assert_eq!(script, wanted);
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        assert_eq!(Script::of("bench-nine-d-x7-"), Script::of(""));
        assert_eq!(Script::of("n3").chunks, 3);
    }

    #[test]
    fn the_filler_has_its_length() {
        assert_eq!(Script::of("b40").filler(3).len(), 120);
    }
}
