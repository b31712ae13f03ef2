//! What a piece is sought by: short ones as a number, all by a hash.

/// A piece of at most 15 bytes as one number: its bytes, and its length in the highest byte.
pub(super) type Key = u128;
/// The longest piece that fits in a [`Key`], in bytes.
pub(super) const KEY_BYTES: usize = 15;
const LOW_BYTES: [u128; 16] = low_bytes();

const fn low_bytes() -> [u128; 16] {
    let mut masks = [0; 16];
    let mut length = 1;
    while length < 16 {
        masks[length] = masks[length - 1] << 8 | 0xFF;
        length += 1;
    }
    masks
}

/// The key of `bytes[at..at + length]`; `length` is at most [`KEY_BYTES`].
#[inline(always)]
pub(super) fn key(bytes: &[u8], at: usize, length: usize) -> Key {
    let loaded = match bytes[at..].first_chunk::<16>() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => {
            let mut padded = [0; 16];
            let rest = &bytes[at..];
            padded[..rest.len()].copy_from_slice(rest);
            u128::from_le_bytes(padded)
        }
    };
    loaded & LOW_BYTES[length & 15] | (length as u128) << 120
}

/// A hash of a key; its high bits are the good ones.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
pub(super) fn hash(key: Key) -> u64 {
    let low = (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let high = ((key >> 64) as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (low ^ high.rotate_left(32)).wrapping_mul(0xA24B_AED4_963E_E407)
}

/// A hash of at least 16 bytes: the first 15, the last 15 and the length.
pub(super) fn long_hash(bytes: &[u8]) -> u64 {
    let ends = hash(key(bytes, 0, KEY_BYTES)) ^ hash(key(bytes, bytes.len() - KEY_BYTES, KEY_BYTES)).rotate_left(17);
    (ends ^ bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
