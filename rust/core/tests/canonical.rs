//! Messages that mean the same have one digest, others have others, and a body takes what came before at one place.
#![allow(clippy::unwrap_used)] // clippy.toml allows it only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Value};
use sluicegate_core::chat::{
    canonical::{chain, field, inject, message, messages, without_thoughts, Message},
    scan::scan,
    Operation,
};

fn digest(value: &Value) -> [u8; 16] {
    message(value.to_string().as_bytes()).unwrap().digest
}

fn body(messages: Value) -> Vec<u8> {
    json!({"model": "m", "messages": messages, "x": {"a": [1, 2]}}).to_string().into_bytes()
}

fn read(body: &[u8]) -> Vec<Message> {
    messages(body, &scan(Operation::Chat, body).unwrap()).unwrap()
}

#[test]
fn what_clients_write_differently_has_one_digest() {
    let call = |arguments: &str| json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]});
    let same = [
        vec![
            json!({"role": "user", "content": "hi"}),
            json!({"content": " hi\n", "role": "user"}),
            json!({"role": "user", "content": [{"type": "text", "text": "hi"}]}),
            json!({"role": "user", "content": [{"text": "hi", "type": "text", "cache_control": {}}, {"type": "text", "text": " "}]}),
            json!({"role": "user", "content": "hi", "name": "ada"}),
        ],
        vec![
            json!({"role": "assistant", "content": "yes"}),
            json!({"role": "assistant", "content": "yes", "refusal": null, "annotations": [], "reasoning_content": "hm"}),
            json!({"role": "assistant", "content": "<think>hm\n</think>\n\nyes"}),
            json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]}),
        ],
        vec![
            call(r#"{"a": 1, "b": [true]}"#),
            call(r#"{"b":[true],"a":1}"#),
            json!({"role": "assistant", "content": "", "tool_calls": [{"index": 0, "function": {"arguments": "{\"a\":1,\"b\":[true]}", "name": "f"}, "id": "c"}]}),
        ],
        vec![call(""), call("{}"), call(" { } ")],
        vec![
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]}),
            json!({"role": "user", "content": [{"image_url": {"detail": "low", "url": "u"}, "type": "image_url"}]}),
        ],
        vec![
            json!({"role": "assistant", "audio": {"id": "a", "data": "xx", "transcript": "t"}}),
            json!({"role": "assistant", "audio": {"id": "a"}}),
        ],
    ];
    let mut all = Vec::new();
    for group in &same {
        let digests: Vec<_> = group.iter().map(digest).collect();
        assert!(digests.iter().all(|one| one == &digests[0]), "{group:?}");
        all.push(digests[0]);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), same.len());
}

#[test]
fn what_differs_has_other_digests() {
    let different = [
        json!({"role": "user", "content": "a"}),
        json!({"role": "assistant", "content": "a"}),
        json!({"role": "user", "content": "b"}),
        json!({"role": "user", "content": "A"}),
        json!({"role": "user", "content": "a b"}),
        json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
        json!({"role": "user", "content": ""}),
        json!({"role": "user", "content": "<think>x</think>a"}),
        json!({"role": "tool", "content": "a", "tool_call_id": "1"}),
        json!({"role": "tool", "content": "a", "tool_call_id": "2"}),
        json!({"role": "assistant", "refusal": "a"}),
        json!({"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
        json!({"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "function": {"name": "g", "arguments": "{}"}}]}),
        json!({"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[]"}}]}),
        json!({"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": "{}"}}),
        json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}),
        json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "b"}}]}),
    ];
    let mut digests: Vec<_> = different.iter().map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), different.len());
}

#[test]
fn calls_and_results_are_told() {
    let found = read(&body(json!([
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {}}, {"id": "b\u{e9}", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ])));
    assert_eq!((&found[0].calls[..], found[0].answers.as_deref()), (&["a".to_owned(), "bé".to_owned()][..], None));
    assert_eq!((found[1].calls.len(), found[1].answers.as_deref()), (0, Some("a")));
}

#[test]
fn what_came_before_stands_behind_the_system_messages() {
    let original = body(json!([
        {"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, {"role": "user", "content": "new"}
    ]));
    let before: [&[u8]; 2] = [br#"{"role":"user","content":"old"}"#, br#"{"role":"assistant","content":"yes"}"#];
    let changed = inject(&original, &read(&original), &before).unwrap();
    let roles: Vec<String> = read(&changed).into_iter().map(|message| message.role).collect();
    assert_eq!(roles, ["system", "developer", "user", "assistant", "user"]);
    let (was, is): (Value, Value) =
        (serde_json::from_slice(&original).unwrap(), serde_json::from_slice(&changed).unwrap());
    assert_eq!((&is["x"], &is["model"], &is["messages"][4]), (&was["x"], &was["model"], &was["messages"][2]));
    let only_system = body(json!([{"role": "system", "content": "s"}]));
    assert_eq!(inject(&only_system, &read(&only_system), &before), None);
}

#[test]
fn fields_are_found_however_they_are_written() {
    let body = br#"{"us\u0065r": "ada" , "messages":[{"role":"user","content":"x"}]}"#;
    let scanned = scan(Operation::Chat, body).unwrap();
    assert_eq!(field(body, &scanned, "user").map(|at| &body[at]), Some(&br#""ada""#[..]));
    assert_eq!(field(body, &scanned, "metadata"), None);
}

#[test]
fn thoughts_are_only_those_in_front() {
    for (text, said) in [
        ("<think>a</think>b", "b"),
        (" \n<think>a</think>\n b ", "b "),
        ("<think></think>", ""),
        ("<think>a", "<think>a"),
        ("b <think>a</think>", "b <think>a</think>"),
        ("", ""),
    ] {
        assert_eq!(without_thoughts(text), said);
    }
}

proptest! {
    #[test]
    fn any_body_that_is_accepted_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,40}") {
        if let Ok(scanned) = scan(Operation::Chat, &bytes) {
            prop_assert!(messages(&bytes, &scanned).is_ok());
        }
        let made = body(json!([{"role": "user", "content": text}, {"role": "assistant", "content": [{"type": text, "text": text}]}]));
        let found = read(&made);
        prop_assert_eq!(found.len(), 2);
        for one in &found {
            // Where it says that it lies, the same message lies.
            prop_assert_eq!(message(&made[one.at.clone()]).unwrap().digest, one.digest);
        }
    }

    #[test]
    fn chains_grow_by_one(digests in prop::collection::vec(any::<[u8; 16]>(), 1..20), cut in 0usize..20) {
        let all: Vec<&[u8]> = digests.iter().map(|one| &one[..]).collect();
        let whole = chain(b"root", all.iter().copied());
        prop_assert_eq!(whole.len(), digests.len());
        let cut = cut.min(all.len() - 1);
        let first = chain(b"root", all[..cut].iter().copied());
        let previous = first.last().map_or(&b"root"[..], |last| &last[..]);
        let rest = chain(previous, all[cut..].iter().copied());
        prop_assert_eq!([first, rest].concat(), whole);
    }
}
