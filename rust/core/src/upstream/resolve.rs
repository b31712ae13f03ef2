//! From a host name to addresses that may be connected to: one look-up at a time for each upstream.
//!
//! A look-up holds a thread until the system's resolver gives up, which takes longer than any call waits. Were there
//! one for each call, a busy upstream whose name server is dead would take all threads from the names of others.

use super::target::Target;
use crate::{inline, Error};
use parking_lot::Mutex;
use std::net::SocketAddr;
use tokio::{
    net::lookup_host,
    sync::watch,
    time::{timeout_at, Instant},
};

/// The look-up under way, for all calls that need it meanwhile. What it found is not kept for later ones.
#[derive(Default)]
pub(super) struct Lookup(Mutex<Option<watch::Receiver<Found>>>);

/// `None` until it has ended; no addresses where it failed.
type Found = Option<Vec<SocketAddr>>;

/// All addresses of the host, each checked: one forbidden answer refuses the whole name.
pub(super) async fn resolve(target: &Target, by: Instant) -> Result<Vec<SocketAddr>, Error> {
    let addresses = match target.host.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, target.port)],
        Err(_) => target.lookup.addresses(target, by).await.filter(|a| !a.is_empty()).ok_or(Error::Dns)?,
    };
    for address in &addresses {
        target.guard.check(address.ip())?;
    }
    Ok(addresses)
}

impl Lookup {
    /// `None` where the time is over.
    async fn addresses(&self, target: &Target, by: Instant) -> Found {
        let mut lookup = self.join(&target.host, target.port);
        let found = timeout_at(by, lookup.wait_for(Option::is_some)).await.ok()?.ok()?;
        found.clone()
    }

    /// The one under way, or a new one.
    fn join(&self, host: &str, port: u16) -> watch::Receiver<Found> {
        let mut slot = self.0.lock();
        if let Some(running) = slot.as_ref().filter(|l| l.borrow().is_none() && l.has_changed().is_ok()) {
            return running.clone();
        }
        let (tell, lookup) = watch::channel(None);
        let host = host.to_owned();
        inline::spawn(async move {
            let found = lookup_host((host.as_str(), port)).await.map(Iterator::collect).unwrap_or_default();
            // Nobody may be waiting any more.
            let _ = tell.send(Some(found));
        });
        *slot = Some(lookup.clone());
        lookup
    }
}
