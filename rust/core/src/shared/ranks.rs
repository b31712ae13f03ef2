//! How certain the last answers of each assistant and model were: what gives a new one its rank among them.
//!
//! A ring of the last answers for each, in a file that all processes map and that outlives them. An answer is one word,
//! so there is no lock: who reads while another writes sees one answer more or less.

use super::{
    slots::{Key, Slots, PAYLOAD},
    table::{Layout, Table},
};
use crate::quality::certainty::Features;
use std::{
    io,
    path::Path,
    sync::{atomic::Ordering, Arc},
    time::{SystemTime, UNIX_EPOCH},
};

/// So many answers are remembered of each.
pub const KEPT: usize = 512;
/// A rank among fewer would be a guess: with 200 it is right within 7 of 100, 19 times of 20.
pub const ENOUGH: usize = 200;
/// So many assistants with their models.
const SLOTS: usize = 1024;
const LOCK: usize = 192;
const FIRST: usize = 256;
const USED: usize = PAYLOAD;
const COUNT: usize = PAYLOAD + 8;
const RING: usize = 64;
const STRIDE: usize = RING + KEPT * 8;
/// Who has not answered for so long may lose its place to another.
const IDLE_SECONDS: u64 = 7 * 24 * 3_600;
/// One number that is far off must not decide alone.
const FAR: f64 = 4.0;
/// Answers that hardly differ: what is less than this (nats) is no difference.
const SPREAD: f64 = 1e-3;

/// "SLGRNK" and the version of the layout.
const RANKS: Layout = Layout { magic: 0x534c_4752_4e4b_0001, size: FIRST + SLOTS * STRIDE, allocated: true, stamp: 0 };

/// A rank among earlier answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Better than so many of a hundred; equal ones count half. `None`: there are not enough.
    pub percent: Option<u8>,
    /// Answers that it was compared with.
    pub among: usize,
}

/// The file.
pub struct Ranks {
    slots: Slots,
    table: Arc<Table>,
}

impl Ranks {
    /// In the mapped file at `path`; `None`: in this process alone.
    pub fn open(path: Option<&Path>) -> io::Result<Ranks> {
        let table = Arc::new(match path {
            Some(path) => Table::open_as(path, RANKS)?,
            None => Table::private(RANKS)?,
        });
        Ok(Ranks { slots: Slots::new(&table, FIRST, STRIDE, SLOTS, LOCK)?, table })
    }

    /// The path still leads to the mapped file.
    pub fn is_current(&self) -> bool {
        self.table.is_current()
    }

    /// Rank an answer among those of `whose`, and remember it. `None`: there is no room for one more of whom.
    pub fn take(&self, whose: &[&str], features: Features) -> Option<Rank> {
        // With alternatives and without them are two measures.
        let basis = if features.tops { "tops" } else { "plain" };
        let key = Key::of(&[whose, &[basis]].concat());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let idle = |at: usize| {
            let idle = self.slots.cell(at, USED).load(Ordering::Relaxed).saturating_add(IDLE_SECONDS) < now;
            if idle {
                self.clear(at);
            }
            idle
        };
        let at = match self.slots.find(key) {
            Some(at) => at,
            None => self.slots.claim(key, idle)?,
        };
        self.slots.cell(at, USED).store(now, Ordering::Relaxed);
        let rank = rank(&self.answers(at), features);
        let number = self.slots.cell(at, COUNT).fetch_add(1, Ordering::Relaxed);
        self.slots.cell(at, RING + (number as usize % KEPT) * 8).store(features.packed, Ordering::Relaxed);
        Some(rank)
    }

    fn answers(&self, at: usize) -> Vec<[f64; 4]> {
        let words = (0..KEPT).map(|place| self.slots.cell(at, RING + place * 8).load(Ordering::Relaxed));
        words.filter(|word| *word != 0).map(Features::values).collect()
    }

    fn clear(&self, at: usize) {
        for offset in (USED..STRIDE).step_by(8) {
            self.slots.cell(at, offset).store(0, Ordering::Relaxed);
        }
    }
}

/// Each number counts in units of its own spread, so that none outweighs the others.
fn rank(earlier: &[[f64; 4]], features: Features) -> Rank {
    let among = earlier.len();
    if among < ENOUGH {
        return Rank { percent: None, among };
    }
    let count = among as f64;
    // Less entropy is more certain.
    let mut scales = [(0.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, -1.0)];
    for (number, (mean, scale)) in scales.iter_mut().enumerate() {
        *mean = earlier.iter().map(|values| values[number]).sum::<f64>() / count;
        let square = earlier.iter().map(|values| (values[number] - *mean).powi(2)).sum::<f64>();
        *scale /= (square / count).sqrt().max(SPREAD);
    }
    let used = Features::count(features.tops);
    let of = |values: &[f64; 4]| {
        let parts = values.iter().zip(scales).take(used);
        parts.map(|(value, (mean, scale))| ((value - mean) * scale).clamp(-FAR, FAR)).sum::<f64>()
    };
    let own = of(&Features::values(features.packed));
    let (mut below, mut equal) = (0.0, 0.0);
    for values in earlier {
        let other = of(values);
        if (other - own).abs() < 1e-9 {
            equal += 1.0;
        } else if other < own {
            below += 1.0;
        }
    }
    Rank { percent: Some(((below + equal / 2.0) / count * 100.0).floor() as u8), among }
}
