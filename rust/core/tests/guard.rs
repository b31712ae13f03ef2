//! The address guard: a table of addresses against every kind of upstream, and ranges against a slow comparison.
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy.toml allows them only inside of #[test]

use proptest::prelude::*;
use sluicegate_core::upstream::guard::{Cidr, Guard};
use sluicegate_core::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Refused whatever the settings say.
const NEVER_V4: [&str; 9] = [
    "169.254.169.254",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
];
const NEVER_V6: [&str; 4] = ["fd00:ec2::254", "::", "ff02::1", "ff0e::1234"];

/// An address with a range that holds it; both ends of most ranges.
const PRIVATE: [(&str, &str); 27] = [
    ("10.0.0.0", "10.0.0.0/8"),
    ("10.255.255.255", "10.0.0.0/8"),
    ("172.16.0.1", "172.16.0.0/12"),
    ("172.31.255.255", "172.16.0.0/12"),
    ("192.168.0.1", "192.168.0.0/16"),
    ("192.168.255.255", "192.168.0.0/16"),
    ("127.0.0.1", "127.0.0.0/8"),
    ("127.255.255.254", "127.0.0.0/8"),
    ("100.64.0.1", "100.64.0.0/10"),
    ("100.127.255.255", "100.64.0.0/10"),
    ("169.254.0.1", "169.254.0.0/16"),
    ("169.254.170.2", "169.254.0.0/16"),
    ("192.0.0.1", "192.0.0.0/24"),
    ("192.0.2.1", "192.0.2.0/24"),
    ("198.18.0.1", "198.18.0.0/15"),
    ("198.51.100.7", "198.51.100.0/24"),
    ("203.0.113.7", "203.0.113.0/24"),
    ("240.0.0.1", "240.0.0.0/4"),
    ("::1", "::1"),
    ("fc00::1", "fc00::/7"),
    ("fdff:ffff::1", "fc00::/7"),
    ("fe80::1", "fe80::/10"),
    ("febf::1", "fe80::/10"),
    ("fec0::1", "fec0::/10"),
    ("feff::1", "fec0::/10"),
    ("2001:db8::1", "2001:db8::/32"),
    ("64:ff9b:1::808:808", "64:ff9b:1::/48"),
];

/// Public, many of them next door to a private range.
const PUBLIC: [&str; 22] = [
    "8.8.8.8",
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450::1",
    "fbff::1",
    "64:ff9b::808:808",
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ranges(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|t| Cidr::parse(t).expect("a range")).collect()
}

/// The loosest list there can be.
fn everything() -> Vec<Cidr> {
    ranges(&["0.0.0.0/0", "::/0"])
}

fn refused(guard: &Guard, address: IpAddr) -> Option<String> {
    match guard.check(address) {
        Ok(()) => None,
        Err(Error::AddressForbidden { hint }) => Some(hint),
        Err(other) => panic!("{address}: {other:?}"),
    }
}

/// Each IPv6 form that carries this IPv4 address; 64:ff9b:1::/48 with prefixes of 96 bits (zero and other ones), 48,
/// 56 and 64 bits; 6to4 and Teredo with other bits set as well.
fn wrapped(inner: Ipv4Addr) -> Vec<Ipv6Addr> {
    let number = u32::from(inner);
    let (hi, lo) = ((number >> 16) as u16, number as u16);
    let [a, b, c, d] = inner.octets().map(u16::from);
    vec![
        inner.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, hi, lo),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, hi, lo),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, hi, lo),
        Ipv6Addr::new(0x64, 0xff9b, 1, 7, 8, 9, hi, lo),
        Ipv6Addr::new(0x64, 0xff9b, 1, hi, c, d << 8, 0, 0),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0x500 | a, b, c << 8 | d, 0, 0),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0x506, a, b << 8 | c, d << 8, 0),
        Ipv6Addr::new(0x2002, hi, lo, 0, 0, 0, 0, 0),
        Ipv6Addr::new(0x2002, hi, lo, 1, 2, 3, 4, 5),
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !hi, !lo),
        Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0x8000, 0x1234, !hi, !lo),
    ]
}

/// Every kind of guard there is for this address, the most permissive ones.
fn kinds(address: IpAddr) -> [Guard; 6] {
    [
        Guard::new("models.example.com", Vec::new()),
        Guard::new("models.example.com", everything()),
        Guard::new("localhost", Vec::new()),
        Guard::new("LocalHost", everything()),
        Guard::new(&address.to_string(), Vec::new()),
        Guard::new(&address.to_string(), everything()),
    ]
}

#[test]
fn metadata_services_and_multicast_are_refused_by_every_guard() {
    for text in NEVER_V4.into_iter().chain(NEVER_V6) {
        for (n, guard) in kinds(ip(text)).iter().enumerate() {
            let hint = refused(guard, ip(text)).unwrap_or_else(|| panic!("{text} passed guard {n}"));
            assert!(!hint.contains("allow_private_networks"), "{text}: a setting that does not help is offered");
        }
    }
}

#[test]
fn no_wrapping_hides_a_forbidden_address() {
    for text in NEVER_V4 {
        let inner: Ipv4Addr = text.parse().unwrap();
        for outer in wrapped(inner) {
            // 0.0.0.0/8 written v4-compatible is `::` (refused above) or, for 0.0.0.1, loopback itself. No translator
            // forwards it, so in the prefix for local use it counts as no address at all.
            if inner.octets()[0] == 0 && outer.segments()[..3] == [0x64, 0xff9b, 1] {
                continue;
            }
            for (n, guard) in kinds(outer.into()).iter().enumerate() {
                assert!(refused(guard, outer.into()).is_some(), "{text} as {outer} passed guard {n}");
            }
        }
    }
}

#[test]
fn what_a_tenant_writes_allows_nothing() {
    for (text, range) in PRIVATE {
        let hint = refused(&Guard::untrusted(Vec::new()), ip(text)).unwrap_or_else(|| panic!("{text} passed"));
        assert!(hint.contains("allow_private_networks"), "{text}: {hint}");
        assert_eq!(refused(&Guard::untrusted(ranges(&[range])), ip(text)), None, "{text} in {range}");
    }
    for text in NEVER_V4.iter().chain(&NEVER_V6) {
        assert!(refused(&Guard::untrusted(ranges(&["0.0.0.0/0", "::/0"])), ip(text)).is_some(), "{text} passed");
    }
    assert_eq!(refused(&Guard::untrusted(Vec::new()), ip("8.8.8.8")), None);
}

#[test]
fn private_addresses_are_refused_for_a_name_and_allowed_by_the_list() {
    for (text, range) in PRIVATE {
        let name = Guard::new("models.example.com", Vec::new());
        let hint = refused(&name, ip(text)).unwrap_or_else(|| panic!("{text} passed"));
        assert!(hint.contains("allow_private_networks"), "{text}: {hint}");
        let listed = Guard::new("models.example.com", ranges(&[range]));
        assert_eq!(refused(&listed, ip(text)), None, "{text} in {range}");
        let exactly = Guard::new("models.example.com", ranges(&["192.0.2.200", text]));
        assert_eq!(refused(&exactly, ip(text)), None, "{text} alone");
        let other = Guard::new("models.example.com", ranges(&["10.99.0.0/16", "fd99::/16"]));
        assert!(refused(&other, ip(text)).is_some(), "{text} passed by a range that does not hold it");
    }
}

#[test]
fn a_written_address_allows_itself_and_no_other() {
    for (text, _) in PRIVATE {
        let written = Guard::new(text, Vec::new());
        assert_eq!(refused(&written, ip(text)), None, "{text}");
        for (other, _) in PRIVATE.into_iter().filter(|(other, _)| *other != text) {
            assert!(refused(&written, ip(other)).is_some(), "{other} passed for {text}");
        }
    }
}

#[test]
fn localhost_means_loopback_only() {
    for host in ["localhost", "LOCALHOST"] {
        let guard = Guard::new(host, Vec::new());
        for (text, _) in PRIVATE {
            let loopback = ip(text).is_loopback();
            assert_eq!(refused(&guard, ip(text)).is_none(), loopback, "{text} for {host}");
        }
        assert_eq!(refused(&guard, ip("::ffff:127.0.0.1")), None);
        assert!(refused(&guard, ip("::ffff:10.0.0.1")).is_some());
    }
    assert!(refused(&Guard::new("localhost.example.com", Vec::new()), ip("127.0.0.1")).is_some());
}

#[test]
fn a_private_address_stays_private_inside_of_another() {
    for (text, range) in PRIVATE {
        let IpAddr::V4(inner) = ip(text) else { continue };
        for outer in wrapped(inner) {
            // Where the length of the prefix is not known, each reading of the address has to be allowed.
            let local = outer.segments()[..3] == [0x64, 0xff9b, 1];
            let list = if local { everything() } else { ranges(&[range]) };
            let outer = IpAddr::V6(outer);
            for host in ["models.example.com", "localhost", "10.99.0.1"] {
                let passes = host == "localhost" && inner.is_loopback() && !local;
                let guard = Guard::new(host, Vec::new());
                assert_eq!(refused(&guard, outer).is_none(), passes, "{text} as {outer} for {host}");
            }
            let listed = Guard::new("models.example.com", list);
            assert_eq!(refused(&listed, outer), None, "{text} as {outer}");
            let written = Guard::new(&outer.to_string(), Vec::new());
            assert_eq!(refused(&written, outer), None, "{outer}");
            // The inner address was not written.
            assert!(refused(&written, IpAddr::V4(inner)).is_some(), "{text} for {outer}");
        }
    }
}

#[test]
fn public_addresses_pass_every_guard() {
    for text in PUBLIC {
        for guard in [
            Guard::new("models.example.com", Vec::new()),
            Guard::new("models.example.com", ranges(&["10.0.0.0/8"])),
            Guard::new("localhost", Vec::new()),
            Guard::new("10.0.0.1", Vec::new()),
            Guard::new(text, Vec::new()),
        ] {
            assert_eq!(refused(&guard, ip(text)), None, "{text}");
        }
        let IpAddr::V4(inner) = ip(text) else { continue };
        for outer in wrapped(inner) {
            let local_nat64 = outer.segments()[..3] == [0x64, 0xff9b, 1];
            let guard = Guard::new("models.example.com", Vec::new());
            assert_eq!(refused(&guard, outer.into()).is_some(), local_nat64, "{text} as {outer}");
        }
    }
}

#[test]
fn ranges_that_are_none_are_refused_by_name() {
    for bad in [
        "",
        "/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0/8",
        "x/8",
        "10.0.0.0/8/8",
        "10.0.0.0/256",
    ] {
        let error = Cidr::parse(bad).expect_err(bad);
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
    assert_eq!(Cidr::parse(" 10.1.2.3 / 8 "), Cidr::parse("10.1.2.3/8"));
    assert_eq!(Cidr::parse("10.1.2.3"), Cidr::parse("10.1.2.3/32"));
    assert_eq!(Cidr::parse("fd00::1"), Cidr::parse("fd00::1/128"));
}

fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    octets.iter().flat_map(|o| (0..8).rev().map(move |n| o >> n & 1 == 1)).collect()
}

/// Bit by bit, as nobody would get it wrong.
fn naive(network: IpAddr, prefix: usize, address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4() && bits(network)[..prefix] == bits(address)[..prefix]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| Ipv4Addr::from(n).into()),
        any::<u128>().prop_map(|n| Ipv6Addr::from(n).into())
    ]
}

/// The same address with one bit turned, or as it was.
fn neighbour(address: IpAddr, bit: u32) -> IpAddr {
    match address {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) ^ 1u32.checked_shl(bit).unwrap_or(0)).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) ^ 1u128.checked_shl(bit).unwrap_or(0)).into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_range_holds_what_a_bitwise_comparison_says(
        network in address(), prefix in 0u8..=128, other in address(), bit in 0u32..=130,
    ) {
        let width = if network.is_ipv4() { 32 } else { 128 };
        let parsed = Cidr::parse(&format!("{network}/{prefix}"));
        prop_assert_eq!(parsed.is_ok(), prefix <= width);
        let Ok(range) = parsed else { return Ok(()) };
        for candidate in [network, other, neighbour(network, bit)] {
            prop_assert_eq!(range.contains(candidate), naive(network, prefix.into(), candidate), "{}", candidate);
        }
    }

    #[test]
    fn no_list_opens_what_is_never_allowed(network in address(), prefix in 0u8..=32, pick in 0usize..9) {
        let address = ip(NEVER_V4[pick]);
        let allowed = vec![Cidr::parse(&format!("{network}/{prefix}")).unwrap(), Cidr::parse(NEVER_V4[pick]).unwrap()];
        prop_assert!(Guard::new(NEVER_V4[pick], allowed).check(address).is_err());
    }
}
