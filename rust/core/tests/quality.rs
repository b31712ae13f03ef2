//! Checks of whole answers: what each catches, and what it leaves alone.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Value};
use sluicegate_core::quality::{check, Check, Script, Verdict, Wanted};

fn answer(message: &Value, finish: &str) -> Vec<u8> {
    json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}).to_string().into_bytes()
}

fn of(request: &Value, message: &Value, finish: &str, wanted: &Wanted) -> Verdict {
    check(request.to_string().as_bytes(), &answer(message, finish), wanted).unwrap()
}

fn failed(content: &str) -> Vec<Check> {
    of(&json!({}), &json!({"role": "assistant", "content": content}), "stop", &Wanted::default()).failed
}

#[test]
fn a_good_answer_passes() {
    let code = "Use this:\n```rust\nfn main() {}\n```\n";
    let table = format!("| a | b |\n|{}|{}|\n| 1 | 2 |", "-".repeat(400), "-".repeat(400));
    let rows: String = (0..200).map(|n| format!("| row {n} | {} |\n", n * n)).collect();
    for good in ["4", "It is 4.", code, &table, &rows, "I am sorry to hear that. Try to rest.", "日本語です。"] {
        assert_eq!(failed(good), [], "{good}");
    }
    assert_eq!(of(&json!({}), &json!({"content": "4"}), "stop", &Wanted::default()).score, 100);
}

#[test]
fn what_is_wrong_for_certain() {
    assert_eq!(failed(" \n"), [Check::Empty]);
    assert_eq!(failed("I\u{2019}m sorry, but I can\u{2019}t help with that."), [Check::Refused]);
    assert_eq!(failed("<think>hm</think>4"), [Check::ThinkTags]);
    assert_eq!(failed(&format!("So it is. {}", "and again and ".repeat(60))), [Check::Repeats]);
    assert_eq!(failed(&"はい".repeat(100)), [Check::Repeats]);
    let wanted = Wanted::default();
    assert_eq!(of(&json!({}), &json!({"content": "half"}), "length", &wanted).failed, [Check::Truncated]);
    let refused = of(&json!({}), &json!({"content": null, "refusal": "No."}), "stop", &wanted);
    assert_eq!((refused.score, refused.failed), (20, vec![Check::Refused]));
    // Several choices: the worst counts.
    let two = json!({"choices": [{"message": {"content": "4"}}, {"message": {"content": ""}}]}).to_string();
    assert_eq!(check(b"{}", two.as_bytes(), &wanted).unwrap().score, 0);
}

#[test]
fn json_and_tools() {
    let wanted = Wanted::default();
    let object = json!({"response_format": {"type": "json_object"}});
    let schema = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"required": ["city"]}}}});
    for (request, content, good) in [
        (&object, "{\"a\": 1}", true),
        (&object, "[1]", false),
        (&object, "```json\n{}\n```", false),
        (&schema, "{\"city\": null}", true),
        (&schema, "{\"town\": 1}", false),
        (&json!({}), "{", true),
    ] {
        let found = of(request, &json!({ "content": content }), "stop", &wanted).failed;
        assert_eq!(found.is_empty(), good, "{content}");
    }
    let offered = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let call = |name: &str, arguments: &str| json!({"content": null, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]});
    for (message, good) in [
        (call("f", "{\"x\": 1}"), true),
        (call("f", ""), true),
        (call("f", "{\"x\": "), false),
        (call("f", "[]"), false),
        (call("g", "{}"), false),
    ] {
        let found = of(&offered, &message, "tool_calls", &wanted).failed;
        assert_eq!(found, if good { vec![] } else { vec![Check::ToolCall] }, "{message}");
    }
}

#[test]
fn what_an_assistant_wants() {
    let message = |content: &str| json!({ "content": content });
    let script = |name: &str| Wanted { script: Script::of_name(name), ..Wanted::default() };
    assert_eq!(of(&json!({}), &message("我不知道。"), "stop", &script("latin")).failed, [Check::Script]);
    assert_eq!(of(&json!({}), &message("Grüße, 4 = 4"), "stop", &script("latin")).failed, []);
    assert_eq!(of(&json!({}), &message("Вот:\n```\nlet x = y\n```"), "stop", &script("cyrillic")).failed, []);
    assert_eq!(of(&json!({}), &message("42"), "stop", &script("korean")).failed, []);
    assert_eq!(Script::of_name("Latin"), None);
    let words = Wanted { banned: vec!["secret".into()], required: vec!["source:".into()], script: None };
    assert_eq!(of(&json!({}), &message("Source: the SECRET book"), "stop", &words).failed, [Check::Banned]);
    assert_eq!(of(&json!({}), &message("the book"), "stop", &words).failed, [Check::Required]);
}

#[test]
fn what_is_no_answer_has_no_score() {
    for odd in ["", "[]", "{}", r#"{"choices":[]}"#, r#"{"choices":[{"text":"x"}]}"#, r#"{"choices":[{"message":4}]}"#]
    {
        assert_eq!(check(b"{}", odd.as_bytes(), &Wanted::default()), None, "{odd}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_is_within_bounds(content in ".{0,400}", finish in ".{0,10}", request in ".{0,40}") {
        let found = check(request.as_bytes(), &answer(&json!({ "content": content }), &finish), &Wanted::default());
        prop_assert!(found.unwrap().score <= 100);
    }
}
