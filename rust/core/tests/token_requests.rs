//! Counting of chat requests, cuts and counters: properties for any text and any body.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::tokens::{
    chat::{count_chat, count_completion, ChatCount, ChatError, Reason},
    counter::Counter,
    cut,
    tokenizer::{TokenError, Tokenizer},
};

fn tokenizer() -> Tokenizer {
    Tokenizer::bundled("o200k_base").expect("it is bundled")
}

fn counted(body: &str) -> Result<ChatCount, ChatError> {
    count_chat(body.as_bytes(), "gpt-4o", Some(&tokenizer()), &mut || false)
}

#[test]
fn a_plain_message_is_exact() {
    let count = counted(r#"{"messages":[{"role":"user","content":"Hello\n\u4f60"}]}"#).expect("a chat");
    let words = tokenizer().count("Hello\n你", &mut || false).expect("no stop") as u64;
    assert_eq!(count, ChatCount { tokens: 3 + 1 + words + 3, image_tokens: 0, reasons: vec![] });
}

#[test]
fn each_doubt_is_named_once() {
    let call = r#"{"function":{"name":"a","arguments":"{}"}}"#;
    let body = format!(r#"{{"messages":[{{"role":"assistant","tool_calls":[{call},{call}]}}],"tools":[{{"x":1}}]}}"#);
    assert_eq!(counted(&body).expect("a chat").reasons, [Reason::ToolCalls, Reason::ToolSchema]);
}

#[test]
fn what_is_no_chat_is_refused() {
    for body in ["", "[]", "{}", r#"{"messages":1}"#, r#"{"messages":[1]}"#, r#"{"messages":[]"#] {
        assert!(counted(body).is_err(), "{body}");
    }
}

#[test]
fn a_caller_can_stop() {
    let text = "words to count ".repeat(100_000);
    assert_eq!(tokenizer().count(&text, &mut || true), Err(TokenError::Stopped));
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let stopped = count_chat(body.as_bytes(), "gpt-4o", Some(&tokenizer()), &mut || true);
    assert_eq!(stopped, Err(ChatError::Token(TokenError::Stopped)));
}

#[test]
fn a_caller_can_stop_between_short_texts() {
    let message = r#"{"role":"user","content":"hi"}"#;
    let body = format!(r#"{{"messages":[{}]}}"#, vec![message; 10_000].join(","));
    let (mut asked, tokenizer) = (0, tokenizer());
    let mut stop = || {
        asked += 1;
        asked == 3
    };
    let stopped = count_chat(body.as_bytes(), "gpt-4o", Some(&tokenizer), &mut stop);
    assert_eq!((stopped, asked), (Err(ChatError::Token(TokenError::Stopped)), 3));
}

#[test]
fn a_completion_has_texts_or_tokens() {
    let count = |body: &str| count_completion(body.as_bytes(), &tokenizer(), &mut || false).expect("a completion");
    let words = |text: &str| tokenizer().count(text, &mut || false).expect("no stop") as u64;
    for (body, tokens) in [
        (r#"{"prompt":"Hello, world!"}"#, words("Hello, world!")),
        (r#"{"prompt":["Hello, world!","Hi"],"stop":"x"}"#, words("Hello, world!") + words("Hi")),
        (r#"{"prompt":[1,2,3]}"#, 3),
        (r#"{"prompt":[[1,2],[3]]}"#, 3),
        (r#"{"prompt":null}"#, 0),
    ] {
        assert_eq!(count(body), ChatCount { tokens, image_tokens: 0, reasons: vec![] }, "{body}");
    }
    let both = count(r#"{"prompt":"a","suffix":"b"}"#);
    assert_eq!((both.tokens, both.reasons), (2, vec![Reason::UnpublishedModel]));
    assert_eq!(count_completion(b"[]", &tokenizer(), &mut || false), Err(ChatError::Shape));
}

fn texts() -> impl Strategy<Value = String> {
    let unit = prop_oneof![
        Just("the "),
        Just("quick"),
        Just(" fox"),
        Just("don't"),
        Just("123"),
        Just("\n\n"),
        Just("  "),
        Just("\t"),
        Just("字"),
        Just("👩‍👩‍👧"),
        Just("!/"),
        Just("'S")
    ];
    prop_oneof![prop::collection::vec(unit, 0..40).prop_map(|units| units.concat()), "\\PC{0,60}"]
}

proptest! {
    #[test]
    fn no_body_panics(body in r#"[\[\]{}:,"a-z0-9\\ ]{0,80}"#) {
        let _ = counted(&body);
        let _ = counted(&format!(r#"{{"messages":[{{"content":[{body}]}}],"tools":[{body}]}}"#));
    }

    #[test]
    fn cuts_fit(text in texts(), most in 0usize..30) {
        let tokenizer = tokenizer();
        let stop = &mut || false;
        let end = cut::beginning(&tokenizer, &text, most, stop).expect("no stop");
        prop_assert!(tokenizer.count(&text[..end], stop).expect("no stop") <= most);
        let start = cut::ending(&tokenizer, &text, most, stop).expect("no stop");
        prop_assert!(tokenizer.count(&text[start..], stop).expect("no stop") <= most);
    }

    #[test]
    fn chunks_cover(text in texts(), most in 8usize..30, overlap in 0usize..8) {
        let tokenizer = tokenizer();
        let chunks = cut::split(&tokenizer, &text, most, overlap, &mut || false).expect("characters fit");
        let mut reached = 0;
        for chunk in chunks {
            prop_assert!(chunk.start <= reached && chunk.end > reached);
            prop_assert!(tokenizer.count(&text[chunk.start..reached], &mut || false).expect("no stop") <= overlap);
            prop_assert!(tokenizer.count(&text[chunk.clone()], &mut || false).expect("no stop") <= most);
            reached = chunk.end;
        }
        prop_assert_eq!(reached, text.len());
    }

    #[test]
    fn counters_are_exact(parts in prop::collection::vec(texts(), 0..60)) {
        let mut counter = Counter::new(tokenizer());
        for part in &parts {
            counter.feed(part).expect("no error");
        }
        let whole = tokenizer().count(&parts.concat(), &mut || false).expect("no stop");
        prop_assert_eq!(counter.total().expect("no error"), whole);
    }
}
