//! The bytes of a relayed stream to its chunks, and the message that they add up to.

use crate::{
    chat::{
        delta::{Chunk, Reader},
        joined::Joined,
    },
    sse::decode::Decoder,
};

/// One streamed answer. What the relay lets through is checked, so nothing is an error here: an event that cannot be
/// read is the relay's own error event, which the outcome tells better.
#[derive(Debug)]
pub struct Chunks {
    decoder: Decoder,
    reader: Reader,
    joined: Joined,
}

impl Default for Chunks {
    fn default() -> Self {
        // The relay has limited the size of each event already.
        Chunks { decoder: Decoder::new(usize::MAX), reader: Reader::default(), joined: Joined::default() }
    }
}

impl Chunks {
    /// Take in the next bytes; `each` gets every chunk that they complete. Its error ends the reading.
    pub fn push<E>(&mut self, bytes: &[u8], mut each: impl FnMut(Chunk<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut events = self.decoder.push(bytes);
        while let Ok(Some(event)) = events.next() {
            if let Ok(chunk) = self.reader.read(event.data) {
                self.joined.add(&chunk);
                each(chunk)?;
            }
        }
        Ok(())
    }

    /// What the chunks add up to so far.
    pub fn joined(&self) -> &Joined {
        &self.joined
    }
}
