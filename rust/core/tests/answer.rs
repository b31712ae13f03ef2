//! Plain answers and error bodies, as upstreams of every kind write them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use std::time::{Duration, SystemTime};

use sluicegate_core::chat::answer::{form, is_event_stream, is_json, read, read_error, Form};
use sluicegate_core::chat::observe::{Observed, Usage};
use sluicegate_core::chat::Operation;
use sluicegate_core::error::{Error, UpstreamError};
use sluicegate_core::relay::Plan;

const JSON: Option<&str> = Some("application/json");

fn plan(public_model: Option<&str>) -> Plan {
    Plan {
        operation: Operation::Chat,
        public_model: public_model.map(str::to_owned),
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage: true,
        choices: 1,
        max_event_bytes: 1 << 20,
        max_answer_bytes: 1 << 26,
    }
}

fn read_json(body: &str) -> Result<(String, Observed), Error> {
    read(&plan(None), JSON, body.as_bytes().to_vec())
        .map(|(body, observed)| (String::from_utf8(body).expect("text"), observed))
}

const COMPLETION: &str = r#"{
  "id": "chatcmpl-1", "object": "chat.completion", "created": 1763792400, "model": "gpt-4o-2024-08-06",
  "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "né 🌍\n", "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"},
    {"index": 1, "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}, "finish_reason": "tool_calls"}
  ],
  "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29, "prompt_tokens_details": {"cached_tokens": 0}},
  "system_fingerprint": "fp", "new_field": {"model": "inner"}
}"#;

#[test]
fn a_plain_answer_is_observed_and_stays_the_same_allocation() {
    let body = COMPLETION.as_bytes().to_vec();
    let place = body.as_ptr();
    let (same, observed) = read(&plan(None), JSON, body).expect("valid");
    assert_eq!((same.as_ptr(), same.as_slice()), (place, COMPLETION.as_bytes()));
    let usage = Usage { prompt: Some(19), completion: Some(10), total: Some(29), cached: Some(0), reasoning: None };
    assert_eq!((observed.usage, observed.usage_suspect), (Some(usage), false));
    assert_eq!(observed.finish_reasons, [Some("stop".to_owned()), Some("tool_calls".to_owned())]);
    assert_eq!(observed.model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!((observed.events, observed.bytes), (0, COMPLETION.len() as u64));
    assert_eq!(observed.content_bytes, ("né 🌍\n".len() + "{\"a\":1}".len()) as u64);
}

#[test]
fn only_the_model_is_replaced() {
    let (body, _) = read(&plan(Some("team/a")), JSON, COMPLETION.as_bytes().to_vec()).expect("valid");
    assert_eq!(String::from_utf8(body).expect("text"), COMPLETION.replace("gpt-4o-2024-08-06", "team/a"));
    let body = r#"{"object":"list","data":[{"embedding":[0.1,-2e-3],"index":0}],"model":"e5","usage":{"prompt_tokens":4,"total_tokens":4}}"#;
    let embeddings = Plan { operation: Operation::Embeddings, ..plan(Some("emb")) };
    let (changed, observed) = read(&embeddings, JSON, body.into()).expect("valid");
    assert_eq!(String::from_utf8(changed).expect("text"), body.replace("e5", "emb"));
    let usage = observed.usage.expect("usage");
    assert_eq!((usage.prompt, usage.total, observed.usage_suspect), (Some(4), Some(4), false));
    let models = Plan { operation: Operation::Models, ..plan(None) };
    let list = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;
    assert_eq!(read(&models, JSON, list.into()).expect("valid").0, list.as_bytes());
}

#[test]
fn answers_that_are_errors() {
    for (content_type, body, error) in [
        (JSON, &b""[..], Error::Empty),
        (None, b" \r\n\t", Error::Empty),
        (Some("text/html"), b"", Error::Empty),
        (Some("text/html; charset=utf-8"), b"<html>sign in</html>", Error::BadContentType),
        (Some("text/plain"), b"{}", Error::BadContentType),
        (Some("application/octet-stream"), b"{}", Error::BadContentType),
        (None, b"<html>", Error::BadContentType),
        (None, b"[]", Error::BadContentType),
        (JSON, b"<html>", Error::InvalidAnswer),
        (JSON, b"[]", Error::InvalidAnswer),
        (JSON, b"null", Error::InvalidAnswer),
        (JSON, b"{\"a\":1", Error::InvalidAnswer),
        (JSON, b"{\"a\":1}{}", Error::InvalidAnswer),
        (JSON, b"{\"a\":\"\xff\"}", Error::InvalidUtf8),
        (Some("text/event-stream"), b"data: {\"choices\":[]}\n\n", Error::Truncated),
        (Some("text/event-stream"), b"data: {\n\n", Error::InvalidEvent),
        (None, b"data: \xff\n\n", Error::InvalidUtf8),
    ] {
        assert_eq!(
            read(&plan(None), content_type, body.to_vec()).expect_err("an error"),
            error,
            "{content_type:?} {body:?}"
        );
    }
    let nested = format!("{}1{}", "{\"a\":".repeat(65), "}".repeat(65));
    assert_eq!(read_json(&nested).expect_err("too deep"), Error::InvalidAnswer);
    let small = Plan { max_answer_bytes: 10, ..plan(None) };
    assert_eq!(
        read(&small, JSON, vec![b' '; 9].into_iter().chain(*b"{}").collect()),
        Err(Error::AnswerTooLarge { limit: 10 })
    );
}

#[test]
fn errors_with_status_200() {
    let said = |body: &str| match read_json(body) {
        Err(Error::InBand(said)) => *said,
        other => panic!("{body}: {other:?}"),
    };
    let full = said(r#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#);
    let word = |text: &str| Some(text.to_owned());
    assert_eq!(full, UpstreamError { message: word("m"), kind: word("t"), param: word("p"), code: word("c") });
    assert_eq!(said(r#"{"error":"text"}"#).message, word("text"));
    assert_eq!(said(r#"{"object":"error","message":"m","code":400}"#).kind, word("invalid_request_error"));
    assert!(matches!(read_json(r#"{"error":{"message":"bad key","code":401}}"#), Err(Error::Auth { status: 401 })));
    assert!(matches!(read_json(r#"{"error":{"message":"no","code":"403"}}"#), Err(Error::Auth { status: 403 })));
    assert!(read_json(r#"{"error":null,"choices":[]}"#).is_ok());
}

#[test]
fn content_types() {
    for json in ["application/json", "Application/JSON; charset=utf-8", " text/json", "application/problem+json;x"] {
        assert!(is_json(json) && !is_event_stream(json), "{json}");
        assert_eq!(form(Some(json), b"data: x"), Form::Json);
    }
    for other in ["application/jsonx", "text/html", "application/x-ndjson", "json"] {
        assert!(!is_json(other) && !is_event_stream(other), "{other}");
        assert_eq!(form(Some(other), b"{}"), Form::Other);
    }
    assert_eq!(form(Some("text/event-stream;charset=UTF-8"), b"{}"), Form::Events);
    for (body, expected) in [
        (&b" \n{\"a\":1}"[..], Form::Json),
        (b"data: x", Form::Events),
        (b"\xEF\xBB\xBFdata:x", Form::Events),
        (b"event: x", Form::Events),
        (b": ping", Form::Events),
        (b"<html>", Form::Other),
        (b"", Form::Other),
    ] {
        assert_eq!((form(None, body), form(Some(" "), body)), (expected, expected), "{body:?}");
    }
}

fn error(status: u16, body: &str) -> Error {
    read_error(status, None, None, None, body.as_bytes())
}

fn body_of(body: &str) -> UpstreamError {
    match error(500, body) {
        Error::Status { body, .. } => *body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn statuses() {
    let said = r#"{"error":{"message":"said","type":"t","param":null,"code":null}}"#;
    let message = Some("said".to_owned());
    for (status, expected) in [
        (204, Error::Empty),
        (301, Error::Redirect { status: 301 }),
        (308, Error::Redirect { status: 308 }),
        (401, Error::Auth { status: 401 }),
        (403, Error::Auth { status: 403 }),
        (404, Error::ModelNotFound { upstream_message: message.clone() }),
        (429, Error::RateLimited { retry_after: None, upstream_message: message, quota: false }),
    ] {
        assert_eq!(error(status, said), expected);
    }
    for status in [400, 402, 405, 408, 409, 413, 415, 422, 425, 499, 500, 501, 502, 503, 504, 529, 599] {
        let public = error(status, said).public();
        assert_eq!((public.status, public.message.as_str(), public.kind.as_str()), (status, "said", "t"));
        assert_eq!(public.code, "upstream_error", "a null code leaves ours");
    }
    for status in [0, 100, 199, 202, 600, 999] {
        assert!(matches!(error(status, said), Error::Protocol(_)), "{status}");
    }
}

#[test]
fn quota_is_told_from_a_rate() {
    for (body, expected) in [
        (r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#, "insufficient_quota"),
        (r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":null}}"#, "insufficient_quota"),
        (r#"{"error":{"message":"m","code":"billing_hard_limit_reached"}}"#, "insufficient_quota"),
        (r#"{"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#, "rate_limit_exceeded"),
        ("", "rate_limit_exceeded"),
        ("<html>", "rate_limit_exceeded"),
    ] {
        let error = error(429, body);
        let public = error.public();
        assert_eq!((public.status, public.code.as_str()), (429, expected), "{body}");
        assert_eq!(error.should_retry(), (expected == "insufficient_quota").then_some(false));
    }
}

#[test]
fn shapes_of_error_bodies() {
    let message = |body: &str| body_of(body).message;
    for (body, expected) in [
        (r#"{"error":{"message":"openai"}}"#, Some("openai")),
        (r#"{"error":"text"}"#, Some("text")),
        (r#"{"detail":"fastapi"}"#, Some("fastapi")),
        (
            r#"{"detail":[{"loc":["body"],"msg":"field required"},{"msg":"too short"},{"x":1}]}"#,
            Some("field required; too short"),
        ),
        (r#"{"detail":{"error":{"message":"inner"}}}"#, Some("inner")),
        (r#"{"message":"top"}"#, Some("top")),
        (r#"{"object":"error","message":"old vLLM","type":"BadRequestError","code":400}"#, Some("old vLLM")),
        (r#"{"error":true,"message":"flag"}"#, Some("flag")),
        (r#"{"error":{"code":1},"message":"outer"}"#, Some("outer")),
        (r#"[{"error":{"code":400,"message":"google","status":"INVALID_ARGUMENT"}}]"#, Some("google")),
        (r#"{"errors":[{"message":"cloudflare","code":7003}],"success":false}"#, Some("cloudflare")),
        (r#""just text""#, Some("just text")),
        ("\u{feff}{\"message\":\"bom\"}", Some("bom")),
        ("", None),
        ("{}", None),
        ("[]", None),
        ("null", None),
        ("17", None),
        ("Internal Server Error", None),
        ("<html><body>502 Bad Gateway</body></html>", None),
        (r#"{"error":{"message":"cut in the mid"#, None),
        (r#"{"error":{"message":17}}"#, None),
        (r#"{"error":{"message":"  "}}"#, None),
        (r#"{"error":null}"#, None),
    ] {
        assert_eq!(message(body).as_deref(), expected, "{body}");
    }
}

#[test]
fn codes_are_words() {
    let code = |code: &str| body_of(&format!(r#"{{"error":{{"message":"m","code":{code}}}}}"#)).code;
    for (given, expected) in [
        ("\"context_length_exceeded\"", Some("context_length_exceeded")),
        ("7003", Some("7003")),
        ("-1", Some("-1")),
        ("\"1305\"", Some("1305")),
        ("400", None),
        ("\"500\"", None),
        ("599", None),
        ("null", None),
        ("{}", None),
        ("\"\"", None),
    ] {
        assert_eq!(code(given).as_deref(), expected, "{given}");
    }
    let vllm = error(400, r#"{"error":{"message":"too long","type":"BadRequestError","param":"messages","code":400}}"#)
        .public();
    assert_eq!(
        (vllm.kind.as_str(), vllm.code.as_str(), vllm.param.as_deref()),
        ("BadRequestError", "upstream_error", Some("messages"))
    );
}

#[test]
fn texts_are_cut_and_cleaned() {
    let long = format!(
        r#"{{"error":{{"message":"{}","type":"{}","code":"{}"}}}}"#,
        "é".repeat(5000),
        "t".repeat(5000),
        "c".repeat(5000)
    );
    let said = body_of(&long);
    assert_eq!(said.message.map(|text| text.len()), Some(4096));
    assert_eq!((said.kind.map(|text| text.len()), said.code.map(|text| text.len())), (Some(256), Some(256)));
    let odd = body_of(r#"{"error":{"message":" a\r\nb\u0000\u001b[31mc\u007f\u0085\td\ud83d\ude00 "}}"#);
    assert_eq!(odd.message.as_deref(), Some("a  b[31mc d😀"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(body_of(&deep), UpstreamError::default());
}

#[test]
fn a_path_that_does_not_exist_says_what_to_do() {
    for body in [r#"{"detail":"Not Found"}"#, "404 page not found", "", "<html>404</html>"] {
        let public = error(404, body).public();
        assert_eq!((public.status, public.code.as_str()), (404, "model_not_found"));
        assert!(public.message.contains("/v1/models"), "{body}: {}", public.message);
    }
    let said = error(404, r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#).public();
    assert_eq!(said.message, "The model `x` does not exist");
}

fn waits(seconds: Option<&str>, milliseconds: Option<&str>) -> Option<Duration> {
    let limited = read_error(429, seconds, milliseconds, None, b"");
    let failed = read_error(503, seconds, milliseconds, None, b"");
    let close = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_secs(2);
    match (limited.retry_after(), failed.retry_after()) {
        (Some(a), Some(b)) => assert!(close(a, b)),
        (a, b) => assert_eq!(a, b),
    }
    limited.retry_after()
}

#[test]
fn retry_after_in_every_form() {
    let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
    for (text, expected) in [
        ("0", seconds(0.0)),
        ("17", seconds(17.0)),
        (" 17 ", seconds(17.0)),
        ("1.5", seconds(1.5)),
        ("120", seconds(120.0)),
        ("121", seconds(120.0)),
        ("1000000000", seconds(120.0)),
        ("99999999999999999999999999999999", seconds(120.0)),
        ("-1", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (".", None),
        ("1.2.3", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", seconds(0.0)),
        ("Wed, 21 Oct 2015", None),
    ] {
        assert_eq!(waits(Some(text), None), expected, "{text:?}");
    }
    for (ahead, at_least, at_most) in [(60, 57, 60), (86_400, 120, 120)] {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead));
        let wait = waits(Some(&date), None).expect("a date").as_secs_f64();
        assert!((f64::from(at_least)..=f64::from(at_most)).contains(&wait), "{date}: {wait}");
    }
    assert_eq!(waits(Some("7"), Some("250")), seconds(0.25), "milliseconds win");
    assert_eq!(waits(Some("7"), Some("soon")), seconds(7.0));
    assert_eq!(waits(None, Some("1e9")), None);
    assert_eq!(waits(None, Some("999999999")), seconds(120.0));
    assert_eq!(waits(None, None), None);
}

#[test]
fn should_retry_is_kept() {
    for (text, expected) in [(Some("true"), Some(true)), (Some(" False"), Some(false)), (Some("1"), None), (None, None)]
    {
        assert_eq!(read_error(503, None, None, text, b"").should_retry(), expected, "{text:?}");
    }
}
