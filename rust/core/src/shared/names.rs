//! The values of a label, in the order in which they were first seen: a number for each, the same in all processes.
//!
//! There is room for so many and no more. What comes later shares one number: no client can make a metric grow.

use super::{slots::lock, table::Table};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
};

/// So many bytes of a name are kept.
const LONGEST: usize = 152;
/// A name: its length, and its text.
const STRIDE: usize = 8 + LONGEST;
const COUNT: usize = 0;
const LOCK: usize = 8;
const FIRST: usize = 64;

/// Bytes of a list of so many names.
pub const fn size(most: usize) -> usize {
    FIRST + (most * STRIDE).next_multiple_of(64)
}

/// One list of names in a file.
pub struct Names {
    table: Arc<Table>,
    at: usize,
    most: usize,
    known: Mutex<HashMap<Box<str>, usize>>,
}

static NOWHERE: AtomicU64 = AtomicU64::new(0);

impl Names {
    /// Room for `most` names in `size(most)` bytes from `at` on.
    pub fn new(table: &Arc<Table>, at: usize, most: usize) -> Names {
        Names { table: table.clone(), at, most, known: Mutex::new(HashMap::with_capacity(most)) }
    }

    /// The name's number; `most` for one that came when there was no room left.
    pub fn number(&self, name: &str) -> usize {
        let name = shortened(name);
        let mut known = self.known.lock();
        match known.get(name) {
            Some(number) => *number,
            None => self.learn(&mut known, name),
        }
    }

    /// So many have a number of their own.
    pub fn most(&self) -> usize {
        self.most
    }

    /// All names, by their number.
    pub fn all(&self) -> Vec<String> {
        (0..self.count()).map(|number| self.text(number)).collect()
    }

    fn learn(&self, known: &mut HashMap<Box<str>, usize>, name: &str) -> usize {
        self.catch_up(known);
        if let Some(number) = known.get(name) {
            return *number;
        }
        if self.count() == self.most {
            return self.most;
        }
        let _guard = lock(self.cell(LOCK));
        // Another process may have been here since.
        self.catch_up(known);
        let number = self.count();
        if let Some(found) = known.get(name) {
            return *found;
        }
        if number == self.most {
            return self.most;
        }
        // The count last: who dies before it has written what nobody reads.
        let at = FIRST + number * STRIDE;
        for (word, bytes) in name.as_bytes().chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            self.cell(at + 8 + word * 8).store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.cell(at).store(name.len() as u64, Ordering::Relaxed);
        self.cell(COUNT).store(number as u64 + 1, Ordering::Release);
        known.insert(name.into(), number);
        number
    }

    fn catch_up(&self, known: &mut HashMap<Box<str>, usize>) {
        for number in known.len()..self.count() {
            known.insert(self.text(number).into(), number);
        }
    }

    fn count(&self) -> usize {
        (self.cell(COUNT).load(Ordering::Acquire) as usize).min(self.most)
    }

    fn text(&self, number: usize) -> String {
        let at = FIRST + number * STRIDE;
        let length = (self.cell(at).load(Ordering::Relaxed) as usize).min(LONGEST);
        let words = (0..length.div_ceil(8)).map(|word| self.cell(at + 8 + word * 8).load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn cell(&self, offset: usize) -> &'static AtomicU64 {
        self.table.cell(self.at + offset).unwrap_or(&NOWHERE)
    }
}

/// As much of a name as is kept, in whole characters.
fn shortened(name: &str) -> &str {
    let end = (0..=LONGEST.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}
