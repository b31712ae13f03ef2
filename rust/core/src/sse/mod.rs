//! Server-sent events as the WHATWG HTML standard defines them: bytes to events and back.

pub mod decode;
pub mod encode;
