//! The texts of an answer, as they are counted where no upstream has: however they are cut into chunks.
#![allow(clippy::expect_used)] // clippy.toml allows it only inside of #[test]

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;
use sluicegate_core::{
    chat::Operation,
    relay::{Plan, Relay},
    tokens::{
        said::{Part, Place, Said, Shared},
        tokenizer::Tokenizer,
    },
};

fn tokenizer() -> Tokenizer {
    Tokenizer::bundled("o200k_base").expect("bundled")
}

fn tokens(text: &str) -> u64 {
    tokenizer().count(text, &mut || false).expect("counts") as u64
}

fn total(said: &Shared) -> u64 {
    said.0.lock().total(Some(&tokenizer()), &mut || false).expect("counts").expect("a tokenizer")
}

fn plan(said: &Shared) -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: Some("public".into()),
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: Some(said.clone()),
        hide_usage: true,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

/// What a stream of these deltas has said, the relay fed as it likes.
fn streamed(deltas: &[serde_json::Value], known: bool) -> u64 {
    let said = Shared(Arc::new(Mutex::new(Said::new(known.then(tokenizer)))));
    let mut relay = Relay::new(plan(&said));
    for delta in deltas {
        let chunk = json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        relay.push(format!("data: {chunk}\n\n").as_bytes(), &mut Vec::new()).expect("valid");
    }
    total(&said)
}

/// Any text, with the characters that are hard to cut.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof!["[a-z ]{1,12}", "[0-9]{1,5}", Just("\n\n  ".into()), Just("\"\\\t".into()), "\\PC{1,4}"],
        0..600,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_count_as_their_whole_text(text in text(), sizes in prop::collection::vec(1usize..9, 1..20), known: bool) {
        let characters: Vec<char> = text.chars().collect();
        let (mut deltas, mut at) = (Vec::new(), 0);
        for size in sizes.iter().cycle() {
            if at >= characters.len() {
                break;
            }
            let end = (at + size).min(characters.len());
            deltas.push(json!({"content": characters[at..end].iter().collect::<String>()}));
            at = end;
        }
        prop_assert_eq!(streamed(&deltas, known), tokens(&text));
    }

    #[test]
    fn little_of_a_long_text_is_kept(words in 2000usize..6000) {
        let mut said = Said::new(Some(tokenizer()));
        for word in 0..words {
            said.push(Place::default(), if word % 2 == 0 { "word " } else { "another\\n" });
        }
        prop_assert!(said.pending() < 4096);
        let whole = "word another\n".repeat(words / 2) + if words % 2 == 1 { "word " } else { "" };
        prop_assert_eq!(said.total(None, &mut || false).expect("counts"), Some(tokens(&whole)));
    }
}

#[test]
fn each_text_counts_by_itself() {
    let deltas = [
        json!({"role": "assistant", "content": ""}),
        json!({"reasoning_content": "Let me think.", "reasoning": "Let me think."}),
        json!({"content": "It is "}),
        json!({"content": "raining."}),
        json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": "{\"city\""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": ": \"Paris\"}"}}]}),
        json!({"tool_calls": [{"function": {"name": "now", "arguments": "{}"}, "index": 1}]}),
    ];
    let texts = ["Let me think.", "It is raining.", "get_weather", "{\"city\": \"Paris\"}", "now", "{}"];
    assert_eq!(streamed(&deltas, true), texts.iter().map(|text| tokens(text)).sum::<u64>());
}

#[test]
fn halves_of_a_character_are_one() {
    for known in [true, false] {
        let said = Shared(Arc::new(Mutex::new(Said::new(known.then(tokenizer)))));
        let mut relay = Relay::new(plan(&said));
        for half in ["\\ud83d", "\\ude00", " and \\\\ud83d", "\\ud83d\\ude00"] {
            let chunk = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{half}\"}}}}]}}\n\n");
            relay.push(chunk.as_bytes(), &mut Vec::new()).expect("valid");
        }
        assert_eq!(total(&said), tokens("😀 and \\ud83d😀"));
    }
}

#[test]
fn a_whole_answer_is_read_once() {
    let said = Shared(Arc::new(Mutex::new(Said::new(Some(tokenizer())))));
    let body = json!({"id": "c", "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"},
    ]});
    for stream in [false, true] {
        let said = Shared(Arc::new(Mutex::new(Said::new(Some(tokenizer())))));
        let plan = Plan { choices: 2, ..plan(&said) };
        let bytes = body.to_string().into_bytes();
        if stream {
            sluicegate_core::chat::convert::to_events(&plan, bytes).expect("valid");
        } else {
            sluicegate_core::chat::answer::read(&plan, Some("application/json"), bytes).expect("valid");
        }
        assert_eq!(total(&said), 2 * tokens("Hello there"));
    }
    assert_eq!(total(&said), 0);
    said.0.lock().push(Place { choice: 0, part: Part::Refusal }, "No.");
    assert_eq!(total(&said), tokens("No."));
    // Asked again, it says the same.
    assert_eq!(total(&said), tokens("No."));
}
