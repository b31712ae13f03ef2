//! Whatever the bytes are: no panic, and what the reader accepts serde_json accepts too.
//! `cargo +nightly fuzz run json` in rust/core.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_core::json::{text, Cursor, JsonError, Kind};

fuzz_target!(|bytes: &[u8]| {
    let skipped = skip(bytes);
    let entered = text(bytes).and_then(|text| {
        let mut cursor = Cursor::new(text);
        enter(&mut cursor)?;
        cursor.finish()
    });
    assert_eq!(skipped.is_ok(), entered.is_ok());
    let oracle = serde_json::from_slice::<serde_json::Value>(bytes);
    match skipped {
        Ok(()) => assert!(oracle.is_ok()),
        // Beyond RFC 8259 only depth and the size of numbers are refused; serde_json knows of lone surrogates.
        Err(JsonError::TooDeep { .. } | JsonError::NumberRange { .. }) => {}
        Err(_) => assert!(oracle.is_err()),
    }
});

fn skip(bytes: &[u8]) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(text(bytes)?);
    cursor.skip()?;
    cursor.finish()
}

fn enter(cursor: &mut Cursor<'_>) -> Result<(), JsonError> {
    match cursor.peek()? {
        Kind::Object => {
            let mut members = cursor.object()?;
            while let Some(key) = members.next(cursor)? {
                assert!(key.is(&key.decode()));
                enter(cursor)?;
            }
        }
        Kind::Array => {
            let mut items = cursor.array()?;
            while items.next(cursor)? {
                enter(cursor)?;
            }
        }
        _ => {
            let value = cursor.value()?;
            if let Some(text) = value.as_text() {
                assert_eq!(serde_json::from_str::<String>(value.raw).ok().as_deref(), Some(text.decode().as_ref()));
            }
        }
    }
    Ok(())
}
