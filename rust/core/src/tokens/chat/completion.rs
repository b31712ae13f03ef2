//! Tokens of requests without messages, to `/v1/completions` and `/v1/embeddings`: no rules but the tokenizer.

use super::{ChatCount, ChatError, Reason, Tally};
use crate::{
    json::{self, Cursor, Kind},
    tokens::tokenizer::{Stop, Tokenizer},
};

/// Count the body of a text completion: `prompt`, as text or as tokens, and `suffix`.
///
/// Prompts of an array are summed up.
pub fn count_completion(body: &[u8], tokenizer: &Tokenizer, stop: Stop<'_>) -> Result<ChatCount, ChatError> {
    count_member("prompt", body, tokenizer, stop)
}

/// Count what is to be embedded: `input`, as text or as tokens; arrays are summed up.
pub fn count_input(body: &[u8], tokenizer: &Tokenizer, stop: Stop<'_>) -> Result<ChatCount, ChatError> {
    count_member("input", body, tokenizer, stop)
}

fn count_member(member: &str, body: &[u8], tokenizer: &Tokenizer, stop: Stop<'_>) -> Result<ChatCount, ChatError> {
    let mut tally = Tally::bare(tokenizer, stop);
    let mut cursor = Cursor::new(json::text(body)?);
    if cursor.peek()? != Kind::Object {
        return Err(ChatError::Shape);
    }
    let mut members = cursor.object()?;
    while let Some(key) = members.next(&mut cursor)? {
        match key.decode().as_ref() {
            name if name == member => tally.prompt(&mut cursor)?,
            "suffix" if member == "prompt" && cursor.peek()? == Kind::String => {
                // Around it stand marks that nobody has published.
                tally.doubt(Reason::UnpublishedModel);
                tally.prompt(&mut cursor)?;
            }
            _ => cursor.skip()?,
        }
    }
    cursor.finish()?;
    Ok(tally.finish())
}

impl<'t> Tally<'t> {
    fn bare(tokenizer: &'t Tokenizer, stop: Stop<'t>) -> Self {
        let mut tally = Tally::new("gpt-4", Some(tokenizer), stop);
        tally.tokens = 0;
        if matches!(tokenizer, Tokenizer::File(_)) {
            // Many servers put the mark of a beginning before the text.
            tally.doubt(Reason::UnpublishedModel);
        }
        tally
    }

    /// A text, a list of tokens, or an array of either.
    fn prompt(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        match cursor.peek()? {
            Kind::String => {
                let text = cursor.string()?;
                self.text(&text.decode())?;
            }
            Kind::Array => {
                let mut items = cursor.array()?;
                while items.next(cursor)? {
                    self.item(cursor)?;
                }
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }

    fn item(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ChatError> {
        match cursor.peek()? {
            Kind::Number => {
                self.tokens += 1;
                cursor.skip()?;
            }
            Kind::String => {
                let text = cursor.string()?;
                self.text(&text.decode())?;
            }
            Kind::Array => {
                let mut items = cursor.array()?;
                while items.next(cursor)? {
                    self.tokens += 1;
                    cursor.skip()?;
                }
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }
}
