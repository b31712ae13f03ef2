//! The request scan: what it finds, what it refuses and in which words, and that nothing makes it panic.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{json, Value as Json};
use sluicegate_core::chat::scan::{scan, ScanError, Scanned, ROUTING};
use sluicegate_core::chat::Operation;

const CHAT: &str = r#""messages":[{"role":"user","content":"x"}]"#;

fn chat(more: &str) -> Result<Scanned, ScanError> {
    scan(Operation::Chat, format!("{{{more},{CHAT}}}").as_bytes())
}

/// The code and param of a refusal, after a look at its message.
fn refusal(operation: Operation, body: &[u8]) -> (&'static str, Option<String>) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    let error = scan(operation, body).expect_err(&shown);
    assert!(error.message.ends_with('.') && error.message.len() < 400, "{}", error.message);
    if let Some(param) = &error.param {
        assert!(error.message.contains(&format!("'{param}'")), "{}", error.message);
    }
    (error.code, error.param)
}

#[track_caller]
fn refused(operation: Operation, body: impl AsRef<[u8]>, code: &str, param: &str) {
    let (actual, at) = refusal(operation, body.as_ref());
    let shown = String::from_utf8_lossy(&body.as_ref()[..body.as_ref().len().min(120)]).into_owned();
    assert_eq!((actual, at.as_deref().unwrap_or("")), (code, param), "{shown}");
}

#[track_caller]
fn chat_refused(more: &str, code: &str, param: &str) {
    refused(Operation::Chat, format!("{{{more},{CHAT}}}"), code, param);
}

#[test]
fn finds_what_the_gateway_has_to_know() {
    let body = json!({
        "model": "a/b:c", "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 7, "n": 3,
        "messages": [{ "role": "system", "content": null }, { "role": "user", "content": [{ "type": "text" }] }],
    });
    let found = scan(Operation::Chat, body.to_string().as_bytes()).unwrap();
    assert_eq!(found.model.as_deref(), Some("a/b:c"));
    assert!(found.stream && found.include_usage);
    assert_eq!((found.max_tokens, found.n, found.message_count), (Some(7), 3, 2));

    let least = chat("\"x\":0").unwrap();
    assert_eq!((least.model, least.stream, least.include_usage), (None, false, false));
    assert_eq!((least.max_tokens, least.n, least.message_count), (None, 1, 1));
}

#[test]
fn null_is_the_same_as_absent() {
    let nulls = [
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "stop",
        "logprobs",
        "top_logprobs",
        "user",
        "metadata",
        "tools",
        "functions",
        "seed",
        "tool_choice",
        "response_format",
        "store",
        "parallel_tool_calls",
        "logit_bias",
    ]
    .map(|name| format!("\"{name}\":null"));
    let found = chat(&nulls.join(",")).unwrap();
    assert_eq!((found.model, found.stream, found.max_tokens, found.n), (None, false, None, 1));
    let found = chat(r#""stream":true,"stream_options":{"include_usage":null}"#).unwrap();
    assert!(!found.include_usage);
}

#[test]
fn accepts_a_real_request_with_tools_and_images() {
    let body = json!({
        "model": "gpt-4o", "temperature": 0, "top_p": 1, "presence_penalty": -2, "frequency_penalty": 2.0,
        "stop": ["a", "b"], "seed": -1, "user": "u", "metadata": { "a": "b" }, "logprobs": true, "top_logprobs": 5,
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
        "tool_choice": { "type": "function", "function": { "name": "f" } }, "parallel_tool_calls": false,
        "response_format": { "type": "json_object" }, "max_completion_tokens": 100, "n": 1,
        "messages": [
            { "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:," } }], "name": "n" },
            { "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "function": { "arguments": "{}" } }] },
            { "role": "tool", "tool_call_id": "c", "content": "NUL \u{0} and \u{1f600}" },
            { "role": "assistant", "tool_calls": null },
        ],
    });
    assert_eq!(scan(Operation::Chat, body.to_string().as_bytes()).unwrap().message_count, 4);
    // Escaped NUL and a surrogate pair are text like any other.
    assert!(chat(r#""x":"\u0000 \ud83d\ude00""#).is_ok());
}

#[test]
fn the_token_limit_has_three_names() {
    let limit = |more: &str| chat(more).unwrap().max_tokens;
    assert_eq!(limit(r#""max_tokens":1"#), Some(1));
    assert_eq!(limit(r#""max_completion_tokens":2"#), Some(2));
    assert_eq!(limit(r#""max_output_tokens":3"#), Some(3));
    assert_eq!(limit(r#""max_tokens":4,"max_completion_tokens":4.0"#), Some(4));
    assert_eq!(limit(r#""max_tokens":5,"max_completion_tokens":null"#), Some(5));
    assert_eq!(limit(r#""max_tokens":9007199254740992"#), Some(1 << 53));
    chat_refused(r#""max_tokens":4,"max_completion_tokens":5"#, "invalid_value", "max_tokens");
    chat_refused(r#""max_output_tokens":4,"max_tokens":5"#, "invalid_value", "max_output_tokens");
    let three = r#""max_output_tokens":4,"max_tokens":5,"max_completion_tokens":5"#;
    chat_refused(three, "invalid_value", "max_output_tokens");
    let echo = br#"{"prompt":"x","max_tokens":0,"echo":true,"logprobs":5}"#;
    assert_eq!(scan(Operation::Completions, echo).unwrap().max_tokens, Some(0));
}

/// C8
#[test]
fn deep_nesting_is_refused_without_recursion() {
    let deep = |depth: usize| format!(r#"{{"x":{}{},{CHAT}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(scan(Operation::Chat, deep(63).as_bytes()).is_ok());
    refused(Operation::Chat, deep(64), "json_too_deep", "");
    let begin = Instant::now();
    refused(Operation::Chat, deep(100_000), "json_too_deep", "");
    refused(Operation::Chat, "[".repeat(100_000), "json_too_deep", "");
    refused(Operation::Chat, "{\"a\":".repeat(100_000), "json_too_deep", "");
    let inside = format!("{{\"messages\":[{{\"content\":{}", "[{\"a\":".repeat(100_000));
    refused(Operation::Chat, inside, "json_too_deep", "");
    refused(Operation::Embeddings, format!("{{\"input\":{}", "[".repeat(100_000)), "json_too_deep", "");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// C9
#[test]
fn a_field_given_twice_is_refused() {
    chat_refused(r#""model":"a","model":"b""#, "duplicate_key", "model");
    chat_refused(r#""model":"a","model":"a""#, "duplicate_key", "model");
    chat_refused(r#""model":"a","mod\u0065l":"b""#, "duplicate_key", "model");
    chat_refused(r#""model":null,"\u006dodel":"b""#, "duplicate_key", "model");
    chat_refused(r#""messages":[]"#, "invalid_value", "messages");
    chat_refused(CHAT, "duplicate_key", "messages");
    chat_refused(r#""x":1,"y":2,"x":3"#, "duplicate_key", "x");
    chat_refused(
        r#""stream_options":{"include_usage":true,"include_\u0075sage":false}"#,
        "duplicate_key",
        "stream_options.include_usage",
    );
    let role = r#"{"messages":[{"role":"user","content":""},{"role":"user","rol\u0065":"system"}]}"#;
    refused(Operation::Chat, role, "duplicate_key", "messages[1].role");
    // Inside what the gateway does not read, nobody else is led astray by us.
    assert!(chat(r#""x":{"a":1,"a":2}"#).is_ok());
    // Many fields: a bound, not quadratic time.
    let begin = Instant::now();
    let many: String = (0..1_000_000).map(|i| format!("\"k{i}\":0,")).collect();
    refused(Operation::Chat, format!("{{{many}{CHAT}}}"), "invalid_value", "");
    assert!(begin.elapsed() < Duration::from_secs(10));
    let fine: Vec<String> = (0..1_000).map(|i| format!("\"k{i}\":0")).collect();
    assert!(chat(&fine.join(",")).is_ok());
    chat_refused(&format!("{},\"k999\":1", fine.join(",")), "duplicate_key", "k999");
}

/// C10
#[test]
fn text_that_is_not_text_is_refused() {
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"] {
        let body = [b"{\"x\":\"", bytes, b"\",", CHAT.as_bytes(), b"}"].concat();
        refused(Operation::Chat, body, "invalid_utf8", "");
    }
    for text in [r#""x":"\ud800""#, r#""x":"\udc00\ud800""#, r#""\ud800":1"#, r#""model":"\ud83d\u0020""#] {
        chat_refused(text, "invalid_json", "");
        assert!(chat(text).unwrap_err().message.contains("surrogate"));
    }
    let bom = format!("\u{feff}{{{CHAT}}}");
    refused(Operation::Chat, &bom, "invalid_json", "");
    assert!(scan(Operation::Chat, bom.as_bytes()).unwrap_err().message.contains("BOM"));
    // A NUL as it is, not escaped, is not JSON; UTF-16 is not UTF-8.
    chat_refused("\"x\":\"\0\"", "invalid_json", "");
    let utf16: Vec<u8> = format!("{{{CHAT}}}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(Operation::Chat, utf16, "invalid_json", "");
}

/// C11
#[test]
fn numbers_that_only_some_can_read_are_refused() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        chat_refused(&format!("\"temperature\":{word}"), "invalid_json", "");
        assert!(chat(&format!("\"x\":{word}")).unwrap_err().message.contains("NaN"));
    }
    chat_refused("\"temperature\":1e400", "invalid_value", "temperature");
    chat_refused("\"x\":[0,-1e400]", "invalid_value", "x");
    chat_refused(&format!("\"seed\":{}", "7".repeat(5_000)), "invalid_value", "seed");
    chat_refused(&format!("\"x\":{{\"y\":{}}}", "7".repeat(5_000)), "invalid_value", "x");
    chat_refused(&format!("\"x\":0.{}", "7".repeat(5_000)), "invalid_value", "x");
    // Large, but every reader can hold it: forwarded as it is.
    assert!(chat("\"x\":123456789012345678901234567890,\"y\":1e308,\"z\":-0.0").is_ok());
}

/// C12
#[test]
fn numbers_out_of_range_name_their_field() {
    for (field, values, code) in [
        ("n", &["1000000000", "0", "129", "-1", "9223372036854775808"][..], "invalid_value"),
        ("n", &["1.5", "\"1\"", "true", "[]", "{}"], "invalid_type"),
        ("max_tokens", &["-1", "0", "9223372036854775808", "9007199254740993", "1e300"], "invalid_value"),
        ("max_tokens", &["1.5", "\"5\"", "false", "[5]"], "invalid_type"),
        ("max_completion_tokens", &["-1", "0", "9223372036854775808"], "invalid_value"),
        ("max_completion_tokens", &["1.5", "\"5\""], "invalid_type"),
        ("temperature", &["1e308", "-0.1", "2.0001", "-1e308"], "invalid_value"),
        ("temperature", &["\"1\"", "true", "[]"], "invalid_type"),
        ("top_p", &["1.1", "-1"], "invalid_value"),
        ("presence_penalty", &["2.1", "-2.1"], "invalid_value"),
        ("frequency_penalty", &["3"], "invalid_value"),
        ("seed", &["9223372036854775808", "-9223372036854775809"], "invalid_value"),
        ("seed", &["0.5", "\"1\""], "invalid_type"),
        ("logprobs", &["0.5", "\"1\"", "[]"], "invalid_type"),
    ] {
        for value in values {
            chat_refused(&format!("\"{field}\":{value}"), code, field);
        }
    }
    let message = |more: &str| chat(more).unwrap_err().message;
    assert_eq!(message("\"temperature\":1e308"), "'temperature' must be a number between 0 and 2, not 1e308.");
    assert_eq!(message("\"n\":1.5"), "'n' must be an integer between 1 and 128, not 1.5.");
    assert!(chat("\"temperature\":2,\"top_p\":0.0,\"n\":128,\"seed\":-9223372036854775808").is_ok());
}

/// C12: floods
#[test]
fn floods_are_refused_as_they_are_counted() {
    let many = |item: &str, count: usize| vec![item; count].join(",");
    let begin = Instant::now();
    chat_refused(&format!("\"stop\":[{}]", many("\"a\"", 1_000_000)), "invalid_value", "stop");
    chat_refused(&format!("\"tools\":[{}]", many("{}", 1_000_000)), "invalid_value", "tools");
    let messages = format!("{{\"messages\":[{}]}}", many(r#"{"role":"user"}"#, 1_000_000));
    refused(Operation::Chat, messages, "invalid_value", "messages");
    assert!(begin.elapsed() < Duration::from_secs(10));
    // The exact bounds.
    for (field, item, most) in [("stop", "\"a\"", 1_024), ("tools", "{}", 10_000), ("functions", "{}", 10_000)] {
        assert!(chat(&format!("\"{field}\":[{}]", many(item, most))).is_ok());
        chat_refused(&format!("\"{field}\":[{}]", many(item, most + 1)), "invalid_value", field);
    }
    let messages = |count| format!("{{\"messages\":[{}]}}", many(r#"{"role":"user"}"#, count));
    assert_eq!(scan(Operation::Chat, messages(100_000).as_bytes()).unwrap().message_count, 100_000);
    refused(Operation::Chat, messages(100_001), "invalid_value", "messages");
}

/// C13
#[test]
fn wrong_types_name_their_field() {
    for value in ["1", "\"x\"", "true", "[]", "[1]", "{}", "{\"a\":1}"] {
        let kind = &value[..1];
        for (field, fine) in [
            ("model", "\""),
            ("stream", "t"),
            ("stream_options", "{"),
            ("temperature", "1"),
            ("top_p", "1"),
            ("presence_penalty", "1"),
            ("frequency_penalty", "1"),
            ("n", "1"),
            ("max_tokens", "1"),
            ("seed", "1"),
            ("max_completion_tokens", "1"),
            ("max_output_tokens", "1"),
            ("user", "\""),
            ("metadata", "{"),
            ("logit_bias", "{"),
            ("logprobs", "t1"),
            ("top_logprobs", "1"),
            ("tool_choice", "\"{"),
            ("function_call", "\"{"),
            ("response_format", "{"),
            ("parallel_tool_calls", "t"),
            ("store", "t"),
            ("reasoning_effort", "\""),
            ("service_tier", "\""),
            ("prediction", "{"),
        ] {
            if fine.contains(kind) {
                assert!(chat(&format!("\"{field}\":{value}")).is_ok(), "{field} {value}");
            } else {
                chat_refused(&format!("\"{field}\":{value}"), "invalid_type", field);
            }
        }
        for field in ["tools", "functions", "stop", "messages", "prompt", "input"] {
            let (operation, required) = match field {
                "prompt" => (Operation::Completions, true),
                "input" => (Operation::Embeddings, true),
                _ => (Operation::Chat, field == "messages"),
            };
            let rest = if required { String::new() } else { format!(",{CHAT}") };
            let body = format!("{{\"{field}\":{value}{rest}}}");
            let text = ["stop", "prompt", "input"].contains(&field);
            let (code, param) = match (kind, value) {
                ("\"", _) if text => continue,
                ("[", "[]") if required => ("invalid_value", field.to_owned()),
                ("[", "[]") => continue,
                ("[", _) if ["prompt", "input"].contains(&field) => continue, // token ids
                ("[", _) => ("invalid_type", format!("{field}[0]")),
                _ => ("invalid_type", field.to_owned()),
            };
            refused(operation, body, code, &param);
        }
    }
    chat_refused(r#""stream_options":{"include_usage":1}"#, "invalid_type", "stream_options.include_usage");
    chat_refused(r#""stop":["a",null]"#, "invalid_type", "stop[1]");
}

/// C13
#[test]
fn messages_are_checked_one_by_one() {
    let messages = |items: &str, code: &str, param: &str| {
        refused(Operation::Chat, format!("{{\"messages\":[{items}]}}"), code, param);
    };
    let fine = r#"{"role":"user","content":""}"#;
    messages("", "invalid_value", "messages");
    messages("null", "invalid_type", "messages[0]");
    messages(&format!("{fine},\"x\""), "invalid_type", "messages[1]");
    messages(&format!("{fine},{{}}"), "missing_required_parameter", "messages[1].role");
    messages(r#"{"content":"x"}"#, "missing_required_parameter", "messages[0].role");
    messages(r#"{"role":null}"#, "invalid_type", "messages[0].role");
    messages(r#"{"role":1}"#, "invalid_type", "messages[0].role");
    messages(&format!("{fine},{fine},{fine},{{\"role\":[]}}"), "invalid_type", "messages[3].role");
    messages(r#"{"role":"user","content":1}"#, "invalid_type", "messages[0].content");
    messages(r#"{"role":"user","content":{}}"#, "invalid_type", "messages[0].content");
    messages(r#"{"role":"user","content":[{},"x"]}"#, "invalid_type", "messages[0].content[1]");
    messages(r#"{"role":"user","tool_calls":"x"}"#, "invalid_type", "messages[0].tool_calls");
    messages(r#"{"role":"user","tool_calls":[1]}"#, "invalid_type", "messages[0].tool_calls[0]");
    messages(r#"{"role":"user","tool_call_id":1}"#, "invalid_type", "messages[0].tool_call_id");
    messages(r#"{"role":"user","name":false}"#, "invalid_type", "messages[0].name");
}

/// C13
#[test]
fn required_fields_are_required() {
    for (operation, field) in
        [(Operation::Chat, "messages"), (Operation::Completions, "prompt"), (Operation::Embeddings, "input")]
    {
        for body in ["{}".to_owned(), "{\"model\":\"m\"}".to_owned(), format!("{{\"{field}\":null}}")] {
            refused(operation, body, "missing_required_parameter", field);
        }
        for body in ["[]", "null", "1", "\"x\"", "true"] {
            refused(operation, body, "invalid_type", "");
        }
        for body in ["", " ", "x", "{", "{\"", "{}}", "{} x", "<html>"] {
            refused(operation, body, "invalid_json", "");
        }
    }
}

#[test]
fn prompts_and_inputs_have_four_shapes() {
    for (operation, field) in [(Operation::Completions, "prompt"), (Operation::Embeddings, "input")] {
        let body = |value: &str| format!("{{\"{field}\":{value}}}");
        for value in ["\"x\"", "[\"x\",\"y\"]", "[1,2,3]", "[[1,2],[3]]", "[\"\"]"] {
            assert!(scan(operation, body(value).as_bytes()).is_ok(), "{field} {value}");
        }
        for (value, code, place) in [
            ("[\"x\",1]", "invalid_type", "[1]"),
            ("[1,\"x\"]", "invalid_type", "[1]"),
            ("[null]", "invalid_type", "[0]"),
            ("[true]", "invalid_type", "[0]"),
            ("[1.5]", "invalid_type", "[0]"),
            ("[-1]", "invalid_value", "[0]"),
            ("[[]]", "invalid_value", "[0]"),
            ("[[1],[\"x\"]]", "invalid_type", "[1][0]"),
            ("[[1,null]]", "invalid_type", "[0][1]"),
            ("[[[1]]]", "invalid_type", "[0][0]"),
            ("[]", "invalid_value", ""),
        ] {
            refused(operation, body(value), code, &format!("{field}{place}"));
        }
    }
    assert!(scan(Operation::Completions, b"{\"prompt\":\"\"}").is_ok());
    refused(Operation::Embeddings, "{\"input\":\"\"}", "invalid_value", "input");
    // Images, as some servers take them: embeddings only.
    assert!(scan(Operation::Embeddings, br#"{"input":[{"image":"x"},{"text":"y"}]}"#).is_ok());
    refused(Operation::Completions, r#"{"prompt":[{}]}"#, "invalid_type", "prompt[0]");
    // Embeddings do not stream: what is unknown there is forwarded and means nothing to us.
    let found = scan(Operation::Embeddings, br#"{"input":"x","stream":true,"n":5,"max_tokens":"x"}"#).unwrap();
    assert_eq!((found.stream, found.n, found.max_tokens), (false, 1, None));
    refused(Operation::Embeddings, r#"{"input":"x","dimensions":0}"#, "invalid_value", "dimensions");
    refused(Operation::Completions, r#"{"prompt":"x","best_of":1000}"#, "invalid_value", "best_of");
}

#[test]
fn a_model_is_a_short_line_of_text() {
    let model = |value: &str| chat(&format!("\"model\":{value}"));
    let name = |count: usize| format!("\"{}\"", "é".repeat(count));
    assert_eq!(model(&name(256)).unwrap().model.unwrap().len(), 512);
    assert_eq!(model(&format!("\"{}\"", "\\u0061".repeat(512))).unwrap().model.unwrap(), "a".repeat(512));
    for value in [
        name(257),
        format!("\"{}\"", "\\u0061".repeat(513)),
        format!("\"{}\"", "a".repeat(10_000_000)),
        "\"\"".to_owned(),
        r#""a\r\nx-evil: 1""#.to_owned(),
        r#""a\u0000""#.to_owned(),
        r#""a\u0085b""#.to_owned(),
        "\"a\u{7f}\"".to_owned(),
    ] {
        chat_refused(&format!("\"model\":{value}"), "invalid_value", "model");
    }
}

/// C14
#[test]
fn unknown_fields_pass_and_routing_ones_do_not() {
    assert!(chat(r#""top_k":5,"chat_template_kwargs":{"enable_thinking":false},"x-ÿ":[null],"":0"#).is_ok());
    for name in ROUTING {
        chat_refused(&format!("\"{name}\":\"http://10.0.0.1\""), "invalid_value", name);
        refused(Operation::Embeddings, format!("{{\"input\":\"x\",\"{name}\":null}}"), "invalid_value", name);
        assert!(chat(&format!("\"metadata\":{{\"{name}\":1}}")).is_ok());
    }
    chat_refused(r#""api\u005fbase":"x""#, "invalid_value", "api_base");
}

#[test]
fn what_a_client_wrote_is_repeated_only_in_part() {
    let key = "k".repeat(1_000_000);
    let error = chat(&format!("\"{key}\":1,\"{key}\":2")).unwrap_err();
    assert!(error.message.len() < 300 && error.param.unwrap().len() < 100);
    let error = chat(&format!("\"{key}\":1e999")).unwrap_err();
    assert!(error.message.len() < 300 && error.param.unwrap().len() < 100);
    let error = chat(&format!("\"n\":0.{}", "3".repeat(390))).unwrap_err();
    assert!(error.message.len() < 300, "{}", error.message);
}

#[test]
fn every_prefix_is_refused() {
    let body = format!(
        r#"{{"model":"m\u00e9","stream":true,"stream_options":{{"include_usage":false}},"stop":["a"],"n":1,
        "temperature":0.5,"x":[{{"a":null}},-1.5e3],"max_tokens":5,{CHAT}}}"#
    );
    assert!(scan(Operation::Chat, body.as_bytes()).is_ok());
    for end in 0..body.len() {
        assert!(scan(Operation::Chat, &body.as_bytes()[..end]).is_err(), "{}", &body[..end]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a good body: no panic, and what is accepted serde_json reads in the same way.
    #[test]
    fn what_is_accepted_is_read_alike(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
        operation in prop::sample::select(vec![Operation::Chat, Operation::Completions, Operation::Embeddings]),
    ) {
        let mut body = format!(
            r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":true}},"n":2,"max_tokens":12,
            "prompt":"p","input":["a"],"temperature":0.5,{CHAT}}}"#
        ).into_bytes();
        for (place, byte, change) in changes {
            let at = place.index(body.len());
            match change {
                0 => body[at] = byte,
                1 => body[at] = b"{}[]:,\"\\0-9e.u tfn"[usize::from(byte) % 18],
                2 => body.insert(at, b"{}[]:,\"\\0-9e.u tfn"[usize::from(byte) % 18]),
                _ => { body.remove(at); }
            }
        }
        let Ok(found) = scan(operation, &body) else { return Ok(()) };
        let value: Json = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(found.model.as_deref(), value["model"].as_str());
        if operation == Operation::Embeddings { return Ok(()) }
        prop_assert_eq!(found.stream, value["stream"].as_bool().unwrap_or(false));
        let asked = value["stream_options"]["include_usage"].as_bool().unwrap_or(false);
        prop_assert_eq!(found.include_usage, asked);
        prop_assert_eq!(found.max_tokens.map(|limit| limit as f64), value["max_tokens"].as_f64());
        prop_assert_eq!(found.n as f64, value["n"].as_f64().unwrap_or(1.0));
        if operation == Operation::Chat {
            prop_assert_eq!(found.message_count, value["messages"].as_array().unwrap().len());
        }
    }
}

/// `cargo test --release -p sluicegate-core --test scan -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn speed() {
    let prose = "The quick brown fox jumps over the lazy dog; 12 \"quoted\" words,\nand a second line. ";
    let turn = |text: &str| json!({ "role": "user", "content": text });
    let chat = |messages: Vec<Json>| {
        json!({ "model": "gpt-4o-mini", "messages": messages, "temperature": 0.7, "stream": true,
            "max_tokens": 256, "tools": [{ "type": "function", "function": { "name": "f" } }] })
    };
    let plain = prose.replace(['"', '\n'], " ");
    for (name, body) in [
        ("1 KB, 4 messages", chat(vec![turn(&prose.repeat(2)); 4])),
        ("1 KB, pretty", chat(vec![turn(&prose.repeat(2)); 3])),
        ("100 KB, 40 messages", chat(vec![turn(&prose.repeat(30)); 40])),
        ("100 KB, one plain text", chat(vec![turn(&plain.repeat(1_200))])),
        ("100 KB, 1,500 messages", chat(vec![turn("Yes, go on."); 1_900])),
    ] {
        let text = if name.ends_with("pretty") { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) };
        let text = text.unwrap();
        // The best of many short rounds: a busy machine only ever adds time.
        let repeats = 2_000_000 / text.len();
        let round = |_| {
            let begin = Instant::now();
            for _ in 0..repeats {
                std::hint::black_box(scan(Operation::Chat, std::hint::black_box(&text)).unwrap());
            }
            begin.elapsed().as_secs_f64() / repeats as f64
        };
        let each = (0..100).map(round).fold(f64::MAX, f64::min);
        println!("{name}: {} bytes, {:.2} µs, {:.0} MB/s", text.len(), each * 1e6, text.len() as f64 / each / 1e6);
    }
}
