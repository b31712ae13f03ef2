//! The journal of usage: what is written here before the last byte of an answer leaves is not lost with the process.
//!
//! A process appends to segments of its own, one `write` a record. Readers are other processes: they take what is
//! whole, and remove a segment when its records are in the database and its writer has gone on or is gone. A crash of
//! the process loses nothing that was written; a power cut may lose the last seconds, as the system has not been asked
//! to wait for the disk.

use rustix::fs::{flock, FlockOperation, OFlags};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A frame: this, the length of the payload, the CRC of kind and payload, the kind, the payload.
const MARK: [u8; 4] = [0xf5, b'S', b'G', 1];
const HEAD: usize = 13;
/// Longer records are refused.
pub const LONGEST: usize = 1 << 20;
const SUFFIX: &str = "journal";

/// What a writer has to say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Records that wait in memory, because the disk does not take them.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Records that found no room in memory either.
    pub lost: u64,
    /// Bytes on disk, in all segments.
    pub written: u64,
}

/// Appends to the segments of one process.
pub struct Writer {
    folder: PathBuf,
    name: String,
    number: u64,
    segment_bytes: u64,
    most_waiting: usize,
    // None after a failure that left the segment in doubt.
    file: Option<File>,
    path: PathBuf,
    length: u64,
    waiting: VecDeque<Vec<u8>>,
    state: State,
    frame: Vec<u8>,
}

impl Writer {
    /// In `folder`, which is made with mode 0700; `name` is this process's own. A segment ends at `segment_bytes`;
    /// while the disk takes nothing, `most_waiting` bytes wait in memory.
    pub fn open(folder: &Path, name: &str, segment_bytes: u64, most_waiting: usize) -> io::Result<Writer> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut writer = Writer {
            folder: folder.to_owned(),
            name: name.to_owned(),
            number: 0,
            segment_bytes: segment_bytes.max(4096),
            most_waiting,
            file: None,
            path: PathBuf::new(),
            length: 0,
            waiting: VecDeque::new(),
            state: State::default(),
            frame: Vec::with_capacity(1024),
        };
        writer.rotate()?;
        Ok(writer)
    }

    /// Append a record. False: it waits in memory, or is counted as lost where there is no room for it.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> bool {
        self.append_made(kind, |frame| frame.extend_from_slice(payload))
    }

    /// The same with a payload that `make` appends to the frame.
    pub fn append_made(&mut self, kind: u8, make: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.extend_from_slice(&[0; HEAD]);
        make(&mut frame);
        seal(&mut frame, kind);
        let done = frame.len() <= LONGEST + HEAD && self.flush() && self.write(&frame);
        if !done {
            self.keep(&frame);
        }
        self.frame = frame;
        done
    }

    /// Write what waits. False: the disk still takes nothing.
    pub fn flush(&mut self) -> bool {
        while let Some(frame) = self.waiting.pop_front() {
            if !self.write(&frame) {
                self.waiting.push_front(frame);
                return false;
            }
            self.state.waiting -= 1;
            self.state.waiting_bytes -= frame.len();
        }
        true
    }

    /// Go on in a new segment, so that the last one can be removed.
    pub fn rotate(&mut self) -> io::Result<()> {
        if self.file.is_some() && self.length == 0 {
            return Ok(());
        }
        // Under its own name only when it is locked: a reader would take it for one that nobody writes any more.
        let unfinished = self.folder.join(format!("{}-{}.new", self.name, std::process::id()));
        let _ = fs::remove_file(&unfinished);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&unfinished)?;
        // Held as long as the process lives: readers know by it that more may come.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let named = loop {
            self.number += 1;
            let path = self.folder.join(format!("{}-{:08}.{SUFFIX}", self.name, self.number));
            match fs::hard_link(&unfinished, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => break done.map(|()| path),
            }
        };
        let _ = fs::remove_file(&unfinished);
        (self.path, self.length) = (named?, 0);
        self.file = Some(file);
        Ok(())
    }

    /// What waits, and what is lost.
    pub fn state(&self) -> State {
        self.state
    }

    fn write(&mut self, frame: &[u8]) -> bool {
        if (self.file.is_none() || self.length >= self.segment_bytes) && self.rotate().is_err() && self.file.is_none() {
            return false;
        }
        let Some(file) = self.file.as_mut() else { return false };
        let written = loop {
            match file.write(frame) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        match written {
            Ok(length) if length == frame.len() => {
                self.length += length as u64;
                self.state.written += length as u64;
                true
            }
            // Half a record must not stand between two whole ones; where it cannot be cut off, a new segment begins.
            failed => {
                let torn = !matches!(failed, Err(_) | Ok(0));
                if torn && file.set_len(self.length).is_err() {
                    self.file = None;
                }
                false
            }
        }
    }

    fn keep(&mut self, frame: &[u8]) {
        let room = self.state.waiting_bytes + frame.len() <= self.most_waiting;
        if room && frame.len() <= LONGEST + HEAD {
            self.waiting.push_back(frame.to_vec());
            self.state.waiting += 1;
            self.state.waiting_bytes += frame.len();
        } else {
            self.state.lost += 1;
        }
    }
}

/// Fill in the head of a frame whose payload is complete.
fn seal(frame: &mut [u8], kind: u8) {
    let Some((head, payload)) = frame.split_at_mut_checked(HEAD) else { return };
    let (length, sum) = ((payload.len() as u32).to_le_bytes(), crc(kind, payload).to_le_bytes());
    let made = MARK.into_iter().chain(length).chain(sum).chain([kind]);
    head.iter_mut().zip(made).for_each(|(place, byte)| *place = byte);
}

fn crc(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Its inode: the same path may be another file later.
    pub inode: u64,
    /// Its writer lives and may append.
    pub is_open: bool,
}

/// The segments in a folder, in the order of their names; none where there is no folder.
pub fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
            continue;
        }
        match open_to_read(&path) {
            Ok(file) => {
                let is_open = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
                found.push(Segment { inode: file.metadata()?.ino(), path, is_open });
            }
            // Another reader has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(found)
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Records of a segment from some offset on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Kind and payload of each.
    pub records: Vec<(u8, Vec<u8>)>,
    /// Where the next batch begins.
    pub end: u64,
    /// Nothing whole follows: the end, or a record that is not complete, and perhaps never will be.
    pub is_last: bool,
    /// Bytes that belong to no whole record and were passed over.
    pub skipped: u64,
}

/// Read about `most` bytes of whole records from the offset `from` on.
pub fn read(path: &Path, from: u64, most: usize) -> io::Result<Batch> {
    let mut file = open_to_read(path)?;
    file.seek(SeekFrom::Start(from))?;
    // At least one whole record, however long it is.
    let mut bytes = Vec::new();
    file.take((most.max(4096) + LONGEST + HEAD) as u64).read_to_end(&mut bytes)?;
    let mut batch = Batch { end: from, ..Batch::default() };
    let mut at = 0;
    while at < most.max(1) {
        let Some(rest) = bytes.get(at..) else { break };
        if let Some((kind, payload)) = whole(rest) {
            batch.records.push((kind, payload.to_vec()));
            at += HEAD + payload.len();
            continue;
        }
        // Damage in the middle: what follows it is as good as before. At the end there is nothing more to find.
        let next = memchr::memmem::find_iter(rest, &MARK)
            .find(|&next| next > 0 && rest.get(next..).is_some_and(|rest| whole(rest).is_some()));
        let Some(next) = next else {
            batch.is_last = true;
            break;
        };
        batch.skipped += next as u64;
        at += next;
    }
    batch.end = from + at as u64;
    Ok(batch)
}

fn whole(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (length, sum) = (number(4)? as usize, number(8)?);
    let kind = *head.get(12)?;
    let payload = rest.get(..length).filter(|_| head.starts_with(&MARK) && length <= LONGEST)?;
    (crc(kind, payload) == sum).then_some((kind, payload))
}

/// Remove a segment whose records are safe elsewhere. False: it is gone already, or is another file by now.
pub fn remove(segment: &Segment) -> io::Result<bool> {
    match open_to_read(&segment.path) {
        Ok(file) if file.metadata()?.ino() == segment.inode => fs::remove_file(&segment.path).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
