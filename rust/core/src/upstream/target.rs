//! One upstream as it is configured: where it is, how it is called, its clocks and its bounds.

use super::{
    connect::TlsSetup,
    deadline::Clocks,
    guard::{Cidr, Guard},
    pool::Pool,
    resolve::Lookup,
};
use crate::chat::Operation;
use http::{header::HeaderName, HeaderValue, Uri};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// What an operator sets; `docs/reference/settings.md` explains each.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Where `/chat/completions` is appended, usually ending in `/v1`.
    pub base_url: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// Sent with each call.
    pub headers: Vec<(String, String)>,
    /// The four clocks.
    pub clocks: Clocks,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// Cap of one event.
    pub max_event_bytes: usize,
    /// Cap of a whole answer.
    pub max_answer_bytes: u64,
    /// Private ranges that names may resolve to.
    pub allow_private_networks: Vec<String>,
    /// PEM of the only certificate authorities to trust for this upstream.
    pub ca_pem: Option<Vec<u8>>,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
    /// Whoever wrote the base URL may reach a private address by naming it there: an operator may, a tenant not.
    pub trusted: bool,
    /// The base URL is the whole address, such as that of `/api/show`: nothing is appended.
    pub exact: bool,
}

/// A checked configuration and its pool of connections.
pub struct Target {
    pub(super) tls: Option<TlsSetup>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) lookup: Lookup,
    pub(super) host_header: HeaderValue,
    // By operation: origin form for HTTP/1.1, absolute for HTTP/2.
    uris: [(Uri, Uri); 5],
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) guard: Guard,
    pub(super) pool_idle_timeout: Duration,
    /// The four clocks.
    pub clocks: Clocks,
    /// Cap of one event.
    pub max_event_bytes: usize,
    /// Cap of a whole answer.
    pub max_answer_bytes: u64,
    /// Its connections.
    pub pool: Pool,
}

/// Headers that belong to one connection or to the relay itself.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "te",
    "upgrade",
    "keep-alive",
    "expect",
];

impl Target {
    /// Checks everything that can be checked without the network; the text of the error names the field.
    pub fn new(config: TargetConfig) -> Result<Self, String> {
        let url = BaseUrl::parse(&config.base_url)?;
        let allowed = config
            .allow_private_networks
            .iter()
            .map(|c| Cidr::parse(c).map_err(|e| format!("allow_private_networks: {e}")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut headers = Vec::with_capacity(config.headers.len() + 1);
        if let Some(key) = &config.api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "api_key: it contains characters that a header cannot carry".to_owned())?;
            value.set_sensitive(true);
            headers.push((http::header::AUTHORIZATION, value));
        }
        for (name, value) in &config.headers {
            headers.push(header(name, value)?);
        }
        let tls = match url.https {
            true => Some(TlsSetup::new(&url.host, config.ca_pem.as_deref(), config.http2)?),
            false => None,
        };
        let authority = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let default_port = if url.https { 443 } else { 80 };
        let host_header = if url.port == default_port { authority } else { format!("{authority}:{}", url.port) };
        let scheme = if url.https { "https" } else { "http" };
        let uri = |path: &str| -> Result<(Uri, Uri), String> {
            let wrong = |_| "base_url: it does not make a valid address".to_owned();
            let path = if config.exact { "" } else { path };
            let root = if config.exact && url.path.is_empty() { "/" } else { &url.path };
            let origin_form = format!("{root}{path}").parse().map_err(wrong)?;
            let absolute = format!("{scheme}://{host_header}{root}{path}").parse().map_err(wrong)?;
            Ok((origin_form, absolute))
        };
        Ok(Target {
            uris: [
                uri("/chat/completions")?,
                uri("/completions")?,
                uri("/embeddings")?,
                uri("/models")?,
                uri("/responses")?,
            ],
            host_header: HeaderValue::from_str(&host_header)
                .map_err(|_| "base_url: the host is not valid".to_owned())?,
            guard: if config.trusted { Guard::new(&url.host, allowed) } else { Guard::untrusted(allowed) },
            pool: Pool::new(),
            tls,
            host: url.host,
            port: url.port,
            lookup: Lookup::default(),
            headers,
            pool_idle_timeout: config.pool_idle_timeout,
            clocks: config.clocks,
            max_event_bytes: config.max_event_bytes,
            max_answer_bytes: config.max_answer_bytes,
        })
    }

    pub(super) fn uri(&self, operation: Operation, absolute: bool) -> Uri {
        let (origin_form, full) = match operation {
            Operation::Chat => &self.uris[0],
            Operation::Completions => &self.uris[1],
            Operation::Embeddings => &self.uris[2],
            Operation::Models => &self.uris[3],
            Operation::Responses => &self.uris[4],
        };
        if absolute {
            full.clone()
        } else {
            origin_form.clone()
        }
    }

    /// `scheme://host:port`, safe to log: no path, no user, no key.
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }
}

/// May somebody who is not the operator write this base URL? An address in it, or `localhost`, is allowed for nothing
/// but having been written: from others it has to be public or in the list. Names are checked when they are resolved.
pub fn check_foreign(base_url: &str, allow_private_networks: &[String]) -> Result<(), String> {
    let url = BaseUrl::parse(base_url)?;
    let allowed = allow_private_networks
        .iter()
        .map(|c| Cidr::parse(c).map_err(|e| format!("allow_private_networks: {e}")))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<IpAddr> = match url.host.parse() {
        Ok(address) => vec![address],
        Err(_) if url.host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Err(_) => return Ok(()),
    };
    let guard = Guard::new("", allowed);
    // Of `localhost`, one of the two in the list is enough: what it resolves to is checked again.
    if addresses.into_iter().any(|address| guard.check(address).is_ok()) {
        return Ok(());
    }
    Err("base_url: this address is private or reserved, and only the operator may allow it (allow_private_networks)"
        .to_owned())
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) {
        return Err(format!("headers: {name:?} is set by the gateway itself"));
    }
    let n = HeaderName::from_bytes(lower.as_bytes()).map_err(|_| format!("headers: {name:?} is not a header name"))?;
    let v = HeaderValue::from_str(value)
        .map_err(|_| format!("headers: the value of {name:?} has characters that a header cannot carry"))?;
    Ok((n, v))
}

/// The one parser of base URLs: what it accepts is what is connected to.
#[derive(Debug, PartialEq, Eq)]
struct BaseUrl {
    https: bool,
    host: String,
    port: u16,
    path: String,
}

impl BaseUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| Err(format!("base_url: {what}; expected something like \"https://api.example.com/v1\""));
        let (https, rest) = match text.trim() {
            t if t.starts_with("https://") => (true, &t[8..]),
            t if t.starts_with("http://") => (false, &t[7..]),
            _ => return wrong("it must begin with http:// or https://"),
        };
        if rest.bytes().any(|b| b <= b' ' || b >= 0x7f || b == b'\\') {
            return wrong("it contains a blank, a control character or a letter outside ASCII");
        }
        if rest.contains(['?', '#']) {
            return wrong("a query or fragment has no place in it");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return wrong("user and password have no place in it: use api_key");
        }
        let (host, port) =
            split_port(authority).ok_or("base_url: the port is not a number between 1 and 65535".to_owned())?;
        check_host(host).map_err(|what| format!("base_url: {what}"))?;
        let path = path.trim_end_matches('/').to_owned();
        if path.ends_with("/chat/completions") {
            return wrong("leave out /chat/completions, which the gateway adds");
        }
        let uri_ok = path.is_empty() || path.parse::<http::uri::PathAndQuery>().is_ok();
        if !uri_ok || path.split('/').any(|s| s == "." || s == "..") {
            return wrong("its path is not valid");
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok(BaseUrl { https, host, port: port.unwrap_or(if https { 443 } else { 80 }), path })
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = match authority.strip_prefix('[') {
        Some(inner) => inner.find(']').map(|at| at + 2)?,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(after_host);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|p| *p > 0).map(|p| (host, Some(p)))
        }
        _ => None,
    }
}

/// A name, a dotted quad or a bracketed IPv6 address; the octal, hex and short forms of IPv4 are refused,
/// because two parsers seldom read them alike.
fn check_host(host: &str) -> Result<(), String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().map(|_| ()).map_err(|_| format!("{host:?} is not an IPv6 address"));
    }
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(());
    }
    let label_ok = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(format!("{host:?} is not a host name"));
    }
    let last = name.rsplit('.').next().unwrap_or("");
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if numeric {
        return Err(format!("{host:?} is a number: write the address as four decimal parts, like 192.0.2.1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    #[test]
    fn a_stranger_cannot_write_a_private_address() {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        for (url, allowed, passes) in [
            ("https://api.example.com/v1", &[][..], true),
            ("http://8.8.8.8/v1", &[], true),
            ("http://127.0.0.1:8000/v1", &[], false),
            ("http://LocalHost:8000/v1", &[], false),
            ("http://[::1]/v1", &[], false),
            ("http://[::ffff:10.0.0.1]/v1", &[], false),
            ("http://10.1.2.3/v1", &["10.0.0.0/8"], true),
            ("http://10.1.2.3/v1", &["10.9.0.0/16"], false),
            ("http://localhost/v1", &["127.0.0.0/8"], true),
            ("http://localhost/v1", &["::1"], true),
            ("http://169.254.169.254/v1", &["0.0.0.0/0"], false),
            ("http://0x7f.1/v1", &[], false),
        ] {
            assert_eq!(super::check_foreign(url, &list(allowed)).is_ok(), passes, "{url} with {allowed:?}");
        }
    }

    #[test]
    fn reads_what_people_write() {
        let url = BaseUrl::parse("https://API.example.com/v1/").expect("valid");
        assert_eq!(url, BaseUrl { https: true, host: "api.example.com".into(), port: 443, path: "/v1".into() });
        let url = BaseUrl::parse("http://[::1]:11434").expect("valid");
        assert_eq!(url, BaseUrl { https: false, host: "::1".into(), port: 11434, path: String::new() });
        let url = BaseUrl::parse("http://127.0.0.1:8000/openai/v1").expect("valid");
        assert_eq!((url.port, url.path.as_str()), (8000, "/openai/v1"));
    }

    #[test]
    fn refuses_what_two_parsers_read_differently() {
        for bad in [
            "",
            "ftp://x/v1",
            "//x",
            "http://",
            "http:///v1",
            "http://a b/v1",
            "http://a\\@b/v1",
            "http://user@h/v1",
            "http://h:0/v1",
            "http://h:99999/",
            "http://h:+80/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://h/v1?x=1",
            "http://h/v1#x",
            "http://[::1/v1",
            "http://[::1]x/v1",
            "http://h/../v1",
            "http://h/v1/chat/completions/",
            "http://-h/",
            "http://h..x/",
            "http://\u{ff11}27.0.0.1/",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad:?}");
        }
    }
}
