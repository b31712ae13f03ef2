//! Which addresses the connector may connect to: the guard against requests forged to inner services (SSRF).
//!
//! Checked after the name is resolved, on the very address that is then connected to, so a name that changes
//! its answer between check and use (DNS rebinding) gains nothing. Metadata services, multicast and the like
//! are refused always; private ranges only where neither the operator's base URL nor the allow-list names them.

use crate::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address range, `10.0.0.0/8` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `address/bits`, or one address alone.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address range like \"10.0.0.0/8\" or \"fd00::/8\"");
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let network: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match bits {
            Some(b) => b.trim().parse::<u8>().map_err(|_| wrong())?,
            None => width,
        };
        if prefix > width {
            return Err(wrong());
        }
        Ok(Cidr { network, prefix })
    }

    /// Is the address inside?
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => same_prefix(u32::from(n).into(), u32::from(a).into(), 32, self.prefix),
            (IpAddr::V6(n), IpAddr::V6(a)) => same_prefix(n.into(), a.into(), 128, self.prefix),
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, width: u32, prefix: u8) -> bool {
    let shift = width - u32::from(prefix);
    shift >= 128 || (a >> shift) == (b >> shift)
}

/// The rule for one upstream.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Vec<Cidr>,
    named: Named,
}

/// What the operator wrote into the base URL: that much is allowed by having been written there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// An address: this one and no other.
    Address(IpAddr),
    /// `localhost`: the loopback addresses.
    Localhost,
    /// A name: public addresses only.
    Name,
}

impl Guard {
    /// `host` as written in the base URL (without brackets), `allowed` as in `allow_private_networks`.
    pub fn new(host: &str, allowed: Vec<Cidr>) -> Self {
        let named = match host.parse::<IpAddr>() {
            Ok(address) => Named::Address(address),
            Err(_) if host.eq_ignore_ascii_case("localhost") => Named::Localhost,
            Err(_) => Named::Name,
        };
        Guard { allowed, named }
    }

    /// For a base URL that a tenant wrote: that it names an address allows nothing.
    pub fn untrusted(allowed: Vec<Cidr>) -> Self {
        Guard { allowed, named: Named::Name }
    }

    /// May the connector connect to this address?
    pub fn check(&self, address: IpAddr) -> Result<(), Error> {
        let forbidden = |hint: &str| Err(Error::AddressForbidden { hint: hint.to_owned() });
        for form in forms(address) {
            if never(form) {
                return forbidden("It is a metadata service, multicast or reserved address: set the upstream's base URL to the model server itself.");
            }
            if !is_private(form) || self.allowed.iter().any(|c| c.contains(form)) {
                continue;
            }
            let written = match &self.named {
                Named::Address(a) => *a == address,
                Named::Localhost => form.is_loopback(),
                Named::Name => false,
            };
            if !written {
                return forbidden("It is a private address or a name of one: if that is right, add its range to allow_private_networks in the settings (or SLUICEGATE_ALLOW_PRIVATE_NETWORKS).");
            }
        }
        Ok(())
    }
}

/// The address and every IPv4 address hidden in it.
fn forms(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let (inner, local) = match address {
        IpAddr::V4(_) => (None, [None; 4]),
        IpAddr::V6(a) => (embedded_v4(a), local_nat64(a)),
    };
    std::iter::once(address).chain(local.into_iter().chain([inner]).flatten().map(IpAddr::V4))
}

/// 64:ff9b:1::/48 (RFC 8215) is for prefixes of a network's own choice: of 48, 56, 64 or 96 bits, and RFC 6052 puts
/// the IPv4 address elsewhere for each (bits 64 to 71 stay free). Nobody outside knows which, so all are looked at,
/// but for 0.0.0.0/8: no translator forwards that, and it is what one form reads in the zeros of another.
fn local_nat64(a: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let o = a.octets();
    if o[..6] != [0, 0x64, 0xff, 0x9b, 0, 1] {
        return [None; 4];
    }
    [[o[6], o[7], o[9], o[10]], [o[7], o[9], o[10], o[11]], [o[9], o[10], o[11], o[12]], [o[12], o[13], o[14], o[15]]]
        .map(|v4| (v4[0] != 0).then(|| Ipv4Addr::from(v4)))
}

/// v4-mapped, v4-translated, v4-compatible, the well-known NAT64 prefix, 6to4 and Teredo carry an IPv4 address.
fn embedded_v4(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = a.segments();
    let v4 = |hi: u16, lo: u16| Some(Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] | [0, 0, 0, 0, 0xffff, 0, hi, lo] => v4(hi, lo),
        [0, 0, 0, 0, 0, 0, hi, lo] if (hi, lo) != (0, 0) && (hi, lo) != (0, 1) => v4(hi, lo),
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => v4(hi, lo),
        [0x2002, hi, lo, ..] => v4(hi, lo),
        [0x2001, 0, _, _, _, _, hi, lo] => v4(!hi, !lo),
        _ => None,
    }
}

/// Refused whatever the settings say.
fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let metadata = [[169, 254, 169, 254], [100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]];
            metadata.contains(&a.octets()) || a.octets()[0] == 0 || a.is_multicast() || a.is_broadcast()
        }
        IpAddr::V6(a) => {
            let ec2 = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            a == ec2 || a.is_unspecified() || a.is_multicast()
        }
    }
}

/// Not reachable from the public internet, or reserved: IANA's special-purpose registries.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let o = a.octets();
            a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_documentation()
                || (o[0] == 100 && o[1] & 0xc0 == 64)
                || (o[0] == 192 && o[1] == 0 && o[2] == 0)
                || (o[0] == 192 && o[1] == 88 && o[2] == 99)
                || (o[0] == 198 && o[1] & 0xfe == 18)
                || o[0] >= 240
        }
        IpAddr::V6(a) => {
            let s = a.segments();
            a.is_loopback()
                || s[0] & 0xfe00 == 0xfc00
                || s[0] & 0xffc0 == 0xfe80
                || s[0] & 0xffc0 == 0xfec0
                || (s[0] == 0x2001 && s[1] == 0xdb8)
                || (s[0] == 0x100 && s[1] == 0 && s[2] == 0 && s[3] == 0)
                || (s[0] == 0x64 && s[1] == 0xff9b && s[2] == 1)
        }
    }
}
