//! The chunk reader against serde_json's reading of the same bytes, and the message that chunks add up to.
#![allow(clippy::expect_used)] // in the helpers of tests, too

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{json, Value};
use sluicegate_core::chat::{
    chunks::Chunks,
    delta::{Call, Choice, Chunk, Delta, Part, Reader, Whole},
    joined::Joined,
    observe::Usage,
};

/// The same as a chunk read in full.
fn whole(chunk: Chunk<'_>) -> Whole {
    match chunk {
        Chunk::Nothing => Whole::default(),
        Chunk::Whole(whole) => whole,
        Chunk::Text { choice, part, text } => {
            let mut delta = Delta::default();
            match part {
                Part::Content => delta.content = text.to_owned(),
                Part::Thinking => delta.thinking = text.to_owned(),
                Part::Refusal => delta.refusal = text.to_owned(),
                Part::Arguments(index) => {
                    delta.calls = vec![Call { index, arguments: text.to_owned(), ..Call::default() }];
                }
            }
            Whole { choices: vec![Choice { index: choice, delta, ..Choice::default() }], ..Whole::default() }
        }
    }
}

fn oracle(data: &str) -> Whole {
    let value: Value = serde_json::from_str(data).expect("valid");
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let word = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let empty = Vec::new();
    let choices = value["choices"].as_array().unwrap_or(&empty).iter().enumerate().map(|(at, choice)| {
        let delta = &choice["delta"];
        let calls = delta["tool_calls"].as_array().unwrap_or(&empty).iter().map(|call| Call {
            index: call["index"].as_u64(),
            id: word(&call["id"]),
            name: word(&call["function"]["name"]),
            arguments: string(&call["function"]["arguments"]),
        });
        let thinking = Some(string(&delta["reasoning_content"])).filter(|text| !text.is_empty());
        Choice {
            index: choice["index"].as_u64().unwrap_or(at as u64),
            finish: word(&choice["finish_reason"]),
            delta: Delta {
                content: string(&delta["content"]),
                thinking: thinking.unwrap_or_else(|| string(&delta["reasoning"])),
                refusal: string(&delta["refusal"]),
                calls: calls.collect(),
            },
            logprobs: String::new(),
        }
    });
    let usage = value["usage"].as_object().map(|usage| Usage {
        prompt: usage["prompt_tokens"].as_u64(),
        completion: usage["completion_tokens"].as_u64(),
        total: usage["total_tokens"].as_u64(),
        ..Usage::default()
    });
    Whole { choices: choices.collect(), usage, error: false }
}

/// Escapes as some servers send them: everything outside ASCII, and slashes.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    for c in json.chars() {
        match c {
            '/' => out.push_str("\\/"),
            c if c.is_ascii() => out.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec![" the", "", "\"", "\\", "\n", "😀", "你好", "\"},\"finish_reason\":null", "a/b", "\u{7f}\u{1}"])
            .prop_map(str::to_owned),
        2 => any::<String>(),
    ]
}

fn maybe(texts: impl Strategy<Value = String>) -> impl Strategy<Value = Value> {
    option::weighted(0.7, texts).prop_map(|text| text.map_or(Value::Null, Value::String))
}

fn calls() -> impl Strategy<Value = Value> {
    let call = (option::of(0u64..3), maybe(texts()), maybe(texts()), maybe(texts()), any::<bool>());
    let call = call.prop_map(|(index, id, name, arguments, named)| {
        let mut call = json!({"function": {"arguments": arguments}});
        if let Some(index) = index {
            call["index"] = json!(index);
        }
        if named {
            call["id"] = id;
            call["function"]["name"] = name;
        }
        call
    });
    vec(call, 0..3).prop_map(Value::Array)
}

fn deltas() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        6 => maybe(texts()).prop_map(|text| ("content", text)),
        2 => maybe(texts()).prop_map(|text| ("reasoning_content", text)),
        1 => maybe(texts()).prop_map(|text| ("reasoning", text)),
        1 => maybe(texts()).prop_map(|text| ("refusal", text)),
        2 => calls().prop_map(|calls| ("tool_calls", calls)),
        1 => select(vec![json!(1.5), json!({"a": [1, "\""]}), json!("x"), Value::Null]).prop_map(|other| ("other", other)),
    ];
    vec(field, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn choice() -> impl Strategy<Value = Value> {
    (option::weighted(0.9, 0u64..2), deltas(), maybe(texts()), 0u8..8).prop_map(|(index, delta, finish, n)| {
        let mut choice = json!({"delta": delta, "finish_reason": if n == 0 { finish } else { Value::Null }});
        if let Some(index) = index {
            choice["index"] = json!(index);
        }
        choice
    })
}

fn chunks() -> impl Strategy<Value = String> {
    let choices = prop_oneof![8 => vec(choice(), 1..2), 1 => vec(choice(), 0..3)];
    (choices, 0u8..12, 0u64..99, any::<bool>()).prop_map(|(choices, kind, tokens, ascii)| {
        let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices});
        match kind {
            0 => {
                let total = tokens + 7;
                chunk["usage"] = json!({"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": total});
            }
            1..=3 => chunk["usage"] = Value::Null,
            _ => {}
        }
        let text = chunk.to_string();
        if ascii {
            escaped(&text)
        } else {
            text
        }
    })
}

/// Runs of chunks that differ in one string, as real streams have them, and other ones between.
fn streams() -> impl Strategy<Value = Vec<String>> {
    let run = (chunks(), vec(texts(), 0..6), any::<bool>()).prop_map(|(first, texts, ascii)| {
        let value: Value = serde_json::from_str(&first).expect("valid");
        let later = texts.into_iter().map(move |text| {
            let mut chunk = value.clone();
            for path in ["/choices/0/delta/content", "/choices/0/delta/tool_calls/0/function/arguments"] {
                if let Some(place) = chunk.pointer_mut(path) {
                    *place = Value::String(text);
                    break;
                }
            }
            let text = chunk.to_string();
            if ascii {
                escaped(&text)
            } else {
                text
            }
        });
        std::iter::once(first).chain(later).collect::<Vec<_>>()
    });
    vec(run, 1..5).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn reads_what_serde_json_reads(stream in streams()) {
        let mut reader = Reader::default();
        for data in &stream {
            prop_assert_eq!(whole(reader.read(data.as_bytes()).expect("valid")), oracle(data), "{}", data);
        }
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_the_template(
        stream in streams(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut reader = Reader::default();
        for data in &stream {
            let mut bytes = data.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            reader.read(data.as_bytes()).expect("valid");
            let read = reader.read(&bytes).map(whole);
            let fresh = Reader::default().read(&bytes).map(whole);
            prop_assert_eq!(read, fresh, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_message_is_the_sum_of_its_chunks(stream in streams(), cuts in vec(any::<prop::sample::Index>(), 0..20)) {
        let bytes: Vec<u8> = stream.iter().flat_map(|data| format!("data: {data}\n\n").into_bytes()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut chunks, mut found) = (Chunks::default(), Vec::new());
        for window in cuts.windows(2) {
            let read = &bytes[window[0]..window[1]];
            chunks.push(read, |chunk| { found.push(whole(chunk)); Ok::<(), ()>(()) }).expect("no error");
        }
        let expected: Vec<Whole> = stream.iter().map(|data| oracle(data)).collect();
        prop_assert_eq!(&found, &expected);
        let first = || expected.iter().flat_map(|whole| &whole.choices).filter(|choice| choice.index == 0);
        let content: String = first().map(|choice| choice.delta.content.as_str()).collect();
        prop_assert_eq!(&chunks.joined().message.content, &content);
        let finish = first().filter_map(|choice| choice.finish.clone()).next_back();
        prop_assert_eq!(&chunks.joined().finish, &finish);
    }
}

fn content(text: &str) -> String {
    format!(r#"{{"id":"a","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#)
}

#[test]
fn after_one_chunk_only_the_text_is_read() {
    let mut reader = Reader::default();
    assert!(matches!(reader.read(content("one").as_bytes()), Ok(Chunk::Whole(_))));
    for text in ["two", "", r"a\nb", "你好", r"\ud83d\ude00"] {
        assert!(matches!(reader.read(content(text).as_bytes()), Ok(Chunk::Text { part: Part::Content, .. })), "{text}");
    }
    // Any other byte outside the text is read in full.
    let other = content("three").replace(r#""id":"a""#, r#""id":"b""#);
    assert!(matches!(reader.read(other.as_bytes()), Ok(Chunk::Whole(_))));
    assert!(matches!(reader.read(content("four").as_bytes()), Ok(Chunk::Whole(_))));
}

#[test]
fn what_is_not_json_is_an_error_and_changes_nothing() {
    let mut reader = Reader::default();
    reader.read(content("one").as_bytes()).expect("valid");
    for bad in [content("\n"), content("\\x"), content("a").replace("]}", "]"), "x".to_owned()] {
        assert!(reader.read(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(reader.read(b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}").is_err());
    assert!(matches!(reader.read(content("two").as_bytes()), Ok(Chunk::Text { text: "two", .. })));
}

#[test]
fn the_marker_and_silence_say_nothing() {
    let mut reader = Reader::default();
    for nothing in ["[DONE]", " [DONE] ", "", " "] {
        assert_eq!(reader.read(nothing.as_bytes()), Ok(Chunk::Nothing), "{nothing:?}");
    }
}

#[test]
fn an_error_object_is_told_apart() {
    for error in [r#"{"error":{"message":"no"}}"#, r#"{"object":"error","message":"no"}"#, r#"{"error":"no"}"#] {
        let read = Reader::default().read(error.as_bytes()).map(whole).expect("valid");
        assert!(read.error, "{error}");
    }
    assert!(!Reader::default().read(br#"{"error":null,"choices":[]}"#).map(whole).expect("valid").error);
}

/// The content of a stream whose deltas are these, as they are written in JSON.
fn joined(deltas: &[&str]) -> (Vec<String>, String) {
    let (mut reader, mut joined, mut each) = (Reader::default(), Joined::default(), Vec::new());
    for delta in deltas {
        let data = content(delta);
        let chunk = reader.read(data.as_bytes()).expect("valid");
        joined.add(&chunk);
        each.push(whole(chunk).choices[0].delta.content.clone());
    }
    (each, joined.message.content)
}

#[test]
fn an_emoji_in_two_chunks_is_one() {
    let (each, all) = joined(&["a", r"b\ud83d", r"\ude00c", "d"]);
    assert_eq!(each, ["a", "b", "😀c", "d"]);
    assert_eq!(all, "ab😀cd");
}

#[test]
fn a_half_that_stands_alone_is_replaced() {
    assert_eq!(joined(&[r"\ude00x", "y"]).1, "\u{fffd}xy");
    assert_eq!(joined(&["a", r"x\ud83d", "y", "z"]).1, "ax\u{fffd}yz");
    assert_eq!(joined(&[r"\ud83d\ud83d", r"\ude00"]).1, "\u{fffd}😀");
    // A backslash, then letters that look like a half.
    assert_eq!(joined(&[r"\\ud83d", r"\ude00"]).1, "\\ud83d\u{fffd}");
}

fn call(index: Option<u64>, id: Option<&str>, name: Option<&str>, arguments: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {"tool_calls": [
        {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    ]}}]})
    .to_string()
}

fn calls_of(stream: &[String]) -> Vec<(Option<String>, Option<String>, String)> {
    let (mut reader, mut joined) = (Reader::default(), Joined::default());
    for data in stream {
        joined.add(&reader.read(data.as_bytes()).expect("valid"));
    }
    joined.message.calls.into_iter().map(|call| (call.id, call.name, call.arguments)).collect()
}

#[test]
fn fragments_of_calls_are_joined_by_index() {
    let stream = [
        call(Some(0), Some("c1"), Some("add"), ""),
        call(Some(0), None, None, "{\"a\":"),
        call(Some(1), Some("c2"), Some("mul"), "{}"),
        call(Some(0), None, None, "1"),
        call(Some(0), None, None, "}"),
    ];
    let found = calls_of(&stream);
    assert_eq!(found[0], (Some("c1".into()), Some("add".into()), "{\"a\":1}".into()));
    assert_eq!(found[1], (Some("c2".into()), Some("mul".into()), "{}".into()));
}

#[test]
fn servers_without_indexes_make_calls_too() {
    for index in [None, Some(0)] {
        let stream = [call(index, Some("c1"), Some("add"), "{}"), call(index, Some("c2"), Some("add"), "{}")];
        assert_eq!(calls_of(&stream).len(), 2, "{index:?}");
    }
    let unnamed =
        [call(None, None, Some("add"), "{"), call(None, None, None, "}"), call(None, None, Some("mul"), "{}")];
    let found = calls_of(&unnamed);
    assert_eq!(found.iter().map(|call| call.2.as_str()).collect::<Vec<_>>(), ["{}", "{}"]);
    // The id again in each fragment: still one call.
    let repeated = [call(Some(0), Some("c1"), Some("add"), "{"), call(Some(0), Some("c1"), None, "}")];
    assert_eq!(calls_of(&repeated), [(Some("c1".into()), Some("add".into()), "{}".into())]);
}

#[test]
fn calls_without_end_are_bounded() {
    let stream: Vec<String> = (0..3000).map(|n| call(Some(n), Some("c"), Some("f"), "")).collect();
    assert_eq!(calls_of(&stream).len(), 1024);
}
