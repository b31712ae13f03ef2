//! Whatever the text is: no panic, it decodes to itself, counts agree, and pieces make it up.
//! `cargo +nightly fuzz run tokens` in rust/core.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_core::tokens::{encoding, AllowedSpecial, ENCODINGS};

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (pick, text, bytes) = input;
    let name = ENCODINGS[usize::from(pick) % ENCODINGS.len()];
    let Ok(encoding) = encoding(name) else { panic!("{name} is bundled") };

    let mut ids = Vec::new();
    encoding.encode_ordinary(text, &mut ids);
    assert_eq!(encoding.count(text), ids.len());
    let mut decoded = Vec::new();
    assert!(encoding.decode_bytes(&ids, &mut decoded).is_ok());
    assert_eq!(decoded, text.as_bytes());
    assert_eq!(encoding.pieces(text).collect::<String>(), text);
    // Each piece by itself, uncut, gives the same tokens.
    let mut by_piece = Vec::new();
    encoding.pieces(text).for_each(|piece| encoding.encode_single_piece(piece.as_bytes(), &mut by_piece));
    assert_eq!(by_piece, ids);

    let mut special = Vec::new();
    encoding.encode_with_special(text, &AllowedSpecial::All, &mut special);
    decoded.clear();
    assert!(encoding.decode_bytes(&special, &mut decoded).is_ok());
    assert_eq!(decoded, text.as_bytes());

    let mut piece = Vec::new();
    encoding.encode_single_piece(bytes, &mut piece);
    decoded.clear();
    assert!(encoding.decode_bytes(&piece, &mut decoded).is_ok());
    assert_eq!(decoded, bytes);
});
