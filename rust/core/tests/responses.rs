//! Chunks of a chat as the events of a response: any split gives the same events, and a cut never looks complete.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use serde_json::{json, Value};
use sluicegate_core::chat::Operation;
use sluicegate_core::relay::{Plan, Relay};
use sluicegate_core::responses::{self, Closing, Shape};
use sluicegate_core::Error;
use std::sync::Arc;

const HEAD: &str = r#"{"id":"resp_1","object":"response","model":"public""#;

const STREAMS: [(&str, &[u8]); 5] = [
    ("openai", include_bytes!("fixtures/openai_chat.sse")),
    ("tools", include_bytes!("fixtures/openai_tools.sse")),
    ("reasoning", include_bytes!("fixtures/vllm_reasoning.sse")),
    ("ollama", include_bytes!("fixtures/ollama.sse")),
    ("odd framing", include_bytes!("fixtures/odd_framing.sse")),
];

fn plan(summary: bool) -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: None,
        public_id: None,
        keep: false,
        shape: Some(Arc::new(Shape { id: "resp_1".into(), head: HEAD.into(), summary, logprobs: false })),
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage: true,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

struct Ran {
    events: Vec<u8>,
    closing: Option<Closing>,
    error: Option<Error>,
}

impl Ran {
    /// All events with the closing one, each checked for its name and its number.
    fn all(&self) -> Vec<Value> {
        let mut text = String::from_utf8(self.events.clone()).unwrap();
        if let Some(closing) = &self.closing {
            text.push_str(std::str::from_utf8(&closing.event).unwrap());
        }
        let events: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) = event.split_once('\n').unwrap();
                let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
                data
            })
            .collect();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        events
    }

    fn kinds(&self) -> Vec<String> {
        self.all().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    fn response(&self) -> Value {
        serde_json::from_slice(&self.closing.as_ref().unwrap().response).unwrap()
    }
}

fn run<'a>(plan: Plan, reads: impl IntoIterator<Item = &'a [u8]>) -> Ran {
    let (mut relay, mut events) = (Relay::new(plan), Vec::new());
    let mut result = Ok(());
    for read in reads {
        match relay.push(read, &mut events) {
            Ok(progress) if progress.finished => break,
            Ok(_) => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if let Err(error) = result.and_then(|()| relay.end(&mut events)) {
        relay.fail(&error, &mut events);
        return Ran { events, closing: relay.take_closing(), error: Some(error) };
    }
    Ran { events, closing: relay.take_closing(), error: None }
}

fn chunk(delta: Value, finish: Value) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
}

fn run_chunks(chunks: &[String], summary: bool) -> Ran {
    let text = chunks.concat() + "data: [DONE]\n\n";
    run(plan(summary), [text.as_bytes()])
}

/// Every delta adds up to the text of its item, and every item that began is over, in the order of the output.
fn check_sequence(ran: &Ran) {
    let events = ran.all();
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[1]["type"], "response.in_progress");
    let output = ran.response()["output"].as_array().unwrap().clone();
    for (place, item) in output.iter().enumerate() {
        let of_item =
            |kind: &str| events.iter().filter(|e| e["type"] == kind && e["output_index"] == place).collect::<Vec<_>>();
        assert_eq!(of_item("response.output_item.added").len(), 1);
        let done = of_item("response.output_item.done");
        assert_eq!((done.len(), &done[0]["item"]), (1, item));
        let (delta, whole) = match item["type"].as_str().unwrap() {
            "function_call" => ("response.function_call_arguments.delta", item["arguments"].clone()),
            "reasoning" if item["summary"][0].is_object() => {
                ("response.reasoning_summary_text.delta", item["summary"][0]["text"].clone())
            }
            "reasoning" => ("response.reasoning_text.delta", item["content"][0]["text"].clone()),
            _ => ("response.output_text.delta", item["content"][0]["text"].clone()),
        };
        let joined: String = of_item(delta).iter().map(|e| e["delta"].as_str().unwrap()).collect();
        assert_eq!(Value::String(joined), whole);
    }
}

#[test]
fn a_recorded_stream_becomes_a_response_that_adds_up() {
    for (name, stream) in STREAMS {
        for summary in [false, true] {
            let ran = run(plan(summary), [stream]);
            assert_eq!(ran.error, None, "{name}");
            check_sequence(&ran);
            assert_eq!(ran.response()["status"], "completed", "{name}");
            assert_eq!(ran.kinds().last().unwrap(), "response.completed");
            assert!(!String::from_utf8_lossy(&ran.events).contains("[DONE]"));
        }
    }
}

#[test]
fn any_split_gives_the_same_events() {
    for (name, stream) in STREAMS {
        let whole = run(plan(false), [stream]);
        for at in 0..=stream.len() {
            let split = run(plan(false), [&stream[..at], &stream[at..]]);
            assert_eq!(split.events, whole.events, "{name} at {at}");
            assert_eq!(split.closing, whole.closing, "{name} at {at}");
        }
        let bytes = run(plan(false), stream.chunks(1));
        assert_eq!((bytes.events, bytes.closing), (whole.events, whole.closing), "{name}");
    }
}

#[test]
fn a_cut_never_looks_complete() {
    for (name, stream) in STREAMS {
        let whole = run(plan(false), [stream]);
        for at in 0..stream.len() {
            let cut = run(plan(false), [&stream[..at]]);
            let kinds = cut.kinds();
            if cut.error.is_none() {
                // Only the marker was missing: everything else of the answer is there.
                assert_eq!(cut.response()["output"], whole.response()["output"], "{name} at {at}");
                continue;
            }
            assert!(!kinds.contains(&"response.completed".to_owned()), "{name} at {at}");
            assert_eq!(kinds.last().unwrap(), "response.failed");
            let response = cut.response();
            assert_eq!(response["status"], "failed");
            assert!(response["error"]["code"].is_string() && response["error"]["message"].is_string());
            let finished = |item: &Value| item["status"] == "completed";
            let before = whole.response()["output"].as_array().unwrap().len();
            assert!(response["output"].as_array().unwrap().iter().filter(|i| finished(i)).count() < before.max(1));
        }
    }
}

#[test]
fn a_response_has_its_head_its_usage_and_its_items() {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}});
    let chunks = [
        chunk(json!({"role": "assistant", "reasoning_content": "Let me"}), Value::Null),
        chunk(json!({"reasoning_content": " think."}), Value::Null),
        chunk(json!({"content": "Hi \u{1f600}"}), Value::Null),
        chunk(json!({"content": "\n\"quoted\""}), Value::Null),
        chunk(json!({}), json!("stop")),
        format!("data: {}\n\n", json!({"choices": [], "usage": usage})),
    ];
    let ran = run_chunks(&chunks, false);
    check_sequence(&ran);
    let response = ran.response();
    assert_eq!((&response["id"], &response["model"]), (&json!("resp_1"), &json!("public")));
    assert_eq!(
        response["output"],
        json!([
            {"id": "rs_1000", "type": "reasoning", "summary": [], "encrypted_content": null, "status": "completed",
             "content": [{"type": "reasoning_text", "text": "Let me think."}]},
            {"id": "msg_1001", "type": "message", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi \u{1f600}\n\"quoted\""}]},
        ])
    );
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 12})
    );
    assert_eq!(
        ran.kinds(),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
}

#[test]
fn calls_whose_fragments_come_by_turns_keep_their_arguments() {
    let call = |index: u64, id: Value, name: Value, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        chunk(json!({"tool_calls": [{"index": index, "id": id, "function": function}]}), Value::Null)
    };
    let chunks = [
        chunk(json!({"content": "I look."}), Value::Null),
        call(0, json!("call_a"), json!("first"), "{\"x\""),
        call(1, json!("call_b"), json!("second"), ""),
        call(0, Value::Null, Value::Null, ":1}"),
        call(1, Value::Null, Value::Null, "{}"),
        chunk(json!({}), json!("tool_calls")),
    ];
    let ran = run_chunks(&chunks, false);
    check_sequence(&ran);
    let output = ran.response()["output"].clone();
    assert_eq!(output[1]["call_id"], "call_a");
    assert_eq!(output[1]["arguments"], "{\"x\":1}");
    assert_eq!((&output[2]["name"], &output[2]["arguments"]), (&json!("second"), &json!("{}")));
}

#[test]
fn calls_without_an_index_an_id_or_an_early_name_are_calls_all_the_same() {
    let raw = |call: Value| chunk(json!({"tool_calls": [call]}), Value::Null);
    let chunks = [
        raw(json!({"function": {"name": "one", "arguments": "{}"}})),
        raw(json!({"function": {"name": "two", "arguments": "{"}})),
        raw(json!({"function": {"arguments": "}"}})),
        raw(json!({"index": 9, "id": "late", "function": {"arguments": "{\"a\""}})),
        raw(json!({"index": 9, "function": {"name": "three", "arguments": ":2}"}})),
    ];
    let ran = run_chunks(&chunks, false);
    check_sequence(&ran);
    let output = ran.response()["output"].clone();
    let shown: Vec<_> =
        output.as_array().unwrap().iter().map(|i| (i["name"].clone(), i["arguments"].clone())).collect();
    assert_eq!(shown, [(json!("one"), json!("{}")), (json!("two"), json!("{}")), (json!("three"), json!("{\"a\":2}"))]);
    assert!(output[0]["call_id"].as_str().is_some_and(|id| !id.is_empty()));
}

#[test]
fn log_probabilities_are_shown_beside_their_text_where_they_were_asked_for() {
    let entry = |token: &str| json!({"token": token, "logprob": -0.5, "top_logprobs": [{"token": "x", "logprob": -1}]});
    let data = |text: &str, entries: Vec<Value>| {
        let choice = json!({"index": 0, "delta": {"content": text}, "logprobs": {"content": entries, "refusal": null}});
        format!("data: {}\n\n", json!({"choices": [choice]}))
    };
    let thought = json!({"index": 0, "delta": {"reasoning": "t"}, "logprobs": {"content": [entry("t")]}});
    let chunks = [
        format!("data: {}\n\n", json!({"choices": [thought]})),
        data("a", vec![entry("a")]),
        // The same token again, then one that is half a character, and what completes it.
        data("a", vec![entry("a")]),
        data("", vec![entry("?")]),
        data("é", vec![json!({"token": "é", "logprob": 0, "bytes": [195, 169]}), json!("odd")]),
        chunk(json!({}), json!("stop")),
    ];
    let text = chunks.concat() + "data: [DONE]\n\n";
    let shape = Shape { id: "resp_1".into(), head: HEAD.into(), summary: false, logprobs: true };
    let asked = Plan { shape: Some(Arc::new(shape)), ..plan(false) };
    for size in [1, 7, text.len()] {
        let ran = run(asked.clone(), text.as_bytes().chunks(size));
        let events = ran.all();
        let deltas: Vec<_> = events.iter().filter(|e| e["type"] == "response.output_text.delta").collect();
        let tokens = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|e| e["token"].as_str().unwrap().to_owned()).collect()
        };
        let shown: Vec<_> = deltas.iter().map(|e| tokens(&e["logprobs"])).collect();
        assert_eq!(shown, [vec!["a"], vec!["a"], vec!["?", "é"]]);
        let part = &ran.response()["output"][1]["content"][0];
        assert_eq!((part["text"].as_str(), tokens(&part["logprobs"]).len()), (Some("aaé"), 4));
        assert_eq!(part["logprobs"][0]["bytes"], json!([97]));
        assert_eq!(part["logprobs"][0]["top_logprobs"][0]["bytes"], json!([120]));
        assert_eq!(part["logprobs"][3]["top_logprobs"], json!([]));
        let done = events.iter().find(|e| e["type"] == "response.output_text.done").unwrap();
        assert_eq!(done["logprobs"], part["logprobs"]);
    }
    let ran = run(plan(false), [text.as_bytes()]);
    assert_eq!(ran.response()["output"][1]["content"][0]["logprobs"], json!([]));
}

#[test]
fn what_ran_out_or_was_filtered_is_incomplete() {
    for (finish, reason) in [("length", "max_output_tokens"), ("content_filter", "content_filter")] {
        let ran = run_chunks(&[chunk(json!({"content": "Half"}), Value::Null), chunk(json!({}), json!(finish))], false);
        let response = ran.response();
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"], json!({"reason": reason}));
        assert_eq!(response["output"][0]["status"], "incomplete");
        assert_eq!(ran.kinds().last().unwrap(), "response.incomplete");
    }
}

#[test]
fn a_refusal_is_a_part_of_its_own() {
    let chunks = [chunk(json!({"refusal": "I can"}), Value::Null), chunk(json!({"refusal": "not."}), json!("stop"))];
    let ran = run_chunks(&chunks, false);
    assert_eq!(ran.response()["output"][0]["content"], json!([{"type": "refusal", "refusal": "I cannot."}]));
    assert!(ran.kinds().contains(&"response.refusal.done".to_owned()));
}

#[test]
fn an_error_in_the_stream_fails_the_response_with_its_own_words() {
    let error =
        r#"data: {"error":{"message":"Too many.","type":"requests","code":"rate_limit_exceeded","param":null}}"#;
    let text = chunk(json!({"content": "Half"}), Value::Null) + error + "\n\n";
    let ran = run(plan(false), [text.as_bytes()]);
    let shown = ran.response();
    assert_eq!(shown["error"], json!({"code": "rate_limit_exceeded", "message": "Too many."}));
    assert_eq!(shown["output"][0]["status"], "incomplete");
}

#[test]
fn a_client_that_is_gone_is_told_nothing_and_what_came_is_kept() {
    let (mut relay, mut out) = (Relay::new(plan(false)), Vec::new());
    relay.push(chunk(json!({"content": "Half"}), Value::Null).as_bytes(), &mut out).unwrap();
    relay.fail(&Error::Cancelled, &mut out);
    let closing = relay.take_closing().unwrap();
    assert!(closing.event.is_empty());
    let response: Value = serde_json::from_slice(&closing.response).unwrap();
    assert_eq!(
        (&response["status"], &response["output"][0]["content"][0]["text"]),
        (&json!("cancelled"), &json!("Half"))
    );
}

#[test]
fn a_whole_answer_is_the_response_that_its_stream_would_be() {
    let message = json!({"role": "assistant", "content": "Hi", "reasoning_content": "Hm",
        "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let body = json!({"id": "x", "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let (_, closing, observed) = responses::whole(&plan(false), None, body.to_string().into_bytes()).unwrap();
    let response: Value = serde_json::from_slice(&closing.response).unwrap();
    let types: Vec<_> = response["output"].as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
    assert_eq!(types, [json!("reasoning"), json!("message"), json!("function_call")]);
    assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&json!("completed"), &json!(3)));
    assert_eq!(observed.usage.unwrap().prompt, Some(1));
    let failed = responses::whole(&plan(false), None, b"{\"error\":{\"message\":\"no\"}}".to_vec());
    assert!(matches!(failed, Err(Error::InBand(_))));
}

#[test]
fn a_kept_chat_has_its_public_id_and_is_the_answer_put_together() {
    let keep = Plan { shape: None, keep: true, public_id: Some("chatcmpl-ours".into()), ..plan(false) };
    for (name, stream) in STREAMS {
        for size in [1, 7, stream.len()] {
            let ran = run(keep.clone(), stream.chunks(size));
            assert_eq!(ran.error, None, "{name}");
            let whole = ran.response();
            assert_eq!(whole["object"], "chat.completion");
            assert_eq!(whole["id"], "chatcmpl-ours", "{name}");
            if name == "odd framing" {
                continue; // its data stands in several lines
            }
            let text = String::from_utf8(ran.events).unwrap();
            let chunks = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
            for chunk in chunks {
                let chunk: Value = serde_json::from_str(chunk).unwrap();
                assert!(chunk["id"].is_null() || chunk["id"] == "chatcmpl-ours", "{name}");
            }
        }
    }
}

fn native(summary: bool) -> Plan {
    Plan { operation: Operation::Responses, ..plan(summary) }
}

fn native_stream(end: &str) -> String {
    let response = |status: &str, usage: Value| {
        json!({"id": "resp_theirs", "object": "response", "model": "m", "status": status, "output": [], "usage": usage,
            "kept": {"as": "it is"}})
    };
    let usage = json!({"input_tokens": 7, "output_tokens": 5, "total_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 2}});
    let events = [
        json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress", Value::Null)}),
        json!({"type": "response.output_text.delta", "sequence_number": 1, "delta": "Hi", "obfuscation": "x"}),
        json!({"type": end, "sequence_number": 2, "response": response("completed", usage)}),
    ];
    events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap())).collect()
}

#[test]
fn a_native_response_passes_but_for_what_is_ours() {
    let text = native_stream("response.completed");
    let whole = run(native(false), [text.as_bytes()]);
    let events = whole.all();
    assert_eq!(events.len(), 3);
    for place in [0, 2] {
        let response = &events[place]["response"];
        assert_eq!((&response["id"], &response["model"]), (&json!("resp_1"), &json!("public")));
        assert_eq!(response["kept"], json!({"as": "it is"}));
    }
    let delta = text.split_inclusive("\n\n").nth(1).unwrap();
    assert!(String::from_utf8_lossy(&whole.events).contains(delta), "bytes of other events do not change");
    assert_eq!(whole.response()["usage"]["total_tokens"], 12);
    for at in 0..=text.len() {
        let split = run(native(false), [&text.as_bytes()[..at], &text.as_bytes()[at..]]);
        assert_eq!((split.events, split.closing), (whole.events.clone(), whole.closing.clone()), "{at}");
    }
}

#[test]
fn a_native_response_that_is_cut_never_looks_complete() {
    let text = native_stream("response.completed");
    for at in 0..text.len() - 2 {
        let cut = run(native(false), [&text.as_bytes()[..at]]);
        assert!(cut.error.is_some(), "{at}");
        assert_eq!(cut.kinds().last().unwrap(), "response.failed", "{at}");
        assert!(!cut.kinds().contains(&"response.completed".to_owned()), "{at}");
        assert_eq!(cut.response()["id"], "resp_1");
    }
    let incomplete = run(native(false), [native_stream("response.incomplete").as_bytes()]);
    assert_eq!(incomplete.kinds().last().unwrap(), "response.incomplete");
    let error = run(
        native(false),
        [b"event: error\ndata: {\"type\":\"error\",\"message\":\"no\",\"code\":\"x\"}\n\n".as_slice()],
    );
    assert!(matches!(error.error, Some(Error::InBand(_))));
}

#[test]
fn a_whole_native_response_is_ours_by_its_id() {
    let body = json!({"id": "theirs", "model": "m", "status": "completed", "error": null, "output": [],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}});
    let (_, closing, observed) = responses::whole(&native(false), None, body.to_string().into_bytes()).unwrap();
    let response: Value = serde_json::from_slice(&closing.response).unwrap();
    assert_eq!((&response["id"], &response["model"]), (&json!("resp_1"), &json!("public")));
    assert_eq!(observed.usage.unwrap().total, Some(3));
    let other = responses::whole(&native(false), None, b"{\"choices\":[]}".to_vec());
    assert!(matches!(other, Err(Error::InvalidAnswer)));
}
