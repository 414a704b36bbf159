//! Where tenants may point carriers, agents and webhooks: `net.private_targets`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::AddressRange;

/// Which private addresses tenants may name.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PrivateTargets {
    /// Loopback and private ranges: a PBX on the same network, a bot beside us.
    #[default]
    Allow,
    /// None.
    Deny,
    /// These, and no other private ones.
    List(Vec<AddressRange>),
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefused {
    /// Never a tenant's to reach.
    #[error("is a link-local, metadata, unspecified, multicast or broadcast address, which is never allowed")]
    Never,
    /// Private, and the node's settings do not allow it.
    #[error("is a loopback or private address, which net.private_targets of this node does not allow")]
    Private,
}

impl PrivateTargets {
    /// Whether a tenant may have us connect to an address. An IPv6 address that stands for an IPv4 one (mapped,
    /// compatible, NAT64, 6to4) is judged as that.
    pub fn check(&self, address: IpAddr) -> Result<(), TargetRefused> {
        let address = embedded(address);
        if never(address) {
            return Err(TargetRefused::Never);
        }
        let allowed = match self {
            Self::Allow => true,
            Self::Deny => !private(address),
            Self::List(ranges) => !private(address) || ranges.iter().any(|range| range.contains(address)),
        };
        if allowed { Ok(()) } else { Err(TargetRefused::Private) }
    }
}

fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => pair(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => pair(high, low),
        [0x2002, high, low, ..] => pair(high, low),
        _ => address,
    }
}

/// Providers' metadata services outside the link-local ranges.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6 == METADATA_V6
        }
    }
}

fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            // 100.64.0.0/10 is RFC 6598's, 198.18.0.0/15 RFC 2544's, 192.0.0.0/24 RFC 6890's, 240.0.0.0/4 reserved.
            v4.is_loopback()
                || v4.is_private()
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || v4.octets().starts_with(&[192, 0, 0])
                || a >= 240
        }
        IpAddr::V6(v6) => {
            // fec0::/10 was site-local (RFC 3879).
            v6.is_loopback() || v6.is_unique_local() || (v6.segments()[0] & 0xffc0) == 0xfec0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &PrivateTargets, address: &str) -> Result<(), TargetRefused> {
        policy.check(address.parse().unwrap())
    }

    #[test]
    fn some_addresses_are_refused_always() {
        for never in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert_eq!(check(&PrivateTargets::Allow, never), Err(TargetRefused::Never), "{never}");
        }
    }

    #[test]
    fn private_ones_are_the_settings_to_allow() {
        let list = PrivateTargets::List(vec!["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()]);
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "::1",
            "fd12::1",
            "::ffff:10.1.2.3",
        ] {
            assert_eq!(check(&PrivateTargets::Allow, private), Ok(()), "{private}");
            assert_eq!(check(&PrivateTargets::Deny, private), Err(TargetRefused::Private), "{private}");
        }
        assert_eq!(check(&list, "10.1.2.3"), Ok(()));
        assert_eq!(check(&list, "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(check(&list, "::1"), Ok(()));
        assert_eq!(check(&list, "10.2.2.3"), Err(TargetRefused::Private));
        for public in ["203.0.113.7", "2001:db8::1", "8.8.8.8"] {
            assert_eq!(check(&PrivateTargets::Deny, public), Ok(()), "{public}");
        }
    }
}
