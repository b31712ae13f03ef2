//! Who holds something: the processes that have the file open, so that what a dead one held is given back.

use super::{clock, table::Table};
use std::{
    io,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
};

/// So many processes hold something in one file; further ones count by themselves.
pub const MOST: usize = 128;
/// Bytes of a process.
const STRIDE: usize = 64;
const NAMESPACE: usize = 8;
const HEARTBEAT: usize = 16;
/// Where the processes stand.
const START: usize = 4096;
/// Where the slots may begin.
pub const END: usize = START + MOST * STRIDE;
/// A process of another container cannot be looked up: it is dead when it was silent for so long.
const SILENT: u64 = 30_000_000_000;

/// A process as others can recognise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its number, and when it started: numbers are used again.
    pub identity: u64,
    /// Where its number means something.
    pub namespace: u64,
}

impl Process {
    /// This one.
    pub fn this() -> io::Result<Process> {
        let pid = std::process::id();
        let started = started(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Process { identity: identity(pid, started), namespace: namespace() })
    }

    fn is_alive(self, heartbeat: u64, now: u64) -> bool {
        if self.namespace != namespace() {
            return now.saturating_sub(heartbeat) < SILENT;
        }
        let pid = self.identity as u32;
        started(pid).is_some_and(|started| identity(pid, started) == self.identity)
    }
}

fn identity(pid: u32, started: u64) -> u64 {
    (started << 32) | u64::from(pid)
}

fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// Clock ticks from the start of the machine to that of the process; None: there is none, or it is a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The processes of one file.
pub struct Owners {
    table: Arc<Table>,
}

static NOWHERE: AtomicU64 = AtomicU64::new(0);

impl Owners {
    /// Of this file.
    pub fn new(table: &Arc<Table>) -> Owners {
        Owners { table: table.clone() }
    }

    fn cell(&self, number: usize, offset: usize) -> &'static AtomicU64 {
        self.table.cell(START + number * STRIDE + offset).unwrap_or(&NOWHERE)
    }

    /// Whose number this is; 0: nobody's.
    pub fn identity(&self, number: usize) -> u64 {
        self.cell(number, 0).load(Ordering::Acquire)
    }

    /// The number of a process, which is given one if it has none. None: there are too many.
    pub fn join(&self, process: Process) -> Option<usize> {
        if let Some(own) = (0..MOST).find(|number| self.identity(*number) == process.identity) {
            return Some(own);
        }
        let number = (0..MOST).find(|number| {
            let free = self.cell(*number, 0);
            free.compare_exchange(0, process.identity, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })?;
        self.cell(number, NAMESPACE).store(process.namespace, Ordering::Release);
        self.cell(number, HEARTBEAT).store(clock::since_boot(), Ordering::Release);
        Some(number)
    }

    /// Say that the process lives.
    pub fn beat(&self, number: usize, now: u64) {
        self.cell(number, HEARTBEAT).store(now, Ordering::Release);
    }

    /// The dead ones: number and identity.
    pub fn dead(&self, now: u64) -> Vec<(usize, u64)> {
        let known = (0..MOST).map(|number| (number, self.identity(number)));
        known.filter(|(number, identity)| *identity != 0 && !self.lives(*number, *identity, now)).collect()
    }

    /// The numbers of those that live.
    pub fn living(&self, now: u64) -> Vec<usize> {
        let known = (0..MOST).map(|number| (number, self.identity(number)));
        let alive = known.filter(|(number, identity)| *identity != 0 && self.lives(*number, *identity, now));
        alive.map(|(number, _)| number).collect()
    }

    fn lives(&self, number: usize, identity: u64, now: u64) -> bool {
        let heartbeat = self.cell(number, HEARTBEAT).load(Ordering::Acquire);
        let namespace = self.cell(number, NAMESPACE).load(Ordering::Acquire);
        // Between its two stores it has no namespace yet: it has just come.
        namespace == 0 || Process { identity, namespace }.is_alive(heartbeat, now)
    }

    /// Nothing is left of the dead process: its number is free.
    pub fn forget(&self, number: usize, identity: u64) {
        self.cell(number, NAMESPACE).store(0, Ordering::Release);
        let _ = self.cell(number, 0).compare_exchange(identity, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> u64 {
        ((0..MOST).filter(|number| self.identity(*number) != 0).count() as u64).max(1)
    }
}
