//! How certain a model was of an answer, by the log-probabilities of its tokens: four numbers, kept in a state of
//! fixed size however long the answer is.

/// The weakest stretch of an answer is looked for in so many tokens at a time.
pub const WINDOW: usize = 8;
/// A token is taken to be no less likely than this (nats): servers write -9999 for «not among the top ones».
const LEAST: f64 = -20.0;
/// Rounding may put a certain token a little above 0.
const ROUNDING: f64 = 1e-3;
/// Of the tokens, so many may say nothing that makes sense.
const MOST_ODD: f64 = 0.1;
/// Tokens must cover so much of the text that they are said to be of.
const LEAST_COVERED: f64 = 0.8;
/// A closing tag of a thought ends what was thought before it, also where a template had opened it.
const CLOSING: &[u8] = b"</think>";

/// What the log-probabilities of one answer say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// They say it.
    Known(Features),
    /// They do not; why.
    Unknown(&'static str),
}

/// Four numbers in one word, so that processes can share them without a lock: see [`Features::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Never 0.
    pub packed: u64,
    /// Most tokens came with alternatives; without them margin and entropy say nothing.
    pub tops: bool,
}

/// The bounds of each number: mean, weakest window, margin, entropy.
const BOUNDS: [(f64, f64); 4] = [(LEAST, 0.0), (LEAST, 0.0), (0.0, 20.0), (0.0, 4.0)];
const STEPS: f64 = 65534.0;

impl Features {
    /// Of numbers in nats: the mean log-probability, that of the weakest window, the mean distance of the two
    /// likeliest tokens, the mean entropy over the given ones and one for all the rest.
    pub fn new(values: [f64; 4], tops: bool) -> Self {
        let mut packed = 0;
        for (value, (low, high)) in values.into_iter().zip(BOUNDS) {
            let share = ((value.clamp(low, high) - low) / (high - low) * STEPS).round();
            packed = packed << 16 | (share as u64 + 1);
        }
        Features { packed, tops }
    }

    /// The numbers, with 16 bits each.
    pub fn values(packed: u64) -> [f64; 4] {
        let mut place = 64;
        BOUNDS.map(|(low, high)| {
            place -= 16;
            let step = (packed >> place & 0xffff).saturating_sub(1);
            low + step as f64 / STEPS * (high - low)
        })
    }

    /// How many of the numbers count.
    pub fn count(tops: bool) -> usize {
        if tops {
            4
        } else {
            2
        }
    }
}

/// One choice of an answer, token by token.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: Sums,
    /// The end of the text so far: a tag may be spread over several tokens.
    tail: Vec<u8>,
    closed: bool,
    /// Bytes of all tokens, those of thoughts included.
    covered: u64,
    seen: u64,
    odd: u64,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    tokens: u64,
    sum: f64,
    last: [f64; WINDOW],
    weakest: Option<f64>,
    margins: (u64, f64),
    entropy: f64,
}

impl Tally {
    /// The next token: its text, what it says of itself, and the log-probabilities of the likeliest ones.
    pub fn token(&mut self, text: &[u8], logprob: Option<f64>, tops: &[f64]) {
        self.seen += 1;
        self.covered += text.len() as u64;
        match logprob.filter(|value| !value.is_nan() && *value <= ROUNDING) {
            Some(value) => self.sums.add(value.clamp(LEAST, 0.0), tops),
            None => self.odd += 1,
        }
        if !self.closed {
            self.tail.extend_from_slice(text);
            if memchr::memmem::find(&self.tail, CLOSING).is_some() {
                (self.closed, self.sums, self.tail) = (true, Sums::default(), Vec::new());
            } else if self.tail.len() > CLOSING.len() {
                self.tail.drain(..self.tail.len() - CLOSING.len());
            }
        }
    }

    /// What it adds up to. `text_bytes`: of the content that these are the tokens of.
    pub fn certainty(&self, text_bytes: u64) -> Certainty {
        if self.seen == 0 {
            return Certainty::Unknown(if text_bytes == 0 { "no_text" } else { "no_logprobs" });
        }
        if self.odd as f64 > self.seen as f64 * MOST_ODD {
            return Certainty::Unknown("malformed_logprobs");
        }
        if (self.covered as f64) < text_bytes as f64 * LEAST_COVERED {
            return Certainty::Unknown("incomplete_logprobs");
        }
        if self.sums.tokens == 0 {
            return Certainty::Unknown("no_text");
        }
        Certainty::Known(self.sums.features())
    }
}

impl Sums {
    fn add(&mut self, value: f64, tops: &[f64]) {
        self.last[self.tokens as usize % WINDOW] = value;
        self.tokens += 1;
        self.sum += value;
        if self.tokens as usize >= WINDOW {
            // Added up anew: what is subtracted again leaves its rounding behind.
            let window = self.last.iter().sum::<f64>() / WINDOW as f64;
            self.weakest = Some(self.weakest.map_or(window, |weakest| weakest.min(window)));
        }
        let (mut first, mut second, mut mass, mut entropy, mut known) = (LEAST, LEAST, 0.0, 0.0, 0);
        for top in tops.iter().copied().filter(|top| *top <= ROUNDING) {
            let top = top.clamp(LEAST, 0.0);
            (first, second) = if top > first { (top, first) } else { (first, second.max(top)) };
            let share = top.exp();
            mass += share;
            entropy -= share * top;
            known += 1;
        }
        if known < 2 {
            return;
        }
        let rest: f64 = 1.0 - mass;
        if rest > 0.0 {
            entropy -= rest * rest.ln();
        }
        self.margins = (self.margins.0 + 1, self.margins.1 + first - second);
        self.entropy += entropy;
    }

    fn features(&self) -> Features {
        let tokens = self.tokens as f64;
        let mean = self.sum / tokens;
        let (with_tops, margin) = self.margins;
        let tops = with_tops * 2 > self.tokens;
        let of_tops = with_tops.max(1) as f64;
        Features::new([mean, self.weakest.unwrap_or(mean), margin / of_tops, self.entropy / of_tops], tops)
    }
}

impl Certainty {
    /// Of several choices the one that is least certain.
    pub fn worst(all: impl Iterator<Item = Certainty>) -> Option<Certainty> {
        all.min_by(|one, other| one.order().total_cmp(&other.order()))
    }

    fn order(self) -> f64 {
        match self {
            Certainty::Known(features) => Features::values(features.packed)[0],
            // What is unknown of one is unknown of all.
            Certainty::Unknown(_) => f64::NEG_INFINITY,
        }
    }
}
