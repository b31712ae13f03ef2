//! Log-probabilities: asked for, weighed, and taken out, however a stream is split.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Value};
use sluicegate_core::{
    chat::{
        answer,
        logprobs::{asked, Logprobs},
        observe::Observed,
        thoughts::{Output, Thinking},
        Operation,
    },
    quality::certainty::{Certainty, Features},
    relay::{Plan, Relay, State},
};

fn plan(logprobs: Option<Logprobs>) -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: Some("assistant".to_owned()),
        public_id: None,
        keep: true,
        shape: None,
        thinking: None,
        said: None,
        logprobs,
        hide_usage: true,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 20,
    }
}

fn token(text: &str, logprob: f64) -> Value {
    json!({"token": text, "logprob": logprob, "bytes": text.as_bytes(), "top_logprobs": [
        {"token": text, "logprob": logprob, "bytes": null}, {"token": "x", "logprob": logprob - 2.0, "bytes": null}]})
}

fn chunk(delta: &Value, logprobs: &Value, finish: Option<&str>) -> String {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]})
    .to_string()
}

fn stream(words: &[(&str, f64)]) -> String {
    let mut events = String::new();
    for (word, logprob) in words {
        let data =
            chunk(&json!({"content": word}), &json!({"content": [token(word, *logprob)], "refusal": null}), None);
        events.push_str(&format!("data: {data}\n\n"));
    }
    events + &format!("data: {}\n\ndata: [DONE]\n\n", chunk(&json!({}), &Value::Null, Some("stop")))
}

fn relayed(plan: Plan, events: &str, splits: &[usize]) -> (String, Observed) {
    let (mut relay, mut out, mut from) = (Relay::new(plan), Vec::new(), 0);
    for to in splits.iter().copied().chain([events.len()]) {
        relay.push(&events.as_bytes()[from..to], &mut out).unwrap();
        from = to;
    }
    relay.end(&mut out).unwrap();
    assert_eq!(relay.state(), State::Finished);
    (String::from_utf8(out).unwrap(), relay.observed().clone())
}

fn whole(message: &Value, logprobs: &Value) -> String {
    json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}]})
    .to_string()
}

fn read(wanted: Logprobs, body: &str) -> (String, Certainty) {
    let (body, observed) = answer::read(&plan(Some(wanted)), None, body.as_bytes().to_vec()).unwrap();
    (String::from_utf8(body).unwrap(), observed.certainty.unwrap())
}

fn values(certainty: Certainty) -> [f64; 4] {
    match certainty {
        Certainty::Known(features) => Features::values(features.packed),
        Certainty::Unknown(why) => panic!("{why}"),
    }
}

fn close(found: [f64; 4], expected: [f64; 4]) {
    for (one, other) in found.into_iter().zip(expected) {
        assert!((one - other).abs() < 1e-3, "{found:?} is not {expected:?}");
    }
}

const WORDS: [(&str, f64); 4] = [("It", -0.1), (" is", -0.3), (" 4", -1.2), (".", 0.0)];

#[test]
fn a_request_asks_once() {
    let body = br#"{"model":"m","messages":[]}"#;
    let (changed, wanted) = asked(body, 5);
    assert_eq!(changed.unwrap(), br#"{"logprobs":true,"top_logprobs":5,"model":"m","messages":[]}"#);
    assert_eq!(wanted, Logprobs::Strip);
    for (own, expected) in [
        (r#"{"messages":[],"logprobs":false}"#, r#"{"top_logprobs":3,"messages":[],"logprobs":true}"#),
        (r#"{"messages":[],"logprobs":null,"top_logprobs":9}"#, r#"{"messages":[],"logprobs":true,"top_logprobs":3}"#),
    ] {
        assert_eq!(asked(own.as_bytes(), 3), (Some(expected.as_bytes().to_vec()), Logprobs::Strip));
    }
    let own = br#"{"messages":[{"logprobs":false}],"logprobs":true,"top_logprobs":2}"#;
    assert_eq!(asked(own, 5), (None, Logprobs::Read), "the client asks itself");
    assert_eq!(asked(b"nonsense", 5), (None, Logprobs::Read));
}

#[test]
fn numbers_of_a_whole_answer() {
    let tokens: Vec<Value> = WORDS.iter().map(|(word, logprob)| token(word, *logprob)).collect();
    let body = whole(&json!({"role": "assistant", "content": "It is 4."}), &json!({ "content": tokens }));
    let (shown, certainty) = read(Logprobs::Strip, &body);
    assert_eq!(
        shown,
        whole(&json!({"role": "assistant", "content": "It is 4."}), &Value::Null).replace("\"m\"", "\"assistant\"")
    );
    let entropy = |p: f64| -> f64 {
        [p, p * (-2.0f64).exp(), 1.0 - p - p * (-2.0f64).exp()].iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
    };
    let mean = WORDS.iter().map(|(_, logprob)| entropy(logprob.exp())).sum::<f64>() / 4.0;
    close(values(certainty), [-0.4, -0.4, 2.0, mean]);
    let (shown, same) = read(Logprobs::Read, &body);
    assert!(shown.contains("top_logprobs"));
    assert_eq!(same, certainty);
}

#[test]
fn the_weakest_window_is_found() {
    let words: Vec<(&str, f64)> = (0..40).map(|at| ("w", if (10..18).contains(&at) { -3.0 } else { -0.5 })).collect();
    let (_, observed) = relayed(plan(Some(Logprobs::Strip)), &stream(&words), &[]);
    close(values(observed.certainty.unwrap()), [-1.0, -3.0, 2.0, values(observed.certainty.unwrap())[3]]);
}

#[test]
fn what_cannot_be_used_is_no_number() {
    let message = json!({"role": "assistant", "content": "It is 4."});
    let nothing = json!([{"token": "It is 4.", "logprob": null}]);
    for (logprobs, why) in [
        (Value::Null, "no_logprobs"),
        (json!({"content": null}), "no_logprobs"),
        (json!({"content": []}), "no_logprobs"),
        (json!({"content": nothing}), "malformed_logprobs"),
        (json!({"content": [{"token": "It is 4.", "logprob": "-1"}]}), "malformed_logprobs"),
        (json!({"content": [{"token": "It is 4.", "logprob": 3.5}]}), "malformed_logprobs"),
        (json!("none"), "malformed_logprobs"),
        (json!([1, 2]), "malformed_logprobs"),
        (json!({"content": [1, 2, 3]}), "malformed_logprobs"),
        (json!({"content": [token("It", -0.1)]}), "incomplete_logprobs"),
    ] {
        let (shown, certainty) = read(Logprobs::Strip, &whole(&message, &logprobs));
        assert_eq!(certainty, Certainty::Unknown(why), "{logprobs}");
        assert!(shown.contains(r#""logprobs":null"#), "{shown}");
    }
    let call = json!({"role": "assistant", "content": null, "tool_calls": []});
    assert_eq!(read(Logprobs::Strip, &whole(&call, &Value::Null)).1, Certainty::Unknown("no_text"));
}

#[test]
fn numbers_that_are_no_json_are_put_right() {
    let message = json!({"role": "assistant", "content": "NaN \"NaN\" is 4."});
    for word in ["NaN", "Infinity", "-Infinity"] {
        let logprobs = json!({"content": [{"token": "NaN \"NaN\" is 4.", "logprob": 0, "top_logprobs": []}]});
        let body = whole(&message, &logprobs).replace("\"logprob\":0", &format!("\"logprob\":{word}"));
        let (shown, certainty) = read(Logprobs::Strip, &body);
        assert_eq!(certainty, Certainty::Unknown("malformed_logprobs"));
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["choices"][0]["message"], message);
        // The client that asks for them gets what the server says: an error, as without us.
        assert!(answer::read(&plan(Some(Logprobs::Read)), None, body.into_bytes()).is_err());
    }
    let events = stream(&WORDS).replace("-1.2", "NaN");
    let (out, observed) = relayed(plan(Some(Logprobs::Strip)), &events, &[]);
    assert_eq!(observed.certainty, Some(Certainty::Unknown("malformed_logprobs")));
    assert!(!out.contains("NaN"));
}

#[test]
fn thinking_does_not_count() {
    let answer = [("It", -0.5), (" is", -0.5)];
    let expected = relayed(plan(Some(Logprobs::Strip)), &stream(&answer), &[]).1.certainty;
    let tags = [("<think>", -9.0), ("hm", -8.0), ("</th", -7.0), ("ink>", -7.0), ("It", -0.5), (" is", -0.5)];
    // With an opening tag, and with one that the template has opened.
    for words in [&tags[..], &tags[1..]] {
        assert_eq!(relayed(plan(Some(Logprobs::Strip)), &stream(words), &[]).1.certainty, expected);
    }
    let thought = json!({"content": [token("hm", -9.0)]});
    let events = format!("data: {}\n\n{}", chunk(&json!({"reasoning_content": "hm"}), &thought, None), stream(&answer));
    assert_eq!(relayed(plan(Some(Logprobs::Strip)), &events, &[]).1.certainty, expected);
    // Whole answers of vLLM list the tokens of thoughts as well, in whatever tags they were.
    let tokens: Vec<Value> = [("[T]", -9.0), ("hm", -9.0), ("[/T]", -9.0), ("It", -0.5), (" is", -0.5)]
        .iter()
        .map(|(word, logprob)| token(word, *logprob))
        .collect();
    let message = json!({"content": "It is", "reasoning_content": "hm"});
    assert_eq!(Some(read(Logprobs::Strip, &whole(&message, &json!({ "content": tokens }))).1), expected);
}

#[test]
fn what_is_made_of_a_stripped_stream_is_what_it_would_have_been() {
    let events = stream(&[("<think>", -1.0), ("hm", -1.0), ("</think>", -1.0), ("It", -0.2), (" is", -0.2)]);
    let mut bare = String::new();
    for line in events.lines().filter(|line| !line.is_empty()) {
        let line = match serde_json::from_str::<Value>(&line[6..]) {
            Ok(mut value) => {
                value["choices"][0]["logprobs"] = Value::Null;
                format!("data: {value}")
            }
            Err(_) => line.to_owned(),
        };
        bare.push_str(&format!("{line}\n\n"));
    }
    for output in [Output::Separate, Output::Hide] {
        let thinking = Some(Thinking { output, inside: false });
        let with = relayed(Plan { thinking, ..plan(Some(Logprobs::Strip)) }, &events, &[]).0;
        assert_eq!(with, relayed(Plan { thinking, ..plan(None) }, &bare, &[]).0);
    }
}

proptest! {
    #[test]
    fn every_split_gives_the_same(words in proptest::collection::vec(("[a-zé\"\\\\ ]{1,6}", -15.0f64..0.0), 1..12), at in 0usize..10_000, other in 0usize..10_000) {
        let words: Vec<(&str, f64)> = words.iter().map(|(word, logprob)| (word.as_str(), *logprob)).collect();
        let events = stream(&words);
        let (expected, observed) = relayed(plan(Some(Logprobs::Strip)), &events, &[]);
        prop_assert!(!expected.contains("top_logprobs"));
        let mut splits = [at % events.len(), other % events.len()];
        splits.sort_unstable();
        let split = relayed(plan(Some(Logprobs::Strip)), &events, &splits);
        prop_assert_eq!(&split.0, &expected);
        prop_assert_eq!(split.1, observed);
    }

    #[test]
    fn anything_is_stripped_or_left_to_fail(logprobs in ".{0,60}") {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"x"}},"logprobs":{logprobs}}}]}}"#);
        if let Ok((shown, _)) = answer::read(&plan(Some(Logprobs::Strip)), None, body.into_bytes()) {
            let shown: Value = serde_json::from_slice(&shown).unwrap();
            prop_assert_eq!(&shown["choices"][0]["logprobs"], &Value::Null);
        }
    }
}

#[test]
fn every_single_byte_split_gives_the_same() {
    let events = stream(&WORDS);
    let expected = relayed(plan(Some(Logprobs::Strip)), &events, &[]);
    for at in 0..events.len() {
        assert_eq!(relayed(plan(Some(Logprobs::Strip)), &events, &[at]), expected, "split at {at}");
    }
    let all: Vec<usize> = (0..events.len()).collect();
    assert_eq!(relayed(plan(Some(Logprobs::Strip)), &events, &all), expected);
}
