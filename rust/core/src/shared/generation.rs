//! «Something changed»: a counter that every process of the machine reads in a few nanoseconds.

use super::table::{Table, GENERATION, OBSERVED};
use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The counter, and the generation of the database that was seen last.
pub struct Generation {
    table: Table,
    counter: &'static AtomicU64,
    observed: &'static AtomicU64,
}

impl Generation {
    /// The counter in the mapped file at `path`; see `Table::open`.
    pub fn open(path: &Path) -> io::Result<Generation> {
        let table = Table::open(path)?;
        Ok(Generation { counter: table.cell(GENERATION)?, observed: table.cell(OBSERVED)?, table })
    }

    /// What is cached under another number may be out of date.
    pub fn read(&self) -> u64 {
        self.counter.load(Ordering::Acquire)
    }

    /// Something has changed and is committed. Returns the new number.
    pub fn advance(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// The database's own generation is `row`. Counts as a change where it is not the one that was seen last, also
    /// when it is smaller: a restored backup is a change too. Returns the number that is now in force.
    pub fn note(&self, row: u64) -> u64 {
        if self.observed.swap(row, Ordering::AcqRel) == row {
            self.read()
        } else {
            self.advance()
        }
    }

    /// Whether the file is still the one that a new process would open.
    pub fn is_current(&self) -> bool {
        self.table.is_current()
    }
}
