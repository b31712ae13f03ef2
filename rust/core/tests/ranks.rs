//! Ranks among earlier answers: how many it takes, what they mean, and that they outlive a process.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::{
    quality::certainty::Features,
    shared::ranks::{Rank, Ranks, ENOUGH, KEPT},
};

fn features(mean: f64) -> Features {
    Features::new([mean, mean * 2.0, 2.0 + mean / 10.0, 0.5 - mean / 20.0], true)
}

fn temporary(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("sluicegate-ranks-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("ranks-1.map")
}

#[test]
fn two_hundred_are_enough_and_not_one_less() {
    let ranks = Ranks::open(None).unwrap();
    for number in 0..ENOUGH {
        let found = ranks.take(&["w", "a"], features(-(number as f64) / 100.0)).unwrap();
        assert_eq!(found, Rank { percent: None, among: number });
    }
    let best = ranks.take(&["w", "a"], features(0.0)).unwrap();
    assert!(best.percent.unwrap() >= 99, "{best:?}");
    assert_eq!(ranks.take(&["w", "a"], features(-5.0)).unwrap().percent, Some(0));
    let middle = ranks.take(&["w", "a"], features(-1.0)).unwrap().percent.unwrap();
    assert!((48..=52).contains(&middle), "{middle}");
    assert_eq!(ranks.take(&["w", "b"], features(0.0)).unwrap().among, 0, "another assistant");
    let plain = Features { tops: false, ..features(0.0) };
    assert_eq!(ranks.take(&["w", "a"], plain).unwrap().among, 0, "another measure");
}

#[test]
fn equal_answers_are_in_the_middle() {
    let ranks = Ranks::open(None).unwrap();
    for _ in 0..ENOUGH {
        ranks.take(&["w"], features(-0.3)).unwrap();
    }
    assert_eq!(ranks.take(&["w"], features(-0.3)).unwrap().percent, Some(50));
}

#[test]
fn the_oldest_are_forgotten_and_the_file_outlives_its_process() {
    let path = temporary("file");
    let ranks = Ranks::open(Some(&path)).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    for _ in 0..KEPT * 2 {
        ranks.take(&["w"], features(-0.1)).unwrap();
    }
    for _ in 0..KEPT {
        ranks.take(&["w"], features(-2.0)).unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    let other = Ranks::open(Some(&path)).unwrap();
    assert_eq!(other.take(&["w"], features(-1.9)).unwrap(), Rank { percent: Some(100), among: KEPT });
    // A damaged file begins anew.
    std::fs::write(&path, b"nonsense").unwrap();
    assert_eq!(Ranks::open(Some(&path)).unwrap().take(&["w"], features(-1.0)).unwrap().among, 0);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let ranks = Ranks::open(None).unwrap();
    let found = (0..3000).filter(|number| ranks.take(&["w", &number.to_string()], features(-1.0)).is_some()).count();
    assert!((512..=1024).contains(&found), "{found}");
}

proptest! {
    #[test]
    fn packing_keeps_the_numbers(mean in -25.0f64..1.0, weakest in -25.0f64..1.0, margin in -1.0f64..25.0, entropy in -1.0f64..5.0) {
        let packed = Features::new([mean, weakest, margin, entropy], true).packed;
        let bounds = [(-20.0, 0.0), (-20.0, 0.0), (0.0, 20.0), (0.0, 4.0)];
        for ((value, found), (low, high)) in [mean, weakest, margin, entropy].into_iter().zip(Features::values(packed)).zip(bounds) {
            prop_assert!((value.clamp(low, high) - found).abs() < 2e-4);
        }
        prop_assert!(packed != 0);
    }
}
