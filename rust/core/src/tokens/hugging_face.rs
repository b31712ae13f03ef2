//! Any `tokenizer.json`, through Hugging Face's own library.
//!
//! Counts and ids leave out what a chat template adds (a `<s>` at the start), as those of the bundled encodings do.
//! The library's time grows a little faster than the text (15 times for ten times one letter), and it cannot be
//! stopped in the middle: a caller that must be able to stop runs it on a thread of its own.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        OnceLock,
    },
};

use super::tokenizer::TokenError;
use tokenizers::{AddedToken, DecoderWrapper, Tokenizer as Library};

/// A file with all the vocabulary of a large model has 20 MB.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Why a file is no tokenizer.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Io(std::io::Error),
    /// Longer than [`MAX_FILE_BYTES`].
    TooLong(u64),
    /// Not a `tokenizer.json` that the library understands.
    Format(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => write!(f, "cannot be read: {error}"),
            FileError::TooLong(bytes) => {
                write!(f, "is {bytes} bytes long, a tokenizer.json has at most {MAX_FILE_BYTES}")
            }
            FileError::Format(why) => write!(f, "is not a tokenizer.json that can be used: {why}"),
        }
    }
}

impl std::error::Error for FileError {}

/// A tokenizer from a file; immutable, shared by threads.
pub struct FileTokenizer {
    name: String,
    /// No other one in this process has it: a file may be read again after it has changed.
    id: u64,
    /// Special tokens in the text are text.
    plain: Library,
    /// Special tokens in the text are themselves; made when first wanted.
    special: OnceLock<Library>,
    special_tokens: Vec<(String, u32)>,
    added: HashMap<u32, String>,
    bytes: TokenBytes,
    max_token: u32,
}

/// How the text of a token stands for bytes.
enum TokenBytes {
    /// Each character is a byte (GPT-2's table), found again here.
    ByteLevel(HashMap<char, u8>),
    /// `▁` is a space and `<0x0A>` a byte.
    SentencePiece,
    /// As it stands.
    Plain,
}

impl FileTokenizer {
    /// Read and check a file.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let length = std::fs::metadata(path).map_err(FileError::Io)?.len();
        if length > MAX_FILE_BYTES {
            return Err(FileError::TooLong(length));
        }
        let bytes = std::fs::read(path).map_err(FileError::Io)?;
        Self::parse(path.display().to_string(), &bytes)
    }

    /// Read and check the content of a file.
    pub fn parse(name: String, json: &[u8]) -> Result<Self, FileError> {
        let mut plain = Library::from_bytes(json).map_err(|error| FileError::Format(error.to_string()))?;
        // Many files carry the limits of somebody's training run: a count must not end at 512 tokens.
        plain.with_truncation(None).map_err(|error| FileError::Format(error.to_string()))?;
        plain.with_padding(None);
        plain.set_encode_special_tokens(true);
        let added: HashMap<u32, AddedToken> = plain.get_added_tokens_decoder().into_iter().collect();
        let mut special_tokens: Vec<_> =
            added.iter().filter(|(_, token)| token.special).map(|(id, token)| (token.content.clone(), *id)).collect();
        special_tokens.sort_unstable_by_key(|(_, id)| *id);
        let max_token = plain.get_vocab(true).values().copied().max().unwrap_or(0);
        let bytes = TokenBytes::of(&plain);
        let added = added.into_iter().map(|(id, token)| (id, token.content)).collect();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(FileTokenizer { name, id, plain, special: OnceLock::new(), special_tokens, added, bytes, max_token })
    }

    /// What no other one in this process has, not even one from the same path.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file's path, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of tokens, added ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.plain.get_vocab_size(true)
    }

    /// The highest id.
    pub fn max_token_value(&self) -> u32 {
        self.max_token
    }

    /// The special tokens and their ids, by id.
    pub fn special_tokens(&self) -> &[(String, u32)] {
        &self.special_tokens
    }

    /// Tokens of a text; special tokens in it are text.
    pub fn count(&self, text: &str) -> Result<usize, TokenError> {
        Ok(self.plain.encode_fast(text, false).map_err(unencodable)?.len())
    }

    /// The ids of a text; special tokens in it are text.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenError> {
        out.extend_from_slice(self.plain.encode_fast(text, false).map_err(unencodable)?.get_ids());
        Ok(())
    }

    /// The ids of a text; every special token in it is itself.
    pub fn encode_with_all_special(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenError> {
        let library = self.special.get_or_init(|| {
            let mut library = self.plain.clone();
            library.set_encode_special_tokens(false);
            library
        });
        out.extend_from_slice(library.encode_fast(text, false).map_err(unencodable)?.get_ids());
        Ok(())
    }

    /// Where each token ends in the text, in bytes. A token that is part of a character ends where that does.
    pub fn ends(&self, text: &str, out: &mut Vec<usize>) -> Result<(), TokenError> {
        let encoding = self.plain.encode(text, false).map_err(unencodable)?;
        out.extend(encoding.get_offsets().iter().map(|(_, end)| *end));
        Ok(())
    }

    /// The text of tokens as the file's own decoder joins them.
    pub fn decode(&self, tokens: &[u32], out: &mut Vec<u8>) -> Result<(), TokenError> {
        if let Some(unknown) = tokens.iter().find(|id| !self.has(**id)) {
            return Err(TokenError::UnknownToken(*unknown));
        }
        if let TokenBytes::ByteLevel(_) = self.bytes {
            // The library's own decoder puts U+FFFD for half a character: bytes lose nothing.
            tokens.iter().filter_map(|id| self.token_bytes(*id)).for_each(|bytes| out.extend(bytes));
        } else {
            out.extend(self.plain.decode(tokens, false).map_err(unencodable)?.into_bytes());
        }
        Ok(())
    }

    /// The bytes of one token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some(content) = self.added.get(&id) {
            return Some(content.as_bytes().to_vec());
        }
        let text = self.plain.id_to_token(id)?;
        Some(self.bytes.decode(&text))
    }

    /// The token with exactly these bytes.
    pub fn token_of(&self, bytes: &[u8]) -> Option<u32> {
        let text = std::str::from_utf8(bytes).ok();
        let written = self.bytes.encode(bytes);
        text.and_then(|text| self.added.iter().find(|(_, content)| *content == text).map(|(id, _)| *id))
            .or_else(|| self.plain.token_to_id(written.as_deref()?))
    }

    fn has(&self, id: u32) -> bool {
        self.added.contains_key(&id) || self.plain.id_to_token(id).is_some()
    }
}

impl TokenBytes {
    fn of(library: &Library) -> Self {
        match library.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => TokenBytes::ByteLevel(byte_characters()),
            Some(DecoderWrapper::Sequence(_) | DecoderWrapper::Metaspace(_)) => TokenBytes::SentencePiece,
            _ => TokenBytes::Plain,
        }
    }

    fn decode(&self, token: &str) -> Vec<u8> {
        match self {
            TokenBytes::ByteLevel(table) => {
                let bytes: Option<Vec<u8>> = token.chars().map(|c| table.get(&c).copied()).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            TokenBytes::SentencePiece => {
                let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                match byte.filter(|digits| digits.len() == 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => token.replace('▁', " ").into_bytes(),
                }
            }
            TokenBytes::Plain => token.as_bytes().to_vec(),
        }
    }

    fn encode(&self, bytes: &[u8]) -> Option<String> {
        match self {
            TokenBytes::ByteLevel(table) => {
                let characters: HashMap<u8, char> = table.iter().map(|(c, byte)| (*byte, *c)).collect();
                bytes.iter().map(|byte| characters.get(byte)).collect()
            }
            TokenBytes::SentencePiece => match (std::str::from_utf8(bytes), bytes) {
                (Ok(text), _) => Some(text.replace(' ', "▁")),
                (Err(_), [byte]) => Some(format!("<0x{byte:02X}>")),
                _ => None,
            },
            TokenBytes::Plain => std::str::from_utf8(bytes).ok().map(str::to_owned),
        }
    }
}

fn unencodable(error: tokenizers::Error) -> TokenError {
    TokenError::Unencodable(error.to_string())
}

/// GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on.
fn byte_characters() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let plain = (0..=255u8).filter(printable).map(|byte| (char::from(byte), byte));
    let others = (0..=255u8).filter(|byte| !printable(byte));
    let moved = ('\u{100}'..).zip(others);
    plain.chain(moved).collect()
}

impl fmt::Debug for FileTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTokenizer").field("name", &self.name).finish_non_exhaustive()
    }
}
