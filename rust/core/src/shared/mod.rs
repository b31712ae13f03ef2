//! What the worker processes of one machine share: a mapped file of atomics.

pub mod generation;
pub mod table;

pub use table::Table;
