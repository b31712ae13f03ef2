//! SHA-256 of a few bytes, as each request's key needs it.

use ring::digest::{digest, SHA256};

/// The digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> impl AsRef<[u8]> {
    digest(&SHA256, bytes)
}
