//! The mapped file: opened or made, checked, and mended where it is damaged.
//!
//! The layout has a version, which is in the file's magic and should be in its name too: processes of two versions
//! then share nothing, and see each other's changes through the database. Within a version the file never shrinks
//! and is never replaced, because other processes have it mapped.

use rustix::fs::{flock, FlockOperation, OFlags};
use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// "SLGSHR" and the version of the layout.
pub const MAGIC: u64 = 0x534c_4753_4852_0001;
/// Of the whole file. The first page is the header; the rest is room for limits and counters, and costs no disk
/// before it is used.
pub const SIZE: usize = 1 << 20;
/// Where the counter of changes is. Cells that different processes write stand 64 bytes apart: a cache line each.
pub const GENERATION: usize = 64;
/// Where the last generation that was seen in the database is.
pub const OBSERVED: usize = 128;
const AT_MAGIC: usize = 0;
const AT_SIZE: usize = 8;

/// One mapped file.
pub struct Table {
    region: &'static MmapRegion,
    path: PathBuf,
    identity: (u64, u64),
}

impl Table {
    /// Map the file at `path`, which is made with mode 0600 where it is missing. A file that is too short, of another
    /// size or without the right magic is initialised in place: its generation is then one that nobody has seen.
    ///
    /// A mapping is never undone: there are one or two in the life of a process.
    pub fn open(path: &Path) -> io::Result<Table> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        // Until the file is closed, at the latest by the end of the process.
        flock(&file, FlockOperation::LockExclusive)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file"));
        }
        let whole = found.len() >= SIZE as u64;
        if !whole {
            file.set_len(SIZE as u64)?;
        }
        let region = map(file.try_clone()?)?;
        let table = Table { region: Box::leak(Box::new(region)), path: path.to_owned(), identity: identity(&found) };
        if !whole || !table.is_intact()? {
            table.initialise()?;
        }
        flock(&file, FlockOperation::Unlock)?;
        Ok(table)
    }

    /// The atomic at a byte offset, a multiple of 8; an error for an offset outside.
    pub fn cell(&self, offset: usize) -> io::Result<&'static AtomicU64> {
        self.region.get_atomic_ref(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// Whether the path still leads to the mapped file: somebody may have removed or replaced it.
    pub fn is_current(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }

    fn is_intact(&self) -> io::Result<bool> {
        let magic = self.cell(AT_MAGIC)?.load(Ordering::Acquire);
        Ok(magic == MAGIC && self.cell(AT_SIZE)?.load(Ordering::Relaxed) == SIZE as u64)
    }

    fn initialise(&self) -> io::Result<()> {
        self.cell(AT_MAGIC)?.store(0, Ordering::Release);
        for offset in (AT_SIZE..SIZE).step_by(8) {
            let cell = self.cell(offset)?;
            // Untouched pages stay holes in the file.
            if cell.load(Ordering::Relaxed) != 0 {
                cell.store(0, Ordering::Relaxed);
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.cell(GENERATION)?.store(now.as_nanos() as u64, Ordering::Relaxed);
        self.cell(AT_SIZE)?.store(SIZE as u64, Ordering::Relaxed);
        self.cell(AT_MAGIC)?.store(MAGIC, Ordering::Release);
        Ok(())
    }
}

fn map(file: File) -> io::Result<MmapRegion> {
    MmapRegion::from_file(FileOffset::new(file, 0), SIZE).map_err(|error| io::Error::other(error.to_string()))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
