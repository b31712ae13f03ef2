//! Everything of Sluicegate that touches each byte: SSE, the request scan, the relay, the upstream pool.
//!
//! No Python in here: `cargo test -p sluicegate-core` alone tests it. `rust/py` is the skin.
// `tokens/x86.rs` is the one exception, with its reasons.
#![deny(unsafe_code)]

pub mod chat;
pub mod contain;
pub mod digest;
pub mod error;
pub mod inline;
pub mod journal;
pub mod json;
pub mod launch;
pub mod quality;
pub mod record;
pub mod relay;
pub mod responses;
pub mod shared;
pub mod sse;
pub mod tokens;
pub mod upstream;

pub use error::Error;
