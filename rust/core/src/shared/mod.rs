//! What the worker processes of one machine share: mapped files of atomics.

pub mod calendar;
pub mod clock;
pub mod counters;
pub mod generation;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod owners;
pub mod phases;
pub mod ranks;
pub mod rate;
pub mod rules;
pub mod samples;
pub mod scored;
pub mod slots;
pub mod table;
pub mod told;

pub use table::Table;
