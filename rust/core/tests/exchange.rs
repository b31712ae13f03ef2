//! One call against a scripted upstream on loopback: the test plays the upstream, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use bytes::Bytes;
use sluicegate_core::chat::Operation;
use sluicegate_core::error::{Clock, UpstreamError};
use sluicegate_core::upstream::deadline::Clocks;
use sluicegate_core::upstream::exchange::{run, Call, Reply, Sink};
use sluicegate_core::upstream::outlet::{Cancel, End, Outcome, Outlet, Taken};
use sluicegate_core::upstream::response::ReplyHeaders;
use sluicegate_core::upstream::target::{Target, TargetConfig};
use sluicegate_core::Error;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const ANSWER: &str = r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
const DELTA: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const STOP: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/// No test may hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Upstream(TcpListener);

impl Upstream {
    async fn start() -> Self {
        Upstream(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn target(&self) -> Arc<Target> {
        let config = TargetConfig {
            base_url: format!("http://{}/v1", self.0.local_addr().unwrap()),
            api_key: Some("sk-upstream".into()),
            headers: vec![("X-Team".into(), "blue".into())],
            clocks: clocks(),
            pool_idle_timeout: Duration::from_secs(30),
            max_event_bytes: 1 << 20,
            max_answer_bytes: 1 << 30,
            allow_private_networks: Vec::new(),
            ca_pem: None,
            http2: false,
            trusted: true,
            exact: false,
        };
        Arc::new(Target::new(config).unwrap())
    }

    async fn accept(&self) -> Peer {
        Peer(self.0.accept().await.unwrap().0)
    }

    async fn nobody_comes(&self) -> bool {
        timeout(ms(100), self.0.accept()).await.is_err()
    }
}

/// The upstream's side of one connection.
struct Peer(TcpStream);

impl Peer {
    /// Head and body of the next request.
    async fn request(&mut self) -> (String, String) {
        let mut read = Vec::new();
        loop {
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(read[..end + 4].to_vec()).unwrap();
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
                if read.len() >= end + 4 + length {
                    assert_eq!(read.len(), end + 4 + length, "more than one request came");
                    return (head, String::from_utf8(read[end + 4..].to_vec()).unwrap());
                }
            }
            assert_ne!(self.0.read_buf(&mut read).await.unwrap(), 0, "closed in a request");
        }
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn chunk(&mut self, text: &str) {
        self.send(&chunk(text)).await;
    }

    /// A whole answer.
    async fn answer(&mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        self.send(&format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")).await;
    }

    async fn plain(&mut self) {
        self.answer("200 OK", "content-type: application/json\r\n", ANSWER).await;
    }

    /// The gateway has closed the connection, orderly or not.
    async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0u8; 64]).await, Ok(0) | Err(_))
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn clocks() -> Clocks {
    // Long enough for a machine that stands still for some seconds.
    let long = Duration::from_secs(30);
    Clocks { connect: long, first_event: long, idle: long, total: long }
}

fn plain_call() -> Call {
    Call {
        operation: Operation::Chat,
        body: Some(Bytes::from_static(b"{\"model\":\"m\"}")),
        stream: false,
        public_model: None,
        public_id: None,
        keep: false,
        shape: None,
        thinking: None,
        logprobs: None,
        said: None,
        hide_usage: false,
        hold_bytes: 0,
        choices: 1,
        keep_alive: Duration::ZERO,
        headers: Vec::new(),
        clocks: clocks(),
    }
}

fn stream_call() -> Call {
    Call { stream: true, ..plain_call() }
}

enum Told {
    Reply(Result<Reply, Error>),
    Ready,
}

/// Collects what a call tells.
struct Collector(UnboundedSender<Told>);

impl Sink for Collector {
    fn reply(&self, reply: Result<Reply, Error>) {
        let _ = self.0.send(Told::Reply(reply));
    }
    fn ready(&self, _: &Arc<Outlet>) {
        let _ = self.0.send(Told::Ready);
    }
}

struct Running {
    told: UnboundedReceiver<Told>,
    cancel: Arc<Cancel>,
    task: JoinHandle<()>,
}

fn start(target: &Arc<Target>, call: Call) -> Running {
    let (sender, told) = unbounded_channel();
    let cancel = Arc::new(Cancel::default());
    let (target, switch) = (target.clone(), cancel.clone());
    let task = tokio::spawn(async move { run(target, call, switch, &Collector(sender)).await });
    Running { told, cancel, task }
}

impl Running {
    async fn reply(&mut self) -> Result<Reply, Error> {
        match self.told.recv().await {
            Some(Told::Reply(reply)) => reply,
            Some(Told::Ready) => panic!("ready before the reply"),
            None => panic!("ended without a reply"),
        }
    }

    async fn error(mut self) -> Error {
        let Err(error) = self.reply().await else { panic!("it answered") };
        self.task.await.unwrap();
        assert!(self.told.recv().await.is_none(), "it told more than its error");
        error
    }

    async fn plain(mut self) -> (ReplyHeaders, String, Outcome) {
        let Ok(Reply::Plain { headers, body, outcome }) = self.reply().await else { panic!("no plain answer") };
        self.task.await.unwrap();
        assert!(self.told.recv().await.is_none(), "it told more than its answer");
        (headers, String::from_utf8(body).unwrap(), *outcome)
    }

    async fn stream(&mut self) -> Arc<Outlet> {
        match self.reply().await {
            Ok(Reply::Stream { outlet, .. }) => outlet,
            Ok(Reply::Plain { .. }) => panic!("a plain answer"),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The next batch, or the end.
    async fn next(&mut self, outlet: &Outlet) -> Taken {
        loop {
            match outlet.take() {
                Taken::Nothing => match self.told.recv().await {
                    Some(Told::Ready) => {}
                    Some(Told::Reply(_)) => panic!("a second reply"),
                    None => panic!("it went without an end"),
                },
                taken => return taken,
            }
        }
    }

    async fn read_until(&mut self, outlet: &Outlet, needle: &str) -> String {
        let mut text = String::new();
        while !text.contains(needle) {
            match self.next(outlet).await {
                Taken::Batch(bytes) => text.push_str(&String::from_utf8(bytes).unwrap()),
                _ => panic!("ended before {needle:?}: {text:?}"),
            }
        }
        text
    }

    /// All that is left, and how it ended.
    async fn rest(&mut self, outlet: &Outlet) -> (String, Outcome) {
        let mut bytes = Vec::new();
        loop {
            match self.next(outlet).await {
                Taken::Batch(batch) => bytes.extend(batch),
                Taken::Ended(mut outcome) => {
                    bytes.append(&mut outcome.tail);
                    return (String::from_utf8(bytes).unwrap(), *outcome);
                }
                Taken::Nothing => unreachable!("next() waits"),
            }
        }
    }
}

/// A new upstream, a call to it, and its side of the connection, the request read.
async fn asked(call: Call) -> (Upstream, Arc<Target>, Running, Peer) {
    let upstream = Upstream::start().await;
    let target = upstream.target();
    let running = start(&target, call);
    let mut peer = upstream.accept().await;
    peer.request().await;
    (upstream, target, running, peer)
}

/// The same, with the first event of a stream on its way to the reader.
async fn streaming(call: Call) -> (Arc<Target>, Running, Peer, Arc<Outlet>) {
    let (_, target, mut running, mut peer) = asked(call).await;
    peer.send(STREAM_HEAD).await;
    peer.chunk(DELTA).await;
    let outlet = running.stream().await;
    (target, running, peer, outlet)
}

#[tokio::test]
async fn a_plain_answer_comes_whole() {
    within(async {
        let upstream = Upstream::start().await;
        let target = upstream.target();
        let call = start(&target, Call { public_model: Some("public".into()), ..plain_call() });
        let mut peer = upstream.accept().await;
        let (head, body) = peer.request().await;
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
        for line in ["authorization: Bearer sk-upstream", "x-team: blue", "accept-encoding: identity"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
        assert_eq!(body, "{\"model\":\"m\"}");
        let headers = "content-type: application/json\r\nx-request-id: r1\r\nset-cookie: a=b\r\n";
        peer.answer("200 OK", headers, ANSWER).await;
        let (headers, body, outcome) = call.plain().await;
        assert_eq!(body, ANSWER.replace("\"m\"", "\"public\""));
        let names: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(names, [("x-upstream-request-id", "r1")]);
        assert_eq!((outcome.end, outcome.error, outcome.attempts), (End::Finished, None, 1));
        assert_eq!(target.pool.counts(), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn one_connection_serves_three_calls() {
    within(async {
        let upstream = Upstream::start().await;
        let target = upstream.target();
        let mut first = start(&target, stream_call());
        let mut peer = upstream.accept().await;
        peer.request().await;
        peer.send(STREAM_HEAD).await;
        peer.chunk(&[DELTA, STOP, DONE].concat()).await;
        peer.send("0\r\n\r\n").await;
        let outlet = first.stream().await;
        let (text, outcome) = first.rest(&outlet).await;
        assert_eq!(text, [DELTA, STOP, DONE].concat());
        assert_eq!((outcome.end, outcome.attempts), (End::Finished, 1));
        assert!(outcome.first_event.is_some_and(|t| t <= outcome.duration));
        first.task.await.unwrap();
        for _ in 0..2 {
            assert_eq!(target.pool.counts(), (1, 0));
            let call = start(&target, plain_call());
            peer.request().await;
            peer.plain().await;
            assert_eq!(call.plain().await.2.attempts, 1);
        }
        assert!(upstream.nobody_comes().await);
    })
    .await;
}

/// A target with one idle connection, and that connection.
async fn pooled(upstream: &Upstream) -> (Arc<Target>, Peer) {
    let target = upstream.target();
    let call = start(&target, plain_call());
    let mut peer = upstream.accept().await;
    peer.request().await;
    peer.plain().await;
    call.plain().await;
    assert_eq!(target.pool.counts(), (1, 0));
    (target, peer)
}

#[tokio::test]
async fn a_pooled_connection_closed_on_use_costs_a_second_attempt() {
    within(async {
        let upstream = Upstream::start().await;
        let (target, mut peer) = pooled(&upstream).await;
        let call = start(&target, plain_call());
        peer.request().await;
        drop(peer);
        let mut peer = upstream.accept().await;
        assert_eq!(peer.request().await.1, "{\"model\":\"m\"}");
        peer.plain().await;
        let (_, body, outcome) = call.plain().await;
        assert_eq!((body.as_str(), outcome.attempts), (ANSWER, 2));
    })
    .await;
}

#[tokio::test]
async fn a_large_request_is_not_sent_twice() {
    within(async {
        let upstream = Upstream::start().await;
        let (target, mut peer) = pooled(&upstream).await;
        let body = Bytes::from(format!("{{\"model\":\"{}\"}}", "m".repeat(64 * 1024)));
        let call = start(&target, Call { body: Some(body), ..plain_call() });
        peer.request().await;
        drop(peer);
        assert_eq!(call.error().await, Error::ClosedEarly { reused: true });
        assert!(upstream.nobody_comes().await);
    })
    .await;
}

#[tokio::test]
async fn a_pooled_connection_closed_while_idle_is_not_used() {
    within(async {
        let upstream = Upstream::start().await;
        let (target, peer) = pooled(&upstream).await;
        drop(peer);
        sleep(ms(50)).await;
        let call = start(&target, plain_call());
        let mut peer = upstream.accept().await;
        peer.request().await;
        peer.plain().await;
        assert_eq!(call.plain().await.2.attempts, 1);
    })
    .await;
}

#[tokio::test]
async fn an_unasked_answer_spoils_a_pooled_connection() {
    within(async {
        let upstream = Upstream::start().await;
        let (target, mut old) = pooled(&upstream).await;
        old.answer("200 OK", "content-type: application/json\r\n", "{\"forged\":true}").await;
        sleep(ms(50)).await;
        let call = start(&target, plain_call());
        let mut peer = upstream.accept().await;
        peer.request().await;
        peer.plain().await;
        assert_eq!(call.plain().await.1, ANSWER);
        assert!(old.is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn a_fresh_connection_closed_without_answer_is_an_error() {
    within(async {
        let (upstream, target, call, peer) = asked(plain_call()).await;
        drop(peer);
        assert_eq!(call.error().await, Error::ClosedEarly { reused: false });
        assert!(upstream.nobody_comes().await);
        assert_eq!(target.pool.counts(), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error() {
    within(async {
        let upstream = Upstream::start().await;
        let target = upstream.target();
        drop(upstream);
        assert_eq!(start(&target, plain_call()).error().await, Error::Connect);
    })
    .await;
}

#[tokio::test]
async fn the_keep_alive_header_is_obeyed() {
    within(async {
        for (seconds, kept) in [(1, 0), (2, 1)] {
            let (upstream, target, call, mut peer) = asked(plain_call()).await;
            let headers = format!("content-type: application/json\r\nkeep-alive: timeout={seconds}, max=9\r\n");
            peer.answer("200 OK", &headers, ANSWER).await;
            call.plain().await;
            assert_eq!(target.pool.counts(), (kept, 0), "timeout={seconds}");
            if kept == 1 {
                // A second less than announced.
                sleep(ms(1050)).await;
                let again = start(&target, plain_call());
                let mut fresh = upstream.accept().await;
                fresh.request().await;
                fresh.plain().await;
                again.plain().await;
            }
            assert!(peer.is_closed().await, "timeout={seconds}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_event_clock_ends_a_silent_call() {
    within(async {
        for with_head in [false, true] {
            let call = Call { clocks: Clocks { first_event: ms(100), ..clocks() }, ..stream_call() };
            let (_, _, call, mut peer) = asked(call).await;
            if with_head {
                peer.send(STREAM_HEAD).await;
                peer.chunk(": a comment is no event\n\n").await;
            }
            let error = match with_head {
                false => call.error().await,
                true => {
                    let mut call = call;
                    match call.reply().await {
                        Err(error) => error,
                        Ok(Reply::Stream { outlet, .. }) => call.rest(&outlet).await.1.error.unwrap(),
                        Ok(Reply::Plain { .. }) => panic!("a plain answer"),
                    }
                }
            };
            assert_eq!(error, Error::Timeout { clock: Clock::FirstEvent, after: ms(100) }, "head: {with_head}");
            assert!(peer.is_closed().await);
        }
    })
    .await;
}

#[tokio::test]
async fn the_idle_clock_ends_a_stream_that_stopped() {
    within(async {
        let (_, mut call, mut peer, outlet) =
            streaming(Call { clocks: Clocks { idle: ms(100), ..clocks() }, ..stream_call() }).await;
        let (text, outcome) = call.rest(&outlet).await;
        assert!(outcome.duration < ms(20_000), "the timer still slept for the clock before: {:?}", outcome.duration);
        let error = Error::Timeout { clock: Clock::Idle, after: ms(100) };
        assert_eq!((outcome.end, outcome.error), (End::Failed, Some(error)));
        assert!(text.starts_with(DELTA) && text.contains("upstream_timeout"), "{text}");
        assert!(peer.is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn the_idle_clock_ends_a_plain_answer_that_stopped() {
    within(async {
        let (_, _, call, mut peer) = asked(Call { clocks: Clocks { idle: ms(100), ..clocks() }, ..plain_call() }).await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{").await;
        let begun = Instant::now();
        assert_eq!(call.error().await, Error::Timeout { clock: Clock::Idle, after: ms(100) });
        assert!(begun.elapsed() < ms(20_000), "the timer still slept for the clock before");
    })
    .await;
}

#[tokio::test]
async fn the_total_clock_ends_a_stream_that_goes_on() {
    within(async {
        let call = Call { clocks: Clocks { total: ms(600), ..clocks() }, ..stream_call() };
        let (_, _, mut call, mut peer) = asked(call).await;
        peer.send(STREAM_HEAD).await;
        let writer = tokio::spawn(async move {
            while peer.0.write_all(chunk(DELTA).as_bytes()).await.is_ok() {
                sleep(ms(20)).await;
            }
        });
        let outlet = call.stream().await;
        let (text, outcome) = call.rest(&outlet).await;
        assert_eq!(outcome.error, Some(Error::Timeout { clock: Clock::Total, after: ms(600) }));
        assert!(text.matches(DELTA).count() >= 2, "{text}");
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn keep_alives_come_before_the_first_event_and_an_error_is_then_an_event() {
    within(async {
        let (_, _, mut call, mut peer) = asked(Call { keep_alive: ms(50), ..stream_call() }).await;
        let outlet = call.stream().await;
        let comments = call.read_until(&outlet, ": keep-alive\n\n: keep-alive\n\n").await;
        assert_eq!(comments.replace(": keep-alive\n\n", ""), "");
        peer.answer("429 Too Many Requests", "retry-after: 7\r\n", "{}").await;
        let (text, outcome) = call.rest(&outlet).await;
        let text = text.replace(": keep-alive\n\n", "");
        assert_eq!(outcome.end, End::Failed);
        assert!(matches!(outcome.error, Some(Error::RateLimited { .. })), "{:?}", outcome.error);
        assert!(text.contains("rate_limit_exceeded") && text.starts_with("data: {"), "{text}");
        assert_eq!(outcome.first_event, None);
    })
    .await;
}

#[tokio::test]
async fn cancelling_closes_the_socket() {
    within(async {
        let (target, mut call, mut peer, outlet) = streaming(stream_call()).await;
        assert_eq!(call.read_until(&outlet, DELTA).await, DELTA);
        call.cancel.client_closed();
        let (text, outcome) = call.rest(&outlet).await;
        assert_eq!((text.as_str(), outcome.end, outcome.error), ("", End::Cancelled, Some(Error::Cancelled)));
        assert!(peer.is_closed().await);
        call.task.await.unwrap();
        assert_eq!(target.pool.counts(), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn cancelling_before_the_answer_gives_the_cause() {
    within(async {
        for (shutdown, expected) in [(false, Error::Cancelled), (true, Error::Shutdown)] {
            let (_, _, call, mut peer) = asked(plain_call()).await;
            match shutdown {
                true => call.cancel.shutdown(),
                false => call.cancel.client_closed(),
            }
            assert_eq!(call.error().await, expected);
            assert!(peer.is_closed().await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_is_told_in_the_stream() {
    within(async {
        let (_, mut call, _peer, outlet) = streaming(stream_call()).await;
        call.cancel.shutdown();
        let (text, outcome) = call.rest(&outlet).await;
        assert_eq!((outcome.end, outcome.error), (End::Cancelled, Some(Error::Shutdown)));
        assert!(text.contains("server_shutdown"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_key_is_told_in_the_stream() {
    within(async {
        type Way = fn(&Cancel);
        let cancels: [(Way, Error, &str); 2] = [
            (Cancel::key_revoked, Error::KeyRevoked, "api_key_revoked"),
            (Cancel::key_expired, Error::KeyExpired, "api_key_expired"),
        ];
        for (cancel, error, code) in cancels {
            let (target, mut call, mut peer, outlet) = streaming(stream_call()).await;
            assert_eq!(call.read_until(&outlet, DELTA).await, DELTA);
            cancel(&call.cancel);
            let (text, outcome) = call.rest(&outlet).await;
            assert_eq!((outcome.end, outcome.error), (End::Cancelled, Some(error)));
            assert!(text.contains(code) && !text.contains("[DONE]"), "{text}");
            assert!(peer.is_closed().await);
            call.task.await.unwrap();
            assert_eq!(target.pool.counts(), (0, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_dropped_call_closes_its_socket() {
    within(async {
        let (target, call, mut peer, outlet) = streaming(stream_call()).await;
        assert_eq!(target.pool.counts(), (0, 1));
        call.task.abort();
        assert!(call.task.await.unwrap_err().is_cancelled(), "it panicked");
        assert!(peer.is_closed().await);
        assert_eq!(target.pool.counts(), (0, 0));
        // The reader still gets an end.
        assert!(matches!(outlet.take(), Taken::Batch(b) if b == DELTA.as_bytes()));
        outlet.abort(Error::Internal);
        assert!(matches!(outlet.take(), Taken::Ended(o) if o.error == Some(Error::Internal) && !o.tail.is_empty()));
    })
    .await;
}

/// Writes `count` events as fast as they are taken, counting them, then the end.
fn flood(mut peer: Peer, count: usize) -> (Arc<AtomicUsize>, JoinHandle<Peer>) {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let task = tokio::spawn(async move {
        let block = chunk(&DELTA.repeat(100));
        for _ in 0..count / 100 {
            peer.send(&block).await;
            counter.fetch_add(100, Ordering::Relaxed);
        }
        peer.chunk(&[STOP, DONE].concat()).await;
        peer.send("0\r\n\r\n").await;
        peer
    });
    (written, task)
}

/// Waits until the counter stands still.
async fn settled(counter: &AtomicUsize) -> usize {
    loop {
        let before = counter.load(Ordering::Relaxed);
        sleep(ms(150)).await;
        if before > 0 && counter.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}

// One thread: while the test takes without waiting, nothing is added.
#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_does_not_take_stops_the_upstream() {
    // More than the two socket buffers hold (4 + 6 MiB by default).
    const EVENTS: usize = 150_000;
    within(async {
        let (_, _, mut call, mut peer) = asked(stream_call()).await;
        peer.send(STREAM_HEAD).await;
        let (written, writer) = flood(peer, EVENTS);
        let outlet = call.stream().await;
        let stopped_at = settled(&written).await;
        assert!(stopped_at < EVENTS, "all of it was read");
        let mut seen = 0;
        while let Taken::Batch(batch) = outlet.take() {
            seen += batch.len();
        }
        // High water 16 KiB, and at most one read and one batch beyond it.
        assert!(seen > 0 && seen <= (16 + 32 + 8) * 1024, "{seen} bytes were waiting");
        let (text, outcome) = call.rest(&outlet).await;
        assert_eq!(seen + text.len(), EVENTS * DELTA.len() + STOP.len() + DONE.len());
        assert_eq!((outcome.end, outcome.error), (End::Finished, None));
        assert_eq!(written.load(Ordering::Relaxed), EVENTS);
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_is_not_the_upstreams_silence() {
    const EVENTS: usize = 2_000;
    within(async {
        let (_, _, mut call, mut peer) =
            asked(Call { clocks: Clocks { idle: ms(400), ..clocks() }, ..stream_call() }).await;
        peer.send(STREAM_HEAD).await;
        let (_, writer) = flood(peer, EVENTS);
        let outlet = call.stream().await;
        sleep(ms(1000)).await;
        let (text, outcome) = call.rest(&outlet).await;
        assert_eq!((outcome.end, outcome.error), (End::Finished, None));
        assert_eq!(text.len(), EVENTS * DELTA.len() + STOP.len() + DONE.len());
        writer.await.unwrap();
    })
    .await;
}

async fn error_of(response: &str) -> Error {
    let (upstream, _, mut call, mut peer) = asked(plain_call()).await;
    peer.send(response).await;
    let Err(error) = call.reply().await else { panic!("it answered to {response:.300}") };
    assert!(upstream.nobody_comes().await, "it was tried again: {response}");
    error
}

#[tokio::test]
async fn statuses_map_to_their_errors() {
    let body = r#"{"error":{"message":"No.","type":"t","param":null,"code":"c"}}"#;
    let said = Some("No.".to_owned());
    let upstream = UpstreamError { message: said.clone(), kind: Some("t".into()), param: None, code: Some("c".into()) };
    let limited = |after| Error::RateLimited { retry_after: after, upstream_message: said.clone(), quota: false };
    let status = |status, after, again| Error::Status {
        status,
        body: Box::new(upstream.clone()),
        retry_after: after,
        should_retry: again,
    };
    let seconds = |n| Some(Duration::from_secs(n));
    for (line, headers, expected) in [
        ("301 Moved", "location: http://127.0.0.1:1/\r\n", Error::Redirect { status: 301 }),
        ("307 Temporary", "location: /v1/x\r\n", Error::Redirect { status: 307 }),
        ("401 Unauthorized", "", Error::Auth { status: 401 }),
        ("403 Forbidden", "", Error::Auth { status: 403 }),
        ("404 Not Found", "", Error::ModelNotFound { upstream_message: said.clone() }),
        ("429 Slow", "retry-after: 7\r\n", limited(seconds(7))),
        ("429 Slow", "retry-after: 9999\r\n", limited(seconds(120))),
        ("429 Slow", "", limited(None)),
        ("500 Oops", "", status(500, None, None)),
        ("503 Busy", "retry-after: 3\r\nx-should-retry: false\r\n", status(503, seconds(3), Some(false))),
        ("400 Bad", "", status(400, None, None)),
        ("200 OK", "content-type: text/html\r\n", Error::BadContentType),
    ] {
        let length = body.len();
        let response = format!("HTTP/1.1 {line}\r\n{headers}content-length: {length}\r\n\r\n{body}");
        assert_eq!(within(error_of(&response)).await, expected, "{line} {headers}");
    }
    for empty in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
        assert_eq!(within(error_of(empty)).await, Error::Empty, "{empty:?}");
    }
}

#[tokio::test]
async fn http_that_two_parsers_read_differently_is_refused() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(17);
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for response in [
        format!("{ok}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
        format!("{ok}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}"),
        format!("{ok}content-length: 2, 3\r\n\r\n{{}}"),
        format!("{ok}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        format!("{ok}content-length: x\r\n\r\n{{}}"),
        format!("{interim}{ok}content-length: 2\r\n\r\n{{}}"),
        format!("{ok}{many}content-length: 2\r\n\r\n{{}}"),
        format!("{ok}x: {}\r\ncontent-length: 2\r\n\r\n{{}}", "y".repeat(80 * 1024)),
        format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
        "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(),
    ] {
        let error = within(error_of(&response)).await;
        assert!(matches!(error, Error::Protocol(_)), "{error:?} for {:.300}", response);
    }
}

#[tokio::test]
async fn sixteen_interim_responses_are_no_flood() {
    within(async {
        let (_, _, call, mut peer) = asked(plain_call()).await;
        peer.send(&"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(16)).await;
        peer.plain().await;
        assert_eq!(call.plain().await.1, ANSWER);
    })
    .await;
}

#[tokio::test]
async fn a_stream_cut_off_says_so() {
    within(async {
        // With the end of the body, and without.
        for (end, expected) in [("0\r\n\r\n", Error::Truncated), ("", Error::Truncated)] {
            let (_, _, mut call, mut peer) = asked(stream_call()).await;
            peer.send(STREAM_HEAD).await;
            peer.chunk(DELTA).await;
            peer.send(end).await;
            drop(peer);
            let outlet = call.stream().await;
            let (text, outcome) = call.rest(&outlet).await;
            assert_eq!((outcome.end, outcome.error), (End::Failed, Some(expected)), "{end:?}");
            assert!(text.starts_with(DELTA) && text.contains("upstream_truncated"), "{text}");
            assert!(!text.contains(DONE) || text.find("upstream_truncated") < text.find(DONE), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_plain_answer_to_a_stream_becomes_a_stream() {
    within(async {
        let (_, _, mut call, mut peer) = asked(stream_call()).await;
        peer.plain().await;
        let outlet = call.stream().await;
        let (text, outcome) = call.rest(&outlet).await;
        assert!(text.contains("\"hi\"") && text.ends_with(DONE), "{text}");
        assert_eq!((outcome.end, outcome.attempts), (End::Finished, 1));
    })
    .await;
}

#[tokio::test]
async fn events_without_a_content_type_are_streamed() {
    within(async {
        for (pieces, headers) in [
            (&[DELTA][..], ""),
            // A byte order mark and half of a field name say nothing yet.
            (&["\u{feff}\n", "da", &DELTA[2..]][..], ""),
            (&[": hello\n\n", DELTA][..], "content-type:\r\n"),
        ] {
            let (_, target, mut call, mut peer) = asked(stream_call()).await;
            peer.send(&format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n")).await;
            for piece in pieces {
                peer.chunk(piece).await;
                sleep(ms(20)).await;
            }
            let outlet = call.stream().await;
            // Passed on before the answer has ended.
            assert!(call.read_until(&outlet, "hi").await.contains(DELTA));
            peer.chunk(&[STOP, DONE].concat()).await;
            peer.send("0\r\n\r\n").await;
            let (text, outcome) = call.rest(&outlet).await;
            assert_eq!((text, outcome.end), ([STOP, DONE].concat(), End::Finished));
            call.task.await.unwrap();
            assert_eq!(target.pool.counts(), (1, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_whole_stream_in_one_piece_without_a_content_type() {
    within(async {
        let body = [DELTA, STOP, DONE].concat();
        for response in [
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk(&body)),
        ] {
            let (_, target, mut call, mut peer) = asked(stream_call()).await;
            peer.send(&response).await;
            let outlet = call.stream().await;
            let (text, outcome) = call.rest(&outlet).await;
            assert_eq!((text.as_str(), outcome.end), (body.as_str(), End::Finished));
            call.task.await.unwrap();
            assert_eq!(target.pool.counts(), (1, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn other_answers_to_a_stream_without_a_content_type() {
    within(async {
        let page = format!("<html>{}</html>", "x".repeat(2000));
        for (body, expected) in [
            (" \n ", Error::Empty),
            ("<html></html>", Error::BadContentType),
            (page.as_str(), Error::BadContentType),
            (&"\n".repeat(2000), Error::BadContentType),
        ] {
            let (_, _, call, mut peer) = asked(stream_call()).await;
            peer.answer("200 OK", "", body).await;
            assert_eq!(call.error().await, expected, "{body:.20}");
        }
        let (_, _, mut call, mut peer) = asked(stream_call()).await;
        peer.answer("200 OK", "", ANSWER).await;
        let outlet = call.stream().await;
        assert!(call.rest(&outlet).await.0.ends_with(DONE), "JSON becomes the stream it would have been");
    })
    .await;
}

#[tokio::test]
async fn the_headers_may_be_32_kib_and_no_longer() {
    within(async {
        // "content-type: application/json", "content-length: 150" and "x: …", four bytes of separators each.
        let others = 12 + 16 + 4 + 14 + ANSWER.len().to_string().len() + 4 + 1 + 4;
        for (length, fits) in [(32 * 1024 - others, true), (32 * 1024 - others + 1, false)] {
            let (_, _, call, mut peer) = asked(plain_call()).await;
            let filler = format!("content-type: application/json\r\nx: {}\r\n", "y".repeat(length));
            peer.answer("200 OK", &filler, ANSWER).await;
            match fits {
                true => assert_eq!(call.plain().await.1, ANSWER),
                false => assert!(matches!(call.error().await, Error::Protocol(_))),
            }
        }
    })
    .await;
}

/// A call with a body of this many bytes; the upstream answers when it has read the head.
async fn answered_early(size: usize, status: &str) -> Arc<Target> {
    let upstream = Upstream::start().await;
    let target = upstream.target();
    let body = Bytes::from(format!("{{\"model\":\"{}\"}}", "m".repeat(size)));
    let mut call = start(&target, Call { body: Some(body), ..plain_call() });
    let mut peer = upstream.accept().await;
    let mut read = Vec::new();
    while !read.windows(4).any(|w| w == b"\r\n\r\n") {
        assert_ne!(peer.0.read_buf(&mut read).await.unwrap(), 0);
    }
    peer.answer(status, "content-type: application/json\r\n", ANSWER).await;
    assert_eq!(call.reply().await.is_ok(), status.starts_with('2'));
    call.task.await.unwrap();
    target
}

#[tokio::test]
async fn a_connection_whose_request_was_not_read_is_not_kept() {
    within(async {
        // Beyond what the kernels of both sides hold, hyper knows it; below, a refusal of a large request says it.
        for (size, status, kept) in [
            (2 << 20, "200 OK", 0),
            (2 << 20, "413 Too Large", 0),
            (100_000, "413 Too Large", 0),
            (1000, "413 Too Large", 1),
            (1000, "200 OK", 1),
        ] {
            let target = answered_early(size, status).await;
            assert_eq!(target.pool.counts(), (kept, 0), "{size} bytes, {status}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_with_an_open_body_is_not_kept_and_delays_nobody() {
    within(async {
        let (_, target, mut call, mut peer) = asked(stream_call()).await;
        peer.send(STREAM_HEAD).await;
        let begun = Instant::now();
        peer.chunk(&[STOP, DONE].concat()).await;
        let outlet = call.stream().await;
        let (text, _) = call.rest(&outlet).await;
        assert!(text.ends_with(DONE) && begun.elapsed() < ms(900), "the end waited for the body");
        // The end of the body never comes.
        call.task.await.unwrap();
        assert_eq!(target.pool.counts(), (0, 0));
        assert!(peer.is_closed().await);
    })
    .await;
}
