//! The relay on recorded streams: every split, every cut, every error, every rewrite.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::Value;
use sluicegate_core::chat::observe::{Observed, Usage};
use sluicegate_core::chat::Operation;
use sluicegate_core::error::Error;
use sluicegate_core::relay::{Plan, Progress, Relay, State};
use sluicegate_core::sse::decode::Decoder;

const RECORDED: [(&str, &[u8]); 9] = [
    ("openai_chat", include_bytes!("fixtures/openai_chat.sse")),
    ("openai_tools", include_bytes!("fixtures/openai_tools.sse")),
    ("vllm_reasoning", include_bytes!("fixtures/vllm_reasoning.sse")),
    ("ollama", include_bytes!("fixtures/ollama.sse")),
    ("crlf", include_bytes!("fixtures/crlf.sse")),
    ("azure_choices", include_bytes!("fixtures/azure_choices.sse")),
    ("completions", include_bytes!("fixtures/completions.sse")),
    ("mistral_no_done", include_bytes!("fixtures/mistral_no_done.sse")),
    ("odd_framing", include_bytes!("fixtures/odd_framing.sse")),
];

fn recorded(name: &str) -> &'static [u8] {
    RECORDED.iter().find(|(known, _)| *known == name).expect("a fixture").1
}

fn plan() -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: None,
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage: false,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

fn plan_of(name: &str) -> Plan {
    let operation = if name == "completions" { Operation::Completions } else { Operation::Chat };
    Plan { operation, ..plan() }
}

/// No change, and all changes.
fn plans_of(name: &str) -> [Plan; 2] {
    [plan_of(name), Plan { public_model: Some("team/assistant \"é\"".into()), hide_usage: true, ..plan_of(name) }]
}

#[derive(Clone, PartialEq)]
struct Ran {
    out: Vec<u8>,
    result: Result<(), Error>,
    state: State,
    observed: Observed,
    events: u32,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = String::from_utf8_lossy(&self.out);
        write!(f, "{:?} {:?} {} {:?} {out:?}", self.result, self.state, self.events, self.observed)
    }
}

fn run<'a>(plan: &Plan, reads: impl IntoIterator<Item = &'a [u8]>) -> Ran {
    let mut relay = Relay::new(plan.clone());
    assert!(relay.enter(State::Headers) && relay.enter(State::FirstEvent));
    let (mut out, mut events) = (Vec::new(), 0);
    let mut result = Ok(());
    for read in reads {
        match relay.push(read, &mut out) {
            Ok(progress) => {
                events += progress.events;
                assert_eq!(progress.finished, relay.state() == State::Finished);
            }
            Err(error) => {
                // What came before it in the same read is observed, and not reported.
                events = relay.observed().events as u32;
                result = Err(error);
                break;
            }
        }
    }
    let result = result.and_then(|()| relay.end(&mut out));
    assert_eq!(relay.observed().sent, out.len() as u64);
    Ran { out, result, state: relay.state(), observed: relay.observed().clone(), events }
}

fn run_text(plan: &Plan, text: &str) -> Ran {
    run(plan, [text.as_bytes()])
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// A chunk of choice 0 with this delta and this finish reason, as JSON.
fn chunk(delta: &str, finish: &str) -> String {
    format!(r#"{{"id":"c","model":"up","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#)
}

fn text_chunk(text: &str) -> String {
    event(&chunk(&format!(r#"{{"content":"{text}"}}"#), "null"))
}

fn end() -> String {
    event(&chunk("{}", r#""stop""#)) + "data: [DONE]\n\n"
}

fn data_of(out: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new(usize::MAX);
    let mut events = decoder.push(out);
    let mut found = Vec::new();
    while let Ok(Some(event)) = events.next() {
        found.push(String::from_utf8(event.data.to_vec()).expect("UTF-8"));
    }
    assert_eq!(decoder.pending(), 0, "only whole events leave");
    found
}

fn chunks_of(out: &[u8]) -> Vec<Value> {
    data_of(out).iter().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

/// What a client puts together from the chunks: role, content, tool arguments, finish reasons.
fn shown(out: &[u8]) -> Vec<String> {
    chunks_of(out).iter().map(|chunk| chunk["choices"].to_string()).collect()
}

#[test]
fn nothing_to_change_changes_no_byte() {
    for (name, text) in RECORDED {
        let ran = run(&plan_of(name), [text]);
        assert_eq!((ran.result, ran.state), (Ok(()), State::Finished), "{name}");
        let text = std::str::from_utf8(text).expect("UTF-8");
        let expected = match name {
            "crlf" => text.replace(": OPENROUTER PROCESSING\r\n\r\n", ""),
            "mistral_no_done" => text.to_owned() + "data: [DONE]\n\n",
            "odd_framing" => text.replacen("\u{feff}retry: 3000\r\r", "", 1).replace(":c\n", ""),
            _ => text.to_owned(),
        };
        assert_eq!(String::from_utf8(ran.out).expect("UTF-8"), expected, "{name}");
    }
}

#[test]
fn every_split_gives_the_same_output() {
    for (name, text) in RECORDED {
        for plan in plans_of(name) {
            let whole = run(&plan, [text]);
            assert_eq!(whole.result, Ok(()), "{name}");
            for size in [1, 2, 3, 7, 64] {
                assert_eq!(run(&plan, text.chunks(size)), whole, "{name} in reads of {size}");
            }
            for first in 0..=text.len() {
                assert_eq!(run(&plan, [&text[..first], &text[first..]]), whole, "{name} split at {first}");
                // A pair of splits around the same place: a read of one to four bytes.
                for second in first + 1..=(first + 4).min(text.len()) {
                    let reads = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(run(&plan, reads), whole, "{name} split at {first} and {second}");
                }
            }
        }
    }
}

#[test]
fn every_pair_of_splits_gives_the_same_output() {
    let text = format!(": c\r\n{}\u{feff}\r{}{}", text_chunk("né 🌍"), text_chunk("日").replace('\n', "\r\n"), end());
    let text = text.as_bytes();
    for plan in plans_of("") {
        let whole = run(&plan, [text]);
        assert_eq!(whole.result, Ok(()));
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let reads = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(run(&plan, reads), whole, "{first}, {second}");
            }
        }
    }
}

/// Where the last finish reason of a recorded stream is complete: its event's end.
fn finished_at(name: &str, text: &[u8]) -> usize {
    (0..=text.len()).find(|cut| run(&plan_of(name), [&text[..*cut]]).state == State::Finished).expect("it finishes")
}

#[test]
fn a_cut_at_any_byte_is_never_finished_before_the_last_finish_reason() {
    for (name, text) in RECORDED {
        let enough = finished_at(name, text);
        let before = std::str::from_utf8(&text[..enough]).expect("a whole event");
        let last = before.rfind("\"finish_reason\"").expect("a finish reason");
        let reason = &before[last + 16..];
        assert!(["\"stop\"", "\"tool_calls\"", "\"length\""].iter().any(|r| reason.contains(r)), "{name}: {reason}");
        for plan in plans_of(name) {
            let whole = run(&plan, [text]);
            for cut in 0..text.len() {
                let ran = run(&plan, [&text[..cut]]);
                if cut < enough {
                    let cause = ran.result.expect_err("not complete");
                    assert!(matches!(cause, Error::Truncated | Error::Empty), "{name} at {cut}: {cause:?}");
                    assert_eq!(ran.state, State::Failed, "{name} at {cut}");
                    assert!(!ran.out.windows(6).any(|part| part == b"[DONE]"), "{name} at {cut}");
                    assert!(whole.out.starts_with(&ran.out), "{name} at {cut}");
                } else {
                    assert_eq!((ran.result, ran.state), (Ok(()), State::Finished), "{name} at {cut}");
                    assert!(ran.out.ends_with(b"data: [DONE]\n\n") || ran.out == whole.out, "{name} at {cut}");
                }
                assert_eq!(ran.out.windows(6).filter(|part| part == b"[DONE]").count(), usize::from(cut >= enough));
            }
        }
    }
}

#[test]
fn a_cut_delivers_all_whole_events() {
    for (name, text) in RECORDED {
        let whole = run(&plan_of(name), [text]);
        for cut in 0..text.len() {
            let (mut complete, mut decoder) = (0, Decoder::new(usize::MAX));
            let mut events = decoder.push(&text[..cut]);
            while let Ok(Some(event)) = events.next() {
                complete += u64::from(event.data != b"[DONE]");
            }
            let ran = run(&plan_of(name), [&text[..cut]]);
            assert_eq!(ran.observed.events, complete, "{name} at {cut}");
            let delivered = shown(&ran.out);
            assert_eq!(delivered, shown(&whole.out)[..delivered.len()], "{name} at {cut}");
            assert_eq!(delivered.len() as u64, complete, "{name} at {cut}");
        }
    }
}

#[test]
fn observed_in_recorded_streams() {
    let usage = |prompt, completion, cached, reasoning| {
        Some(Usage {
            prompt: Some(prompt),
            completion: Some(completion),
            total: Some(prompt + completion),
            cached,
            reasoning,
        })
    };
    for (name, model, events, expected, reasons, content) in [
        (
            "openai_chat",
            "gpt-4o-2024-08-06",
            9,
            usage(19, 14, Some(8), Some(0)),
            vec!["stop"],
            "Hello, 世界 🌍👩‍💻 \"quoted\"\n\tand \\ back مرحبا.",
        ),
        ("openai_tools", "gpt-4o-2024-08-06", 10, None, vec!["tool_calls"], r#"{"city":"Zürich"}{"tz":"CET"}"#),
        ("vllm_reasoning", "Qwen/Qwen3-8B", 10, usage(24, 8, None, None), vec!["stop"], "Okay, the user…\n42 は答え"),
        ("ollama", "llama3.2:1b", 7, usage(27, 6, None, None), vec!["stop"], "Use <b> & 漢字!"),
        ("crlf", "deepseek/deepseek-r1", 4, None, vec!["stop"], "Héllo 😀"),
        ("azure_choices", "gpt-4o-mini", 9, None, vec!["stop", "length"], "Yes!Ja doch"),
        ("completions", "Qwen/Qwen3-8B", 6, usage(3, 4, None, None), vec!["length"], " once upon eine 時"),
        ("mistral_no_done", "mistral-small-latest", 4, usage(5, 3, None, None), vec!["stop"], "Bonjour"),
        ("odd_framing", "m", 5, None, vec!["stop"], "aé字d"),
    ] {
        for plan in plans_of(name) {
            let ran = run(&plan, [recorded(name)]);
            let observed = ran.observed;
            assert_eq!(observed.model.as_deref(), Some(model), "{name}");
            assert_eq!((observed.events, u64::from(ran.events)), (events, events), "{name}");
            assert_eq!((observed.usage, observed.usage_suspect), (expected, false), "{name}");
            let found: Vec<_> = observed.finish_reasons.iter().flatten().map(String::as_str).collect();
            assert_eq!(found, reasons, "{name}");
            assert_eq!(observed.content_bytes, content.len() as u64, "{name}");
            assert_eq!(observed.bytes, recorded(name).len() as u64, "{name}");
        }
    }
}

#[test]
fn usage_not_asked_leaves_no_trace_and_asked_leaves_all() {
    for (name, text) in RECORDED {
        let hidden = run(&Plan { hide_usage: true, ..plan_of(name) }, [text]);
        let asked = run(&plan_of(name), [text]);
        let mut expected = chunks_of(&asked.out);
        expected.retain(|chunk| !(chunk["usage"].is_object() && chunk["choices"] == Value::Array(vec![])));
        for chunk in &mut expected {
            chunk.as_object_mut().expect("object").shift_remove("usage");
        }
        assert_eq!(chunks_of(&hidden.out), expected, "{name}");
        assert!(!String::from_utf8_lossy(&hidden.out).contains("usage"), "{name}");
        // Less is sent, and all else that is known of it is the same.
        assert!(hidden.observed.sent <= asked.observed.sent, "{name}");
        let mut observed = hidden.observed;
        observed.sent = asked.observed.sent;
        assert_eq!(observed, asked.observed, "{name}");
        assert_eq!(data_of(&hidden.out).last().map(String::as_str), Some("[DONE]"), "{name}");
    }
    // Azure's first chunk has no choices either, and is no usage.
    assert!(String::from_utf8_lossy(&run(&plans_of("")[1], [recorded("azure_choices")]).out)
        .contains("prompt_filter_results"));
}

#[test]
fn the_public_model_replaces_each_model_and_nothing_else() {
    let public = "team/assistant \"é\"";
    for (name, text) in RECORDED {
        let ran = run(&Plan { public_model: Some(public.into()), ..plan_of(name) }, [text]);
        let mut expected = chunks_of(&run(&plan_of(name), [text]).out);
        for chunk in &mut expected {
            chunk["model"] = public.into();
        }
        assert_eq!(chunks_of(&ran.out), expected, "{name}");
    }
}

#[test]
fn usage_members_go_with_their_comma() {
    for (data, expected) in [
        (r#"{"usage":null,"a":1,"choices":[{}]}"#, r#"{"a":1,"choices":[{}]}"#),
        (r#"{"a":1,"usage":null,"choices":[{}]}"#, r#"{"a":1,"choices":[{}]}"#),
        (r#"{"a":1,"choices":[{}],"usage":null}"#, r#"{"a":1,"choices":[{}]}"#),
        (r#"{ "usage" : null , "choices" : [{}] }"#, r#"{ "choices" : [{}] }"#),
        (r#"{ "choices" : [{}] , "usage" : {"x":1} }"#, r#"{ "choices" : [{}]  }"#),
        (r#"{"choices":[{}],"usage":{"x":"}"},"b":2}"#, r#"{"choices":[{}],"b":2}"#),
        (r#"{"usage":null}"#, r#"{}"#),
        (r#"{"usage":null,"usage":null}"#, r#"{}"#),
        (r#"{"usage":null,"usage":{},"choices":[{}],"usage":null}"#, r#"{"choices":[{}]}"#),
        (r#"{"choices":[{}],"usage":1,"usage":2,"c":3}"#, r#"{"choices":[{}],"c":3}"#),
        (r#"{"us\u0061ge":null,"choices":[{}]}"#, r#"{"choices":[{}]}"#),
        (r#"{"choices":[{"usage":null}],"x":{"usage":1}}"#, r#"{"choices":[{"usage":null}],"x":{"usage":1}}"#),
    ] {
        let ran = run_text(&Plan { hide_usage: true, ..plan() }, &event(data));
        assert_eq!(data_of(&ran.out), [expected], "{data}");
    }
}

#[test]
fn what_only_carries_usage_is_dropped() {
    let hide = Plan { hide_usage: true, ..plan() };
    for (data, kept) in [
        (r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, false),
        (r#"{"usage":{},"choices":[]}"#, false),
        (r#"{"choices":null,"usage":{"prompt_tokens":1}}"#, false),
        (r#"{"usage":{"prompt_tokens":1}}"#, false),
        (r#"{"choices":[],"usage":null}"#, true),
        (r#"{"choices":[]}"#, true),
        (r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#, true),
    ] {
        let ran = run_text(&hide, &event(data));
        assert_eq!(data_of(&ran.out).len(), usize::from(kept), "{data}");
        assert_eq!(ran.events, 1, "{data}: it counts as an event of the upstream all the same");
        assert_eq!(data_of(&run_text(&plan(), &event(data)).out), [data]);
    }
}

#[test]
fn models_that_are_replaced() {
    let with = |public: &str| Plan { public_model: Some(public.into()), ..plan() };
    for (data, public, expected) in [
        (r#"{"model":"up","choices":[]}"#, "pub", r#"{"model":"pub","choices":[]}"#),
        (r#"{"model": "pub" }"#, "pub", r#"{"model": "pub" }"#),
        (r#"{"model":null}"#, "pub", r#"{"model":"pub"}"#),
        (r#"{"mod\u0065l":"a","model":{"x":[1]}}"#, "p", r#"{"mod\u0065l":"p","model":"p"}"#),
        (r#"{"model":"a"}"#, "line\n\"quote\" 漢", r#"{"model":"line\n\"quote\" 漢"}"#),
        (r#"{"x":{"model":"a"},"choices":[{"model":"b"}]}"#, "p", r#"{"x":{"model":"a"},"choices":[{"model":"b"}]}"#),
    ] {
        assert_eq!(data_of(&run_text(&with(public), &event(data)).out), [expected], "{data}");
    }
}

#[test]
fn a_changed_event_keeps_its_framing() {
    let change = Plan { public_model: Some("public".into()), ..plan() };
    for (text, expected) in [
        (
            "id: 1\r\nevent: e\r\ndata:{\"model\":\"m\"}\r\nretry: 5\r\n\r\n",
            "id: 1\r\nevent: e\r\ndata:{\"model\":\"public\"}\r\nretry: 5\r\n\r\n",
        ),
        ("data:  {\"model\":\"m\"} \r\r", "data:  {\"model\":\"public\"} \r\r"),
        // Joined lines are written again; the JSON may have grown out of its lines.
        (
            "event: e\ndata: {\ndata: \"model\":\ndata: \"m\"}\n\n",
            "event: e\ndata: {\ndata: \"model\":\ndata: \"public\"}\n\n",
        ),
    ] {
        assert_eq!(String::from_utf8(run_text(&change, text).out).expect("text"), expected);
    }
}

#[test]
fn done_comes_once_and_last() {
    for text in ["data: [DONE]\n\n", "data:[DONE]\r\n\r\n", "data:  [DONE] \n\n", "event: done\ndata: [DONE]\n\n"] {
        let ran = run_text(&plan(), &(text_chunk("a") + text + "data: [DONE]\n\n" + &text_chunk("late") + "garbage"));
        assert_eq!((ran.result, ran.state, ran.events), (Ok(()), State::Finished, 1));
        assert_eq!(String::from_utf8(ran.out).expect("text"), text_chunk("a") + text);
    }
    let mut relay = Relay::new(plan());
    let mut out = Vec::new();
    let first = relay.push(b"data: [DONE]\n\n", &mut out).expect("valid");
    assert_eq!(first, Progress { events: 0, finished: true });
    let length = out.len();
    assert_eq!(relay.push(text_chunk("late").as_bytes(), &mut out), Ok(Progress { events: 0, finished: true }));
    relay.fail(&Error::Reset, &mut out);
    assert_eq!((relay.end(&mut out), out.len(), relay.state()), (Ok(()), length, State::Finished));
}

#[test]
fn finished_without_done_needs_a_reason_for_every_choice() {
    let choice = |index: &str, reason: &str| {
        event(&format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":{reason}}}]}}"#))
    };
    let both = event(r#"{"choices":[{"delta":{},"finish_reason":"stop"},{"delta":{},"finish_reason":"length"}]}"#);
    for (text, finished) in [
        (choice("0", "\"stop\""), true),
        (choice("0", "null"), false),
        (choice("0", "\"\""), false),
        (choice("0", "1"), false),
        (choice("0", "\"stop\"") + &choice("1", "null"), false),
        (choice("1", "null") + &choice("0", "\"stop\"") + &choice("1", "\"length\""), true),
        (choice("127", "\"stop\""), true),
        // An index that cannot be: only [DONE] says that such a stream is complete.
        (choice("128", "\"stop\""), false),
        (choice("0", "\"stop\"") + &choice("-1", "\"stop\""), false),
        (choice("0", "\"stop\"") + &choice("1e30", "\"stop\""), false),
        (choice("\"0\"", "\"stop\""), false),
        (both.clone(), true),
        (event(r#"{"choices":[],"finish_reason":"stop"}"#), false),
        (event(r#"{"choices":{"finish_reason":"stop"}}"#), false),
        (event(r#"{"x":[{"index":0,"finish_reason":"stop"}]}"#), false),
    ] {
        let ran = run_text(&plan(), &text);
        assert_eq!(ran.result.is_ok(), finished, "{text}");
        assert_eq!(ran.out.ends_with(b"data: [DONE]\n\n"), finished, "{text}");
        let marked = run_text(&plan(), &(text.clone() + "data: [DONE]\n\n"));
        assert_eq!(marked.result, Ok(()), "{text}");
    }
    assert_eq!(run_text(&plan(), &both).observed.finish_reasons, [Some("stop".to_owned()), Some("length".to_owned())]);
}

#[test]
fn endings_that_are_errors() {
    for (text, error) in [
        ("", Error::Empty),
        (": ping\n\n\n\n", Error::Empty),
        ("data:\n\ndata\n\ndata:  \n\n", Error::Empty),
        ("data", Error::Truncated),
        ("data: [DONE]", Error::Truncated),
        ("data: [DONE]\n", Error::Truncated),
    ] {
        let ran = run_text(&plan(), text);
        assert_eq!((ran.result, ran.state), (Err(error), State::Failed), "{text:?}");
        assert_eq!((ran.out.len(), ran.events), (0, 0), "{text:?}");
    }
    assert_eq!(run_text(&plan(), &text_chunk("a")).result, Err(Error::Truncated));
}

#[test]
fn events_that_are_errors() {
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(data_of(&run_text(&plan(), &event(&deep(64))).out).len(), 1);
    for bad in [
        deep(65),
        deep(100_000),
        "[]".into(),
        "1".into(),
        "null".into(),
        "\"text\"".into(),
        "{".into(),
        "{}x".into(),
        "{} {}".into(),
        "{\"a\":01}".into(),
        "{\"a\":NaN}".into(),
        "{\"a\":\"\u{1}\"}".into(),
        "{\"a\":\"\\x\"}".into(),
        "{'a':1}".into(),
        "[DONE".into(),
        "[done]".into(),
        "DONE".into(),
        "{\"usage\":{\"prompt_tokens\":1,}}".into(),
        chunk("{\"content\":\"a\"", "null"),
    ] {
        let ran = run_text(&plan(), &(text_chunk("kept") + &event(&bad)));
        assert_eq!((ran.result, ran.state), (Err(Error::InvalidEvent), State::Failed), "{bad:.40}");
        assert_eq!(ran.out, text_chunk("kept").as_bytes());
    }
}

#[test]
fn bytes_that_are_not_utf_8() {
    for bad in [&b"\xff"[..], b"\xc3", b"\xe4\xbd", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf0\x9f\x98"] {
        let place = text_chunk("@");
        let (before, after) = place.split_once('@').expect("a place");
        let text = [text_chunk("kept").as_bytes(), before.as_bytes(), bad, after.as_bytes()].concat();
        for split in 0..=text.len() {
            let ran = run(&plan(), [&text[..split], &text[split..]]);
            assert_eq!(ran.result, Err(Error::InvalidUtf8), "{bad:?} at {split}");
            assert_eq!(ran.out, text_chunk("kept").as_bytes());
        }
    }
}

#[test]
fn other_fields_that_are_not_utf_8() {
    for fields in [&b"event: \xff\n"[..], b"\xff\n", b"id: \xc3\n", b"\xe4: x\n"] {
        for (before, after) in [(fields, &b""[..]), (b"", fields)] {
            let text = [text_chunk("kept").as_bytes(), before, b"data:{}\n", after, b"\n"].concat();
            let ran = run(&plan(), [&text[..]]);
            assert_eq!((ran.result, ran.out), (Err(Error::InvalidUtf8), text_chunk("kept").into_bytes()), "{fields:?}");
        }
    }
    // What is not forwarded harms nobody.
    let ran = run(&plan(), [b":\xff\n\n", end().as_bytes()]);
    assert_eq!((ran.result, ran.out), (Ok(()), end().into_bytes()));
}

#[test]
fn half_a_surrogate_pair_in_each_of_two_deltas_passes() {
    let text = text_chunk("a")
        + &text_chunk(r"\ud83d")
        + &text_chunk(r"\ude00")
        + &text_chunk(r"\\ud83d \ud83d\ude00\ud83d")
        + &end();
    let ran = run_text(&plan(), &text);
    assert_eq!((ran.result, String::from_utf8(ran.out).expect("text")), (Ok(()), text.clone()));
    let ran = run_text(&plans_of("")[1], &text);
    assert_eq!(String::from_utf8(ran.out).expect("text"), text.replace("\"up\"", r#""team/assistant \"é\"""#));
    // One pass, however many halves there are.
    let many = text_chunk(&r"\ud83d".repeat(150_000)) + &end();
    let started = std::time::Instant::now();
    assert_eq!(run_text(&plan(), &many).result, Ok(()));
    // One pass for each of them would take minutes.
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn errors_inside_the_stream() {
    let said = |data: &str| match run_text(&plan(), data).result {
        Err(Error::InBand(said)) => *said,
        other => panic!("{data}: {other:?}"),
    };
    let error =
        said(&event(r#"{"error":{"message":"out of memory","type":"server_error","param":null,"code":"oom"}}"#));
    assert_eq!(
        (error.message.as_deref(), error.kind.as_deref(), error.code.as_deref()),
        (Some("out of memory"), Some("server_error"), Some("oom"))
    );
    assert_eq!(said(&event(r#"{"error":"plain text"}"#)).message.as_deref(), Some("plain text"));
    assert_eq!(said(&event(r#"{"error":true,"message":"flag"}"#)).message.as_deref(), Some("flag"));
    assert_eq!(said(&event(r#"{"choices":[],"error":{"message":"m"}}"#)).message.as_deref(), Some("m"));
    assert_eq!(
        said(&event(r#"{"object":"error","message":"old vLLM","code":500}"#)).message.as_deref(),
        Some("old vLLM")
    );
    assert_eq!(said(&format!("event: error\n{}", event(r#"{"message":"named"}"#))).message.as_deref(), Some("named"));
    for odd in ["not JSON", "[DONE]", ""] {
        assert_eq!(said(&format!("event: error\ndata: {odd}\n\n")).message, None);
    }
    assert_eq!(said(&event(r#"{"error":{}}"#)).message, None);
    for none in ["null", "false", "\"\"", "0"] {
        let text = event(&format!(r#"{{"error":{none},"choices":[]}}"#));
        assert_eq!(run_text(&plan(), &text).out, text.as_bytes(), "{none} is no error");
    }
    let nested = event(r#"{"choices":[{"error":{"message":"not at the top"}}]}"#);
    assert_eq!(run_text(&plan(), &nested).out, nested.as_bytes());
}

#[test]
fn an_error_inside_the_stream_has_a_status() {
    let status = |error: &str| {
        run_text(&plan(), &event(&format!(r#"{{"error":{error}}}"#))).result.expect_err("an error").public()
    };
    for (error, expected, code) in [
        (r#"{"message":"m","code":429}"#, 429, "rate_limit_exceeded"),
        (r#"{"message":"m","code":"404"}"#, 404, "model_not_found"),
        (r#"{"message":"m","code":503}"#, 503, "upstream_error"),
        (r#"{"message":"m","code":400,"type":"BadRequestError"}"#, 400, "upstream_error"),
        (r#"{"message":"m","code":422}"#, 400, "upstream_error"),
        (r#"{"message":"m","code":"context_length_exceeded"}"#, 400, "context_length_exceeded"),
        (r#"{"message":"m","code":500}"#, 502, "upstream_error"),
        (r#"{"message":"timed out","code":408}"#, 502, "upstream_error"),
        (r#"{"message":"m","code":401}"#, 502, "upstream_auth_error"),
        (r#"{"message":"Incorrect API key","code":"invalid_api_key"}"#, 502, "upstream_auth_error"),
        (r#"{"message":"m","code":1305}"#, 502, "1305"),
    ] {
        let public = status(error);
        assert_eq!((public.status, public.code.as_str()), (expected, code), "{error}");
    }
}

#[test]
fn events_and_answers_that_are_too_large() {
    let small = Plan { max_event_bytes: 200, ..plan() };
    let text = text_chunk("a") + &text_chunk(&"x".repeat(200)) + &end();
    let text = text.as_bytes();
    for split in 0..=text.len() {
        let ran = run(&small, [&text[..split], &text[split..]]);
        assert_eq!(ran.result, Err(Error::EventTooLarge { limit: 200 }));
        assert_eq!(ran.out, text_chunk("a").as_bytes());
    }
    let text = text_chunk("a") + &text_chunk("b") + &end();
    let text = text.as_bytes();
    for (limit, result) in
        [(text.len(), Ok(())), (text.len() - 1, Err(())), (text_chunk("a").len(), Err(())), (0, Err(()))]
    {
        let limited = Plan { max_answer_bytes: limit as u64, ..plan() };
        let error = Error::AnswerTooLarge { limit: limit as u64 };
        let whole = run(&limited, [text]);
        assert_eq!(whole.result, result.map_err(|()| error));
        for size in [1, 2, 50] {
            assert_eq!(run(&limited, text.chunks(size)), whole, "what came within the limit is delivered");
        }
    }
    // What follows the end is not part of the answer.
    let limited = Plan { max_answer_bytes: text.len() as u64, ..plan() };
    assert_eq!(run(&limited, [text, &[b'x'; 1000][..]]).result, Ok(()));
}

#[test]
fn usage_that_cannot_be() {
    let read = |usages: &[&str]| {
        let text: String = usages.iter().map(|usage| event(&format!(r#"{{"choices":[],"usage":{usage}}}"#))).collect();
        let observed = run_text(&plan(), &text).observed;
        (observed.usage, observed.usage_suspect)
    };
    let usage = |prompt, completion, total| Usage { prompt, completion, total, ..Usage::default() };
    let huge = format!("1{}", "0".repeat(30));
    for (text, expected, suspect) in [
        (r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#.to_owned(), Some(usage(Some(1), Some(2), Some(3))), false),
        (r#"{"prompt_tokens":1.0,"completion_tokens":2,"total_tokens":3e0}"#.into(), Some(usage(Some(1), Some(2), Some(3))), false),
        (r#"{"prompt_tokens":1}"#.into(), Some(usage(Some(1), None, None)), false),
        (r#"{"prompt_tokens":1,"completion_tokens":null}"#.into(), Some(usage(Some(1), None, None)), false),
        (r#"{"prompt_tokens":-1,"completion_tokens":2}"#.into(), Some(usage(None, Some(2), None)), true),
        (format!(r#"{{"prompt_tokens":{huge},"completion_tokens":2}}"#), Some(usage(None, Some(2), None)), true),
        (r#"{"prompt_tokens":1e30,"completion_tokens":2}"#.into(), Some(usage(None, Some(2), None)), true),
        (r#"{"prompt_tokens":9007199254740992,"completion_tokens":9007199254740992,"total_tokens":18014398509481984}"#.into(),
            Some(usage(Some(1 << 53), Some(1 << 53), None)), true),
        (r#"{"prompt_tokens":9007199254740993}"#.into(), Some(usage(None, None, None)), true),
        (r#"{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615}"#.into(), Some(usage(None, None, None)), true),
        (r#"{"prompt_tokens":1.5,"completion_tokens":"2"}"#.into(), Some(usage(None, None, None)), true),
        (r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":4}"#.into(), Some(usage(Some(1), Some(2), None)), true),
        (r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":6}}"#.into(), Some(usage(Some(5), None, None)), true),
        (r#"{"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}"#.into(), Some(usage(None, Some(5), None)), true),
        (r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":9,"completion_tokens_details":{"reasoning_tokens":6}}"#.into(),
            Some(Usage { reasoning: Some(6), ..usage(Some(1), Some(2), Some(9)) }), false),
        (r#"{"prompt_tokens":5,"prompt_tokens_details":null,"completion_tokens_details":[]}"#.into(), Some(usage(Some(5), None, None)), false),
        ("{}".into(), None, false),
        ("null".into(), None, false),
        ("\"none\"".into(), None, true),
        ("[1]".into(), None, true),
    ] {
        assert_eq!(read(&[&text]), (expected, suspect), "{text}");
    }
    let (good, bad) = (r#"{"prompt_tokens":1,"completion_tokens":2}"#, r#"{"prompt_tokens":-1}"#);
    assert_eq!(read(&[bad, good]), (Some(usage(Some(1), Some(2), None)), false), "the last one counts");
    assert_eq!(read(&[good, bad]), (Some(usage(None, None, None)), true));
    assert_eq!(read(&[good, "{}", "null"]), (Some(usage(Some(1), Some(2), None)), false));
    assert_eq!(read(&[]), (None, false));
}

#[test]
fn a_failure_is_told_once_and_in_the_error_shape() {
    let mut relay = Relay::new(plan());
    let mut out = Vec::new();
    relay.push(text_chunk("a").as_bytes(), &mut out).expect("valid");
    let error = relay.end(&mut out).expect_err("no marker");
    relay.fail(&error, &mut out);
    relay.fail(&Error::Reset, &mut out);
    assert_eq!(relay.state(), State::Failed);
    let data = data_of(&out);
    assert_eq!(data.len(), 2);
    let value: Value = serde_json::from_str(&data[1]).expect("JSON");
    assert_eq!(value["error"]["code"], "upstream_truncated");
    assert_eq!(value["error"].as_object().expect("object").len(), 4);
    assert_eq!(relay.push(end().as_bytes(), &mut out), Ok(Progress::default()), "nothing more is relayed");
    assert_eq!(data_of(&out).len(), 2);
    assert!(relay.end(&mut out).is_err());
}

#[test]
fn a_client_that_is_gone_is_told_nothing() {
    let mut relay = Relay::new(plan());
    let mut out = Vec::new();
    relay.fail(&Error::Cancelled, &mut out);
    relay.fail(&Error::Reset, &mut out);
    assert_eq!((out.len(), relay.state()), (0, State::Cancelled));
}

#[test]
fn finished_is_reached_from_the_stream_alone() {
    use State::{Cancelled, Connecting, Failed, Finished, FirstEvent, Headers, Streaming};
    let all = [Connecting, Headers, FirstEvent, Streaming, Finished, Failed, Cancelled];
    for from in all {
        let next: Vec<_> = all.into_iter().filter(|to| from.may_become(*to)).collect();
        let expected = match from {
            Connecting => vec![Headers, Failed, Cancelled],
            Headers => vec![FirstEvent, Failed, Cancelled],
            FirstEvent => vec![Streaming, Finished, Failed, Cancelled],
            Streaming => vec![Finished, Failed, Cancelled],
            Finished | Failed | Cancelled => vec![],
        };
        assert_eq!(next, expected, "{from:?}");
        assert_eq!(from.is_final(), expected.is_empty());
    }
    let mut relay = Relay::new(plan());
    assert!(!relay.enter(FirstEvent) && !relay.enter(Finished) && relay.enter(Headers) && relay.enter(FirstEvent));
    assert!(!relay.enter(Finished) && !relay.enter(Streaming));
    relay.push(text_chunk("a").as_bytes(), &mut Vec::new()).expect("valid");
    assert_eq!(relay.state(), Streaming);
    assert!(!relay.enter(Finished) && relay.enter(Cancelled) && !relay.enter(Failed));
}

#[test]
fn the_fast_way_sees_what_the_slow_way_sees() {
    let first = text_chunk("first");
    for (next, expected) in [
        (text_chunk(""), Ok(5)),
        (text_chunk("f"), Ok(6)),
        (text_chunk("a much longer text than the first"), Ok(38)),
        (text_chunk(r#"\n\"\\\u00e9\ud83d\ude00"#), Ok(5 + 3 + 2 + 4)),
        (text_chunk("漢字"), Ok(11)),
        (text_chunk(r#"x"},"finish_reason":"stop"}],"y":[{"z":{"w":""#), Ok(6)),
        (text_chunk("a\u{1}b"), Err(Error::InvalidEvent)),
        (text_chunk(r"\"), Err(Error::InvalidEvent)),
        (text_chunk(r"\u12"), Err(Error::InvalidEvent)),
        (text_chunk("a\"b"), Err(Error::InvalidEvent)),
        (text_chunk(r#"x"},"error":{"message":"e"},"d":{"c":""#), Ok(6)),
        (format!("event: error\n{}", text_chunk("x")), Err(Error::InBand(Box::default()))),
        (first[..first.len() - 3].to_owned() + "\n\n", Err(Error::InvalidEvent)),
    ] {
        for plan in plans_of("") {
            // Once after its like, which makes the template, and once as the first event.
            let (after, alone) = (run_text(&plan, &(first.clone() + &next)), run_text(&plan, &next));
            let cause = |ran: &Ran| ran.result.clone().err().filter(|error| *error != Error::Truncated);
            assert_eq!(cause(&after), cause(&alone), "{next}");
            assert_eq!(cause(&after), expected.clone().err(), "{next}");
            if let Ok(bytes) = expected {
                assert_eq!(after.observed.content_bytes, bytes, "{next}");
                assert_eq!(after.out, [run_text(&plan, &first).out, alone.out].concat(), "{next}");
                assert_eq!(after.observed.all_finished(1), alone.observed.all_finished(1), "{next}");
            }
        }
    }
}

#[test]
fn what_is_more_than_text_is_read_each_time() {
    let with = |text: &str, finish: &str, completion: u64| {
        let usage = format!(r#"{{"prompt_tokens":1,"completion_tokens":{completion}}}"#);
        let choice = format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{finish}}}"#);
        event(&format!(r#"{{"choices":[{choice}],"usage":{usage}}}"#))
    };
    let only_usage = event(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":5}}"#);
    let observed = run_text(&plan(), &(with("a", "null", 1) + &only_usage + &with("b", "null", 1))).observed;
    assert_eq!(observed.usage.and_then(|usage| usage.completion), Some(1));
    let finish = |text: &str, reason: &str| event(&chunk(&format!(r#"{{"content":"{text}"}}"#), reason));
    let text = finish("a", "\"stop\"") + &finish("", "\"length\"") + &finish("b", "\"stop\"");
    assert_eq!(run_text(&plan(), &text).observed.finish_reasons, [Some("stop".to_owned())]);
}

/// Chunks that are nearly alike, so that templates are made, used, and missed.
fn any_chunk() -> impl Strategy<Value = String> {
    let text = prop_oneof!["[a-c]{0,3}", "\\PC{0,6}", Just("\"}],\"usage\":{".to_owned()), Just("x\n\t\\".to_owned())];
    let shape = prop::sample::select(vec![
        r#"{"model":"up","choices":[{"index":0,"delta":{"content":@},"finish_reason":null}],"usage":null}"#,
        r#"{"usage":null,"model":"up","choices":[{"index":0,"delta":{"content":@}}]}"#,
        r#"{"model":"up","choices":[{"index":0,"delta":{"content":"","reasoning_content":@}}]}"#,
        r#"{"model":"up","choices":[{"index":1,"delta":{"content":@,"refusal":@}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":@}}]}}],"model":"up"}"#,
        r#"{"model":"up","choices":[{"index":0,"delta":{"content":@},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
        r#"{"model":"public","x":@,"choices":[]}"#,
        r#"{"model":"up","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#,
    ]);
    (shape, text).prop_map(|(shape, text)| shape.replace('@', &serde_json::to_string(&text).expect("text")))
}

/// Parts of streams, some of them broken.
fn any_piece() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop::sample::select(vec![
        text_chunk("a"),
        text_chunk("漢"),
        end(),
        event("{}"),
        event("[DONE]"),
        event("[1]"),
    ]);
    let part = prop::sample::select(vec![
        &b"data: "[..],
        b"data:{\"a\":1}",
        b"\n\n",
        b"\r\n",
        b"\r",
        b"event: error",
        b": c\n",
        b"id: 1\n",
        b"\xff",
        b"\xEF\xBB\xBF",
        b"{",
        b"}",
        b"\"",
        b"x",
    ]);
    prop_oneof![2 => whole.prop_map(String::into_bytes), 1 => part.prop_map(<[u8]>::to_vec)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_stream_is_what_serde_json_makes_of_it(chunks in prop::collection::vec(any_chunk(), 1..12), size in 1usize..200, hide_usage: bool, rename: bool) {
        let public_model = rename.then(|| "public".to_owned());
        let changed = Plan { public_model, hide_usage, ..plan() };
        let text: String = chunks.iter().map(|chunk| event(chunk)).collect::<String>() + "data: [DONE]\n\n";
        let ran = run(&changed, text.as_bytes().chunks(size));
        prop_assert_eq!(&ran.result, &Ok(()));
        let mut expected = Vec::new();
        for chunk in &chunks {
            let mut value: Value = serde_json::from_str(chunk).expect("JSON");
            if rename {
                value["model"] = "public".into();
            }
            if hide_usage {
                if value["usage"].is_object() && value["choices"].as_array().is_some_and(Vec::is_empty) {
                    continue;
                }
                value.as_object_mut().expect("object").shift_remove("usage");
            }
            expected.push(value);
        }
        prop_assert_eq!(chunks_of(&ran.out), expected);
        // Each event read alone, without a template to repeat: the same is observed.
        let alone: u64 = chunks.iter().map(|chunk| run_text(&changed, &event(chunk)).observed.content_bytes).sum();
        prop_assert_eq!(ran.observed.content_bytes, alone);
        prop_assert_eq!(ran.observed.events, chunks.len() as u64);
        if !hide_usage && !rename {
            prop_assert_eq!(ran.out, text.into_bytes());
        }
    }

    #[test]
    fn any_pieces_at_any_split(pieces in prop::collection::vec(any_piece(), 0..14), size in 1usize..6) {
        let bytes = pieces.concat();
        for plan in plans_of("") {
            let (whole, split) = (run(&plan, [&bytes[..]]), run(&plan, bytes.chunks(size)));
            // How much of a read lies behind an error is not the same at each split.
            prop_assert_eq!((&split.out, &split.result, split.state), (&whole.out, &whole.result, whole.state));
            prop_assert_eq!((split.events, split.observed.content_bytes), (whole.events, whole.observed.content_bytes));
            let marked = bytes.windows(6).any(|part| part == b"[DONE]") || bytes.windows(4).any(|part| part == b"stop");
            prop_assert!(marked || whole.result.is_err());
            prop_assert_eq!(whole.state == State::Finished, whole.result.is_ok());
            prop_assert!(std::str::from_utf8(&whole.out).is_ok());
        }
    }
}

/// `cargo test --release --test relay -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn speed() {
    const EVENTS: usize = 10_000;
    let chunk = |n: usize, more: &str| {
        let word = ["Hello", ", 世界", " 🌍", r"\n\n", " quick brown"][n % 5];
        event(&format!(
            r#"{{"id":"chatcmpl-CkQ7vR2mWq0Z8Jx1abcdefghij","object":"chat.completion.chunk","created":1763792400,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_cbf1785567","choices":[{{"index":0,"delta":{{"content":"{word}"}},"logprobs":null,"finish_reason":null}}],"usage":null{more}}}"#
        ))
    };
    for (kind, changing) in [("only the text changes", false), ("another member changes, too", true)] {
        let more = |n: usize| if changing { format!(r#","obfuscation":"{n:x}""#) } else { String::new() };
        let text: String = (0..EVENTS).map(|n| chunk(n, &more(n))).collect();
        for (what, plan) in [("as it is", plan()), ("model and usage rewritten", plans_of("")[1].clone())] {
            let mut out = Vec::with_capacity(text.len() * 2);
            let mut rounds: Vec<_> = (0..21)
                .map(|_| {
                    out.clear();
                    let (started, mut relay) = (std::time::Instant::now(), Relay::new(plan.clone()));
                    for read in text.as_bytes().chunks(1400) {
                        relay.push(read, &mut out).expect("valid");
                    }
                    started.elapsed().as_nanos() / EVENTS as u128
                })
                .collect();
            rounds.sort_unstable();
            println!("{kind}, {what}: {} ns an event of {} bytes", rounds[10], text.len() / EVENTS);
        }
    }
}

#[test]
fn an_answer_with_fewer_choices_than_asked_for_is_not_complete() {
    let first = r#"{"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
    let mut two = Relay::new(Plan { choices: 2, ..plan() });
    two.enter(State::Headers);
    two.enter(State::FirstEvent);
    let mut out = Vec::new();
    two.push(event(first).as_bytes(), &mut out).expect("valid");
    assert_eq!(two.end(&mut out), Err(Error::Truncated));
}
