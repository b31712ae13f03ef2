//! The rewrite changes two fields and nothing else, for every way in which a body can be written.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Value as Json};
use sluicegate_core::chat::rewrite::{rewrite, Edits};
use sluicegate_core::chat::scan::scan;
use sluicegate_core::chat::Operation;

fn edit(body: &str, model: Option<&str>, include_usage: bool) -> Option<String> {
    let scanned = scan(Operation::Chat, body.as_bytes()).unwrap();
    rewrite(body.as_bytes(), &scanned, &Edits { model, include_usage }).map(|bytes| String::from_utf8(bytes).unwrap())
}

const REST: &str = r#""messages":[{"role":"user","content":"x"}]"#;

#[test]
fn replaces_the_model_in_its_place() {
    for (before, after) in [
        (r#"{"model":"a",R}"#, r#"{"model":"b",R}"#),
        (r#"{ R , "model" :  "a" }"#, r#"{ R , "model" :  "b" }"#),
        (r#"{R,"model":null}"#, r#"{R,"model":"b"}"#),
        (r#"{R,"mod\u0065l":"a"}"#, r#"{R,"mod\u0065l":"b"}"#),
        ("\n {\tR}", "\n {\"model\":\"b\",\tR}"),
        (r#"{"x":{"model":"a"},R}"#, r#"{"model":"b","x":{"model":"a"},R}"#),
    ] {
        let (before, after) = (before.replace('R', REST), after.replace('R', REST));
        assert_eq!(edit(&before, Some("b"), false).as_deref(), Some(&after[..]));
    }
}

#[test]
fn asks_for_usage_in_each_shape_of_stream_options() {
    for (before, after) in [
        (r#"{"stream":true,R}"#, r#"{"stream_options":{"include_usage":true},"stream":true,R}"#),
        (r#"{"stream":true,"stream_options":null,R}"#, r#"{"stream":true,"stream_options":{"include_usage":true},R}"#),
        (r#"{"stream_options":{ },R,"stream":true}"#, r#"{"stream_options":{"include_usage":true },R,"stream":true}"#),
        (
            r#"{"stream_options": {"x":1},R,"stream":true}"#,
            r#"{"stream_options": {"include_usage":true,"x":1},R,"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"x":1,"include_usage": false },R,"stream":true}"#,
            r#"{"stream_options":{"x":1,"include_usage": true },R,"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":null},R,"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},R,"stream":true}"#,
        ),
    ] {
        let (before, after) = (before.replace('R', REST), after.replace('R', REST));
        assert_eq!(edit(&before, None, true).as_deref(), Some(&after[..]));
        // Done once, there is nothing left to do.
        assert_eq!(edit(&after, None, true), None);
    }
}

#[test]
fn leaves_alone_what_is_already_so() {
    let body = format!(r#"{{"model":"b","stream":true,"stream_options":{{"include_usage":true}},{REST}}}"#);
    assert_eq!(edit(&body, Some("b"), true), None);
    assert_eq!(edit(&body, None, false), None);
    assert_eq!(edit(&body.replace("\"b\"", r#""\u0062""#), Some("b"), true), None);
    // stream_options without stream is refused by servers, so it is never added.
    assert_eq!(edit(&format!("{{{REST}}}"), None, true), None);
    assert_eq!(edit(&format!("{{\"stream\":false,{REST}}}"), None, true), None);
}

#[test]
fn embeddings_and_completions_are_rewritten_too() {
    let body = br#"{"input":"x","stream":true,"stream_options":7}"#;
    let scanned = scan(Operation::Embeddings, body).unwrap();
    let out = rewrite(body, &scanned, &Edits { model: Some("e"), include_usage: true }).unwrap();
    assert_eq!(out, br#"{"model":"e","input":"x","stream":true,"stream_options":7}"#);
    let body = br#"{"prompt":"x","stream":true}"#;
    let scanned = scan(Operation::Completions, body).unwrap();
    let out = rewrite(body, &scanned, &Edits { model: Some("c"), include_usage: true }).unwrap();
    assert_eq!(out, br#"{"model":"c","stream_options":{"include_usage":true},"prompt":"x","stream":true}"#);
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("[a-z_\"é]{1,8}", inner), 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// The members of a chat body as (key, value as written): known ones, unknown ones, in any order.
fn any_members() -> impl Strategy<Value = Vec<(String, String)>> {
    let model = prop_oneof![
        Just(None),
        Just(Some(Json::Null)),
        "[a-z/@.\"\\\\é-]{1,12}".prop_map(|name| Some(Json::from(name))),
    ];
    let options = prop_oneof![
        Just(None),
        Just(Some(Json::Null)),
        Just(Some(json!({}))),
        any_value().prop_map(|extra| Some(json!({ "x": extra }))),
        prop::sample::select(vec![json!(true), json!(false), Json::Null])
            .prop_map(|asked| Some(json!({ "a": 1, "include_usage": asked, "z": [] }))),
    ];
    let stream = prop::sample::select(vec![None, Some(json!(true)), Some(json!(false)), Some(Json::Null)]);
    let unknown = prop::collection::vec(("x_[a-z]{1,6}", any_value()), 0..6);
    // Spellings that a parse and a dump would change.
    let spellings = vec!["1.0", "1e2", "-0", "0.10", "\"\\u0041\\/\"", "100000000000000000000"];
    let spellings = prop::sample::subsequence(spellings, 0..6);
    (model, options, stream, unknown, spellings)
        .prop_map(|(model, options, stream, unknown, spellings)| {
            let text = |value: Json| value.to_string();
            let mut members = vec![("messages".to_owned(), text(json!([{ "role": "user", "content": "\u{0} hi" }])))];
            members.extend(model.map(|model| ("model".to_owned(), text(model))));
            members.extend(options.map(|options| ("stream_options".to_owned(), text(options))));
            members.extend(stream.map(|stream| ("stream".to_owned(), text(stream))));
            members.extend(spellings.iter().enumerate().map(|(i, raw)| (format!("s_{i}"), (*raw).to_owned())));
            for (key, value) in unknown {
                if members.iter().all(|(known, _)| *known != key) {
                    members.push((key, text(value)));
                }
            }
            members
        })
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_the_edited_values_change(
        members in any_members(),
        gap in prop::sample::select(vec!["", " ", "\n\t", "\r\n  "]),
        model in prop::option::of("[ -~é\u{1f600}]{1,12}"),
        include_usage in any::<bool>(),
    ) {
        let written: Vec<String> =
            members.iter().map(|(key, value)| format!("{gap}{}{gap}:{gap}{value}{gap}", json!(key))).collect();
        let body = format!("{gap}{{{}}}{gap}", written.join(","));
        let scanned = scan(Operation::Chat, body.as_bytes()).unwrap();
        let edits = Edits { model: model.as_deref(), include_usage };
        let edited = rewrite(body.as_bytes(), &scanned, &edits);

        // As a value: what a parse, a change and a dump would give.
        let before: Json = serde_json::from_str(&body).unwrap();
        let mut expected = before.clone();
        if let Some(model) = &model {
            expected["model"] = json!(model);
        }
        if include_usage && before["stream"] == true {
            if before["stream_options"].is_object() {
                expected["stream_options"]["include_usage"] = json!(true);
            } else {
                expected["stream_options"] = json!({ "include_usage": true });
            }
        }
        prop_assert_eq!(edited.is_none(), before == expected);
        let Some(edited) = edited else { return Ok(()) };
        let edited = String::from_utf8(edited).unwrap();
        prop_assert_eq!(serde_json::from_str::<Json>(&edited).unwrap(), expected);

        // As bytes: every member that was not edited stands there as it was written, and in the same order.
        let mut rest = &edited[..];
        for ((key, _), member) in members.iter().zip(&written) {
            if key != "model" && key != "stream_options" {
                let found = rest.find(member.as_str());
                prop_assert!(found.is_some(), "{key} changed");
                rest = &rest[found.unwrap() + member.len()..];
            }
        }
        // Edited once more there is nothing to do, and the result is accepted as any body is.
        let again = scan(Operation::Chat, edited.as_bytes()).unwrap();
        prop_assert_eq!(rewrite(edited.as_bytes(), &again, &edits), None);
        prop_assert_eq!(again.message_count, scanned.message_count);
    }
}
