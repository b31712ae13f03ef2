//! A vocabulary: the bytes of each token, and the tables that find tokens by their bytes or by their two halves.
//!
//! Built at the first use from the bundled file (its format: `scripts/vocabulary`), read-only afterwards.

use super::{
    bridges::Bridges,
    index::Index,
    key::{hash, key, long_hash, Key, KEY_BYTES},
    pairs::{Asked, Marked, Marks, Pairs},
    prefetch::prefetch,
};
use flate2::{Decompress, FlushDecompress, Status};

/// "There is no such token."
pub(super) const NONE: u32 = u32::MAX;
/// Token ids have at most 18 bits; the pair table packs three of them into 54 bits.
pub(super) const ID_BITS: u32 = 18;

/// How many tokens ahead memory is asked for while the tables are filled.
const AHEAD: usize = 16;

/// All ordinary tokens of an encoding. The id of a token is also its rank: the lowest joins first.
pub(super) struct Vocabulary {
    /// Where the bytes of token `id` start in `bytes`; `id + 1` is where they end. Ids without a token are empty.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    /// The two tokens that joined to this one last; both are the token itself for a single byte.
    halves: Vec<(u32, u32)>,
    bytewise: [u32; 256],
    /// The token of each character of two or three bytes, by its number; [`NONE`] where it is no token.
    characters: Vec<u32>,
    index: Index,
    /// Of each id; 0 of a token of more than 15 bytes.
    keys: Vec<Key>,
    /// Indexed by two bytes.
    byte_pairs: Vec<u32>,
    pairs: Pairs,
    /// Of these, the pairs of two characters or bytes: an eighth of all, asked for in half of the cases.
    unit_pairs: Pairs,
    pub(super) bridges: Bridges,
}

impl Vocabulary {
    /// Reads a bundled file. `None` means that it is damaged, which a test of all of them rules out.
    pub(super) fn read(packed: &[u8]) -> Option<Self> {
        let plain = inflate(packed)?;
        let file = File::parse(&plain)?;
        let (offsets, ids) = file.places()?;
        let count = ids.len();
        let mut vocabulary = Self {
            halves: (0..offsets.len() as u32 - 1).map(|id| (id, id)).collect(),
            keys: vec![0; offsets.len() - 1],
            bytes: file.bytes.to_vec(),
            offsets,
            bytewise: [NONE; 256],
            characters: vec![NONE; 1 << 16],
            index: Index::with_room_for(count),
            byte_pairs: vec![NONE; 1 << 16],
            pairs: Pairs::with_room_for(count),
            unit_pairs: Pairs::with_room_for(0),
            bridges: Bridges::new(),
        };
        vocabulary.fill(&ids, file.left_lengths)?;
        Some(vocabulary)
    }

    /// Fills the tables. Each step asks for the memory of a later one: half of the time to load would be waiting.
    fn fill(&mut self, ids: &[u32], left_lengths: &[u8]) -> Option<()> {
        for (at, &id) in ids.iter().enumerate() {
            if let Some(&ahead) = ids.get(at + AHEAD) {
                self.prefetch_part(self.range(ahead));
            }
            self.enter(id);
        }
        for (at, (&id, &left)) in ids.iter().zip(left_lengths).enumerate() {
            if let (Some(&ahead), Some(&left)) = (ids.get(at + AHEAD), left_lengths.get(at + AHEAD)) {
                let range = self.range(ahead);
                let middle = range.start + left as usize;
                self.prefetch_part(range.start..middle);
                self.prefetch_part(middle..range.end);
            }
            self.find_halves(id, left as usize)?;
        }
        self.enter_pairs(ids);
        Some(())
    }

    fn enter_pairs(&mut self, ids: &[u32]) {
        let mut marks = Marks::none(self.halves.len());
        for &id in ids {
            let (left, right) = self.halves(id);
            if left != id {
                marks.add(left, right);
            }
        }
        let of_units = ids.iter().filter(|&&id| self.is_pair_of_units(id)).count();
        self.unit_pairs = Pairs::with_room_for(of_units);
        for (at, &id) in ids.iter().enumerate() {
            if let Some(&ahead) = ids.get(at + AHEAD) {
                let (left, right) = self.halves(ahead);
                self.pairs.prefetch(left, right);
            }
            let (left, right) = self.halves(id);
            if left != id {
                self.pairs.insert(left, right, marks.of(id));
            }
            if self.is_pair_of_units(id) {
                self.unit_pairs.insert(left, right, marks.of(id));
            }
        }
    }

    fn prefetch_part(&self, range: std::ops::Range<usize>) {
        if (1..=KEY_BYTES).contains(&range.len()) {
            self.index.prefetch(hash(key(&self.bytes, range.start, range.len())));
        }
    }

    fn enter(&mut self, id: u32) {
        let range = self.range(id);
        let bytes = &self.bytes[range.clone()];
        self.bridges.insert(bytes);
        if let [byte] = *bytes {
            self.bytewise[byte as usize] = id;
        } else if let Some(point) = single_character(bytes) {
            self.characters[point] = id;
        }
        let hash = if bytes.len() > KEY_BYTES {
            long_hash(bytes)
        } else {
            let key = key(&self.bytes, range.start, range.len());
            self.keys[id as usize] = key;
            hash(key)
        };
        self.index.insert(hash, id);
    }

    fn find_halves(&mut self, id: u32, left_length: usize) -> Option<()> {
        if left_length == 0 {
            return Some(());
        }
        let (left, right) = self.token(id).split_at_checked(left_length)?;
        let pair = (self.find(left)?, self.find(right)?);
        if let [first, second] = *self.token(id) {
            self.byte_pairs[usize::from(first) << 8 | usize::from(second)] = id;
        }
        self.halves[id as usize] = pair;
        Some(())
    }

    /// Two bytes, or two characters that are tokens themselves.
    fn is_pair_of_units(&self, id: u32) -> bool {
        let (left, right) = self.halves(id);
        let is_unit = |bytes: &[u8]| bytes.len() == 1 || single_character(bytes).is_some();
        left != id && self.token(id).len() <= 6 && is_unit(self.token(left)) && is_unit(self.token(right))
    }

    fn range(&self, id: u32) -> std::ops::Range<usize> {
        self.offsets[id as usize] as usize..self.offsets[id as usize + 1] as usize
    }

    /// The bytes of a token that is in the vocabulary.
    pub(super) fn token(&self, id: u32) -> &[u8] {
        &self.bytes[self.range(id)]
    }

    /// The bytes of a token, where there is one with this id.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let known = (id as usize) + 1 < self.offsets.len();
        known.then(|| self.token(id)).filter(|bytes| !bytes.is_empty())
    }

    /// The largest id.
    pub(super) fn max_id(&self) -> u32 {
        self.halves.len() as u32 - 1
    }

    /// The token with exactly these bytes.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        let id = match bytes.len() {
            0 => NONE,
            length @ 1..=KEY_BYTES => {
                let key = key(bytes, 0, length);
                self.find_key(key, hash(key))
            }
            _ => self.find_long(bytes, long_hash(bytes)),
        };
        (id != NONE).then_some(id)
    }

    /// The token with this key, or [`NONE`]. `hash` is its [`hash`].
    #[inline(always)]
    pub(super) fn find_key(&self, key: Key, hash: u64) -> u32 {
        self.index.find(hash, |id| self.keys.get(id as usize) == Some(&key))
    }

    /// The token with these bytes, more than 15, or [`NONE`]. `hash` is their [`long_hash`].
    #[inline(always)]
    pub(super) fn find_long(&self, bytes: &[u8], hash: u64) -> u32 {
        self.index.find(hash, |id| self.get(id) == Some(bytes))
    }

    /// Asks for the memory that finding a token with this hash and [`Self::prefetch_found`] will read.
    #[inline(always)]
    pub(super) fn prefetch_hash(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Asks for what else finding it will read, if there is such a token.
    #[inline(always)]
    pub(super) fn prefetch_found(&self, hash: u64) {
        if let Some(key) = self.keys.get(self.index.candidate(hash)) {
            prefetch(key);
        }
    }

    /// The token of a single byte.
    #[inline]
    pub(super) fn byte(&self, byte: u8) -> u32 {
        self.bytewise[byte as usize]
    }

    /// The token that is the one character at `at`, or [`NONE`], and where the next character starts. `bytes` is
    /// UTF-8. Characters of four bytes are not looked up.
    #[inline(always)]
    pub(super) fn character(&self, bytes: &[u8], at: usize) -> (u32, usize) {
        let first = bytes[at];
        let bits = |offset: usize| usize::from(bytes[at + offset] & 0x3F);
        match first {
            0..=0xBF => (self.byte(first), at + 1),
            0xC0..=0xDF => (self.characters[usize::from(first & 0x1F) << 6 | bits(1)], at + 2),
            0xE0..=0xEF => (self.characters[usize::from(first & 0x0F) << 12 | bits(1) << 6 | bits(2)], at + 3),
            _ => (NONE, at + 4),
        }
    }

    /// What two neighbouring bytes join to, or [`NONE`].
    #[inline]
    pub(super) fn join_bytes(&self, left: u8, right: u8) -> u32 {
        self.byte_pairs[usize::from(left) << 8 | usize::from(right)]
    }

    /// What two neighbouring tokens join to, or [`NONE`].
    #[inline]
    pub(super) fn join(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(left, right)
    }

    /// [`Self::join`] for two tokens that are characters or bytes, with marks.
    #[inline(always)]
    pub(super) fn join_units(&self, left: u32, right: u32) -> Marked {
        self.unit_pairs.get_unmarked(left, right)
    }

    /// Asks for the memory that [`Self::join_units`] will read.
    #[inline(always)]
    pub(super) fn prefetch_join_units(&self, left: u32, right: u32) {
        self.unit_pairs.prefetch(left, right);
    }

    /// Asks what two neighbouring tokens join to: [`Self::answer`] says it, best when the memory has come.
    #[inline(always)]
    pub(super) fn ask(&self, left: Marked, right: Marked) -> Asked {
        self.pairs.ask(left, right)
    }

    /// What they join to, or [`NONE`].
    #[inline(always)]
    pub(super) fn answer(&self, asked: Asked) -> Marked {
        self.pairs.answer(asked)
    }

    /// Asks for the memory that [`Self::join`] will read.
    #[inline(always)]
    pub(super) fn prefetch_join(&self, left: u32, right: u32) {
        self.pairs.prefetch(left, right);
    }

    /// The two tokens that joined to `id` last; `(id, id)` for a single byte.
    #[inline]
    pub(super) fn halves(&self, id: u32) -> (u32, u32) {
        self.halves[id as usize]
    }
}

/// The number of the character that `bytes` are, if it has two or three bytes.
#[inline]
fn single_character(bytes: &[u8]) -> Option<usize> {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    match *bytes {
        [lead @ 0xC2..=0xDF, second] if continues(second) => {
            Some(usize::from(lead & 0x1F) << 6 | usize::from(second & 0x3F))
        }
        [lead @ 0xE0..=0xEF, second, third] if continues(second) && continues(third) => {
            Some(usize::from(lead & 0x0F) << 12 | usize::from(second & 0x3F) << 6 | usize::from(third & 0x3F))
        }
        _ => None,
    }
}

fn inflate(packed: &[u8]) -> Option<Vec<u8>> {
    // The largest bundled vocabulary has 1.8 MB; one buffer of twice that spares the growing.
    let mut plain = Vec::with_capacity(4 << 20);
    let status = Decompress::new(true).decompress_vec(packed, &mut plain, FlushDecompress::Finish).ok()?;
    (status == Status::StreamEnd).then_some(plain)
}

/// The parts of a bundled file.
struct File<'a> {
    runs: Vec<(u32, u32)>,
    lengths: &'a [u8],
    left_lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> File<'a> {
    fn parse(plain: &'a [u8]) -> Option<Self> {
        let mut rest = plain;
        let count = number(&mut rest)? as usize;
        let run_count = number(&mut rest)?;
        let runs = (0..run_count).map(|_| Some((number(&mut rest)?, number(&mut rest)?))).collect::<Option<_>>()?;
        let (lengths, rest) = rest.split_at_checked(count)?;
        let (left_lengths, bytes) = rest.split_at_checked(count)?;
        Some(Self { runs, lengths, left_lengths, bytes })
    }

    /// Where the bytes of each id start, and the ids in the order of the file.
    fn places(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        let mut offsets = vec![0];
        let mut ids = Vec::with_capacity(self.lengths.len());
        let mut lengths = self.lengths.iter();
        let mut end = 0;
        for &(first, length) in &self.runs {
            offsets.resize(first as usize + 1, end);
            for id in first..first + length {
                end += u32::from(*lengths.next()?);
                offsets.push(end);
                ids.push(id);
            }
        }
        let fits = offsets.len() < 1 << ID_BITS && end as usize == self.bytes.len() && lengths.next().is_none();
        fits.then_some((offsets, ids))
    }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_encoder_rests_on_holds_for_every_bundled_vocabulary() {
        let bundled: [&[u8]; 4] = [
            include_bytes!("data/r50k_base.vocab"),
            include_bytes!("data/p50k_base.vocab"),
            include_bytes!("data/cl100k_base.vocab"),
            include_bytes!("data/o200k_base.vocab"),
        ];
        for packed in bundled {
            let vocabulary = Vocabulary::read(packed).unwrap();
            for id in 0..=vocabulary.max_id() {
                let Some(bytes) = vocabulary.get(id) else { continue };
                assert_eq!(vocabulary.find(bytes), Some(id));
                let (left, right) = vocabulary.halves(id);
                if bytes.len() == 1 {
                    assert_eq!((left, right, vocabulary.byte(bytes[0])), (id, id, id));
                    continue;
                }
                // Every token is what two others join to, and ranks rise: `bpe.rs` needs both.
                assert!(left < id && right < id, "{id}");
                assert_eq!([vocabulary.token(left), vocabulary.token(right)].concat(), bytes);
                assert_eq!(vocabulary.join(left, right), id);
                assert!(bytes.len() <= 128, "{id}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let packed = include_bytes!("data/r50k_base.vocab");
        assert!(Vocabulary::read(&packed[..packed.len() / 2]).is_none());
        assert!(Vocabulary::read(b"no zlib").is_none());
    }
}
