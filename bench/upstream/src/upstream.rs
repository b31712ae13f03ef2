//! The scripted OpenAI server: chat (plain and streamed), embeddings, models, health.

use crate::{
    body::{usage, Answer, Events},
    script::Script,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{body::Incoming, header, server::conn::http1, service::service_fn, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    rc::Rc,
    time::Duration,
};
use tokio::{net::TcpListener, task::LocalSet};

const MODELS: &str =
    r#"{"object":"list","data":[{"id":"bench-n20","object":"model","created":1700000000,"owned_by":"bench"}]}"#;

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    #[serde(default)]
    input: serde_json::Value,
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What requests share.
#[derive(Default)]
struct Kept {
    /// How many streams there were.
    streams: Cell<u64>,
    /// Vectors as JSON, by length: to print 1,536 numbers takes longer than the whole rest of a request.
    vectors: RefCell<HashMap<usize, Rc<str>>>,
}

impl Kept {
    fn vector(&self, dimensions: usize) -> Rc<str> {
        let print = || {
            let numbers: Vec<String> =
                (0..dimensions).map(|index| format!("{:.6}", (index as f64).sin() / 16.0)).collect();
            numbers.join(",").into()
        };
        let mut vectors = self.vectors.borrow_mut();
        vectors.entry(dimensions).or_insert_with(print).clone()
    }
}

/// Listens on 127.0.0.1 until it is killed.
pub async fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| format!("port {port}: {error}"))?;
    println!("listening on 127.0.0.1:{port}");
    let kept = Rc::new(Kept::default());
    LocalSet::new().run_until(accept(listener, kept)).await;
    Ok(())
}

async fn accept(listener: TcpListener, kept: Rc<Kept>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let kept = kept.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| answer(request, kept.clone()));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, kept: Rc<Kept>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET {
        return Ok(match path.as_str() {
            "/v1/models" => json(StatusCode::OK, MODELS.to_owned()),
            "/healthz" | "/health" => json(StatusCode::OK, "{}".to_owned()),
            _ => refused(StatusCode::NOT_FOUND, "no such path"),
        });
    }
    let Ok(body) = request.into_body().collect().await else {
        return Ok(refused(StatusCode::BAD_REQUEST, "the body ended early"));
    };
    let Ok(ask) = serde_json::from_slice::<Ask>(&body.to_bytes()) else {
        return Ok(refused(StatusCode::BAD_REQUEST, "the body is not JSON"));
    };
    let script = Script::of(&ask.model);
    match path.as_str() {
        "/v1/chat/completions" if ask.stream => {
            let events =
                Events::new(&ask.model, script, ask.stream_options.include_usage, phase(&kept.streams, script.gap_ms));
            Ok(respond(StatusCode::OK, "text/event-stream", Answer::Stream(Box::new(events))))
        }
        "/v1/chat/completions" => {
            wait(script.first_ms).await;
            Ok(json(StatusCode::OK, chat(&ask.model, script)))
        }
        "/v1/embeddings" => {
            wait(script.first_ms).await;
            Ok(json(StatusCode::OK, embeddings(&ask, &kept.vector(script.dimensions))))
        }
        _ => Ok(refused(StatusCode::NOT_FOUND, "no such path")),
    }
}

/// Spreads streams over the gap between two chunks, evenly for any number of them (golden ratio).
fn phase(streams: &Cell<u64>, gap_ms: u64) -> Duration {
    let number = streams.get();
    streams.set(number + 1);
    let share = (number as f64 * 0.618_033_988_75).fract();
    Duration::from_micros((share * 1000.0 * gap_ms as f64) as u64)
}

async fn wait(milliseconds: u64) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

fn chat(model: &str, script: Script) -> String {
    let model = serde_json::Value::from(model);
    let (text, usage) = (script.filler(script.chunks), usage(script.chunks));
    format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\
         \"model\":{model},\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{usage}}}"
    )
}

fn embeddings(ask: &Ask, vector: &str) -> String {
    let count = ask.input.as_array().map_or(1, Vec::len);
    let items: Vec<String> = (0..count)
        .map(|index| format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":[{vector}]}}"))
        .collect();
    let (items, model) = (items.join(","), serde_json::Value::from(ask.model.as_str()));
    format!(
        "{{\"object\":\"list\",\"data\":[{items}],\"model\":{model},\
         \"usage\":{{\"prompt_tokens\":20,\"total_tokens\":20}}}}"
    )
}

fn refused(status: StatusCode, why: &str) -> Response<Answer> {
    json(
        status,
        format!(
            "{{\"error\":{{\"message\":\"{why}\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}}}"
        ),
    )
}

fn json(status: StatusCode, text: String) -> Response<Answer> {
    respond(status, "application/json", Answer::Whole(Some(Bytes::from(text))))
}

fn respond(status: StatusCode, kind: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
