//! The journal: nothing that was written is lost, whatever ends the process or fills the disk.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use parking_lot::{Mutex, MutexGuard};
use proptest::prelude::*;
use sluicegate_core::journal::{read, remove, segments, Writer, LONGEST};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

struct Folder(PathBuf);

/// No child begins meanwhile: until it runs its program it has the descriptors of this process, and their locks.
fn no_child_begins() -> MutexGuard<'static, ()> {
    static BEGINNING: Mutex<()> = Mutex::new(());
    BEGINNING.lock()
}

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluicegate-journal-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn open(&self) -> Writer {
        Writer::open(&self.0, "a", 4096, 1 << 20).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// All records of all segments.
fn all(folder: &Path) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    for segment in segments(folder).unwrap() {
        let mut from = 0;
        loop {
            let batch = read(&segment.path, from, 700).unwrap();
            found.extend(batch.records);
            from = batch.end;
            if batch.is_last {
                break;
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read(records in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..900)), 0..60)) {
        let folder = Folder::new();
        let mut writer = folder.open();
        for (kind, payload) in &records {
            prop_assert!(writer.append(*kind, payload));
        }
        prop_assert_eq!(all(&folder.0), records);
    }

    #[test]
    fn a_cut_costs_the_last_record_alone(sizes in prop::collection::vec(0usize..300, 1..12), cut in 1usize..400) {
        let folder = Folder::new();
        let mut writer = folder.open();
        for size in &sizes {
            prop_assert!(writer.append(1, &vec![7; *size]));
        }
        let path = segments(&folder.0).unwrap()[0].path.clone();
        let bytes = fs::read(&path).unwrap();
        let left = bytes.len().saturating_sub(cut);
        fs::write(&path, &bytes[..left]).unwrap();
        let mut end = 0;
        let whole = sizes.iter().take_while(|size| {
            end += 13 + **size;
            end <= left
        });
        prop_assert_eq!(all(&folder.0).len(), whole.count());
    }

    #[test]
    fn damage_costs_what_it_hits(at in 0usize..2000, noise in any::<u8>()) {
        let folder = Folder::new();
        let mut writer = folder.open();
        for number in 0u32..20 {
            prop_assert!(writer.append(1, &[number as u8; 87]));
        }
        let path = segments(&folder.0).unwrap()[0].path.clone();
        let mut bytes = fs::read(&path).unwrap();
        prop_assert_eq!(bytes.len(), 2000);
        let changed = bytes[at] != noise;
        bytes[at] = noise;
        fs::write(&path, &bytes).unwrap();
        let found = all(&folder.0);
        prop_assert_eq!(found.len(), 20 - usize::from(changed));
        let expected = (0u32..20).filter(|number| !changed || *number != at as u32 / 100);
        prop_assert!(found.iter().map(|(_, payload)| u32::from(payload[0])).eq(expected));
    }
}

#[test]
fn segments_end_and_can_be_removed() {
    let _alone = no_child_begins();
    let folder = Folder::new();
    let mut writer = folder.open();
    for _ in 0..10 {
        assert!(writer.append(1, &[1; 1000]));
    }
    let found = segments(&folder.0).unwrap();
    assert!(found.len() >= 2);
    let open: Vec<_> = found.iter().map(|segment| segment.is_open).collect();
    // flock knows descriptors: the ones that were closed are free, the last one is not.
    assert_eq!(open.iter().filter(|open| **open).count(), 1);
    assert!(open[open.len() - 1]);
    assert!(remove(&found[0]).unwrap());
    assert!(!remove(&found[0]).unwrap());
    assert_eq!(segments(&folder.0).unwrap().len(), found.len() - 1);
    drop(writer);
    assert!(segments(&folder.0).unwrap().iter().all(|segment| !segment.is_open));
}

#[test]
fn another_file_under_the_same_path_is_not_removed() {
    let folder = Folder::new();
    assert!(folder.open().append(1, b"x"));
    let old = segments(&folder.0).unwrap().remove(0);
    fs::rename(&old.path, folder.0.join("elsewhere")).unwrap();
    fs::write(&old.path, b"").unwrap();
    assert!(!remove(&old).unwrap());
    assert!(old.path.exists());
}

#[test]
fn no_folder_has_no_segments() {
    assert_eq!(segments(Path::new("/nowhere/at/all")).unwrap(), []);
}

#[test]
fn two_of_one_name_do_not_share_a_file() {
    let folder = Folder::new();
    let (mut one, mut two) = (folder.open(), folder.open());
    assert!(one.append(1, b"one"));
    assert!(two.append(1, b"two"));
    assert_eq!(segments(&folder.0).unwrap().len(), 2);
}

#[test]
fn too_long_a_record_is_lost_and_counted() {
    let folder = Folder::new();
    let mut writer = folder.open();
    assert!(!writer.append(1, &vec![0; LONGEST + 1]));
    assert!(writer.append(1, &vec![0; LONGEST]));
    assert_eq!(writer.state().lost, 1);
    assert_eq!(all(&folder.0).len(), 1);
}

const CHILD: &str = "SLUICEGATE_TEST_JOURNAL";

/// A writer in a process of its own; without the variable it does nothing.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (what, folder) = task.split_once(' ').unwrap();
    let mut out = fs::OpenOptions::new().append(true).open("/dev/stderr").unwrap();
    if what == "full" {
        full_disk(Path::new(folder));
        writeln!(out, "done").unwrap();
        return;
    }
    let mut writer = Writer::open(Path::new(folder), &std::process::id().to_string(), 8192, 0).unwrap();
    for number in 0u64.. {
        assert!(writer.append(2, &number.to_le_bytes()));
        // The client sees it only now.
        writeln!(out, "{number}").unwrap();
    }
}

/// A limit on the size of files does what a full disk does: a part is written, then nothing.
fn full_disk(folder: &Path) {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let mut writer = Writer::open(folder, "a", 1 << 30, 1000).unwrap();
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(250), maximum: before.maximum }).unwrap();
    let written: Vec<_> = (0..20u8).map(|number| writer.append(1, &[number; 87])).collect();
    assert_eq!(written.iter().filter(|done| **done).count(), 2);
    // 1000 bytes of memory take ten frames of 100; the rest is counted.
    assert_eq!((writer.state().waiting, writer.state().waiting_bytes, writer.state().lost), (10, 1000, 8));
    assert!(!writer.flush());
    assert_eq!(fs::metadata(&segments(folder).unwrap()[0].path).unwrap().len(), 200);
    setrlimit(Resource::Fsize, before).unwrap();
    assert!(writer.append(1, &[20; 87]));
    assert_eq!(writer.state().waiting, 0);
    let found: Vec<_> = all(folder).iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(found, (0..12).chain([20]).collect::<Vec<_>>());
}

fn spawn(what: &str, folder: &Folder) -> std::process::Child {
    let mut command = Command::new("sh");
    // The signal of a file that grows beyond its limit is ignored, so that the write fails instead.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" --exact child --nocapture"]);
    command.arg(std::env::current_exe().unwrap());
    command.env(CHILD, format!("{what} {}", folder.0.display()));
    let _alone = no_child_begins();
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_full_disk_loses_nothing_that_memory_can_hold() {
    let folder = Folder::new();
    let done = spawn("full", &folder).wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains("done"));
}

#[test]
fn kill_loses_nothing_that_was_told() {
    for round in 0u64..40 {
        let folder = Folder::new();
        let mut child = spawn("write", &folder);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = None;
        for line in lines.by_ref() {
            told = line.unwrap().parse::<u64>().ok().or(told);
            if told >= Some(round * 37 % 900) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            told = line.parse().ok().or(told);
        }
        let found = all(&folder.0);
        let numbers = found.iter().map(|(_, payload)| u64::from_le_bytes(payload[..].try_into().unwrap()));
        assert!(numbers.eq(0..found.len() as u64), "once each, in order");
        assert!(found.len() as u64 > told.unwrap());
        assert!(segments(&folder.0).unwrap().iter().all(|segment| !segment.is_open));
    }
}

#[test]
fn a_record_that_is_made_in_place_is_as_one_that_is_given() {
    let folder = Folder::new();
    let mut writer = folder.open();
    assert!(writer.append_made(2, |frame| frame.extend_from_slice(b"made")));
    assert!(!writer.append_made(2, |frame| frame.resize(frame.len() + LONGEST + 1, 7)));
    assert!(writer.append(2, b"given"));
    assert_eq!(all(&folder.0), [(2, b"made".to_vec()), (2, b"given".to_vec())]);
    assert_eq!(writer.state().lost, 1);
}
