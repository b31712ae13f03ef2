//! One call to an upstream: address guard, connections, clocks, and the exchange itself.

pub mod connect;
pub mod deadline;
pub mod decoding;
pub mod exchange;
pub mod guard;
mod linger;
pub mod outlet;
pub mod pool;
pub mod request;
mod resolve;
pub mod response;
mod sniff;
pub mod target;
mod whole;
