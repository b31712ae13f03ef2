//! An assistant's settings in a client's request: what is put in, replaced, taken out, and that nothing else moves.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use serde_json::{json, Map, Value as Json};
use sluicegate_core::chat::compose::{compose, Composed, Field, Recipe, LIMITS};
use sluicegate_core::chat::rewrite::Edits;
use sluicegate_core::chat::scan::scan;
use sluicegate_core::chat::switch::Switch;
use sluicegate_core::chat::wish::wish;
use sluicegate_core::chat::Operation;

const NOTHING: Edits<'static> = Edits { model: None, include_usage: false };

fn composed(body: &str, recipe: &Recipe, max_tokens: Option<u64>) -> Composed {
    let scanned = scan(Operation::Chat, body.as_bytes()).unwrap();
    compose(body.as_bytes(), &scanned, recipe, &NOTHING, max_tokens)
}

/// The body as it goes upstream.
fn sent(body: &str, recipe: &Recipe, max_tokens: Option<u64>) -> String {
    composed(body, recipe, max_tokens).body.map_or_else(|| body.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
}

fn field(name: &str, value: Json, locked: bool) -> Field {
    Field { name: name.to_owned(), value: value.to_string().into_bytes(), locked }
}

#[test]
fn puts_the_system_prompt_first() {
    let recipe = Recipe::new().system_prompt("system", "Say \"hi\"\n\u{1}é");
    let ours = r#"{"role":"system","content":"Say \"hi\"\n\u0001é"}"#;
    for (before, after) in [
        (r#"{"messages":[{"role":"user"}]}"#, format!(r#"{{"messages":[{ours},{{"role":"user"}}]}}"#)),
        (
            r#"{ "messages" : [ {"role":"system","content":"mine"} , {"role":"user"} ] }"#,
            format!(r#"{{ "messages" : [{ours}, {{"role":"system","content":"mine"}} , {{"role":"user"}} ] }}"#),
        ),
    ] {
        let found = sent(before, &recipe, None);
        assert_eq!(found, after);
        serde_json::from_str::<Json>(&found).unwrap();
    }
    let developer = Recipe::new().system_prompt("developer", "x");
    let found = sent(r#"{"messages":[{"role":"user"}]}"#, &developer, None);
    assert_eq!(found, r#"{"messages":[{"role":"developer","content":"x"},{"role":"user"}]}"#);
}

#[test]
fn takes_the_clients_system_messages_out_wherever_they_are() {
    let (s, d, u) = (r#"{"role":"system"}"#, r#"{"role":"\u0064eveloper"}"#, r#"{"role":"user"}"#);
    let bare = Recipe::new().replace_system_messages();
    let full = bare.clone().system_prompt("system", "A");
    let ours = r#"{"role":"system","content":"A"}"#;
    for (messages, left, dropped) in [
        (vec![s, u], vec![u], vec!["messages[0]"]),
        (vec![u, s], vec![u], vec!["messages[1]"]),
        (vec![s, d, u, u], vec![u, u], vec!["messages[0]", "messages[1]"]),
        (vec![u, s, d], vec![u], vec!["messages[1]", "messages[2]"]),
        (vec![s, u, d, s, u, s], vec![u, u], vec!["messages[0]", "messages[2]", "messages[3]", "messages[5]"]),
        (vec![u], vec![u], vec![]),
        (vec![s, d], vec![], vec!["messages[0]", "messages[1]"]),
    ] {
        for (open, comma, close) in [("[", ",", "]"), ("[ ", " , ", " ]")] {
            let body = |list: &[&str]| format!(r#"{{"messages":{open}{}{close}}}"#, list.join(comma));
            let done = composed(&body(&messages), &full, None);
            assert_eq!(done.dropped, dropped);
            let found: Json = serde_json::from_slice(&done.body.unwrap()).unwrap();
            let mut expected = vec![ours];
            expected.extend(&left);
            assert_eq!(found, serde_json::from_str::<Json>(&body(&expected)).unwrap());
            let found: Json = serde_json::from_str(&sent(&body(&messages), &bare, None)).unwrap();
            assert_eq!(found, serde_json::from_str::<Json>(&body(&left)).unwrap());
        }
    }
}

#[test]
fn defaults_stand_in_and_locks_replace() {
    let recipe = Recipe::new()
        .field(field("temperature", json!(0.5), false))
        .field(field("top_p", json!(0.9), true))
        .field(field("stop", json!(["x"]), false));
    let rest = r#""messages":[{"role":"user"}]"#;
    let done = composed(&format!(r#"{{"temperature": 1.0,"top_p" : 1 ,"stop":null,{rest}}}"#), &recipe, None);
    let text = String::from_utf8(done.body.unwrap()).unwrap();
    assert_eq!(text, format!(r#"{{"temperature": 1.0,"top_p" : 0.9 ,"stop":["x"],{rest}}}"#));
    assert_eq!(done.dropped, ["top_p"]);
    // What the client says as we do is not dropped, and a body that says it all already is not touched.
    let same = format!(r#"{{"temperature":2,"top_p":0.9,"stop":"y",{rest}}}"#);
    assert_eq!(composed(&same, &recipe, None), Composed::default());
    let found = sent(&format!("{{{rest}}}"), &recipe, None);
    assert_eq!(found, format!(r#"{{"temperature":0.5,"top_p":0.9,"stop":["x"],{rest}}}"#));
}

#[test]
fn denied_fields_leave_with_one_comma() {
    let recipe = ["a", "b", "model", "messages"].iter().fold(Recipe::new(), |recipe, name| recipe.deny(name));
    let recipe = recipe.field(field("a", json!(1), true));
    let m = r#""messages":[{"role":"user"}]"#;
    for (before, after, dropped) in [
        (format!(r#"{{"a":1,{m}}}"#), format!("{{{m}}}"), vec!["a"]),
        (format!(r#"{{{m},"a":1}}"#), format!("{{{m}}}"), vec!["a"]),
        (format!(r#"{{"\u0061":{{"b":2}},"b":0,{m},"c":3}}"#), format!(r#"{{{m},"c":3}}"#), vec!["a", "b"]),
        (format!(r#"{{ "x":0 , "a":1 , "b":2 , {m} }}"#), format!(r#"{{ "x":0 , {m} }}"#), vec!["a", "b"]),
        (format!(r#"{{"model":"a",{m}}}"#), format!(r#"{{"model":"a",{m}}}"#), vec![]),
    ] {
        assert_eq!(sent(&before, &recipe, None), after);
        assert_eq!(composed(&before, &recipe, None).dropped, dropped);
    }
}

#[test]
fn usage_is_not_asked_for_where_its_field_is_denied() {
    let body = br#"{"stream":true,"stream_options":{"x":1},"messages":[{"role":"user"}]}"#;
    let scanned = scan(Operation::Chat, body).unwrap();
    let edits = Edits { model: None, include_usage: true };
    let done = compose(body, &scanned, &Recipe::new().deny("stream_options"), &edits, None);
    assert_eq!(done.body.unwrap(), br#"{"stream":true,"messages":[{"role":"user"}]}"#);
}

#[test]
fn one_limit_under_the_name_that_the_upstream_knows() {
    let m = r#""messages":[{"role":"user"}]"#;
    let named = |name: &str| Recipe::new().limit_name(name).unwrap();
    let (any, new, old) = (Recipe::new(), named("max_completion_tokens"), named("max_tokens"));
    assert_eq!(Recipe::new().limit_name("max"), None);
    for (before, recipe, wanted, after) in [
        ("", &any, None, ""),
        ("", &any, Some(9), r#""max_tokens":9,"#),
        ("", &new, Some(9), r#""max_completion_tokens":9,"#),
        (r#""max_tokens":5,"#, &any, None, r#""max_tokens":5,"#),
        (r#""max_tokens":5.0,"#, &any, Some(5), r#""max_tokens":5.0,"#),
        (r#""max_tokens":5,"#, &any, Some(3), r#""max_tokens":3,"#),
        (r#""max_completion_tokens":5,"#, &any, Some(3), r#""max_completion_tokens":3,"#),
        (r#""max_output_tokens":5,"#, &any, Some(3), r#""max_output_tokens":3,"#),
        (r#""max_tokens": 5 ,"#, &new, None, r#""max_completion_tokens": 5 ,"#),
        (r#""max_output_tokens":5,"#, &old, None, r#""max_tokens":5,"#),
        (r#""max_tokens":null,"#, &new, Some(4), r#""max_completion_tokens":4,"#),
        (r#""max_tokens":5,"max_completion_tokens":5,"#, &any, None, r#""max_tokens":5,"#),
        (r#""max_tokens":5,"max_completion_tokens":5,"#, &new, None, r#""max_completion_tokens":5,"#),
        (r#""max_tokens":null,"max_completion_tokens":5,"#, &any, None, r#""max_completion_tokens":5,"#),
        (r#""max_tokens":null,"max_completion_tokens":5,"#, &old, Some(2), r#""max_tokens":2,"#),
        (r#""max_tokens":null,"#, &any, None, r#""max_tokens":null,"#),
    ] {
        let found = sent(&format!("{{{before}{m}}}"), recipe, wanted);
        let expected = format!("{{{after}{m}}}");
        if before.contains("null") {
            // A name without a value may stay or take the value: what counts is one limit.
            let found: Map<String, Json> = serde_json::from_str(&found).unwrap();
            let limits: Vec<_> =
                found.iter().filter(|(name, value)| LIMITS.contains(&&***name) && !value.is_null()).collect();
            let expected: Map<String, Json> = serde_json::from_str(&expected).unwrap();
            let wanted: Vec<_> =
                expected.iter().filter(|(name, value)| LIMITS.contains(&&***name) && !value.is_null()).collect();
            assert_eq!(limits, wanted, "{before} {wanted:?}");
        } else {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_denied_limit_is_gone() {
    let recipe = LIMITS.iter().fold(Recipe::new(), |recipe, name| recipe.deny(name));
    let done = composed(r#"{"max_tokens":5,"messages":[{"role":"user"}]}"#, &recipe, None);
    assert_eq!(done.body.unwrap(), br#"{"messages":[{"role":"user"}]}"#);
    assert_eq!(done.dropped, ["max_tokens"]);
    let done = composed(r#"{"max_tokens":5,"messages":[{"role":"user"}]}"#, &recipe, Some(9));
    assert_eq!(done.body.unwrap(), br#"{"max_tokens":9,"messages":[{"role":"user"}]}"#);
}

#[test]
fn completions_and_embeddings_have_fields_but_no_messages() {
    let recipe = Recipe::new()
        .system_prompt("system", "x")
        .replace_system_messages()
        .field(field("temperature", json!(0), true))
        .deny("user");
    let body = br#"{"user":"u","prompt":"x","messages":[{"role":"system"}]}"#;
    let scanned = scan(Operation::Completions, body).unwrap();
    let done = compose(body, &scanned, &recipe, &Edits { model: Some("m"), ..NOTHING }, Some(3));
    let expected = br#"{"model":"m","temperature":0,"max_tokens":3,"prompt":"x","messages":[{"role":"system"}]}"#;
    assert_eq!(done.body.unwrap(), expected);
    let body = br#"{"input":"x","user":"u"}"#;
    let scanned = scan(Operation::Embeddings, body).unwrap();
    let done = compose(body, &scanned, &Recipe::new().deny("user"), &NOTHING, None);
    assert_eq!(done.body.unwrap(), br#"{"input":"x"}"#);
}

#[test]
fn the_scan_says_what_counting_needs() {
    let chat = |messages: &str| {
        scan(Operation::Chat, format!(r#"{{"x":"{}","messages":{messages}}}"#, "y".repeat(99)).as_bytes()).unwrap()
    };
    let plain = r#"[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]}]"#;
    let found = chat(plain);
    assert_eq!((found.system_count, found.media_count, found.prompt_bytes), (1, 0, plain.len()));
    let image = r#"{"image_url":{"url":"data:"},"type":"image_url"}"#;
    let mixed = format!(r#"[{{"role":"user","content":[{{"type":"text"}},{image},{image}]}}]"#);
    let found = chat(&mixed);
    assert_eq!((found.media_count, found.prompt_bytes), (2, mixed.len() - 2 * image.len()));
    for (prompt, count) in [(r#""abc""#, 1), ("[1,2,3]", 1), (r#"["a","b"]"#, 2), ("[[1],[2],[3]]", 3)] {
        let found = scan(Operation::Completions, format!(r#"{{"prompt":{prompt},"x":0}}"#).as_bytes()).unwrap();
        assert_eq!((found.input_count, found.prompt_bytes), (count, prompt.len()));
    }
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::vec(("[a-z_\"é]{1,8}", inner), 0..3)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn any_messages() -> impl Strategy<Value = Vec<Json>> {
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant"]);
    let message = (role, any::<String>()).prop_map(|(role, text)| json!({ "role": role, "content": text }));
    prop::collection::vec(message, 1..6)
}

/// Fields that recipes set or deny, and fields that they know nothing of.
const NAMES: [&str; 6] = ["seed_x", "grammar", "top_k", "min_p", "x_one", "x_two"];

fn any_members() -> impl Strategy<Value = Vec<(String, String)>> {
    let fields = prop::collection::btree_map(prop::sample::select(NAMES.to_vec()), any_value(), 0..6);
    let limits = (0..3u8, prop::sample::subsequence(LIMITS.to_vec(), 0..=3));
    (any_messages(), fields, limits, any::<bool>())
        .prop_map(|(messages, fields, (limit, names), escaped)| {
            let mut members = vec![("messages".to_owned(), Json::from(messages).to_string())];
            for (name, value) in fields {
                // An escaped key means the same field.
                let key =
                    if escaped { format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]) } else { name.to_owned() };
                members.push((key, value.to_string()));
            }
            for (n, name) in names.into_iter().enumerate() {
                // One value for all, and null beside it.
                let value = if limit == 0 || (n == 1 && limit == 2) { "null" } else { "77" };
                members.push((name.to_owned(), value.to_owned()));
            }
            members
        })
        .prop_shuffle()
}

#[derive(Clone, Debug)]
struct Wish {
    prompt: Option<String>,
    replaces: bool,
    fields: Vec<(&'static str, Json, bool)>,
    denied: Vec<&'static str>,
    limit_name: Option<&'static str>,
    max_tokens: Option<u64>,
    model: Option<String>,
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let value = any_value().prop_filter("null is no setting", |value| !value.is_null());
    let fields = prop::collection::btree_map(prop::sample::select(NAMES[..4].to_vec()), (value, any::<bool>()), 0..4);
    let limit = (prop::option::of(prop::sample::select(LIMITS.to_vec())), prop::option::of(1..200u64));
    let denied = prop::sample::subsequence(NAMES.to_vec(), 0..3);
    (prop::option::of(any::<String>()), any::<bool>(), fields, denied, limit, prop::option::of("[a-z/]{1,9}")).prop_map(
        |(prompt, replaces, fields, denied, (limit_name, max_tokens), model)| Wish {
            prompt,
            replaces,
            fields: fields.into_iter().map(|(name, (value, locked))| (name, value, locked)).collect(),
            denied,
            limit_name,
            max_tokens,
            model,
        },
    )
}

impl Wish {
    fn recipe(&self) -> Recipe {
        let mut recipe = self.denied.iter().fold(Recipe::new(), |recipe, name| recipe.deny(name));
        for (name, value, locked) in &self.fields {
            recipe = recipe.field(field(name, value.clone(), *locked));
        }
        if let Some(prompt) = &self.prompt {
            recipe = recipe.system_prompt("system", prompt);
        }
        if self.replaces {
            recipe = recipe.replace_system_messages();
        }
        match self.limit_name {
            Some(name) => recipe.limit_name(name).unwrap(),
            None => recipe,
        }
    }

    /// The same with parsed values.
    fn apply(&self, body: &mut Map<String, Json>) {
        for name in &self.denied {
            body.remove(*name);
        }
        for (name, value, locked) in &self.fields {
            let absent = body.get(*name).is_none_or(Json::is_null);
            if (absent || *locked) && !self.denied.contains(name) {
                body.insert((*name).to_owned(), value.clone());
            }
        }
        let given: Vec<&str> =
            LIMITS.into_iter().filter(|name| body.get(*name).is_some_and(|value| !value.is_null())).collect();
        let limit = self.max_tokens.or_else(|| given.first().and_then(|name| body[*name].as_u64()));
        if let Some(limit) = limit {
            let own = if given.contains(&"max_tokens") { Some("max_tokens") } else { given.first().copied() };
            let name = self.limit_name.or(own).unwrap_or("max_tokens");
            LIMITS.iter().for_each(|name| drop(body.remove(*name)));
            body.insert(name.to_owned(), limit.into());
        }
        let Some(Json::Array(messages)) = body.get_mut("messages") else { panic!("no messages") };
        if self.replaces {
            messages.retain(|message| message["role"] != "system" && message["role"] != "developer");
        }
        if let Some(prompt) = &self.prompt {
            messages.insert(0, json!({ "role": "system", "content": prompt }));
        }
        if let Some(model) = &self.model {
            body.insert("model".to_owned(), json!(model));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_what_a_parse_a_change_and_a_dump_would_give(
        members in any_members(),
        wish in any_wish(),
        gap in prop::sample::select(vec!["", " ", "\n\t", "\r\n  "]),
    ) {
        let written: Vec<String> =
            members.iter().map(|(key, value)| format!("\"{key}\"{gap}:{gap}{value}")).collect();
        let body = format!("{gap}{{{gap}{}{gap}}}{gap}", written.join(&format!("{gap},{gap}")));
        let scanned = scan(Operation::Chat, body.as_bytes()).unwrap();
        let edits = Edits { model: wish.model.as_deref(), include_usage: false };
        let done = compose(body.as_bytes(), &scanned, &wish.recipe(), &edits, wish.max_tokens);
        let text = done.body.map_or_else(|| body.clone(), |bytes| String::from_utf8(bytes).unwrap());

        let mut expected: Map<String, Json> = serde_json::from_str(&body).unwrap();
        let before = expected.clone();
        wish.apply(&mut expected);
        let mut found: Map<String, Json> = serde_json::from_str(&text).unwrap();
        if expected.keys().any(|name| LIMITS.contains(&name.as_str()) && !expected[name].is_null()) {
            // A name without a value beside the one that counts says nothing.
            found.retain(|name, value| !(value.is_null() && LIMITS.contains(&name.as_str())));
        }
        prop_assert_eq!(&found, &expected);

        // Untouched fields stand there as they were written, and in their order.
        let mut rest = &text[..];
        for ((_, _), member) in members.iter().zip(&written) {
            let name = serde_json::from_str::<Map<String, Json>>(&format!("{{{member}}}")).unwrap();
            let name = name.keys().next().unwrap();
            if LIMITS.contains(&name.as_str()) || name == "messages" || before.get(name) != expected.get(name) {
                continue;
            }
            let at = rest.find(member.as_str());
            prop_assert!(at.is_some(), "{} changed", name);
            rest = &rest[at.unwrap() + member.len()..];
        }
        // What the client gave and does not arrive is named.
        for (name, value) in &before {
            let lost = !value.is_null() && expected.get(name) != Some(value) && NAMES.contains(&name.as_str());
            prop_assert_eq!(lost || wish.denied.contains(&name.as_str()), done.dropped.contains(name), "{}", name);
        }
        scan(Operation::Chat, text.as_bytes()).map(drop).or_else(|error| {
            // Only the system's messages, all replaced: the caller's to refuse before.
            if found["messages"] == json!([]) { Ok(()) } else { Err(error) }
        }).unwrap();
    }
}

fn switch(fields: &[(&str, Option<&str>, &str)], overrules: bool) -> Recipe {
    let fields = fields
        .iter()
        .map(|(name, member, value)| ((*name).to_owned(), member.map(str::to_owned), value.as_bytes().to_vec()));
    Recipe::new().thinking(Switch { fields: fields.collect(), overrules })
}

#[test]
fn a_switch_replaces_all_that_is_said_of_thinking() {
    let off = switch(&[("chat_template_kwargs", Some("enable_thinking"), "false")], true);
    let messages = r#""messages":[{"role":"user"}]"#;
    for (before, after, dropped) in [
        ("", r#""chat_template_kwargs":{"enable_thinking":false},"#, vec![]),
        (r#""think":true,"#, r#""chat_template_kwargs":{"enable_thinking":false},"#, vec!["think"]),
        (
            r#""reasoning_effort":"high","chat_template_kwargs":{ "x" : [1, 2] , "enable_thinking":true},"#,
            r#""chat_template_kwargs":{"x" : [1, 2],"enable_thinking":false},"#,
            vec!["reasoning_effort", "chat_template_kwargs"],
        ),
        (
            r#""chat_template_kwargs":{ "enable_thinking": false },"#,
            r#""chat_template_kwargs":{ "enable_thinking": false },"#,
            vec![],
        ),
        (r#""chat_template_kwargs":null,"#, r#""chat_template_kwargs":{"enable_thinking":false},"#, vec![]),
        (
            r#""chat_template_kwargs":"odd","#,
            r#""chat_template_kwargs":{"enable_thinking":false},"#,
            vec!["chat_template_kwargs"],
        ),
        (
            r#""reasoning":{"exclude":true,"effort":"low"},"#,
            r#""chat_template_kwargs":{"enable_thinking":false},"reasoning":{"exclude":true},"#,
            vec!["reasoning"],
        ),
        (
            r#""reasoning_effort":null,"#,
            r#""chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":null,"#,
            vec![],
        ),
        (r#""th\u0069nk":false,"#, r#""chat_template_kwargs":{"enable_thinking":false},"#, vec!["think"]),
    ] {
        let body = format!("{{{before}{messages}}}");
        let found = composed(&body, &off, None);
        let text = found.body.map_or_else(|| body.clone(), |bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text, format!("{{{after}{messages}}}"));
        assert_eq!(found.dropped, dropped, "{before}");
        serde_json::from_str::<Json>(&text).unwrap();
    }
    // Not told where the client is only translated; nothing at all where it says the same already.
    let same = switch(&[("reasoning_effort", None, r#""none""#)], false);
    let body = r#"{"reasoning_effort":"none","messages":[{"role":"user"}]}"#;
    assert_eq!(composed(body, &same, None), Composed::default());
    let found = composed(r#"{"messages":[{"role":"user"}],"think":false}"#, &same, None);
    assert_eq!(
        String::from_utf8(found.body.unwrap()).unwrap(),
        r#"{"reasoning_effort":"none","messages":[{"role":"user"}]}"#
    );
    assert!(found.dropped.is_empty());
    // A field that the upstream refuses stays away, whoever wants it.
    let denied = switch(&[("reasoning_effort", None, r#""none""#)], true).deny("reasoning_effort");
    assert_eq!(
        sent(r#"{"reasoning_effort":"low","messages":[{"role":"user"}]}"#, &denied, None),
        r#"{"messages":[{"role":"user"}]}"#
    );
    assert_eq!(sent(r#"{"messages":[{"role":"user"}]}"#, &denied, None), r#"{"messages":[{"role":"user"}]}"#);
}

#[test]
fn a_wish_is_read_under_every_name() {
    for (fields, expected) in [
        ("", None),
        (r#""reasoning_effort":"none","#, Some("off")),
        (r#""reasoning_effort":"xhigh","#, Some("xhigh")),
        (r#""reasoning_effort":null,"think":true,"#, Some("on")),
        (r#""think":"low","#, Some("low")),
        (r#""enable_thinking":false,"#, Some("off")),
        (r#""reasoning":{"effort":"medium"},"#, Some("medium")),
        (r#""reasoning":{"enabled":true,"max_tokens":2000},"#, Some("budget:2000")),
        (r#""reasoning":{"exclude":true},"#, None),
        (r#""thinking":{"type":"disabled"},"#, Some("off")),
        (r#""thinking":{"type":"enabled","budget_tokens":512},"#, Some("budget:512")),
        (r#""thinking_budget":0,"#, Some("off")),
        (r#""chat_template_kwargs":{"thinking":true},"#, Some("on")),
        (r#""chat_template_kwargs":{"custom":true},"#, None),
        (r#""reasoning_effort":"No such \" thing","#, None),
        (r#""reasoning":"high","#, Some("high")),
        (r#""thinking_budget":-5,"#, None),
    ] {
        let body = format!(r#"{{{fields}"messages":[{{"role":"user"}}]}}"#);
        let Ok(scanned) = scan(Operation::Chat, body.as_bytes()) else { panic!("{body}") };
        assert_eq!(wish(body.as_bytes(), &scanned).as_deref(), expected, "{fields}");
    }
}
