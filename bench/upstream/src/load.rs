//! The load generator: a closed loop over kept connections, each with one request at a time.

use crate::{
    script::Script,
    stamps::{now_ns, Reader},
    tally::Tally,
    watch::{Peak, Tree},
};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{
    client::conn::http1::{handshake, SendRequest},
    header, Request,
};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{net::TcpStream, task::LocalSet};

/// How to load what.
#[derive(Args)]
pub struct Options {
    /// Where to send requests: a loopback address with its port.
    #[arg(long)]
    to: SocketAddr,
    /// The path of the endpoint.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// Sent as `Authorization: Bearer`.
    #[arg(long)]
    key: Option<String>,
    /// The model, which is the upstream's script.
    #[arg(long, default_value = "bench-n20")]
    model: String,
    /// Ask for a stream.
    #[arg(long)]
    stream: bool,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Seconds over which the connections are opened.
    #[arg(long, default_value_t = 0.0)]
    ramp: f64,
    /// Seconds after the ramp that are not measured.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of user text in each request.
    #[arg(long, default_value_t = 200)]
    prompt: usize,
    /// The process whose tree is measured.
    #[arg(long)]
    watch: Option<u32>,
}

/// What every connection needs to know.
struct Job {
    to: SocketAddr,
    path: String,
    authorization: Option<String>,
    body: Bytes,
    /// How many chunks a right answer has; none for a plain answer.
    chunks: Option<u64>,
    tally: RefCell<Tally>,
}

type Connection = SendRequest<Full<Bytes>>;

/// Measures and prints. What is still under way at the end is dropped, not waited for.
pub async fn run(options: Options) -> Result<(), String> {
    if !options.to.ip().is_loopback() {
        return Err(format!("{} is not a loopback address", options.to));
    }
    let memory = options.watch.map(Peak::start).transpose()?;
    let tree = options.watch.map(Tree::of).transpose()?;
    let rss_begin = tree.as_ref().map_or(0, Tree::rss_kib);
    let seconds = |seconds: f64| (seconds.clamp(0.0, 3600.0) * 1e9) as u64;
    let begin_ns = now_ns() + seconds(options.ramp + options.warmup);
    let end_ns = begin_ns + seconds(options.seconds).max(1);
    let job = Rc::new(Job {
        to: options.to,
        path: options.path.clone(),
        authorization: options.key.as_ref().map(|key| format!("Bearer {key}")),
        body: request_body(&options),
        chunks: options.stream.then(|| Script::of(&options.model).chunks),
        tally: RefCell::new(Tally::new(begin_ns, end_ns)),
    });
    let step = options.ramp.clamp(0.0, 3600.0) / f64::from(options.connections.max(1));
    let local = LocalSet::new();
    for number in 0..options.connections {
        let wait = Duration::from_secs_f64(step * f64::from(number));
        local.spawn_local(keep_busy(job.clone(), wait));
    }
    let cpu_us = local
        .run_until(async {
            sleep_until(begin_ns).await;
            let before = tree.as_ref().map(Tree::cpu_us);
            sleep_until(end_ns).await;
            Some(tree.as_ref()?.cpu_us() - before?)
        })
        .await;
    let tally = job.tally.replace(Tally::new(0, 1));
    let peak = memory.map(Peak::stop);
    let process = cpu_us.zip(peak).map(|(us, peak)| (us, rss_begin, peak));
    let line = serde_json::to_string(&tally.report(process)).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

async fn sleep_until(at_ns: u64) {
    tokio::time::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()))).await;
}

fn request_body(options: &Options) -> Bytes {
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    let text: String = sentence.chars().cycle().take(options.prompt).collect();
    let body = if options.path.ends_with("/embeddings") {
        serde_json::json!({"model": options.model, "input": text})
    } else {
        serde_json::json!({
            "model": options.model,
            "messages": [
                {"role": "system", "content": "Answer in one sentence."},
                {"role": "user", "content": text},
            ],
            "stream": options.stream,
            "temperature": 0.2,
        })
    };
    Bytes::from(body.to_string())
}

/// One connection: asks again as soon as it has its answer, connects anew after a failure.
async fn keep_busy(job: Rc<Job>, wait: Duration) {
    tokio::time::sleep(wait).await;
    let mut connection = None;
    loop {
        let ready = match connection.take() {
            Some(ready) => Ok(ready),
            None => connect(job.to).await,
        };
        let outcome = match ready {
            Ok(mut ready) => ask(&job, &mut ready).await.map(|()| ready),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(kept) => connection = Some(kept),
            Err(why) => {
                job.tally.borrow_mut().error(why);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connect(to: SocketAddr) -> Result<Connection, String> {
    let socket = TcpStream::connect(to).await.map_err(|error| format!("connect: {}", error.kind()))?;
    let _ = socket.set_nodelay(true);
    let (connection, driver) = handshake(TokioIo::new(socket)).await.map_err(|error| format!("connect: {error}"))?;
    tokio::task::spawn_local(async move {
        let _ = driver.await;
    });
    Ok(connection)
}

/// One request. An answer counts only if it is whole: status 200, every chunk, and `[DONE]`.
async fn ask(job: &Job, connection: &mut Connection) -> Result<(), String> {
    let mut request = Request::post(&job.path)
        .header(header::HOST, job.to.to_string())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(value) = &job.authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Full::new(job.body.clone())).map_err(|error| format!("request: {error}"))?;
    let failed = |error: hyper::Error| format!("answer: {error}");
    connection.ready().await.map_err(failed)?;
    let asked_ns = now_ns();
    let response = connection.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let mut open = Open { job, counted: false };
    let (mut reader, mut chunks) = (Reader::new(), 0);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(failed)?.into_data() else {
            continue;
        };
        let now = now_ns();
        let mut tally = job.tally.borrow_mut();
        if !open.counted {
            open.counted = true;
            tally.open += 1;
            tally.first(now, asked_ns);
        }
        if job.chunks.is_some() {
            reader.feed(&bytes, |sent_ns| {
                chunks += 1;
                tally.chunk(now, sent_ns);
            });
        }
    }
    drop(open);
    if status.as_u16() != 200 {
        return Err(format!("status {}", status.as_u16()));
    }
    match job.chunks {
        Some(_) if !reader.finished() => return Err("no [DONE]".to_owned()),
        Some(wanted) if wanted != chunks => return Err("chunks are missing".to_owned()),
        _ => {}
    }
    job.tally.borrow_mut().request(now_ns(), asked_ns);
    Ok(())
}

/// Counts an answer as open while it lives.
struct Open<'a> {
    job: &'a Job,
    counted: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.counted {
            let mut tally = self.job.tally.borrow_mut();
            tally.open = tally.open.saturating_sub(1);
        }
    }
}
