//! Counting and encoding tokens exactly as tiktoken does, in time linear in the text.
//!
//! The way of a text, in `encoder.rs`: `scan.rs` and `split.rs` find its pieces, `bridges.rs` cuts long ones, `cache.rs`
//! knows most of them, `vocab.rs` which ones are tokens, `seen.rs` those that were met before, and `lanes.rs` and `bpe.rs`
//! encode the rest. `docs/adr/0004-tokens.md` has the reasons and figures.

pub mod batch;
mod bpe;
mod bridges;
mod cache;
pub mod chat;
mod class;
pub mod counter;
pub mod cut;
mod encoder;
mod encoding;
pub mod hugging_face;
mod index;
mod key;
mod lanes;
mod memo;
mod model;
mod output;
mod pairs;
mod parts;
mod prefetch;
pub mod said;
mod scan;
mod seen;
mod special;
mod split;
pub mod tokenizer;
mod vocab;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use encoding::Encoding;
pub use memo::Memo;
pub use model::encoding_name_for_model;
pub use special::AllowedSpecial;

use encoder::Encoder;
use special::SpecialTokens;
use split::Pattern;
use std::{fmt, sync::OnceLock};
use vocab::Vocabulary;

/// The caller's `stop` asked to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting tokens was stopped before the end of the text.")
    }
}

impl std::error::Error for Stopped {}

/// There is no bundled encoding of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEncoding {
    /// The name that was asked for.
    pub name: String,
}

impl fmt::Display for UnknownEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "There is no encoding `{}`; use one of {}.", self.name, ENCODINGS.join(", "))
    }
}

impl std::error::Error for UnknownEncoding {}

/// A number that is no token of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownToken {
    /// The number.
    pub token: u32,
    /// The encoding's name.
    pub encoding: &'static str,
}

impl fmt::Display for UnknownToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no token of {}.", self.token, self.encoding)
    }
}

impl std::error::Error for UnknownToken {}

/// The names [`encoding`] knows: all of tiktoken's.
pub const ENCODINGS: [&str; 7] =
    ["cl100k_base", "o200k_base", "o200k_harmony", "p50k_base", "p50k_edit", "r50k_base", "gpt2"];

/// The encoding of this name, built at its first use (under 100 ms) and kept until the end of the process.
///
/// ```
/// let encoding = sluicegate_core::tokens::encoding("o200k_base")?;
/// assert_eq!(encoding.count("hello world"), 2);
/// # Ok::<(), sluicegate_core::tokens::UnknownEncoding>(())
/// ```
pub fn encoding(name: &str) -> Result<&'static Encoding, UnknownEncoding> {
    static LOADED: [OnceLock<Encoding>; ENCODINGS.len()] = [const { OnceLock::new() }; ENCODINGS.len()];
    match ENCODINGS.iter().position(|known| *known == name) {
        Some(at) => Ok(LOADED[at].get_or_init(|| build(ENCODINGS[at]))),
        None => Err(UnknownEncoding { name: name.to_owned() }),
    }
}

fn build(name: &'static str) -> Encoding {
    Encoding { name, encoder: encoder(name), special: SpecialTokens::new(special_tokens(name)) }
}

/// What the encoding `name` shares with others: o200k_harmony with o200k_base, p50k_edit with p50k_base.
fn encoder(name: &str) -> &'static Encoder {
    static ENCODERS: [OnceLock<Encoder>; 4] = [const { OnceLock::new() }; 4];
    let (at, packed, pattern): (_, &[u8], _) = match name {
        "o200k_base" | "o200k_harmony" => (0, include_bytes!("data/o200k_base.vocab"), Pattern::O200k),
        "cl100k_base" => (1, include_bytes!("data/cl100k_base.vocab"), Pattern::Cl100k),
        "p50k_base" | "p50k_edit" => (2, include_bytes!("data/p50k_base.vocab"), Pattern::R50k),
        _ => (3, include_bytes!("data/r50k_base.vocab"), Pattern::R50k),
    };
    // The files are part of the binary and read in every test: they cannot be damaged by anything at run time.
    #[allow(clippy::expect_used)]
    ENCODERS[at]
        .get_or_init(|| Encoder::new(Vocabulary::read(packed).expect("the bundled vocabulary is complete"), pattern))
}

fn special_tokens(name: &str) -> Vec<(String, u32)> {
    let known: &[(&str, u32)] = match name {
        "cl100k_base" => &[
            ("endoftext", 100_257),
            ("fim_prefix", 100_258),
            ("fim_middle", 100_259),
            ("fim_suffix", 100_260),
            ("endofprompt", 100_276),
        ],
        "o200k_base" => &[("endoftext", 199_999), ("endofprompt", 200_018)],
        "o200k_harmony" => return harmony_tokens(),
        "p50k_edit" => &[("endoftext", 50_256), ("fim_prefix", 50_281), ("fim_middle", 50_282), ("fim_suffix", 50_283)],
        _ => &[("endoftext", 50_256)],
    };
    known.iter().map(|&(text, id)| (format!("<|{text}|>"), id)).collect()
}

/// The format of the gpt-oss models has a name for some of its tokens; the others are reserved by their number. The
/// `endofprompt` of o200k_base shares its number with a reserved one, which tiktoken has too.
fn harmony_tokens() -> Vec<(String, u32)> {
    const NAMED: [(&str, u32); 10] = [
        ("startoftext", 199_998),
        ("endoftext", 199_999),
        ("return", 200_002),
        ("constrain", 200_003),
        ("channel", 200_005),
        ("start", 200_006),
        ("end", 200_007),
        ("message", 200_008),
        ("call", 200_012),
        ("endofprompt", 200_018),
    ];
    let reserved = [200_000, 200_001, 200_004, 200_009, 200_010, 200_011].into_iter().chain(200_013..201_088);
    let named = NAMED.iter().map(|&(text, id)| (format!("<|{text}|>"), id));
    named.chain(reserved.map(|id| (format!("<|reserved_{id}|>"), id))).collect()
}
