//! A strict JSON reader over text: one pass, no recursion, no allocation, every skipped byte checked.
//!
//! Stricter than RFC 8259 where two readers could see two values, or one of them could fail later:
//! a lone surrogate (`"\ud800"`) is refused, because it has no UTF-8; nesting ends at [`MAX_DEPTH`]; a number
//! is finite as an f64 and at most [`MAX_NUMBER_BYTES`] long, because Python refuses integers of 4,300 digits
//! and reads 1e400 as infinity. A byte order mark is a syntax error, as are NaN and Infinity.
//!
//! ```
//! use sluicegate_core::json::{Cursor, JsonError};
//! # fn main() -> Result<(), JsonError> {
//! let mut cursor = Cursor::new(r#"{"model":"m","choices":[{"index":0},{"index":1}]}"#);
//! let mut members = cursor.object()?;
//! let mut sum = 0;
//! while let Some(key) = members.next(&mut cursor)? {
//!     if !key.is("choices") {
//!         continue; // a value that nobody reads is checked and skipped
//!     }
//!     let mut items = cursor.array()?;
//!     while items.next(&mut cursor)? {
//!         let mut choice = cursor.object()?;
//!         while let Some(key) = choice.next(&mut cursor)? {
//!             if key.is("index") {
//!                 sum += cursor.value()?.as_u64().unwrap_or(0);
//!             }
//!         }
//!     }
//! }
//! cursor.finish()?;
//! assert_eq!(sum, 1);
//! # Ok(())
//! # }
//! ```

mod lexical;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

pub use lexical::quote;
use lexical::{number_end, string_end, unescape, word_end};

/// Objects and arrays inside one another, the outermost counted. Also the width of the bit stack in `skip`.
pub const MAX_DEPTH: u32 = 64;

/// The longest number. 316 bytes are enough for any f64 written out without an exponent and with six decimals.
pub const MAX_NUMBER_BYTES: usize = 400;

/// What is wrong with the text; `at` is the offset of the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `at` is explained above
pub enum JsonError {
    /// Not JSON. `at` is the length of the text where it ends too early.
    Syntax { at: usize },
    /// More than [`MAX_DEPTH`] objects and arrays inside one another.
    TooDeep { at: usize },
    /// Not UTF-8.
    Utf8 { at: usize },
    /// A number that is not finite as an f64, or longer than [`MAX_NUMBER_BYTES`].
    NumberRange { at: usize },
    /// Half of a surrogate pair in a `\u` escape.
    LoneSurrogate { at: usize },
    /// Something follows the value.
    Trailing { at: usize },
}

impl JsonError {
    /// The offset of the byte that is wrong.
    pub fn at(self) -> usize {
        match self {
            JsonError::Syntax { at }
            | JsonError::TooDeep { at }
            | JsonError::Utf8 { at }
            | JsonError::NumberRange { at }
            | JsonError::LoneSurrogate { at }
            | JsonError::Trailing { at } => at,
        }
    }
}

/// What a value is, told by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the six of RFC 8259
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// The bytes as text, where they are UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, JsonError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| JsonError::Utf8 {
        // Only the slower reader says where.
        at: simdutf8::compat::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), |_| 0),
    })
}

/// A string or key that was read: the text between its quotes, escapes checked and not yet resolved.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a str,
    at: usize,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// As it is written, without the quotes.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Where the text inside the quotes lies.
    pub fn span(&self) -> Range<usize> {
        self.at..self.at + self.raw.len()
    }

    /// Is this the text, however it is written? `"mod\u0065l"` is `model`.
    #[inline]
    pub fn is(&self, other: &str) -> bool {
        if self.escaped {
            self.decode() == other
        } else {
            self.raw == other
        }
    }

    /// The text that is meant. Allocates only where there are escapes.
    #[inline]
    pub fn decode(&self) -> Cow<'a, str> {
        if self.escaped {
            let mut meant = String::with_capacity(self.raw.len());
            unescape(self.raw, &mut meant);
            Cow::Owned(meant)
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// The text that is meant; it lies in `scratch` where there are escapes.
    #[inline]
    pub fn resolve<'s>(&self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        unescape(self.raw, scratch);
        scratch
    }
}

/// Does the text of a string, as it is written between its quotes, mean `other`?
pub fn means(written: &[u8], other: &str) -> bool {
    match std::str::from_utf8(written) {
        Ok(raw) if memchr::memchr(b'\\', written).is_some() => {
            let mut meant = String::with_capacity(raw.len());
            unescape(raw, &mut meant);
            meant == other
        }
        Ok(raw) => raw == other,
        Err(_) => false,
    }
}

/// A value that was read and checked.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// What it is.
    pub kind: Kind,
    /// As it is written, quotes and brackets included.
    pub raw: &'a str,
    /// The offset of its first byte.
    pub at: usize,
}

impl<'a> Value<'a> {
    /// Where it lies.
    pub fn span(&self) -> Range<usize> {
        self.at..self.at + self.raw.len()
    }

    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// The bool that it is.
    pub fn as_bool(&self) -> Option<bool> {
        (self.kind == Kind::Bool).then(|| self.raw == "true")
    }

    /// The whole number that it is: `5`, and also `5.0` and `5e0`, which JSON Schema calls integers too.
    pub fn as_i64(&self) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: above it an f64 skips integers
        if let Ok(number) = self.raw.parse() {
            return Some(number);
        }
        let number = self.as_f64()?;
        ((-EXACT..=EXACT).contains(&number) && number.fract() == 0.0).then_some(number as i64)
    }

    /// As [`Value::as_i64`], where it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i64().and_then(|number| u64::try_from(number).ok())
    }

    /// The number that it is.
    pub fn as_f64(&self) -> Option<f64> {
        match self.kind {
            Kind::Number => self.raw.parse().ok(),
            _ => None,
        }
    }

    /// The string that it is.
    pub fn as_text(&self) -> Option<Text<'a>> {
        let raw = self.raw.strip_prefix('"')?.strip_suffix('"')?;
        Some(Text { raw, at: self.at + 1, escaped: memchr::memchr(b'\\', raw.as_bytes()).is_some() })
    }
}

/// A place in a text, moved by reading values.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// The iteration over one object's members: call [`Members::next`] until it gives `None`.
#[derive(Debug)]
pub struct Members {
    /// Where the last member's value begins; `None` before the first member.
    value_at: Option<usize>,
}

/// The iteration over one array's items: call [`Items::next`] until it gives false.
#[derive(Debug)]
pub struct Items {
    item_at: Option<usize>,
}

impl Members {
    /// The next key; the cursor then stands at its value, which is skipped if nobody reads it.
    #[inline]
    pub fn next<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<Option<Text<'a>>, JsonError> {
        if !cursor.step(self.value_at, b'}')? {
            return Ok(None);
        }
        let key = cursor.key()?;
        cursor.token()?;
        self.value_at = Some(cursor.at);
        Ok(Some(key))
    }
}

impl Items {
    /// Is there another item? The cursor then stands at it; it is skipped if nobody reads it.
    #[inline]
    pub fn next(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, JsonError> {
        if !cursor.step(self.item_at, b']')? {
            return Ok(false);
        }
        cursor.token()?;
        self.item_at = Some(cursor.at);
        Ok(true)
    }
}

impl<'a> Cursor<'a> {
    /// At the start of a text. For bytes: `Cursor::new(json::text(bytes)?)`.
    pub fn new(text: &'a str) -> Self {
        Cursor { text, at: 0, depth: 0 }
    }

    /// The offset of the next byte to be read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What the next value is, without reading it.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        kind_of(self.token()?).ok_or(JsonError::Syntax { at: self.at })
    }

    /// Enter an object.
    #[inline]
    pub fn object(&mut self) -> Result<Members, JsonError> {
        self.open(b'{')?;
        Ok(Members { value_at: None })
    }

    /// Enter an array.
    #[inline]
    pub fn array(&mut self) -> Result<Items, JsonError> {
        self.open(b'[')?;
        Ok(Items { item_at: None })
    }

    /// Read a string.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>, JsonError> {
        if self.token()? != b'"' {
            return Err(JsonError::Syntax { at: self.at });
        }
        let at = self.at + 1;
        let (end, escaped) = string_end(self.text.as_bytes(), at)?;
        self.at = end + 1;
        Ok(Text { raw: &self.text[at..end], at, escaped })
    }

    /// Read a whole value, whatever it is, checked to its last byte.
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
        let kind = self.peek()?;
        let at = self.at;
        self.skip()?;
        Ok(Value { kind, raw: &self.text[at..self.at], at })
    }

    /// Check that nothing but white space is left.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.token() {
            Ok(_) => Err(JsonError::Trailing { at: self.at }),
            Err(_) => Ok(()),
        }
    }

    /// Pass over a whole value, checked to its last byte.
    #[inline]
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.token()? {
            b'{' | b'[' => self.skip_nested(),
            first => self.scalar(first),
        }
    }

    /// What is open is a stack of bits, not of calls.
    fn skip_nested(&mut self) -> Result<(), JsonError> {
        let (mut objects, mut open) = (0u64, 0u32); // lowest bit: the innermost is an object
        loop {
            match self.token()? {
                bracket @ (b'{' | b'[') => {
                    if self.depth + open >= MAX_DEPTH {
                        return Err(JsonError::TooDeep { at: self.at });
                    }
                    self.at += 1;
                    open += 1;
                    objects = objects << 1 | u64::from(bracket == b'{');
                    // In ASCII each closing bracket is its opening one plus two.
                    if self.token()? != bracket + 2 {
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                first => self.scalar(first)?,
            }
            // A value, or an empty object or array's bracket, is behind (or at) the cursor: what now?
            loop {
                if open == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                match self.token()? {
                    b',' => {
                        self.at += 1;
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    close if close == if object { b'}' } else { b']' } => {
                        self.at += 1;
                        open -= 1;
                        objects >>= 1;
                    }
                    _ => return Err(JsonError::Syntax { at: self.at }),
                }
            }
        }
    }

    #[inline]
    fn scalar(&mut self, first: u8) -> Result<(), JsonError> {
        let bytes = self.text.as_bytes();
        self.at = match first {
            b'"' => string_end(bytes, self.at + 1)?.0 + 1,
            b'-' | b'0'..=b'9' => number_end(self.text, self.at)?,
            b't' => word_end(bytes, self.at, b"true")?,
            b'f' => word_end(bytes, self.at, b"false")?,
            b'n' => word_end(bytes, self.at, b"null")?,
            _ => return Err(JsonError::Syntax { at: self.at }),
        };
        Ok(())
    }

    /// The next byte that is not white space; the cursor stands at it.
    #[inline]
    fn token(&mut self) -> Result<u8, JsonError> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(JsonError::Syntax { at: self.at }),
            }
        }
    }

    #[inline]
    fn key(&mut self) -> Result<Text<'a>, JsonError> {
        let key = self.string()?;
        if self.token()? != b':' {
            return Err(JsonError::Syntax { at: self.at });
        }
        self.at += 1;
        Ok(key)
    }

    fn open(&mut self, bracket: u8) -> Result<(), JsonError> {
        if self.token()? != bracket {
            return Err(JsonError::Syntax { at: self.at });
        }
        if self.depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep { at: self.at });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// To the next member or item of what was opened; false at its end.
    #[inline]
    fn step(&mut self, last: Option<usize>, close: u8) -> Result<bool, JsonError> {
        if last == Some(self.at) {
            self.skip()?;
        }
        match self.token()? {
            byte if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            b',' if last.is_some() => {
                self.at += 1;
                Ok(true)
            }
            _ if last.is_none() => Ok(true),
            _ => Err(JsonError::Syntax { at: self.at }),
        }
    }
}

fn kind_of(first: u8) -> Option<Kind> {
    Some(match first {
        b'"' => Kind::String,
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'n' => Kind::Null,
        b't' | b'f' => Kind::Bool,
        b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    })
}

/// The keys of one object so far: finds one that comes twice in linear time, however many there are.
#[derive(Debug, Default)]
pub struct Keys<'a> {
    few: [Cow<'a, str>; 16],
    count: usize,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// Remember a key; false if it was there already, however it was written.
    pub fn insert(&mut self, key: &Text<'a>) -> bool {
        let key = key.decode();
        if self.few[..self.count].contains(&key) {
            return false;
        }
        // Sixteen comparisons cost less than a hash, and most requests have fewer unknown keys.
        match self.few.get_mut(self.count) {
            Some(free) => {
                *free = key;
                self.count += 1;
                true
            }
            None => self.many.insert(key),
        }
    }
}
