//! A tokenizer, whichever it is: one of the bundled encodings, or one from a `tokenizer.json`.

use std::{
    borrow::Cow,
    fmt,
    path::Path,
    sync::{mpsc, Arc},
    time::Duration,
};

use aho_corasick::{AhoCorasick, MatchKind};

use super::{
    encoding,
    hugging_face::{FileError, FileTokenizer},
    AllowedSpecial, Encoding, UnknownEncoding,
};

/// Immutable and cheap to clone; shared by threads.
#[derive(Clone)]
pub enum Tokenizer {
    /// Bundled.
    Encoding(&'static Encoding),
    /// From a file.
    File(Arc<FileTokenizer>),
}

/// Why a text has no tokens, or tokens no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The caller's `stop` said so.
    Stopped,
    /// The tokenizer of a file cannot express this text, for example without an unknown token.
    Unencodable(String),
    /// The vocabulary has no such id.
    UnknownToken(u32),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Stopped => write!(f, "stopped"),
            TokenError::Unencodable(why) => write!(f, "this tokenizer cannot express the text: {why}"),
            TokenError::UnknownToken(id) => write!(f, "no token has the id {id}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// Asked now and then in a long text: true ends the work.
pub type Stop<'a> = &'a mut dyn FnMut() -> bool;

/// Shorter texts are done before anybody could ask to stop.
const STOPPABLE_FROM: usize = 64 * 1024;
/// The library for files cannot be stopped: from this length on it works beside the caller, who then may stop waiting.
const BESIDE_FROM: usize = 256 * 1024;
/// So often a caller that waits is asked whether to go on.
const ASK: Duration = Duration::from_millis(50);

impl Tokenizer {
    /// A bundled encoding by its name.
    pub fn bundled(name: &str) -> Result<Self, UnknownEncoding> {
        Ok(Tokenizer::Encoding(encoding(name)?))
    }

    /// One from a `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Ok(Tokenizer::File(Arc::new(FileTokenizer::load(path)?)))
    }

    /// The encoding's name, or the file's path.
    pub fn name(&self) -> &str {
        match self {
            Tokenizer::Encoding(encoding) => encoding.name(),
            Tokenizer::File(file) => file.name(),
        }
    }

    /// The highest id.
    pub fn max_token_value(&self) -> u32 {
        match self {
            Tokenizer::Encoding(encoding) => encoding.max_token_value(),
            Tokenizer::File(file) => file.max_token_value(),
        }
    }

    /// Tokens of a text; special tokens in it are text.
    pub fn count(&self, text: &str, stop: Stop<'_>) -> Result<usize, TokenError> {
        match self {
            Tokenizer::Encoding(encoding) if text.len() < STOPPABLE_FROM => Ok(encoding.count(text)),
            Tokenizer::Encoding(encoding) => encoding.count_until(text, stop).map_err(|_| TokenError::Stopped),
            Tokenizer::File(file) => beside(file, text, stop, |file, text| file.count(text)),
        }
    }

    /// The ids of a text; special tokens in it are text.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>, stop: Stop<'_>) -> Result<(), TokenError> {
        match self {
            Tokenizer::Encoding(encoding) if text.len() < STOPPABLE_FROM => {
                encoding.encode_ordinary(text, out);
                Ok(())
            }
            Tokenizer::Encoding(encoding) => {
                encoding.encode_ordinary_until(text, out, stop).map_err(|_| TokenError::Stopped)
            }
            Tokenizer::File(file) => {
                let encode = |file: &FileTokenizer, text: &str| {
                    let mut ids = Vec::new();
                    file.encode(text, &mut ids).map(|()| ids)
                };
                out.extend(beside(file, text, stop, encode)?);
                Ok(())
            }
        }
    }

    /// The ids of a text in which the allowed special tokens are themselves.
    pub fn encode_with_special(
        &self,
        text: &str,
        allowed: &AllowedSpecial,
        out: &mut Vec<u32>,
        stop: Stop<'_>,
    ) -> Result<(), TokenError> {
        match (self, allowed) {
            (Tokenizer::Encoding(encoding), _) => {
                encoding.encode_with_special_until(text, allowed, out, stop).map_err(|_| TokenError::Stopped)
            }
            (_, AllowedSpecial::None) => self.encode(text, out, stop),
            (Tokenizer::File(file), AllowedSpecial::All) => file.encode_with_all_special(text, out),
            (Tokenizer::File(file), AllowedSpecial::Only(texts)) => {
                let special: Vec<_> = file.special_tokens().iter().filter(|(token, _)| texts.contains(token)).collect();
                let mut from = 0;
                for found in finder(special.iter().map(|(token, _)| token))?.find_iter(text) {
                    self.encode(&text[from..found.start()], out, stop)?;
                    out.push(special[found.pattern().as_usize()].1);
                    from = found.end();
                }
                self.encode(&text[from..], out, stop)
            }
        }
    }

    /// The first of these special tokens in a text, and where it stands.
    pub fn find_special<'s>(
        &self,
        text: &'s str,
        which: &AllowedSpecial,
    ) -> Result<Option<(usize, &'s str)>, TokenError> {
        let file = match self {
            Tokenizer::Encoding(encoding) => {
                return Ok(encoding.find_special(text, which).map(|(range, _)| (range.start, &text[range])))
            }
            Tokenizer::File(file) => file,
        };
        let named = |token: &str| match which {
            AllowedSpecial::None => false,
            AllowedSpecial::All => true,
            AllowedSpecial::Only(texts) => texts.contains(token),
        };
        let found =
            finder(file.special_tokens().iter().map(|(token, _)| token).filter(|token| named(token)))?.find(text);
        Ok(found.map(|found| (found.start(), &text[found.range()])))
    }

    /// Where each token ends in the text, in bytes, up to `limit` tokens or a few more.
    pub fn ends(&self, text: &str, limit: usize, out: &mut Vec<usize>, stop: Stop<'_>) -> Result<(), TokenError> {
        match self {
            Tokenizer::Encoding(encoding) => piece_ends(encoding, text, limit, out, stop),
            Tokenizer::File(file) => {
                let ends = |file: &FileTokenizer, text: &str| {
                    let mut ends = Vec::new();
                    file.ends(text, &mut ends).map(|()| ends)
                };
                out.extend(beside(file, text, stop, ends)?);
                Ok(())
            }
        }
    }

    /// The bytes of tokens, joined.
    pub fn decode(&self, tokens: &[u32], out: &mut Vec<u8>) -> Result<(), TokenError> {
        match self {
            Tokenizer::Encoding(encoding) => {
                encoding.decode_bytes(tokens, out).map_err(|unknown| TokenError::UnknownToken(unknown.token))
            }
            Tokenizer::File(file) => file.decode(tokens, out),
        }
    }

    /// The special tokens and their ids.
    pub fn special_tokens(&self) -> Vec<(&str, u32)> {
        match self {
            Tokenizer::Encoding(encoding) => encoding.special_tokens().collect(),
            Tokenizer::File(file) => file.special_tokens().iter().map(|(token, id)| (token.as_str(), *id)).collect(),
        }
    }

    /// The token with exactly these bytes, special ones included.
    pub fn token_of(&self, bytes: &[u8]) -> Option<u32> {
        match self {
            Tokenizer::File(file) => file.token_of(bytes),
            Tokenizer::Encoding(encoding) => encoding.token_of(bytes),
        }
    }

    /// The bytes of one token.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        match self {
            Tokenizer::Encoding(encoding) => encoding.token_bytes(id).map(Cow::Borrowed),
            Tokenizer::File(file) => file.token_bytes(id).map(Cow::Owned),
        }
    }
}

/// Pieces one after another, until there are enough tokens.
fn piece_ends(
    encoding: &Encoding,
    text: &str,
    limit: usize,
    out: &mut Vec<usize>,
    stop: Stop<'_>,
) -> Result<(), TokenError> {
    let (mut ids, mut end, mut asked_at) = (Vec::new(), 0, STOPPABLE_FROM);
    for piece in encoding.pieces(text) {
        if out.len() >= limit {
            break;
        }
        ids.clear();
        encoding.encode_single_piece(piece.as_bytes(), &mut ids);
        for id in &ids {
            end += encoding.token_bytes(*id).map_or(0, <[u8]>::len);
            out.push(end);
        }
        if end >= asked_at {
            asked_at = end + STOPPABLE_FROM;
            if stop() {
                return Err(TokenError::Stopped);
            }
        }
    }
    Ok(())
}

/// Finds whichever comes first, the longest of those at one place.
fn finder<'s>(texts: impl Iterator<Item = &'s String>) -> Result<AhoCorasick, TokenError> {
    let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
    built.map_err(|error| TokenError::Unencodable(error.to_string()))
}

/// The library's work, beside the caller where the text is long: a caller that stops leaves it to end by itself.
fn beside<T: Send + 'static>(
    file: &Arc<FileTokenizer>,
    text: &str,
    stop: Stop<'_>,
    work: impl FnOnce(&FileTokenizer, &str) -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    if text.len() < BESIDE_FROM {
        return work(file, text);
    }
    let (file, text) = (Arc::clone(file), text.to_owned());
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(work(&file, &text)));
    loop {
        match receiver.recv_timeout(ASK) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Timeout) if stop() => return Err(TokenError::Stopped),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(TokenError::Unencodable("the library for tokenizer.json broke on this text".to_owned()))
            }
        }
    }
}
