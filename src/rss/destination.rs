//! Which addresses a feed may be fetched from. Pure.
//!
//! A feed's URL, a redirect and a DNS answer all come from other parties, and the machine that
//! polls can reach hosts that they cannot: itself, its network, the metadata service of its
//! cloud. So only globally reachable addresses are connected to, and those that the operator
//! has named.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

use super::shown_url::shown_text;

/// Hosts and networks that feeds may be on although they are not globally reachable.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedHosts {
    /// In lower case and in Punycode, as in a URL.
    names: HashSet<String>,
    networks: Vec<IpNet>,
}

/// A feed is at an address that only the machine that polls can reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is at {address}, {kind}, and feeds are fetched from public addresses only; if you \
     trust it, give --allow-host {host}, or a line `allow-host {host}` in the list"
)]
pub(super) struct ForbiddenAddress {
    pub(super) host: String,
    pub(super) address: IpAddr,
    /// What such addresses are for.
    pub(super) kind: &'static str,
}

impl AllowedHosts {
    /// Adds a host name, an address or a network as `10.0.0.0/8`. A name allows every address
    /// that it resolves to.
    ///
    /// # Errors
    /// If it is none of these.
    pub(super) fn allow(&mut self, entry: &str) -> Result<(), String> {
        let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = bare.unwrap_or(entry);
        if let Ok(network) = bare.parse::<IpNet>() {
            self.networks.push(network.trunc());
        } else if let Ok(address) = bare.parse::<IpAddr>() {
            self.networks.push(address.into());
        } else {
            match Host::parse(entry) {
                Ok(Host::Domain(name)) if !entry.contains(['/', ':', '*']) => {
                    self.names.insert(without_root(&name).to_owned());
                }
                Ok(Host::Ipv4(address)) => self.networks.push(IpAddr::from(address).into()),
                _ => {
                    return Err(format!(
                        "\"{}\" is no host name, address or network; write \
                         feeds.example.org, 10.1.2.3 or 10.0.0.0/8",
                        shown_text(entry)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a feed of `host`, as it stands in a URL, may be fetched from this address.
    ///
    /// # Errors
    /// If the address is not globally reachable and neither it nor the host is allowed.
    pub(super) fn check(&self, host: &str, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let Some(kind) = not_global(address) else { return Ok(()) };
        let canonical = address.to_canonical();
        let is_in_network =
            |network: &IpNet| network.contains(&address) || network.contains(&canonical);
        if self.names.contains(without_root(host)) || self.networks.iter().any(is_in_network) {
            return Ok(());
        }
        Err(ForbiddenAddress { host: host.to_owned(), address, kind })
    }

    /// Those addresses of a host that a feed may be fetched from.
    ///
    /// # Errors
    /// If there are some, and none of them is allowed.
    pub(super) fn filter(
        &self,
        host: &str,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, ForbiddenAddress> {
        let mut forbidden = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.check(host, address.ip()) {
                Ok(()) => allowed.push(address),
                Err(error) => forbidden = forbidden.or(Some(error)),
            }
        }
        match forbidden {
            Some(error) if allowed.is_empty() => Err(error),
            _ => Ok(allowed),
        }
    }
}

/// `example.org.` is `example.org`.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// What an address is for that is not globally reachable; `None` for one that is.
fn not_global(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_global_v4(address),
        IpAddr::V6(address) => not_global_v6(address),
    }
}

fn not_global_v4(address: Ipv4Addr) -> Option<&'static str> {
    let network = NOT_GLOBAL_V4.iter().find(|(network, _)| network.contains(&address));
    network.map(|(_, kind)| *kind)
}

/// Of IPv6 only 2000::/3 is assigned as global unicast. Addresses that carry an IPv4 address,
/// to which a gateway or the kernel itself passes packets on, are what that one is.
fn not_global_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(address) = embedded_v4(address) {
        return not_global_v4(address);
    }
    let network = NOT_GLOBAL_V6.iter().find(|(network, _)| network.contains(&address));
    match network {
        Some((_, kind)) => Some(kind),
        None if GLOBAL_UNICAST.contains(&address) => None,
        None => Some("a reserved address"),
    }
}

/// The IPv4 address in one that is mapped, or is of NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |begin: usize| {
        let bytes: Option<[u8; 4]> =
            octets.get(begin..begin + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Ipv4Addr::from)
    };
    match address {
        _ if NAT64.contains(&address) => at(12),
        _ if SIX_TO_FOUR.contains(&address) => at(2),
        _ => address.to_ipv4_mapped(),
    }
}

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

const LOOPBACK: &str = "this machine's loopback";
const PRIVATE: &str = "a private address";
const LINK_LOCAL: &str = "a link-local address";
const DOCUMENTATION: &str = "an address for documentation";
const MULTICAST: &str = "a multicast address";

/// IANA's special-purpose registry, with a few small exceptions of it left out: they serve
/// protocols and no feeds.
const NOT_GLOBAL_V4: [(Ipv4Net, &str); 15] = [
    (v4(0, 0, 0, 8), "this machine's unspecified address"),
    (v4(10, 0, 0, 8), PRIVATE),
    (v4(100, 64, 0, 10), "an address shared behind a carrier's NAT"),
    (v4(127, 0, 0, 8), LOOPBACK),
    (v4(169, 254, 0, 16), LINK_LOCAL),
    (v4(172, 16, 0, 12), PRIVATE),
    (v4(192, 0, 0, 24), "an address reserved for protocols"),
    (v4(192, 0, 2, 24), DOCUMENTATION),
    (v4(192, 88, 99, 24), "a relay of 6to4"),
    (v4(192, 168, 0, 16), PRIVATE),
    (v4(198, 18, 0, 15), "an address for benchmarks"),
    (v4(198, 51, 100, 24), DOCUMENTATION),
    (v4(203, 0, 113, 24), DOCUMENTATION),
    (v4(224, 0, 0, 4), MULTICAST),
    (v4(240, 0, 0, 4), "a reserved or broadcast address"),
];

const NOT_GLOBAL_V6: [(Ipv6Net, &str); 8] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), LOOPBACK),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "this machine's unspecified address"),
    (v6(0xfc00, 0, 0, 7), "a unique-local address"),
    (v6(0xfe80, 0, 0, 10), LINK_LOCAL),
    (v6(0xff00, 0, 0, 8), MULTICAST),
    (v6(0x2001, 0, 0, 23), "an address reserved for protocols"),
    (v6(0x2001, 0xdb8, 0, 32), DOCUMENTATION),
    (v6(0x3fff, 0, 0, 20), DOCUMENTATION),
];

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn allowed(entries: &[&str]) -> AllowedHosts {
        let mut allowed = AllowedHosts::default();
        entries.iter().for_each(|entry| allowed.allow(entry).expect(entry));
        allowed
    }

    /// Whether a feed of a URL with an address in it may be fetched.
    fn may_fetch(allowed: &AllowedHosts, host: &str) -> bool {
        let url = Url::parse(&format!("http://{host}/")).expect(host);
        let address = match url.host().expect(host) {
            Host::Ipv4(address) => IpAddr::from(address),
            Host::Ipv6(address) => address.into(),
            Host::Domain(name) => panic!("{name} is a name"),
        };
        allowed.check(url.host_str().expect(host), address).is_ok()
    }

    #[test]
    fn addresses_that_are_not_global_are_refused() {
        let none = AllowedHosts::default();
        for host in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::7f00:1]",
            "[::127.0.0.1]",
            "[::8.8.8.8]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:0:127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::8.8.8.8]",
            "[100::1]",
            "[2001::1]",
            "[2001:10::1]",
            "[2001:db8::1]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[3fff::1]",
            "[5f00::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[ff02::1]",
            // Other spellings of 127.0.0.1, 169.254.169.254 and 10.0.0.1.
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "127.1",
            "0177.0.0.1",
            "0xa9fea9fe",
            "2852039166",
            "10.1",
            "%31%32%37.0.0.1",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "127.0.0.1.",
        ] {
            assert!(!may_fetch(&none, host), "{host}");
        }
    }

    #[test]
    fn global_addresses_are_allowed() {
        let none = AllowedHosts::default();
        for host in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "223.255.255.255",
            "[2001:200::1]",
            "[2606:4700:4700::1111]",
            "[2a00:1450:4001::1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::8.8.8.8]",
            "[2002:808:808::1]",
        ] {
            assert!(may_fetch(&none, host), "{host}");
        }
    }

    #[test]
    fn allowed_networks_and_addresses_may_be_fetched_from() {
        let some = allowed(&["127.0.0.1", "10.1.2.3/8", "[fd00::1]", "fe80::/10", "0x7f.2"]);
        for host in ["127.0.0.1", "127.0.0.2", "10.9.9.9", "[::ffff:10.0.0.1]", "[fd00::1]"] {
            assert!(may_fetch(&some, host), "{host}");
        }
        for host in ["127.0.0.3", "11.0.0.1", "[fd00::2]", "192.168.0.1"] {
            let is_global = may_fetch(&AllowedHosts::default(), host);
            assert_eq!(may_fetch(&some, host), is_global, "{host}");
        }
        let all = allowed(&["0.0.0.0/0", "::/0"]);
        assert!(may_fetch(&all, "169.254.169.254") && may_fetch(&all, "[::1]"));
    }

    #[test]
    fn allowed_name_allows_no_other_name() {
        let some = allowed(&["Feeds.Example.org.", "bücher.example", "localhost"]);
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        for host in
            ["feeds.example.org", "feeds.example.org.", "xn--bcher-kva.example", "localhost"]
        {
            assert_eq!(some.check(host, loopback), Ok(()), "{host}");
        }
        for host in ["example.org", "a.feeds.example.org", "feeds.example.org.evil.example"] {
            assert!(some.check(host, loopback).is_err(), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_or_network_is_refused() {
        for entry in
            ["", "http://a/", "a:80", "10.0.0.0/33", "10.0.0.0/x", "*.example.org", "a b", "[::1"]
        {
            let error = AllowedHosts::default().allow(entry).expect_err(entry);
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn only_allowed_addresses_of_a_name_are_connected_to() {
        let at = |address: &str| SocketAddr::new(address.parse().expect(address), 80);
        let none = AllowedHosts::default();
        let mixed = none.filter("a", [at("10.0.0.1"), at("1.1.1.1"), at("::1")]);
        assert_eq!(mixed, Ok(vec![at("1.1.1.1")]));
        let error = none.filter("a", [at("10.0.0.1"), at("::1")]).expect_err("forbidden");
        assert_eq!((error.host.as_str(), error.address), ("a", at("10.0.0.1").ip()));
        let said = error.to_string();
        assert!(said.contains("a is at 10.0.0.1, a private address"), "{said}");
        assert!(said.contains("--allow-host a"), "{said}");
        assert_eq!(none.filter("a", []), Ok(Vec::new()));
    }
}
