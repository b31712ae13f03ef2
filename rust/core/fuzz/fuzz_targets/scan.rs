//! Whatever the body is: no panic, and what is accepted is still the same value after a rewrite, but for the edits.
//! `cargo +nightly fuzz run scan` in rust/core.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sluicegate_core::chat::rewrite::{rewrite, Edits};
use sluicegate_core::chat::scan::scan;
use sluicegate_core::chat::Operation;

const EDITS: Edits<'static> = Edits { model: Some("a/\"b\""), include_usage: true };

fuzz_target!(|body: &[u8]| {
    for operation in [Operation::Chat, Operation::Completions, Operation::Embeddings] {
        let Ok(scanned) = scan(operation, body) else { continue };
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("accepted, so it is JSON");
        let mut expected = parse(body);
        expected["model"] = EDITS.model.into();
        if scanned.stream {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = serde_json::json!({});
            }
            expected["stream_options"]["include_usage"] = true.into();
        }
        let edited = rewrite(body, &scanned, &EDITS);
        assert_eq!(parse(edited.as_deref().unwrap_or(body)), expected);
    }
});
