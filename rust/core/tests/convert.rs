//! Answers that came in the other shape than asked for: JSON to events, events to JSON.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use serde_json::{json, Value};
use sluicegate_core::chat::answer;
use sluicegate_core::chat::convert::{from_events, to_events};
use sluicegate_core::chat::Operation;
use sluicegate_core::error::Error;
use sluicegate_core::relay::Plan;
use sluicegate_core::sse::decode::Decoder;

fn plan(operation: Operation, hide_usage: bool) -> Plan {
    Plan {
        operation,
        public_model: None,
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

fn chat() -> Plan {
    plan(Operation::Chat, false)
}

fn aggregated(plan: &Plan, text: &[u8]) -> Value {
    serde_json::from_slice(&from_events(plan, text).expect("complete").0).expect("JSON")
}

fn chunks(events: &[u8]) -> Vec<Value> {
    let mut decoder = Decoder::new(usize::MAX);
    let mut decoded = decoder.push(events);
    let mut found = Vec::new();
    while let Ok(Some(event)) = decoded.next() {
        match event.data {
            b"[DONE]" => found.push("[DONE]".into()),
            data => found.push(serde_json::from_slice(data).expect("JSON")),
        }
    }
    assert_eq!(found.pop(), Some("[DONE]".into()), "once, and last");
    found
}

fn completion() -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 17, "model": "m", "service_tier": "default",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "né 🌍\n", "reasoning_content": "hm"},
             "logprobs": {"content": [{"token": "n", "logprob": -0.5}]}, "finish_reason": "stop", "stop_reason": 7},
            {"index": 1, "message": {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
             "logprobs": null, "finish_reason": "tool_calls"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    })
}

#[test]
fn a_whole_answer_becomes_a_stream() {
    let (events, observed) = to_events(&chat(), completion().to_string().into_bytes()).expect("valid");
    let found = chunks(&events);
    assert_eq!(observed.events, found.len() as u64);
    assert_eq!(observed.usage.and_then(|usage| usage.total), Some(3));
    assert_eq!(found.len(), 5);
    for chunk in &found {
        assert_eq!((&chunk["id"], &chunk["created"], &chunk["model"]), (&json!("chatcmpl-1"), &json!(17), &json!("m")));
        assert_eq!((&chunk["object"], &chunk["service_tier"]), (&json!("chat.completion.chunk"), &json!("default")));
    }
    assert_eq!(
        found[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "né 🌍\n", "reasoning_content": "hm"})
    );
    assert_eq!(found[0]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(found[0]["choices"][0]["stop_reason"], 7);
    assert_eq!(found[0]["usage"], Value::Null);
    assert!(found[0].as_object().expect("object").contains_key("usage"), "usage was asked for: every chunk has it");
    assert_eq!(found[1]["choices"], json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]));
    let calls = &found[2]["choices"][0]["delta"]["tool_calls"];
    assert_eq!(
        (&calls[0]["index"], &calls[1]["index"], &calls[1]["function"]["name"]),
        (&json!(0), &json!(1), &json!("g"))
    );
    assert_eq!(found[3]["choices"][0]["index"], 1);
    assert_eq!((&found[4]["choices"], &found[4]["usage"]), (&json!([]), &completion()["usage"]));
}

#[test]
fn a_stream_made_of_an_answer_hides_usage_and_renames() {
    let changed = Plan { public_model: Some("public".into()), ..plan(Operation::Chat, true) };
    let (events, observed) = to_events(&changed, completion().to_string().into_bytes()).expect("valid");
    let found = chunks(&events);
    assert_eq!(found.len(), 4);
    assert!(!String::from_utf8_lossy(&events).contains("usage"));
    assert!(found.iter().all(|chunk| chunk["model"] == "public"));
    assert_eq!(observed.model.as_deref(), Some("m"));
    assert_eq!(observed.finish_reasons.len(), 2);
}

#[test]
fn there_and_back_again() {
    for hide in [false, true] {
        let (events, _) =
            to_events(&plan(Operation::Chat, hide), completion().to_string().into_bytes()).expect("valid");
        let mut expected = completion();
        if hide {
            expected.as_object_mut().expect("object").shift_remove("usage");
        }
        assert_eq!(aggregated(&chat(), &events), expected);
    }
    let text = json!({"id": "cmpl", "object": "text_completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "text": " once", "logprobs": null, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
    let completions = plan(Operation::Completions, false);
    let (events, _) = to_events(&completions, text.to_string().into_bytes()).expect("valid");
    assert_eq!(chunks(&events).len(), 3);
    assert_eq!(aggregated(&completions, &events), text);
}

#[test]
fn answers_that_make_no_stream() {
    for (body, error) in [
        (r#"{"error":{"message":"m"}}"#, None),
        ("{}", Some(Error::InvalidAnswer)),
        (r#"{"choices":{}}"#, Some(Error::InvalidAnswer)),
        (r#"{"choices":[1]}"#, Some(Error::InvalidAnswer)),
        ("[]", Some(Error::InvalidAnswer)),
        ("<html>", Some(Error::InvalidAnswer)),
        (" ", Some(Error::Empty)),
    ] {
        let found = to_events(&chat(), body.into()).expect_err("an error");
        assert_eq!(Some(&found).filter(|found| !matches!(found, Error::InBand(_))), error.as_ref(), "{body}");
    }
    // Events that came without their content type.
    let text = include_bytes!("fixtures/openai_chat.sse");
    let (events, observed) = to_events(&chat(), text.to_vec()).expect("valid");
    assert_eq!((events.as_slice(), observed.events), (&text[..], 9));
}

#[test]
fn recorded_streams_as_whole_answers() {
    let chat_answer = aggregated(&chat(), include_bytes!("fixtures/openai_chat.sse"));
    assert_eq!(chat_answer["object"], "chat.completion");
    assert_eq!(
        (&chat_answer["service_tier"], &chat_answer["system_fingerprint"]),
        (&json!("default"), &json!("fp_cbf1785567"))
    );
    assert_eq!(
        chat_answer["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "Hello, 世界 🌍👩‍💻 \"quoted\"\n\tand \\ back مرحبا.", "refusal": null},
            "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(chat_answer["usage"]["total_tokens"], 33);

    let tools = aggregated(&chat(), include_bytes!("fixtures/openai_tools.sse"));
    assert_eq!(
        tools["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
            {"id": "call_u8Yq3", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Zürich\"}"}},
            {"id": "call_Kd02p", "type": "function", "function": {"name": "get_time", "arguments": "{\"tz\":\"CET\"}"}}]},
            "logprobs": null, "finish_reason": "tool_calls"}])
    );

    let reasoning = aggregated(&chat(), include_bytes!("fixtures/vllm_reasoning.sse"));
    let message = &reasoning["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!("Okay, the user…\n"), &json!("42 は答え"))
    );
    assert_eq!(reasoning["usage"]["completion_tokens"], 8);

    let azure = aggregated(&chat(), include_bytes!("fixtures/azure_choices.sse"));
    assert_eq!(azure["id"], "chatcmpl-azure", "the filter results in front have an empty id");
    assert!(azure["prompt_filter_results"].is_array());
    let choices = azure["choices"].as_array().expect("choices");
    let shown: Vec<_> =
        choices.iter().map(|choice| (&choice["message"]["content"], &choice["finish_reason"])).collect();
    assert_eq!(shown, [(&json!("Yes!"), &json!("stop")), (&json!("Ja doch"), &json!("length"))]);
    let logprobs = choices[1]["logprobs"]["content"].as_array().expect("logprobs");
    let tokens: Vec<_> = logprobs.iter().map(|logprob| logprob["token"].as_str().expect("text")).collect();
    assert_eq!(tokens, ["Ja", " doch"]);

    let text = aggregated(&plan(Operation::Completions, true), include_bytes!("fixtures/completions.sse"));
    assert_eq!(
        (&text["object"], &text["choices"][0]["text"]),
        (&json!("text_completion"), &json!(" once upon eine 時"))
    );
    assert_eq!(text["choices"][0]["logprobs"]["tokens"], json!([" once", " upon", " eine", " 時"]));
    assert_eq!(text["usage"]["total_tokens"], 7, "a plain answer has its usage, whatever a stream would hide");

    let odd = aggregated(&chat(), include_bytes!("fixtures/odd_framing.sse"));
    assert_eq!(odd["choices"][0]["message"]["content"], "aé字d");
}

fn stream(deltas: &[Value]) -> Vec<u8> {
    let mut text = String::new();
    for delta in deltas {
        let chunk = json!({"id": "i", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        text += &format!("data: {chunk}\n\n");
    }
    (text + "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
        .into_bytes()
}

fn calls(deltas: &[Value]) -> Value {
    let deltas: Vec<_> = deltas.iter().map(|calls| json!({"tool_calls": calls})).collect();
    aggregated(&chat(), &stream(&deltas))["choices"][0]["message"]["tool_calls"].clone()
}

#[test]
fn tool_calls_with_gaps_doubles_and_no_index() {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let gaps = calls(&[
        json!([{"index": 5, "id": "b", "function": {"name": "g", "arguments": "{"}}]),
        json!([{"index": 2, "id": "a", "function": {"name": "f", "arguments": "1"}}, {"index": 5, "function": {"arguments": "}"}}]),
        json!([{"index": 2, "id": "a", "function": {"name": "f", "arguments": "2"}}]),
    ]);
    assert_eq!(
        gaps,
        json!([
            {"id": "a", "function": {"name": "f", "arguments": "12"}, "type": "function"},
            {"id": "b", "function": {"name": "g", "arguments": "{}"}, "type": "function"},
        ])
    );
    let bare = calls(&[
        json!([call("a", "f", "1")]),
        json!([{"function": {"arguments": "2"}}]),
        json!([call("b", "g", "3")]),
        json!([{"id": "a", "function": {"arguments": "4"}}]),
    ]);
    assert_eq!(bare, json!([call("a", "f", "124"), call("b", "g", "3")]));
}

#[test]
fn other_members_of_a_delta() {
    let whole = aggregated(
        &chat(),
        &stream(&[
            json!({"role": "assistant", "content": "", "refusal": "No"}),
            json!({"role": "assistant", "refusal": ".", "annotations": [{"a": 1}]}),
            json!({"annotations": [{"b": 2}], "audio": {"id": "x"}, "content": null}),
            json!({"function_call": {"name": "f", "arguments": "{"}}),
            json!({"function_call": {"arguments": "}"}}),
        ]),
    );
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": "", "refusal": "No.", "annotations": [{"a": 1}, {"b": 2}], "audio": {"id": "x"},
            "function_call": {"name": "f", "arguments": "{}"}})
    );
}

#[test]
fn a_stream_that_is_not_complete_is_no_answer() {
    let text = include_bytes!("fixtures/openai_tools.sse");
    let enough = (0..=text.len()).find(|cut| from_events(&chat(), &text[..*cut]).is_ok()).expect("complete");
    let finish = String::from_utf8_lossy(text).find("\"finish_reason\":\"tool_calls\"").expect("a finish");
    assert!(enough > finish && enough < text.len(), "the finish reason is enough, and nothing before it");
    for cut in 0..enough {
        let error = from_events(&chat(), &text[..cut]).expect_err("cut");
        assert!(matches!(error, Error::Truncated | Error::Empty), "{cut}: {error:?}");
    }
    let first = String::from_utf8_lossy(text).split("\n\n").next().expect("an event").to_owned();
    let mid = first + "\n\ndata: {\"error\":{\"message\":\"oom\"}}\n\n";
    assert!(matches!(from_events(&chat(), mid.as_bytes()), Err(Error::InBand(_))));
}

#[test]
fn half_a_surrogate_pair_leaves_no_silent_hole() {
    let text = String::from_utf8(stream(&[json!({"content": "@"})])).expect("text").replace('@', r"\ud83d");
    assert_eq!(from_events(&chat(), text.as_bytes()), Err(Error::InvalidEvent));
}

#[test]
fn an_answer_of_events_is_renamed_and_observed() {
    let renamed = Plan { public_model: Some("public".into()), ..chat() };
    let text = include_bytes!("fixtures/crlf.sse");
    for content_type in [Some("text/event-stream"), None] {
        let (body, observed) = answer::read(&renamed, content_type, text.to_vec()).expect("complete");
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&value["model"], &value["provider"]), (&json!("public"), &json!("Novita")));
        assert_eq!(value["choices"][0]["message"]["content"], "Héllo 😀");
        assert_eq!((observed.model.as_deref(), observed.events), (Some("deepseek/deepseek-r1"), 4));
    }
}
