//! Thinking in the answers of chats: shown apart, left out, or only noticed, in streams and whole answers.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Value};
use sluicegate_core::chat::observe::Observed;
use sluicegate_core::chat::thoughts::{Output, Thinking};
use sluicegate_core::chat::{answer, Operation};
use sluicegate_core::error::Error;
use sluicegate_core::relay::{Plan, Relay, State};
use sluicegate_core::sse::decode::Decoder;

fn plan(output: Output) -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: Some("tutor".into()),
        public_id: None,
        keep: false,
        shape: None,
        logprobs: None,
        thinking: Some(Thinking { output, inside: false }),
        said: None,
        hide_usage: true,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

fn chunk(index: u32, delta: &Value, finish: &Value) -> String {
    let choices = json!([{"index": index, "delta": delta, "finish_reason": finish}]);
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": choices});
    format!("data: {chunk}\n\n")
}

fn text(piece: &str) -> String {
    chunk(0, &json!({ "content": piece }), &Value::Null)
}

fn stream(pieces: &[&str]) -> String {
    let mut all = chunk(0, &json!({"role": "assistant", "content": ""}), &Value::Null);
    all.extend(pieces.iter().map(|piece| text(piece)));
    all + &chunk(0, &json!({}), &json!("stop")) + "data: [DONE]\n\n"
}

#[derive(Debug, PartialEq)]
struct Ran {
    out: String,
    result: Result<(), Error>,
    observed: Observed,
}

fn run(plan: &Plan, input: &str) -> Ran {
    let mut relay = Relay::new(plan.clone());
    assert!(relay.enter(State::Headers) && relay.enter(State::FirstEvent));
    let mut out = Vec::new();
    let result = relay.push(input.as_bytes(), &mut out).and_then(|_| relay.end(&mut out));
    if let Err(error) = &result {
        relay.fail(error, &mut out);
    }
    Ran { out: String::from_utf8(out).unwrap(), result, observed: relay.observed().clone() }
}

fn chunks(out: &str) -> Vec<Value> {
    let mut decoder = Decoder::new(usize::MAX);
    let mut events = decoder.push(out.as_bytes());
    let mut found = Vec::new();
    while let Ok(Some(event)) = events.next() {
        if event.data != b"[DONE]" {
            found.push(serde_json::from_slice(event.data).expect("each event is JSON"));
        }
    }
    found
}

/// (thinking, content) of one choice, as a client adds them up.
fn joined(out: &str, index: u64) -> (String, String) {
    let (mut thinking, mut content) = (String::new(), String::new());
    for chunk in chunks(out) {
        for choice in chunk["choices"].as_array().into_iter().flatten().filter(|choice| choice["index"] == index) {
            thinking += choice["delta"]["reasoning_content"].as_str().unwrap_or("");
            content += choice["delta"]["content"].as_str().unwrap_or("");
            assert_eq!(choice["delta"]["reasoning"].as_str(), None, "{chunk}");
        }
    }
    (thinking, content)
}

fn pair(thinking: &str, content: &str) -> (String, String) {
    (thinking.to_owned(), content.to_owned())
}

#[test]
fn tags_become_a_field_or_nothing() {
    let input = stream(&["<thi", "nk>\n", "Let me", " see", ".</th", "ink>\n\n", "It is", " 4", "."]);
    let separate = run(&plan(Output::Separate), &input);
    assert_eq!(joined(&separate.out, 0), pair("Let me see.", "It is 4."));
    assert!(separate.out.ends_with("data: [DONE]\n\n") && separate.result.is_ok());
    assert_eq!(separate.observed.thinking_bytes, 11);
    let hide = run(&plan(Output::Hide), &input);
    assert_eq!(joined(&hide.out, 0), pair("", "It is 4."));
    assert_eq!((hide.observed.thinking_bytes, hide.observed.content_bytes), (11, separate.observed.content_bytes));
    let told: Vec<String> = chunks(&hide.out).iter().map(|chunk| chunk["choices"][0]["delta"].to_string()).collect();
    assert_eq!(
        told,
        [
            r#"{"role":"assistant","content":""}"#,
            r#"{"content":"It is"}"#,
            r#"{"content":" 4"}"#,
            r#"{"content":"."}"#,
            "{}"
        ]
    );
    for chunk in chunks(&hide.out).iter().chain(&chunks(&separate.out)) {
        assert_eq!(chunk["model"], "tutor");
    }
}

#[test]
fn watching_changes_no_byte() {
    let input = stream(&["<think>a", "b</think>", "c"]);
    let watched = run(&Plan { public_model: None, hide_usage: false, ..plan(Output::Watch) }, &input);
    assert_eq!(watched.out, input);
    assert_eq!(watched.observed.thinking_bytes, 2);
    let plain = run(&Plan { public_model: None, ..plan(Output::Watch) }, &stream(&["Hello", " you"]));
    assert_eq!((plain.out.as_str(), plain.observed.thinking_bytes), (stream(&["Hello", " you"]).as_str(), 0));
}

#[test]
fn an_answer_without_thinking_keeps_its_bytes() {
    for output in [Output::Separate, Output::Hide] {
        let input = stream(&["Hello", " <think>", " is a tag", "\n", "</b>", " é😀"]);
        let ran = run(&Plan { public_model: None, hide_usage: false, ..plan(output) }, &input);
        assert_eq!(ran.out, input, "{output:?}");
    }
}

#[test]
fn fields_of_servers_are_one_field() {
    for field in ["reasoning", "reasoning_content"] {
        let input = chunk(0, &json!({"role": "assistant", "content": ""}), &Value::Null)
            + &chunk(0, &json!({ field: "I " }), &Value::Null)
            + &chunk(0, &json!({ field: "think" }), &Value::Null)
            + &chunk(
                0,
                &json!({"role": "assistant", "content": "", field: " too", "reasoning_details": [{"text": " too"}]}),
                &Value::Null,
            )
            + &chunk(0, &json!({ field: null, "content": "4" }), &Value::Null)
            + &chunk(0, &json!({}), &json!("stop"))
            + "data: [DONE]\n\n";
        let separate = run(&plan(Output::Separate), &input);
        assert_eq!(joined(&separate.out, 0), pair("I think too", "4"), "{field}");
        assert_eq!(separate.observed.thinking_bytes, 11);
        let hide = run(&plan(Output::Hide), &input);
        assert_eq!(joined(&hide.out, 0), pair("", "4"), "{field}");
        assert!(!hide.out.contains("too"), "{}", hide.out);
        assert_eq!(chunks(&hide.out).len(), 3, "{}", hide.out);
        assert_eq!(hide.observed.thinking_bytes, 11);
    }
    // Both at once, as vLLM did while it renamed the field.
    let both = chunk(0, &json!({"reasoning": "a", "reasoning_content": "a"}), &Value::Null)
        + &chunk(0, &json!({}), &json!("stop"));
    assert_eq!(joined(&run(&plan(Output::Separate), &both).out, 0), pair("a", ""));
}

#[test]
fn each_choice_thinks_for_itself() {
    let mut input = String::new();
    for piece in ["<think>", "one", "</think>", "1"] {
        input += &chunk(0, &json!({ "content": piece }), &Value::Null);
        input += &chunk(1, &json!({ "content": if piece == "1" { "2" } else { "two " } }), &Value::Null);
    }
    input += &(chunk(0, &json!({}), &json!("stop")) + &chunk(1, &json!({}), &json!("stop")) + "data: [DONE]\n\n");
    let ran = run(&Plan { choices: 2, ..plan(Output::Separate) }, &input);
    assert_eq!(joined(&ran.out, 0), pair("one", "1"));
    assert_eq!(joined(&ran.out, 1), pair("", "two two two 2"));
}

#[test]
fn what_is_held_back_comes_with_the_finish_or_before_the_end() {
    let finished = run(&plan(Output::Hide), &stream(&["<thi"]));
    assert_eq!(joined(&finished.out, 0), pair("", "<thi"));
    let bare = text("<thi") + "data: [DONE]\n\n";
    let ran = run(&plan(Output::Hide), &bare);
    assert_eq!(joined(&ran.out, 0), pair("", "<thi"));
    assert_eq!(chunks(&ran.out)[0]["model"], "tutor");
    assert!(ran.out.ends_with("data: [DONE]\n\n"));
    let whole = run(&plan(Output::Separate), &chunk(0, &json!({"content": "<think>a</think>b"}), &json!("stop")));
    assert_eq!(joined(&whole.out, 0), pair("a", "b"));
}

#[test]
fn an_answer_cut_inside_of_a_thought_never_looks_finished() {
    for output in [Output::Separate, Output::Hide] {
        let ran = run(&plan(output), &(text("<think>I wonder") + &text(" whether </th")));
        assert_eq!(ran.result, Err(Error::Truncated));
        assert!(
            ran.out.contains(r#""error""#) && !ran.out.contains("[DONE]") && !ran.out.contains("stop"),
            "{}",
            ran.out
        );
    }
}

#[test]
fn a_template_that_opens_the_thought() {
    let inside = |output| Plan { thinking: Some(Thinking { output, inside: true }), ..plan(output) };
    let input = stream(&["I wonder", "</think>", "4"]);
    assert_eq!(joined(&run(&inside(Output::Separate), &input).out, 0), pair("I wonder", "4"));
    assert_eq!(joined(&run(&inside(Output::Hide), &input).out, 0), pair("", "4"));
    let ran = run(&inside(Output::Hide), &stream(&["Just", " 4"]));
    assert_eq!(joined(&ran.out, 0), pair("", "Just 4"));
    assert!(ran.observed.thought_missed);
    let unknown = run(&plan(Output::Hide), &stream(&["I wonder\n", "</think>", "\n\n4"]));
    assert_eq!(joined(&unknown.out, 0), pair("", "I wonder\n4"));
    assert!(unknown.observed.thought_unmatched);
}

#[test]
fn tools_and_usage_are_not_lost() {
    let call = json!([{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    let mut with_usage: Value =
        serde_json::from_str(chunk(0, &json!({"reasoning": "x"}), &Value::Null)[6..].trim()).unwrap();
    with_usage["usage"] = usage.clone();
    let input = chunk(0, &json!({"reasoning": "I call"}), &Value::Null)
        + &format!("data: {with_usage}\n\n")
        + &chunk(0, &json!({"reasoning": "it", "tool_calls": call}), &Value::Null)
        + &chunk(0, &json!({}), &json!("tool_calls"))
        + "data: [DONE]\n\n";
    let hidden = run(&plan(Output::Hide), &input);
    let told = chunks(&hidden.out);
    assert_eq!(told.len(), 2, "{}", hidden.out);
    assert_eq!(told[0]["choices"][0]["delta"], json!({ "tool_calls": call }));
    assert_eq!(hidden.observed.usage.unwrap().completion, Some(2));
    let shown = run(&Plan { hide_usage: false, ..plan(Output::Hide) }, &input);
    assert_eq!(chunks(&shown.out)[0]["usage"], usage);
}

#[test]
fn log_probabilities_do_not_tell_what_is_hidden() {
    let mut first: Value = serde_json::from_str(text("<think>secret")[6..].trim()).unwrap();
    first["choices"][0]["logprobs"] = json!({"content": [{"token": "secret"}]});
    first["choices"][0]["delta"]["role"] = json!("assistant");
    let ran = run(&plan(Output::Hide), &(format!("data: {first}\n\n") + &stream(&["</think>4"])));
    assert!(!ran.out.contains("secret"), "{}", ran.out);
    let body = json!({"choices": [{"index": 0, "logprobs": {"content": [{"token": "secret"}]}, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "<think>secret</think>4"}}]});
    let (shown, _) =
        answer::read(&plan(Output::Hide), Some("application/json"), body.to_string().into_bytes()).unwrap();
    assert!(!String::from_utf8(shown).unwrap().contains("secret"));
}

fn read(output: Output, message: &Value) -> (Value, Observed) {
    let body =
        json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "up"});
    let (shown, observed) =
        answer::read(&plan(output), Some("application/json"), body.to_string().into_bytes()).unwrap();
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["model"], "tutor");
    (shown["choices"][0]["message"].clone(), observed)
}

#[test]
fn whole_answers() {
    let tagged = json!({"role": "assistant", "content": "<think>\nhm\n</think>\n\n4", "refusal": null});
    let (separate, observed) = read(Output::Separate, &tagged);
    assert_eq!(separate, json!({"role": "assistant", "reasoning_content": "hm\n", "content": "4", "refusal": null}));
    assert_eq!(observed.thinking_bytes, 3);
    assert_eq!(read(Output::Hide, &tagged).0, json!({"role": "assistant", "content": "4", "refusal": null}));
    assert_eq!(read(Output::Watch, &tagged).0, tagged);
    // Nothing but a thought: the field stays, and is empty.
    assert_eq!(
        read(Output::Hide, &json!({"role": "assistant", "content": "<think>hm"})).0,
        json!({"role": "assistant", "content": ""})
    );
    // A template opened it: what stands before the closing tag was a thought.
    let (opened, observed) = read(Output::Separate, &json!({"role": "assistant", "content": "hm\n</think>\n4"}));
    assert_eq!(opened, json!({"role": "assistant", "reasoning_content": "hm", "content": "4"}));
    assert!(observed.thought_unmatched);
    let field = json!({"role": "assistant", "content": "4", "reasoning": "hm", "reasoning_details": [1]});
    assert_eq!(read(Output::Hide, &field).0, json!({"role": "assistant", "content": "4"}));
    assert_eq!(read(Output::Separate, &field).0["reasoning_content"], "hm");
    let plain = json!({"role": "assistant", "content": "4", "annotations": []});
    assert_eq!(read(Output::Hide, &plain).0, plain);
}

#[test]
fn halves_of_an_emoji_stay_halves() {
    let raw =
        |piece: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{piece}\"}}}}]}}\n\n");
    let input = raw("<think>a")
        + &raw(r"\ud83d")
        + &raw(r"\ude00</think>")
        + &raw(r"\ud83d")
        + &raw(r"\ude00")
        + "data: [DONE]\n\n";
    let ran = run(&Plan { public_model: None, ..plan(Output::Separate) }, &input);
    let told: Vec<&str> = ran.out.lines().filter(|line| !line.is_empty()).collect();
    assert!(told[1].contains(r#""reasoning_content":"\ud83d""#), "{told:?}");
    assert!(told[3].contains(r#""content":"\ud83d""#) && told[4].contains(r#""content":"\ude00""#), "{told:?}");
}

#[test]
fn giant_thoughts_take_no_memory() {
    let mut relay = Relay::new(plan(Output::Hide));
    assert!(relay.enter(State::Headers) && relay.enter(State::FirstEvent));
    let mut out = Vec::new();
    relay.push(text("<think>").as_bytes(), &mut out).unwrap();
    for _ in 0..20_000 {
        relay.push(text("so much to think of, and none of it is kept <").as_bytes(), &mut out).unwrap();
    }
    assert!(out.len() < 200, "{}", String::from_utf8_lossy(&out));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_cut_gives_the_same(
        pieces in prop::collection::vec(prop_oneof![
            Just("<think>"), Just("</think>"), Just("<thi"), Just("nk>"), Just("\n"), Just("`"), Just("```"), Just("so"),
            Just("[THINK]"), Just("é😀"), Just("\""), Just("\\"), Just(" "),
        ], 0..16),
        field in any::<bool>(),
    ) {
        let (whole, mut first) = (pieces.concat(), Vec::new());
        for output in [Output::Separate, Output::Hide] {
            let one = run(&plan(output), &stream(&[&whole]));
            let many = run(&plan(output), &stream(&pieces));
            let letters: Vec<String> = whole.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            let each = run(&plan(output), &stream(&letters));
            prop_assert_eq!(joined(&one.out, 0), joined(&many.out, 0));
            prop_assert_eq!(joined(&one.out, 0), joined(&each.out, 0));
            prop_assert_eq!(one.observed.thinking_bytes, each.observed.thinking_bytes);
            first.push(joined(&one.out, 0).1);
        }
        // Hidden or apart: the answer is the same.
        prop_assert_eq!(&first[0], &first[1]);
        // By its bytes, however they arrive.
        let input = stream(&pieces) + if field { "data: x" } else { "" };
        let expected = run(&plan(Output::Separate), &input);
        let mut relay = Relay::new(plan(Output::Separate));
        prop_assert!(relay.enter(State::Headers) && relay.enter(State::FirstEvent));
        let mut out = Vec::new();
        for byte in input.as_bytes() {
            relay.push(&[*byte], &mut out).unwrap();
        }
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected.out);
    }
}
