//! The mapped file: opened or made, checked, and mended where it is damaged.
//!
//! The layout has a version, which is in the file's magic and should be in its name too: processes of two versions
//! then share nothing, and see each other's changes through the database. Within a version the file never shrinks
//! and is never replaced, because other processes have it mapped.

use parking_lot::Mutex;
use rustix::fs::{fallocate, flock, FallocateFlags, FlockOperation, OFlags};
use std::{
    collections::BTreeMap,
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// What a mapped file is for: its magic with the version of the layout, its size, and whether its room on the disk
/// is taken when it is made. What is written without asking first must be: a hole on a full disk is a bus error.
#[derive(Clone, Copy)]
pub struct Layout {
    /// The first 8 bytes.
    pub magic: u64,
    /// Of the whole file.
    pub size: usize,
    /// Take the room at once.
    pub allocated: bool,
    /// A file with another stamp begins anew. 0 where nothing but damage ends a file.
    pub stamp: u64,
}

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
const AT_STAMP: usize = 16;

/// The file of the generation.
pub const GENERATIONS: Layout = Layout { magic: MAGIC, size: SIZE, allocated: false, stamp: 0 };

/// One mapped file.
pub struct Table {
    region: &'static MmapRegion,
    layout: Layout,
    // None: memory of this process alone.
    file: Option<(PathBuf, (u64, u64))>,
}

impl Table {
    /// Map the file at `path`, which is made with mode 0600 where it is missing. A file that is too short, of another
    /// size or without the right magic is initialised in place: its generation is then one that nobody has seen.
    ///
    /// A mapping is never undone, and there is one of each file.
    pub fn open(path: &Path) -> io::Result<Table> {
        Table::open_as(path, GENERATIONS)
    }

    /// As `open`, for another layout.
    pub fn open_as(path: &Path, layout: Layout) -> io::Result<Table> {
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
        let whole = found.len() >= layout.size as u64;
        if layout.allocated {
            fallocate(&file, FallocateFlags::empty(), 0, layout.size as u64)?;
        } else if !whole {
            file.set_len(layout.size as u64)?;
        }
        let region = mapped(&file, &found, layout.size)?;
        let table = Table { region, layout, file: Some((path.to_owned(), identity(&found))) };
        if !whole || !table.is_intact()? {
            table.initialise()?;
        }
        flock(&file, FlockOperation::Unlock)?;
        Ok(table)
    }

    /// Memory of this process alone, with the same layout: where the file cannot be had, or is full.
    pub fn private(layout: Layout) -> io::Result<Table> {
        let table = Table { region: leak(MmapRegion::new(layout.size))?, layout, file: None };
        table.initialise()?;
        Ok(table)
    }

    /// Have the next `open` begin anew.
    pub fn begin_anew(&self) -> io::Result<()> {
        self.cell(AT_MAGIC)?.store(0, Ordering::Release);
        Ok(())
    }

    /// The atomic at a byte offset, a multiple of 8; an error for an offset outside.
    pub fn cell(&self, offset: usize) -> io::Result<&'static AtomicU64> {
        self.region.get_atomic_ref(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// Whether the path still leads to the mapped file: somebody may have removed or replaced it.
    pub fn is_current(&self) -> bool {
        self.file
            .as_ref()
            .is_none_or(|(path, own)| std::fs::symlink_metadata(path).is_ok_and(|found| identity(&found) == *own))
    }

    fn is_intact(&self) -> io::Result<bool> {
        let magic = self.cell(AT_MAGIC)?.load(Ordering::Acquire);
        let size = self.cell(AT_SIZE)?.load(Ordering::Relaxed);
        let stamp = self.cell(AT_STAMP)?.load(Ordering::Relaxed);
        Ok(magic == self.layout.magic && size == self.layout.size as u64 && stamp == self.layout.stamp)
    }

    fn initialise(&self) -> io::Result<()> {
        self.cell(AT_MAGIC)?.store(0, Ordering::Release);
        for offset in (AT_SIZE..self.layout.size).step_by(8) {
            let cell = self.cell(offset)?;
            // Untouched pages stay holes in the file.
            if cell.load(Ordering::Relaxed) != 0 {
                cell.store(0, Ordering::Relaxed);
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.cell(GENERATION)?.store(now.as_nanos() as u64, Ordering::Relaxed);
        self.cell(AT_SIZE)?.store(self.layout.size as u64, Ordering::Relaxed);
        self.cell(AT_STAMP)?.store(self.layout.stamp, Ordering::Relaxed);
        self.cell(AT_MAGIC)?.store(self.layout.magic, Ordering::Release);
        Ok(())
    }
}

/// What this process has mapped: device and inode, which stay taken as long as it is, and the size.
static MAPPED: Mutex<BTreeMap<(u64, u64, usize), &'static MmapRegion>> = Mutex::new(BTreeMap::new());

/// Whoever opens a file again gets the same memory: a program that opens a database a thousand times must not run
/// out of descriptors.
fn mapped(file: &File, found: &Metadata, size: usize) -> io::Result<&'static MmapRegion> {
    let mut known = MAPPED.lock();
    let key = (found.dev(), found.ino(), size);
    if let Some(region) = known.get(&key) {
        return Ok(region);
    }
    let region = leak(MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), size))?;
    known.insert(key, region);
    Ok(region)
}

fn leak<E: std::fmt::Display>(region: Result<MmapRegion, E>) -> io::Result<&'static MmapRegion> {
    let region = region.map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Box::leak(Box::new(region)))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}
