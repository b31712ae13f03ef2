//! What the worker processes of one machine share: mapped files of atomics.

pub mod calendar;
pub mod clock;
pub mod counters;
pub mod generation;
pub mod limits;
pub mod owners;
pub mod rate;
pub mod rules;
pub mod slots;
pub mod table;

pub use table::Table;
