//! What can be told of a text without understanding it.

/// How models begin that will not do what they are asked; lower case, with straight apostrophes.
const REFUSALS: [&str; 16] = [
    "i'm sorry, but i can",
    "i am sorry, but i can",
    "i'm sorry, i can",
    "sorry, but i can't",
    "i can't assist with",
    "i cannot assist with",
    "i can't help with",
    "i cannot help with",
    "i'm unable to",
    "i am unable to",
    "i won't be able to",
    "i must decline",
    "as an ai language model",
    "es tut mir leid, aber ich kann",
    "je suis désolé, mais je ne peux",
    "lo siento, pero no puedo",
];
/// So much of the beginning is looked at.
const BEGINNING: usize = 120;
/// So much of the end.
const END: usize = 4096;
/// A loop is at least so long, and has at least so many rounds.
const LOOP_BYTES: usize = 320;
const LOOP_ROUNDS: usize = 6;

/// A script, for «the answer is in another language».
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// English, Turkish, Vietnamese …
    Latin,
    /// Russian, Ukrainian …
    Cyrillic,
    /// Greek
    Greek,
    /// Arabic, Persian, Urdu
    Arabic,
    /// Hebrew
    Hebrew,
    /// Hindi, Marathi …
    Devanagari,
    /// Thai
    Thai,
    /// Han characters
    Chinese,
    /// Kana and Han characters
    Japanese,
    /// Hangul
    Korean,
}

impl Script {
    /// The script of a name in lower case.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "latin" => Script::Latin,
            "cyrillic" => Script::Cyrillic,
            "greek" => Script::Greek,
            "arabic" => Script::Arabic,
            "hebrew" => Script::Hebrew,
            "devanagari" => Script::Devanagari,
            "thai" => Script::Thai,
            "chinese" => Script::Chinese,
            "japanese" => Script::Japanese,
            "korean" => Script::Korean,
            _ => return None,
        })
    }

    fn has(self, c: char) -> bool {
        let han = matches!(c, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
        match self {
            Script::Latin => matches!(c, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}'),
            Script::Cyrillic => matches!(c, '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}'),
            Script::Greek => matches!(c, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}'),
            Script::Arabic => matches!(c, '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{fb50}'..='\u{fefc}'),
            Script::Hebrew => matches!(c, '\u{590}'..='\u{5ff}' | '\u{fb1d}'..='\u{fb4f}'),
            Script::Devanagari => matches!(c, '\u{900}'..='\u{97f}' | '\u{a8e0}'..='\u{a8ff}'),
            Script::Thai => matches!(c, '\u{e00}'..='\u{e7f}'),
            Script::Chinese => han,
            Script::Japanese => han || matches!(c, '\u{3040}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9d}'),
            Script::Korean => matches!(c, '\u{ac00}'..='\u{d7af}' | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}'),
        }
    }

    /// Are at least half of the letters of this script? Blocks of code are not counted, nor is a text without letters.
    pub fn is_of(self, text: &str) -> bool {
        let (mut ours, mut all, mut code) = (0usize, 0usize, false);
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                code = !code;
                continue;
            }
            for c in line.chars().filter(|c| !code && c.is_alphabetic()) {
                all += 1;
                ours += usize::from(self.has(c));
            }
        }
        ours * 2 >= all
    }
}

/// Does it begin as a refusal?
pub fn refuses(text: &str) -> bool {
    let beginning: String = text.trim_start().chars().take(BEGINNING).collect();
    let beginning = beginning.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|words| beginning.contains(words))
}

/// Does it end in the same, again and again? Rulers of dashes and the like are no loop.
pub fn loops(text: &[u8]) -> bool {
    let end: Vec<u8> = text.trim_ascii_end().iter().rev().take(END).copied().collect();
    // Read backwards: the longest border of each prefix gives its period.
    let mut border = vec![0usize; end.len()];
    for at in 1..end.len() {
        let mut length = border[at - 1];
        while length > 0 && end[at] != end[length] {
            length = border[length - 1];
        }
        border[at] = length + usize::from(end[at] == end[length]);
        let (size, period) = (at + 1, at + 1 - border[at]);
        let says = |round: &[u8]| round.iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
        if size >= LOOP_BYTES && size / period >= LOOP_ROUNDS && says(&end[..period]) {
            return true;
        }
    }
    false
}
