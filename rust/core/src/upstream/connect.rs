//! From a host name to a connection: resolve, guard, connect, TLS, within one clock.

use super::{resolve::resolve, target::Target};
use crate::{error::Clock, Error};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{timeout_at, Instant},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{self, pki_types::ServerName, ClientConfig, RootCertStore},
    TlsConnector,
};

/// So much of a request waits in the kernel beyond what the upstream's window allows.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX: u32 = 128 * 1024;

/// TLS as one upstream needs it.
pub struct TlsSetup {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsSetup {
    /// Trusts `ca_pem` alone where given; else the system's store, and Mozilla's list where that is empty.
    pub fn new(host: &str, ca_pem: Option<&[u8]>, http2: bool) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("base_url: {host:?} is not a name TLS can verify"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_root_certificates(roots(ca_pem)?)
            .with_no_client_auth();
        config.alpn_protocols = match http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        Ok(TlsSetup { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn roots(ca_pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in rustls_pemfile::certs(&mut &*pem) {
            let certificate = certificate.map_err(|e| format!("ca_file: {e}"))?;
            store.add(certificate).map_err(|e| format!("ca_file: {e}"))?;
        }
        return if store.is_empty() { Err("ca_file: there is no certificate in it".into()) } else { Ok(store) };
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

/// A connection before HTTP: plain or TLS.
pub enum Stream {
    /// http://
    Plain(TcpStream),
    /// https://; boxed, for the state of TLS is large and most upstreams on a private network have none.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// ALPN agreed on HTTP/2.
    pub fn is_h2(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(s) => s.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// Opens a connection to the target, all within `by`.
pub async fn connect(target: &Target, by: Instant) -> Result<Stream, Error> {
    let limit = target.clocks.connect;
    let addresses = resolve(target, by).await?;
    let tcp = connect_any(&addresses, by, limit).await?;
    // A streamed request is one small write; waiting to fill a segment only delays it.
    tcp.set_nodelay(true).map_err(|_| Error::Connect)?;
    // The kernel would take megabytes of a request that nobody reads. What it does not take, hyper knows to be
    // unsent, and a connection whose upstream answered too early is not used again.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_MAX);
    let Some(tls) = &target.tls else { return Ok(Stream::Plain(tcp)) };
    match timeout_at(by, tls.connector.connect(tls.name.clone(), tcp)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(_)) => Err(Error::Tls { timed_out: None }),
        Err(_) => Err(Error::Tls { timed_out: Some(limit) }),
    }
}

/// One address after the other; each gets an equal part of the time that is left.
async fn connect_any(addresses: &[SocketAddr], by: Instant, limit: Duration) -> Result<TcpStream, Error> {
    let mut last = Error::Connect;
    for (n, address) in addresses.iter().enumerate() {
        let left = by.saturating_duration_since(Instant::now());
        let share = Instant::now() + left / (addresses.len() - n) as u32;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(_)) => last = Error::Connect,
            Err(_) => last = Error::Timeout { clock: Clock::Connect, after: limit },
        }
    }
    Err(last)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(s) => s.is_write_vectored(),
            Stream::Tls(s) => s.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
