//! Metrics over several processes: sums never step back, labels are bounded, times land where they belong.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::shared::{
    clock,
    metrics::{Ended, Metrics, ASSISTANTS, CODES, MODELS, SIZE, UPSTREAMS, WORKSPACES},
    owners::Process,
    phases::{bucket, cells, Marks, COARSE, FINE, PHASES},
    samples::Sample,
    scored::{Scored, SCORES},
};
use std::{fs, path::PathBuf, thread};

/// A folder of its own for each test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sluicegate-metrics-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn open(&self, process: Process) -> Metrics {
        Metrics::open_as(&self.0.join("metrics.map"), 7, process).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process of this machine that is not there.
fn dead(number: u64) -> Process {
    Process { identity: (1 << 40) | (0x7fff_0000 + number), namespace: Process::this().unwrap().namespace }
}

fn marks() -> Marks {
    Marks {
        began: 100.0,
        passed: [100.001, 100.003, 100.006, 100.010],
        asked: 100.015,
        answered: 100.215,
        waited: 0.2,
        closing: 100.221,
        now: 100.228,
    }
}

fn request<'a>() -> Ended<'a> {
    Ended {
        operation: "chat",
        workspace: "acme",
        upstream: Some("up"),
        model: Some("gpt"),
        status: 200,
        tokens: [10, 5, 2, 1],
        micros: 7,
        attempts: 3,
        first_us: Some(1_500),
        answer_us: Some(200_000),
        marks: marks(),
        ..Ended::default()
    }
}

fn found(samples: &[Sample], family: &str, labels: &[&str]) -> Option<Vec<u64>> {
    samples.iter().find(|s| s.family == family && s.labels == labels).map(|s| s.values.clone())
}

fn value(metrics: &Metrics, family: &str, labels: &[&str]) -> u64 {
    found(&metrics.read(clock::since_boot()), family, labels).map_or(0, |values| values[0])
}

#[test]
fn one_request_is_counted_once_in_each_family() {
    let metrics = Metrics::private().unwrap();
    metrics.ended(&request());
    metrics.failed("up");
    metrics.failed("up");
    let samples = metrics.read(0);
    let one = |family, labels: &[&str]| found(&samples, family, labels).unwrap_or_default();
    assert_eq!(one("requests", &["chat", "2xx", "acme"]), [1]);
    assert_eq!(one("upstream_requests", &["up", "2xx"]), [1]);
    assert_eq!(one("upstream_failures", &["up"]), [2]);
    assert_eq!(one("model_requests", &["gpt"]), [1]);
    for (kind, amount) in [("prompt", 10), ("completion", 5), ("cached", 2), ("reasoning", 1)] {
        assert_eq!(one("tokens", &["acme", kind]), [amount]);
        assert_eq!(one("model_tokens", &["gpt", kind]), [amount]);
    }
    assert_eq!(one("cost", &["acme"]), [7]);
    assert_eq!(one("model_cost", &["gpt"]), [7]);
    assert_eq!(one("retries", &[]), [2]);
    assert!(found(&samples, "errors", &["other"]).is_none());
    let first = one("first_token", &["up"]);
    assert_eq!((first.len(), first[1], first[COARSE.len() + 1]), (cells(&COARSE), 1, 1_500));
    let admitted = one("phase", &["admit", "false"]);
    assert_eq!((admitted.len(), admitted[FINE.len() + 1]), (cells(&FINE), 4_000));
    assert!(found(&samples, "phase", &["admit", "true"]).is_none());
    assert_eq!(samples.iter().filter(|sample| sample.family == "phase").count(), PHASES.len());
}

#[test]
fn what_a_dead_process_counted_stays_and_its_gauges_go() {
    let folder = Folder::new("dead");
    let gone = folder.open(dead(1));
    gone.ended(&request());
    gone.publish("open_requests", 5);
    gone.publish_pools(&[("up".to_owned(), 3, 2, true)]);
    let here = folder.open(Process::this().unwrap());
    here.ended(&request());
    assert_eq!(value(&here, "requests", &["chat", "2xx", "acme"]), 2);
    // The dead one's block is ours now, and only what we hold is open.
    assert_eq!(value(&here, "open_requests", &["0"]), 0);
    here.publish("open_requests", 1);
    let samples = here.read(clock::since_boot());
    let open: Vec<_> = samples.iter().filter(|sample| sample.family == "open_requests").collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].values, [1]);
    assert_eq!(found(&samples, "pool", &["up"]), Some(vec![0, 0, 0]));
    assert_eq!(found(&samples, "worker_starts", &[]), Some(vec![2]));
}

#[test]
fn a_dead_process_is_not_shown_before_its_block_is_taken() {
    let folder = Folder::new("shown");
    let here = folder.open(Process::this().unwrap());
    let gone = folder.open(dead(1));
    gone.publish("open_streams", 9);
    gone.publish_pools(&[("up".to_owned(), 3, 2, false)]);
    let samples = here.read(clock::since_boot());
    assert!(samples.iter().filter(|s| s.family == "open_streams").all(|s| s.values == [0]));
    assert_eq!(found(&samples, "pool", &["up"]), Some(vec![0, 0, 0]));
}

#[test]
fn labels_are_bounded() {
    let metrics = Metrics::private().unwrap();
    let extra = 50;
    for number in 0..MODELS + extra {
        let name = format!("name-{number}");
        let code = format!("code-{number}");
        metrics.ended(&Ended {
            workspace: &name,
            upstream: Some(&name),
            model: Some(&name),
            code: Some(&code),
            ..request()
        });
    }
    let samples = metrics.read(0);
    let count = |family| samples.iter().filter(|sample| sample.family == family).count();
    assert_eq!(count("requests"), WORKSPACES + 1);
    assert_eq!(count("upstream_requests"), UPSTREAMS + 1);
    assert_eq!(count("model_requests"), MODELS + 1);
    assert_eq!(count("errors"), CODES + 1);
    assert_eq!(found(&samples, "model_requests", &["other"]), Some(vec![extra as u64]));
    let all = (MODELS + extra) as u64;
    for family in ["requests", "upstream_requests", "errors"] {
        let sum: u64 = samples.iter().filter(|s| s.family == family).map(|s| s.values[0]).sum();
        assert_eq!(sum, all, "{family}");
    }
}

#[test]
fn names_of_two_processes_agree_and_long_ones_are_cut_at_a_character() {
    let folder = Folder::new("names");
    let (one, two) = (folder.open(Process::this().unwrap()), folder.open(dead(1)));
    let long = "ä".repeat(200);
    let race = |metrics: &Metrics, step: usize| {
        for number in 0..40 {
            let name = format!("w{}", (number * step) % 40);
            metrics.ended(&Ended { workspace: &name, ..request() });
        }
        metrics.ended(&Ended { workspace: &long, ..request() });
    };
    thread::scope(|scope| {
        scope.spawn(|| race(&one, 1));
        scope.spawn(|| race(&two, 7));
    });
    let samples = one.read(clock::since_boot());
    let requests: Vec<_> = samples.iter().filter(|sample| sample.family == "requests").collect();
    assert_eq!(requests.len(), 41);
    assert!(requests.iter().all(|sample| sample.values == [2]));
    assert!(requests.iter().any(|sample| sample.labels[2] == "ä".repeat(76)));
}

#[test]
fn another_start_begins_anew_and_damage_is_mended() {
    let folder = Folder::new("anew");
    let path = folder.0.join("metrics.map");
    let this = Process::this().unwrap();
    folder.open(this).ended(&request());
    assert_eq!(value(&folder.open(this), "requests", &["chat", "2xx", "acme"]), 1);
    let later = Metrics::open_as(&path, 8, this).unwrap();
    assert_eq!(value(&later, "requests", &["chat", "2xx", "acme"]), 0);
    fs::write(&path, b"x").unwrap();
    let mended = Metrics::open_as(&path, 8, this).unwrap();
    mended.ended(&request());
    assert_eq!(value(&mended, "requests", &["chat", "2xx", "acme"]), 1);
    assert_eq!(fs::metadata(&path).unwrap().len(), SIZE as u64);
}

#[test]
fn a_file_full_of_nonsense_harms_nobody() {
    let folder = Folder::new("nonsense");
    let path = folder.0.join("metrics.map");
    let this = Process::this().unwrap();
    drop(folder.open(this));
    let mut bytes = fs::read(&path).unwrap();
    // All but the page with magic, size and stamp.
    bytes[4096..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let metrics = folder.open(this);
    metrics.ended(&request());
    metrics.publish_pools(&[("up".to_owned(), 1, 1, true)]);
    assert!(metrics.read(clock::since_boot()).len() > 10);
}

#[test]
fn phases_of_a_whole_request() {
    let names = PHASES.iter().zip(marks().phases(true)).map(|(name, took)| (*name, took.unwrap()));
    let expected = [
        ("authenticate", 1_000),
        ("read", 2_000),
        ("resolve", 3_000),
        ("admit", 4_000),
        ("prepare", 5_000),
        ("upstream", 200_000),
        ("relay", 6_000),
        ("settle", 7_000),
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
}

#[test]
fn a_request_that_ends_early_has_the_phases_it_came_to() {
    // Refused while its plan was made.
    let refused = Marks { passed: [100.001, 100.003, 0.0, 0.0], asked: 0.0, answered: 0.0, waited: 0.0, ..marks() };
    let found = refused.phases(false);
    assert_eq!(found[..3], [Some(1_000), Some(2_000), Some(218_000)]);
    assert_eq!(found[3..7], [None; 4]);
    assert_eq!(found[7], Some(7_000));
    // The client left while the first upstream was waited for.
    let left = Marks { answered: 0.0, waited: 0.0, ..marks() };
    assert_eq!(left.phases(false)[4..7], [Some(5_000), Some(206_000), None]);
    // All upstreams failed: two were waited for.
    let failed = Marks { waited: 0.15, ..marks() };
    assert_eq!(failed.phases(false)[4..7], [Some(61_000), Some(150_000), None]);
}

proptest! {
    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound(micros in 0u64..1_000_000_000) {
        for bounds in [&FINE[..], &COARSE[..]] {
            let at = bucket(bounds, micros);
            prop_assert!(at == bounds.len() || micros <= bounds[at]);
            prop_assert!(at == 0 || micros > bounds[at - 1]);
        }
    }

    #[test]
    fn any_readings_count(readings in proptest::collection::vec(any::<f64>(), 10)) {
        let r = |n: usize| readings[n];
        let marks = Marks {
            began: r(0), passed: [r(1), r(2), r(3), r(4)], asked: r(5), answered: r(6), waited: r(7), closing: r(8),
            now: r(9),
        };
        for relayed in [true, false] {
            let _ = marks.phases(relayed);
        }
        let metrics = Metrics::private().unwrap();
        metrics.ended(&Ended { marks, ..request() });
        prop_assert!(!metrics.read(0).is_empty());
    }
}

#[test]
fn scores_are_spread_over_buckets_and_have_what_they_cost() {
    let metrics = Metrics::private().unwrap();
    let one = Scored { of: ("acme", "Helper/2"), score: Some(70), verdict: "passed", ..Scored::default() };
    metrics.scored(&one);
    metrics.scored(&Scored { score: Some(71), verdict: "flagged", again: 1, micros: 9, waited: 1000, ..one });
    metrics.scored(&Scored { score: None, verdict: "blocked", again: 2, micros: 1, waited: 500, ..one });
    let found = metrics.read(0);
    let of = |family: &str| -> Vec<&Sample> { found.iter().filter(|sample| sample.family == family).collect() };
    let mut spread = vec![0; cells(&SCORES)];
    (spread[6], spread[7]) = (1, 1);
    spread[cells(&SCORES) - 1] = 141;
    assert_eq!(of("score").len(), 1);
    assert_eq!(of("score")[0].labels, ["acme", "Helper/2"]);
    assert_eq!(of("score")[0].values, spread);
    let verdicts: Vec<_> = of("scored").iter().map(|sample| (sample.labels[2].as_str(), sample.values[0])).collect();
    assert_eq!(verdicts, [("passed", 1), ("flagged", 1), ("blocked", 1)]);
    let sums = ["unscored", "asked_again", "score_cost", "score_wait"].map(|family| of(family)[0].values[0]);
    assert_eq!(sums, [1, 3, 10, 1500]);
}

#[test]
fn assistants_beyond_their_number_share_one_name() {
    let metrics = Metrics::private().unwrap();
    let names: Vec<String> = (0..ASSISTANTS + 9).map(|number| format!("a{number}")).collect();
    for name in &names {
        metrics.scored(&Scored { of: ("acme", name), score: Some(1), ..Scored::default() });
    }
    let found = metrics.read(0);
    let scores: Vec<_> = found.iter().filter(|sample| sample.family == "score").collect();
    assert_eq!(scores.len(), ASSISTANTS + 1);
    let last = scores[ASSISTANTS];
    assert_eq!((last.labels.as_slice(), last.values[0]), (["other".to_owned(), "other".to_owned()].as_slice(), 9));
}
