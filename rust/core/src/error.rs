//! Every way a call to an upstream can fail: one variant per cause, with its status, code and public text.
//!
//! The texts are public: they go to clients as they are, so none of them holds an address, a key or the text
//! of a library's error. What an upstream itself said (`upstream_message`) is passed on, cut to 4 KiB.

use std::time::Duration;

/// Why a call failed. `docs/reference/errors.md` lists every code; a test compares the two.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// Nobody listens there, or the network says no.
    Connect,
    /// The host name has no address, or the resolver gave no answer in time.
    Dns,
    /// The name resolves to an address that the guard forbids.
    AddressForbidden {
        /// What to add to the settings, e.g. `allow_private_networks = ["10.0.0.0/8"]`, where that would help.
        hint: String,
    },
    /// Certificate, handshake or protocol of TLS is wrong, or the handshake hangs.
    Tls {
        /// The connect clock ran out during the handshake; its setting.
        timed_out: Option<Duration>,
    },
    /// A deadline passed; `clock` says which.
    Timeout {
        /// The clock that ran out.
        clock: Clock,
        /// Its setting.
        after: Duration,
    },
    /// The connection closed before a response began.
    ClosedEarly {
        /// It was a pooled connection: the peer may just have closed it while idle.
        reused: bool,
    },
    /// Not HTTP, or HTTP that nobody may trust (two lengths, bad chunk, header flood).
    Protocol(&'static str),
    /// A redirect, which is never followed.
    Redirect {
        /// The 3xx status.
        status: u16,
    },
    /// 401 or 403: the key of the upstream is wrong, not the client's.
    Auth {
        /// 401 or 403.
        status: u16,
    },
    /// 404 for the model, or the path.
    ModelNotFound {
        /// The upstream's own words.
        upstream_message: Option<String>,
    },
    /// 429.
    RateLimited {
        /// From `Retry-After`/`retry-after-ms`, clamped to 0..=120 s.
        retry_after: Option<Duration>,
        /// The upstream's own words.
        upstream_message: Option<String>,
        /// `insufficient_quota` and the like: waiting does not help.
        quota: bool,
    },
    /// Any other error status.
    Status {
        /// 4xx or 5xx.
        status: u16,
        /// The upstream's error object, where it sent one.
        body: Box<UpstreamError>,
        /// From `Retry-After`, clamped.
        retry_after: Option<Duration>,
        /// The upstream's `x-should-retry`.
        should_retry: Option<bool>,
    },
    /// 200 with something that is neither JSON nor an event stream.
    BadContentType,
    /// 204, or 200 with no body.
    Empty,
    /// 200, but the body (or an event) is an error object.
    InBand(Box<UpstreamError>),
    /// The answer ended without its terminal marker.
    Truncated,
    /// The connection broke in the middle of the answer.
    Reset,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// `data:` that is not JSON.
    InvalidEvent,
    /// A plain answer that is not a JSON object of the expected kind.
    InvalidAnswer,
    /// One event larger than the cap.
    EventTooLarge {
        /// The cap in bytes.
        limit: usize,
    },
    /// The whole answer is larger than the cap.
    AnswerTooLarge {
        /// The cap in bytes.
        limit: u64,
    },
    /// A content-encoding we do not know, a second layer, or one that inflates beyond the ratio.
    Encoding(&'static str),
    /// The caller went away or gave up.
    Cancelled,
    /// The worker stops and the grace period is over.
    Shutdown,
    /// The key of the request was revoked while it was answered.
    KeyRevoked,
    /// The key of the request, or its replaced secret, came to its end while it was answered.
    KeyExpired,
    /// A panic in our own code, contained.
    Internal,
}

/// The clocks of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Name look-up, TCP connect and TLS handshake together.
    Connect,
    /// From the request sent to the response's head and its first event (or whole plain answer).
    FirstEvent,
    /// Between two events of a stream.
    Idle,
    /// The whole answer.
    Total,
}

impl Clock {
    /// The setting that holds this clock's limit.
    pub fn setting(self) -> &'static str {
        match self {
            Clock::Connect => "connect_timeout",
            Clock::FirstEvent => "first_event_timeout",
            Clock::Idle => "idle_timeout",
            Clock::Total => "total_timeout",
        }
    }
}

/// What an upstream said in an OpenAI-shaped (or any JSON) error body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamError {
    /// `error.message`, or the first text that looks like one.
    pub message: Option<String>,
    /// `error.type`
    pub kind: Option<String>,
    /// `error.param`
    pub param: Option<String>,
    /// `error.code`, numbers as text.
    pub code: Option<String>,
}

/// What a client is shown: the four keys of OpenAI's error object and the status.
#[derive(Clone, Debug, PartialEq)]
pub struct Public {
    /// HTTP status while nothing was sent.
    pub status: u16,
    /// `error.type`
    pub kind: String,
    /// `error.code`
    pub code: String,
    /// `error.message`
    pub message: String,
    /// `error.param`
    pub param: Option<String>,
}

/// `Retry-After` beyond this is cut: the newest SDKs give up above it.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

impl Error {
    /// The stable code of the cause, whatever the upstream called it.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Connect => "upstream_connect_error",
            Error::Dns => "upstream_dns_error",
            Error::AddressForbidden { .. } => "upstream_address_forbidden",
            Error::Tls { .. } => "upstream_tls_error",
            Error::Timeout { .. } => "upstream_timeout",
            Error::ClosedEarly { .. } => "upstream_closed",
            Error::Protocol(_) => "upstream_protocol_error",
            Error::Redirect { .. } => "upstream_redirect",
            Error::Auth { .. } => "upstream_auth_error",
            Error::ModelNotFound { .. } => "model_not_found",
            Error::RateLimited { quota: true, .. } => "insufficient_quota",
            Error::RateLimited { .. } => "rate_limit_exceeded",
            Error::Status { .. } => "upstream_error",
            Error::BadContentType => "upstream_bad_content_type",
            Error::Empty => "upstream_empty",
            Error::InBand(_) => "upstream_error",
            Error::Truncated => "upstream_truncated",
            Error::Reset => "upstream_reset",
            Error::InvalidUtf8 => "upstream_invalid_utf8",
            Error::InvalidEvent => "upstream_invalid_event",
            Error::InvalidAnswer => "upstream_invalid_answer",
            Error::EventTooLarge { .. } => "event_too_large",
            Error::AnswerTooLarge { .. } => "stream_limit",
            Error::Encoding(_) => "upstream_encoding_error",
            Error::Cancelled => "client_closed",
            Error::Shutdown => "server_shutdown",
            Error::KeyRevoked => "api_key_revoked",
            Error::KeyExpired => "api_key_expired",
            Error::Internal => "internal_error",
        }
    }

    /// The status a client sees while nothing was sent to it.
    pub fn status(&self) -> u16 {
        match self {
            Error::Timeout { .. } => 504,
            Error::ModelNotFound { .. } => 404,
            Error::RateLimited { .. } => 429,
            Error::Status { status, .. } => *status,
            Error::InBand(said) => in_band_status(said),
            Error::Cancelled => 499,
            Error::Shutdown => 503,
            Error::KeyRevoked | Error::KeyExpired => 401,
            Error::Internal => 500,
            _ => 502,
        }
    }

    /// May another upstream be asked, while nothing reached the client?
    pub fn retryable(&self) -> bool {
        match self {
            Error::Connect | Error::Dns | Error::Tls { .. } | Error::AddressForbidden { .. } => true,
            Error::Timeout { clock, .. } => !matches!(clock, Clock::Total),
            Error::ClosedEarly { .. } | Error::Protocol(_) | Error::Redirect { .. } => true,
            Error::Auth { .. } | Error::RateLimited { .. } | Error::ModelNotFound { .. } => true,
            Error::Status { status, .. } => *status >= 500,
            Error::InBand(_) => self.status() >= 429,
            Error::BadContentType | Error::Empty | Error::Truncated | Error::Reset => true,
            Error::InvalidUtf8 | Error::InvalidEvent | Error::InvalidAnswer | Error::Encoding(_) => true,
            Error::EventTooLarge { .. } | Error::AnswerTooLarge { .. } => false,
            Error::Cancelled | Error::Shutdown | Error::Internal => false,
            Error::KeyRevoked | Error::KeyExpired => false,
        }
    }

    /// Was the call told to stop, by this side?
    pub fn stops_call(&self) -> bool {
        matches!(self, Error::Cancelled | Error::Shutdown | Error::KeyRevoked | Error::KeyExpired)
    }

    /// Does it say something about the health of the upstream (and not of this one request)?
    pub fn counts_against_upstream(&self) -> bool {
        match self {
            Error::Status { status, .. } => *status >= 500,
            Error::InBand(_) => self.status() >= 500,
            Error::ModelNotFound { .. } | Error::RateLimited { .. } => false,
            _ => self.retryable(),
        }
    }

    /// How long the upstream asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::RateLimited { retry_after, .. } | Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What `x-should-retry` says to the SDKs: `None` leaves their own rule (408, 409, 429, 5xx) in force.
    pub fn should_retry(&self) -> Option<bool> {
        match self {
            Error::Status { should_retry, .. } => *should_retry,
            Error::RateLimited { quota: true, .. } => Some(false),
            // Configuration, not weather: the same call gives the same answer.
            Error::AddressForbidden { .. } | Error::Tls { .. } | Error::Redirect { .. } | Error::Auth { .. } => {
                Some(false)
            }
            Error::EventTooLarge { .. } | Error::AnswerTooLarge { .. } => Some(false),
            Error::KeyRevoked | Error::KeyExpired => Some(false),
            _ => None,
        }
    }

    /// The error object as a client sees it.
    pub fn public(&self) -> Public {
        let said = match self {
            Error::Status { body, .. } | Error::InBand(body) => Some(body.as_ref()),
            _ => None,
        };
        let status = self.status();
        Public {
            status,
            kind: said.and_then(|s| s.kind.clone()).unwrap_or_else(|| default_kind(status).to_owned()),
            code: said.and_then(|s| s.code.clone()).unwrap_or_else(|| self.code().to_owned()),
            message: self.message(),
            param: said.and_then(|s| s.param.clone()),
        }
    }

    fn message(&self) -> String {
        let quoted = |m: &Option<String>, otherwise: &str| match m {
            Some(m) => m.clone(),
            None => otherwise.to_owned(),
        };
        match self {
            Error::Connect => "The upstream cannot be reached: connection refused or no route. Check its base URL and that it runs.".into(),
            Error::Dns => "The upstream's host name cannot be resolved. Check the host in its base URL.".into(),
            Error::AddressForbidden { hint } => format!("The upstream's address is not allowed. {hint}"),
            Error::Tls { timed_out: Some(after) } => format!("The TLS handshake with the upstream did not finish within {} s (connect_timeout).", seconds(*after)),
            Error::Tls { timed_out: None } => "The TLS handshake with the upstream failed: certificate, host name or protocol. Check its certificate, or set ca_file.".into(),
            Error::Timeout { clock, after } => {
                let what = match clock {
                    Clock::Connect => "did not accept a connection",
                    Clock::FirstEvent => "did not begin its answer",
                    Clock::Idle => "sent no further event",
                    Clock::Total => "did not finish its answer",
                };
                format!("The upstream {what} within {} s ({}).", seconds(*after), clock.setting())
            }
            Error::ClosedEarly { .. } => "The upstream closed the connection before it answered.".into(),
            Error::Protocol(what) => format!("The upstream's response is not valid HTTP: {what}."),
            Error::Redirect { status } => format!("The upstream answered with a redirect ({status}), which is never followed. Set its base URL to the final address."),
            Error::Auth { status } => format!("The upstream refused the gateway's key ({status}). The key of this upstream has to be corrected; your own key is fine."),
            Error::ModelNotFound { upstream_message } => quoted(upstream_message, "The upstream does not know this model. GET /v1/models lists what there is."),
            Error::RateLimited { upstream_message, .. } => quoted(upstream_message, "The upstream's rate limit is reached. Wait as Retry-After says, then try again."),
            Error::Status { status, body, .. } => quoted(&body.message, &format!("The upstream answered with status {status} and no message.")),
            Error::BadContentType => "The upstream answered with neither JSON nor an event stream. Check its base URL: it may need /v1 at the end.".into(),
            Error::Empty => "The upstream's answer is empty.".into(),
            Error::InBand(said) => quoted(&said.message, "The upstream reported an error without a message."),
            Error::Truncated => "The upstream ended its answer before it was complete.".into(),
            Error::Reset => "The connection to the upstream broke in the middle of its answer.".into(),
            Error::InvalidUtf8 => "The upstream sent bytes that are not UTF-8.".into(),
            Error::InvalidEvent => "The upstream sent an event that is not a JSON object.".into(),
            Error::InvalidAnswer => "The upstream's answer is not a JSON object.".into(),
            Error::EventTooLarge { limit } => format!("The upstream sent an event of more than {limit} bytes (max_event_bytes)."),
            Error::AnswerTooLarge { limit } => format!("The upstream's answer is larger than {limit} bytes (max_answer_bytes)."),
            Error::Encoding(what) => format!("The upstream's content encoding cannot be accepted: {what}."),
            Error::Cancelled => "The client closed the request.".into(),
            Error::Shutdown => "The gateway is shutting down; send the request again.".into(),
            Error::KeyRevoked => "The API key of this request was revoked, or its workspace deleted, before the answer was complete. Use another key.".into(),
            Error::KeyExpired => "The API key of this request has expired, or was replaced and its grace period is over, before the answer was complete. Use a new one.".into(),
            Error::Internal => "The gateway failed to handle this answer. The error is logged with the request id.".into(),
        }
    }

    /// The bytes of `{"error":{...}}`, all four keys present.
    pub fn to_json(&self) -> Vec<u8> {
        let p = self.public();
        let body =
            serde_json::json!({"error": {"message": p.message, "type": p.kind, "param": p.param, "code": p.code}});
        body.to_string().into_bytes()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code(), self.message())
    }
}

impl std::error::Error for Error {}

fn seconds(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s.fract() == 0.0 {
        format!("{s:.0}")
    } else {
        format!("{s:.3}").trim_end_matches('0').to_owned()
    }
}

/// OpenAI's `error.type` for a status.
pub fn default_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "requests",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable",
        504 => "timeout",
        500 => "server_error",
        _ => "upstream_error",
    }
}

/// An error inside a 200 carries its status, if at all, in its type or code.
fn in_band_status(said: &UpstreamError) -> u16 {
    for text in [said.code.as_deref(), said.kind.as_deref()].into_iter().flatten() {
        match text {
            "rate_limit_exceeded" | "rate_limit_error" | "insufficient_quota" | "429" => return 429,
            "context_length_exceeded" | "invalid_request_error" | "invalid_value" | "BadRequestError" | "400" => {
                return 400
            }
            "model_not_found" | "NotFoundError" | "404" => return 404,
            "overloaded_error" | "503" | "529" => return 503,
            _ => {}
        }
    }
    502
}
