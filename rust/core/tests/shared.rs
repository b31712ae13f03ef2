//! The mapped file: shared, mended, and never behind.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use sluicegate_core::shared::{
    generation::Generation,
    table::{Table, GENERATION, MAGIC, SIZE},
};
use std::{
    fs,
    os::unix::fs::{symlink, MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::atomic::Ordering,
};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sluicegate-shared-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("shared.map")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn two_mappings_see_each_other() {
    let folder = Folder::new("two");
    let (one, two) = (Generation::open(&folder.file()).unwrap(), Generation::open(&folder.file()).unwrap());
    let before = one.read();
    assert_eq!(two.read(), before);
    assert_eq!(one.advance(), before + 1);
    assert_eq!(two.read(), before + 1);
    assert_eq!(two.advance(), before + 2);
    assert_eq!(one.read(), before + 2);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_is_opened_often_takes_one_descriptor() {
    let folder = Folder::new("often");
    let opened: Vec<_> = (0..100).map(|_| Generation::open(&folder.file()).unwrap()).collect();
    let last = opened[99].advance();
    assert!(opened.iter().all(|one| one.read() == last));
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert_eq!(links.filter(|link| *link == folder.file()).count(), 1);
    // Another file in its place is mapped anew.
    fs::remove_file(folder.file()).unwrap();
    let other = Generation::open(&folder.file()).unwrap();
    assert!(other.is_current() && !opened[0].is_current());
    assert_ne!(other.advance(), opened[0].advance());
}

#[test]
fn a_row_counts_once() {
    let folder = Folder::new("row");
    let (one, two) = (Generation::open(&folder.file()).unwrap(), Generation::open(&folder.file()).unwrap());
    let start = one.note(7);
    assert_eq!(two.note(7), start);
    assert_eq!(two.note(8), start + 1);
    assert_eq!(one.note(8), start + 1);
    assert_eq!(one.note(3), start + 2); // a restored backup
}

#[test]
fn the_file_is_private_and_sparse() {
    let folder = Folder::new("mode");
    Generation::open(&folder.file()).unwrap();
    let found = fs::metadata(folder.file()).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(found.len(), SIZE as u64);
    assert!(found.blocks() * 512 < 64 * 1024, "{} blocks", found.blocks());
}

#[test]
fn the_counter_survives_a_restart() {
    let folder = Folder::new("restart");
    let last = Generation::open(&folder.file()).unwrap().advance();
    assert_eq!(Generation::open(&folder.file()).unwrap().read(), last);
}

#[test]
fn a_damaged_file_begins_anew_in_place() {
    for (name, damage) in
        [("empty", vec![]), ("short", vec![1; 100]), ("noise", vec![0xa5; SIZE]), ("long", vec![0xa5; SIZE + 4096])]
    {
        let folder = Folder::new(name);
        let old = Generation::open(&folder.file()).unwrap();
        let before = old.advance();
        let inode = fs::metadata(folder.file()).unwrap().ino();
        // Written over, not truncated: a mapping of a truncated file is a bus error, here as in production.
        if damage.is_empty() || damage.len() == 100 {
            fs::remove_file(folder.file()).unwrap();
            fs::write(folder.file(), &damage).unwrap();
            assert!(!old.is_current());
        } else {
            use std::os::unix::fs::FileExt;
            fs::OpenOptions::new().write(true).open(folder.file()).unwrap().write_all_at(&damage, 0).unwrap();
        }
        let new = Generation::open(&folder.file()).unwrap();
        assert_ne!(new.read(), before, "{name}");
        assert_ne!(new.read(), 0xa5a5_a5a5_a5a5_a5a5, "{name}");
        if damage.len() >= SIZE {
            assert_eq!(fs::metadata(folder.file()).unwrap().ino(), inode);
            // The process that had it mapped goes on with the same counter.
            assert_eq!(new.advance(), old.read());
        }
        let table = Table::open(&folder.file()).unwrap();
        assert_eq!(table.cell(0).unwrap().load(Ordering::Relaxed), MAGIC);
        assert_eq!(table.cell(4096).unwrap().load(Ordering::Relaxed), 0, "{name}: the room for limits is clean");
    }
}

#[test]
fn another_layout_is_not_read() {
    let folder = Folder::new("layout");
    let table = Table::open(&folder.file()).unwrap();
    let before = table.cell(GENERATION).unwrap().fetch_add(1, Ordering::Relaxed) + 1;
    table.cell(0).unwrap().store(MAGIC + 1, Ordering::Relaxed);
    assert_ne!(Generation::open(&folder.file()).unwrap().read(), before);
}

#[test]
fn a_replaced_file_is_noticed() {
    let folder = Folder::new("replaced");
    let one = Generation::open(&folder.file()).unwrap();
    assert!(one.is_current());
    fs::remove_file(folder.file()).unwrap();
    assert!(!one.is_current());
    let two = Generation::open(&folder.file()).unwrap();
    assert!(two.is_current());
    assert!(!one.is_current());
    one.advance(); // harmless: its mapping lives on
}

#[test]
fn a_link_is_not_followed() {
    let folder = Folder::new("link");
    let victim = folder.0.join("victim");
    fs::write(&victim, b"precious").unwrap();
    symlink(&victim, folder.file()).unwrap();
    assert!(Generation::open(&folder.file()).is_err());
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert!(Generation::open(&folder.0).is_err());
}

#[test]
fn cells_outside_are_refused() {
    let folder = Folder::new("outside");
    let table = Table::open(&folder.file()).unwrap();
    assert!(table.cell(SIZE - 8).is_ok());
    assert!(table.cell(SIZE).is_err());
    assert!(table.cell(SIZE - 4).is_err());
    assert!(table.cell(3).is_err());
}

#[test]
fn no_change_is_lost_between_threads() {
    let folder = Folder::new("threads");
    let start = Generation::open(&folder.file()).unwrap().read();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let own = Generation::open(&folder.file()).unwrap();
                for _ in 0..10_000 {
                    own.advance();
                }
            });
        }
    });
    assert_eq!(Generation::open(&folder.file()).unwrap().read(), start + 40_000);
}
