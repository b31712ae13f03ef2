//! Limits: exact over arrival orders, processes, crashes and clocks.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::shared::{
    calendar::{Every, Wall},
    clock,
    limits::{Demand, Limits, Now, Reason, Rule, Rules, Unit, SIZE},
    owners::Process,
    rate::Rate,
    slots::Key,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 1440 * MINUTE;
const START: u64 = 1_000 * SECOND;
const BOOT: u64 = 77;
const GONE: u64 = (1 << 32) | 0x7fff_fff0;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluicegate-limits-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("limits.map")
    }

    fn open(&self) -> Limits {
        Limits::open_as(&self.file(), Process::this().unwrap(), BOOT, START).unwrap()
    }

    /// As a process that is dead as soon as anybody looks.
    fn open_as_dead(&self) -> Limits {
        let this = Process::this().unwrap();
        Limits::open_as(&self.file(), Process { identity: GONE, ..this }, BOOT, START).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(mono: u64) -> Now {
    Now { mono, wall: Wall(1_700_000_000_000) }
}

fn rate(unit: Unit, limit: u64, burst: u64, period: u64) -> Rule {
    Rule::Rate { unit, rate: Rate::new(&["rate", "a"], limit, burst, period) }
}

fn requests(limit: u64, burst: u64) -> Rules {
    [rate(Unit::Requests, limit, burst, MINUTE)].into()
}

fn tokens(limit: u64, burst: u64) -> Rules {
    [rate(Unit::Tokens, limit, burst, MINUTE)].into()
}

fn places(most: u64) -> Rules {
    [Rule::Concurrent { key: Key::of(&["places"]), most }].into()
}

fn budget(most: u64, every: Every) -> Rules {
    [Rule::Budget { unit: Unit::Micros, key: Key::of(&["budget"]), most, every }].into()
}

fn of(tokens: u64) -> Demand {
    Demand { tokens, micros: tokens }
}

fn spent(limits: &Limits, rules: &Rules, now: Now) -> u64 {
    limits.account(&rules[0], now).used()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_has_more_than_burst_and_rate(
        limit in 1u64..5000, burst in 1u64..200,
        gaps in prop::collection::vec(0u64..400_000_000, 1..300),
    ) {
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [requests(limit, burst)]);
        let mut now = START;
        let mut passed = Vec::new();
        let mut level = f64::from(burst as u32);
        for gap in gaps {
            now += gap;
            level = (level + gap as f64 * limit as f64 / MINUTE as f64).min(burst as f64);
            match limits.admit(&rules, of(0), at(now)) {
                Ok(held) => {
                    prop_assert!(level > 0.999_999, "passed with {level} left");
                    level -= 1.0;
                    passed.push(now);
                    limits.settle(held, of(0), at(now));
                }
                Err(_) => prop_assert!(level < 1.000_001, "refused with {level} left"),
            }
        }
        for (first, begin) in passed.iter().enumerate() {
            for (last, end) in passed.iter().enumerate().skip(first) {
                let room = burst as f64 + (end - begin) as f64 * limit as f64 / MINUTE as f64;
                prop_assert!((last - first + 1) as f64 <= room + 1e-6);
            }
        }
    }

    #[test]
    fn who_waits_exactly_as_told_gets_in(
        limit in 1u64..2_000_000, burst in 1u64..100_000, wishes in prop::collection::vec(1u64..5000, 1..60),
        daily in any::<bool>(),
    ) {
        let folder = Folder::new();
        let period = if daily { DAY } else { MINUTE };
        let rules: [Rules; 1] = [[rate(Unit::Tokens, limit, burst, period)].into()];
        let limits = folder.open();
        let mut now = START;
        for wish in wishes {
            let wish = of(wish.min(burst));
            match limits.admit(&rules, wish, at(now)) {
                Ok(held) => limits.settle(held, wish, at(now)),
                Err(refusal) => {
                    let Reason::Rate { wait } = refusal.reason else { panic!("{refusal:?}") };
                    prop_assert!(wait > 0);
                    // Where a token takes no whole number of nanoseconds, one is lost in rounding.
                    if wait > 2 {
                        prop_assert!(limits.admit(&rules, wish, at(now + wait - 2)).is_err(), "two nanoseconds early");
                    }
                    // As a client is told it: whole milliseconds.
                    now += wait.div_ceil(1_000_000) * 1_000_000;
                    let held = limits.admit(&rules, wish, at(now));
                    prop_assert!(held.is_ok(), "{:?}", held.err());
                    limits.settle(held.unwrap(), wish, at(now));
                }
            }
        }
    }

    #[test]
    fn burst_of_any_limit_is_exact(limit in 1u64..3_000_000, burst in 1u64..3000) {
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [requests(limit, burst)]);
        for number in 0..burst {
            let held = limits.admit(&rules, of(0), at(START)).unwrap();
            prop_assert_eq!(held.requests.unwrap().remaining, burst - number - 1);
            limits.settle(held, of(0), at(START));
        }
        prop_assert!(limits.admit(&rules, of(0), at(START)).is_err());
    }

    #[test]
    fn settled_tokens_count_as_what_they_were(
        wishes in prop::collection::vec((1u64..400, 0u64..400, 0u64..3), 1..80)
    ) {
        // Reserved and settled at one moment, in any order: what is left is what was used, to the token.
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [tokens(70_000, 70_000)]);
        let mut open = Vec::new();
        let mut used = 0;
        for (estimate, actual, order) in wishes {
            open.push((limits.admit(&rules, of(estimate), at(START)).unwrap(), actual));
            if order == 0 {
                let (held, actual) = open.swap_remove(open.len() / 2);
                used += actual;
                limits.settle(held, of(actual), at(START));
            }
        }
        for (held, actual) in open {
            used += actual;
            limits.settle(held, of(actual), at(START));
        }
        let probe = limits.admit(&rules, of(0), at(START)).unwrap();
        prop_assert_eq!(probe.tokens.unwrap().remaining, 70_000 - used);
    }

    #[test]
    fn a_late_settlement_never_lets_more_through(
        steps in prop::collection::vec((1u64..600, 0u64..600, 0u64..20), 1..60)
    ) {
        // 600 at once and 10 a second. What was used never exceeds that, however late it is settled.
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [tokens(600, 600)]);
        let mut now = START;
        let mut used = 0;
        let mut open = Vec::new();
        for (estimate, actual, seconds) in steps {
            if let Ok(held) = limits.admit(&rules, of(estimate), at(now)) {
                open.push((held, actual.min(estimate)));
            }
            now += seconds * SECOND;
            if seconds % 3 == 0 && !open.is_empty() {
                let (held, actual) = open.remove(0);
                used += actual;
                limits.settle(held, of(actual), at(now));
            }
        }
        prop_assert!(used <= 600 + 600 * (now - START) / MINUTE + 1);
    }

    #[test]
    fn a_budget_is_passed_by_one_estimate_at_most(
        most in 1u64..5000, wishes in prop::collection::vec((1u64..300, 0u64..300, any::<bool>()), 1..120),
        parallel in 1usize..64,
    ) {
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [budget(most, Every::Month)]);
        let mut open = std::collections::VecDeque::new();
        let mut largest = 0;
        for (estimate, actual, _) in &wishes {
            if open.len() >= parallel {
                let (held, actual) = open.pop_front().unwrap();
                limits.settle(held, of(actual), at(START));
            }
            if let Ok(held) = limits.admit(&rules, of(*estimate), at(START)) {
                largest = largest.max(*estimate);
                open.push_back((held, *actual.min(estimate)));
            }
            prop_assert!(spent(&limits, &rules[0], at(START)) < most + largest.max(1));
        }
    }

    #[test]
    fn crashes_give_places_back_and_charge_budgets(
        mine in 0usize..6, dead in 0usize..6, settled in 0usize..6
    ) {
        let folder = Folder::new();
        let rules = [places(20), budget(10_000, Every::Day)];
        let limits = folder.open();
        let other = folder.open_as_dead();
        let own: Vec<_> = (0..mine).map(|_| limits.admit(&rules, of(7), at(START)).unwrap()).collect();
        let mut theirs: Vec<_> = (0..dead).map(|_| other.admit(&rules, of(100), at(START)).unwrap()).collect();
        let settled = settled.min(dead);
        for held in theirs.drain(..settled) {
            other.settle(held, of(30), at(START));
        }
        prop_assert_eq!(spent(&limits, &rules[0], at(START)) as usize, mine + dead - settled);
        limits.tick(START + SECOND);
        prop_assert_eq!(spent(&limits, &rules[0], at(START)) as usize, mine);
        let charged = settled as u64 * 30 + (dead - settled) as u64 * 100;
        prop_assert_eq!(spent(&limits, &rules[1], at(START)), charged + mine as u64 * 7);
        // What they really used comes from the records.
        for _ in settled..dead {
            limits.correct(&rules[1], at(START).wall, of(100), of(40), at(START));
        }
        for held in own {
            limits.settle(held, of(1), at(START));
        }
        prop_assert_eq!(spent(&limits, &rules[0], at(START)), 0);
        let actual = settled as u64 * 30 + (dead - settled) as u64 * 40 + mine as u64;
        prop_assert_eq!(spent(&limits, &rules[1], at(START)), actual);
    }

    #[test]
    fn steps_of_the_wall_clock_change_no_rate(steps in prop::collection::vec(0u64..4_000_000_000_000, 1..40)) {
        let folder = Folder::new();
        let (limits, rules) = (folder.open(), [requests(10, 10)]);
        let passed = steps.iter().filter(|wall| {
            limits.admit(&rules, of(0), Now { mono: START, wall: Wall(**wall) }).is_ok()
        });
        prop_assert_eq!(passed.count(), steps.len().min(10));
    }
}

#[test]
fn a_demand_above_the_burst_is_told_so() {
    let folder = Folder::new();
    let (limits, rules) = (folder.open(), [tokens(100, 100)]);
    assert_eq!(limits.admit(&rules, of(101), at(START)).unwrap_err().reason, Reason::TooLarge);
    assert!(limits.admit(&rules, of(100), at(START)).is_ok());
}

#[test]
fn a_refusal_takes_nothing() {
    let folder = Folder::new();
    let (limits, sets) = (folder.open(), [requests(100, 100), places(1)]);
    let held = limits.admit(&sets, of(0), at(START)).unwrap();
    for _ in 0..500 {
        let refusal = limits.admit(&sets, of(0), at(START)).unwrap_err();
        assert_eq!((refusal.rule, refusal.reason), ((1, 0), Reason::Concurrent));
    }
    limits.settle(held, of(0), at(START));
    assert_eq!(limits.admit(&sets, of(0), at(START)).unwrap().requests.unwrap().remaining, 98);
}

#[test]
fn the_longest_wait_is_told() {
    let folder = Folder::new();
    let other = Rate::new(&["slow"], 1, 1, DAY);
    let sets = [requests(60, 1), [Rule::Rate { unit: Unit::Requests, rate: other }].into()];
    let limits = folder.open();
    assert!(limits.admit(&sets, of(0), at(START)).is_ok());
    let refusal = limits.admit(&sets, of(0), at(START)).unwrap_err();
    assert_eq!((refusal.rule, refusal.reason), ((1, 0), Reason::Rate { wait: DAY }));
}

#[test]
fn a_place_of_a_dead_process_is_free_at_once() {
    let folder = Folder::new();
    let rules = [places(3)];
    let other = folder.open_as_dead();
    let _held: Vec<_> = (0..3).map(|_| other.admit(&rules, of(0), at(START)).unwrap()).collect();
    // It joins after the other one, and finds it dead when no place is left.
    let limits = folder.open();
    assert!((0..3).all(|_| limits.admit(&rules, of(0), at(START)).is_ok()));
    assert!(limits.admit(&rules, of(0), at(START)).is_err());
}

#[test]
fn a_budget_begins_anew_with_its_period_and_not_before() {
    let folder = Folder::new();
    let (limits, rules) = (folder.open(), [budget(10, Every::Day)]);
    let wall = |ms| Now { mono: START, wall: Wall(ms) };
    let day = 86_400_000;
    let held = limits.admit(&rules, of(10), wall(day * 100)).unwrap();
    limits.settle(held, of(10), wall(day * 100 + 5));
    let refused = limits.admit(&rules, of(1), wall(day * 101 - 1)).unwrap_err();
    assert_eq!(refused.reason, Reason::Budget { wait_ms: Some(1) });
    let held = limits.admit(&rules, of(10), wall(day * 101)).unwrap();
    // The clock steps back over midnight: the old day does not begin again.
    assert!(limits.admit(&rules, of(1), wall(day * 101 - 1)).is_err());
    limits.settle(held, of(10), wall(day * 101 - 1));
    assert!(limits.admit(&rules, of(1), wall(day * 101 + 1)).is_err());
    // A clock that was in the year 2100 for a moment does not end the budget for ever.
    let held = limits.admit(&rules, of(10), wall(day * 50_000)).unwrap();
    limits.settle(held, of(10), wall(day * 50_000));
    assert!(limits.admit(&rules, of(1), wall(day * 101 + 2)).is_err());
    assert!(limits.admit(&rules, of(1), wall(day * 102)).is_ok());
}

#[test]
fn what_was_spent_before_counts_once() {
    let folder = Folder::new();
    let (limits, rules) = (folder.open(), budget(100, Every::Month));
    assert!(!limits.account(&rules[0], at(START)).seeded);
    for _ in 0..3 {
        limits.seed(&rules[0], 60, at(START));
    }
    let found = limits.account(&rules[0], at(START));
    assert!(found.seeded);
    assert_eq!(found.spent, 60);
}

#[test]
fn the_file_survives_processes_and_not_machines() {
    let folder = Folder::new();
    let rules = [requests(1, 1)];
    assert!(folder.open().admit(&rules, of(0), at(START)).is_ok());
    assert!(folder.open().admit(&rules, of(0), at(START)).is_err());
    let this = Process::this().unwrap();
    let again = |boot, now| Limits::open_as(&folder.file(), this, boot, now).unwrap();
    assert!(again(BOOT + 1, START).admit(&rules, of(0), at(START)).is_ok());
    assert!(again(BOOT + 1, START).admit(&rules, of(0), at(START)).is_err());
    // Where the system has no boot id, its clock tells.
    assert!(again(BOOT + 1, 5).admit(&rules, of(0), at(5)).is_ok());
}

#[test]
fn a_damaged_file_begins_anew() {
    for damage in [vec![], vec![1; 100], vec![0xa5; SIZE]] {
        let folder = Folder::new();
        fs::write(folder.file(), &damage).unwrap();
        let (limits, rules) = (folder.open(), [requests(2, 2), places(5), budget(9, Every::Total)]);
        assert!(limits.admit(&rules, of(1), at(START)).is_ok());
        assert!(limits.admit(&rules, of(1), at(START)).is_ok());
        assert!(limits.admit(&rules, of(1), at(START)).is_err());
    }
}

#[test]
fn noise_behind_a_whole_head_locks_nobody_out_for_long() {
    use std::os::unix::fs::FileExt;
    let folder = Folder::new();
    drop(folder.open());
    let file = fs::OpenOptions::new().write(true).open(folder.file()).unwrap();
    file.write_all_at(&vec![0xa5; SIZE - 16384], 16384).unwrap();
    let (limits, rules) = (folder.open(), [requests(60, 60)]);
    // No slot to be had: counted alone, and by the limit of one process.
    let passed = (0..100).filter(|_| limits.admit(&rules, of(0), at(START)).is_ok()).count();
    assert_eq!(passed, 60);
}

#[test]
fn a_full_table_is_a_share_and_never_unlimited() {
    let folder = Folder::new();
    let limits = folder.open();
    let _second = folder.open_as_dead();
    let name = |number: usize| number.to_string();
    for number in 0..70_000 {
        let rate = Rate::new(&["many", &name(number)], 1, 1, DAY);
        let _ = limits.admit(&[[Rule::Rate { unit: Unit::Requests, rate }].into()], of(0), at(START));
    }
    assert!(limits.counted_alone() > 0);
    let mut alone = 0;
    for number in 70_000..70_400 {
        let rate = Rate::new(&["many", &name(number)], 10, 10, DAY);
        let rules = [[Rule::Rate { unit: Unit::Requests, rate }].into()];
        let held: Vec<_> = (0..12).map_while(|_| limits.admit(&rules, of(0), at(START)).ok()).collect();
        alone += usize::from(held[0].alone);
        // Of two processes one half each.
        assert_eq!(held.len(), if held[0].alone { 5 } else { 10 });
    }
    assert!(alone > 0);
    // What is idle makes room again.
    let rate = Rate::new(&["late"], 1, 1, DAY);
    let later = at(START + 3 * DAY);
    let held = limits.admit(&[[Rule::Rate { unit: Unit::Requests, rate }].into()], of(0), later).unwrap();
    assert!(!held.alone);
}

#[test]
fn without_a_file_there_are_shares() {
    let limits = Limits::private(4);
    let rules = [requests(40, 40), places(8)];
    let held: Vec<_> = (0..20).map_while(|_| limits.admit(&rules, of(0), at(START)).ok()).collect();
    assert_eq!(held.len(), 2);
    assert!(held.iter().all(|held| held.alone));
    assert!(!limits.is_shared());
    for held in held {
        limits.settle(held, of(0), at(START));
    }
    let passed = (0..20).filter_map(|_| {
        let held = limits.admit(&[rules[0].clone()], of(0), at(START)).ok()?;
        limits.settle(held, of(0), at(START));
        Some(())
    });
    assert_eq!(passed.count(), 8);
}

const CHILD: &str = "SLUICEGATE_TEST_LIMITS";

/// One of the processes of the tests below; without the variable it does nothing.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (what, file) = task.split_once(' ').unwrap();
    let limits = Limits::open(Path::new(file)).unwrap();
    let rules = [daily(1000), places(64)];
    if what == "hold" {
        let held: Vec<_> = (0..5).map(|_| limits.admit(&rules, of(0), Now::read()).unwrap()).collect();
        fs::write(format!("{file}.held"), held.len().to_string()).unwrap();
        loop {
            std::thread::park();
        }
    }
    let gate = format!("{file}.go");
    while !Path::new(&gate).exists() {
        std::thread::yield_now();
    }
    let mut passed = 0;
    for _ in 0..2000 {
        if let Ok(held) = limits.admit(&rules, of(0), Now::read()) {
            passed += 1;
            limits.settle(held, of(0), Now::read());
        }
    }
    fs::write(format!("{file}.{}", std::process::id()), format!("{passed}")).unwrap();
}

fn daily(limit: u64) -> Rules {
    [rate(Unit::Requests, limit, limit, DAY)].into()
}

fn spawn(what: &str, folder: &Folder) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(CHILD, format!("{what} {}", folder.file().display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn eight_processes_pass_exactly_the_limit() {
    let folder = Folder::new();
    let mut children: Vec<_> = (0..8).map(|_| spawn("hammer", &folder)).collect();
    fs::write(folder.0.join("limits.map.go"), "").unwrap();
    let mut passed = 0;
    for child in &mut children {
        assert!(child.wait().unwrap().success());
        let found = fs::read_to_string(folder.0.join(format!("limits.map.{}", child.id()))).unwrap();
        passed += found.parse::<u64>().unwrap();
    }
    assert_eq!(passed, 1000);
    let limits = Limits::open(&folder.file()).unwrap();
    assert_eq!(limits.account(&places(64)[0], Now::read()).used(), 0);
    assert!(clock::since_boot() > 0);
}

#[test]
fn a_killed_process_gives_its_places_back() {
    let folder = Folder::new();
    let mut child = spawn("hold", &folder);
    let told = folder.0.join("limits.map.held");
    while !fs::read_to_string(&told).is_ok_and(|text| text == "5") {
        std::thread::yield_now();
    }
    let limits = Limits::open(&folder.file()).unwrap();
    assert_eq!(limits.account(&places(64)[0], Now::read()).used(), 5);
    child.kill().unwrap();
    // Not waited for: a zombie holds nothing.
    while limits.tick(clock::since_boot()) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(limits.account(&places(64)[0], Now::read()).used(), 0);
    child.wait().unwrap();
}
