//! Network addresses as operators write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::Invalid;

/// An IPv4 or IPv6 address or CIDR prefix, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRange {
    text: String,
    net: IpNet,
}

impl AddressRange {
    /// Whether `source` lies in the range. IPv4-mapped IPv6 (`::ffff:a.b.c.d`) is unmapped on both sides.
    #[must_use]
    pub fn contains(&self, source: IpAddr) -> bool {
        self.net.contains(&source.to_canonical())
    }

    /// The prefix, IPv4-mapped forms unmapped and host bits cleared.
    #[must_use]
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The entry as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for AddressRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule =
            "must be an IPv4 or IPv6 address or CIDR prefix, for example 203.0.113.7 or 198.51.100.0/24";
        let net = match text.parse::<IpAddr>() {
            Ok(ip) => IpNet::from(ip.to_canonical()),
            Err(_) => text.parse::<IpNet>().map_err(|_| rule.to_owned())?.trunc(),
        };
        let net = match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
                Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96).map_err(|_| rule.to_owned())?,
                None => net,
            },
            _ => net,
        };
        Ok(Self { text: text.to_owned(), net })
    }
}

/// The most entries a list of addresses may have.
pub const MAX_ADDRESS_RANGES: usize = 256;

/// Normalises a list as the API documents it: entries are trimmed, empty strings stripped, an empty list becomes
/// `None` (no restriction). `field` names the list in errors.
pub fn parse_address_ranges(field: &str, list: &[String]) -> Result<Option<Vec<AddressRange>>, Invalid> {
    // Counted as sent: what is stripped is an entry, too.
    if list.len() > MAX_ADDRESS_RANGES {
        let message = format!("has {} entries; at most {MAX_ADDRESS_RANGES} are allowed", list.len());
        return Err(Invalid::field(field, message));
    }
    let mut ranges = Vec::new();
    for (index, entry) in list.iter().enumerate() {
        let entry = entry.trim();
        if entry.is_empty() {
            continue;
        }
        let range = entry.parse().map_err(|rule: String| Invalid {
            path: vec![field.to_owned(), index.to_string()],
            message: format!("{entry:?} {rule}"),
        })?;
        ranges.push(range);
    }
    Ok(if ranges.is_empty() { None } else { Some(ranges) })
}

/// A carrier's `host`, `host:port`, `[v6]` or `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CarrierAddress {
    /// Domain name or address literal; an IPv6 literal without its brackets.
    pub host: String,
    /// Port, when one is written.
    pub port: Option<u16>,
}

/// Longest host name (RFC 1035 2.3.4).
const MAX_HOST: usize = 253;

impl CarrierAddress {
    /// The address literal, when the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for CarrierAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (false, None) => f.write_str(&self.host),
        }
    }
}

impl FromStr for CarrierAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = || {
            "must be a SIP host or domain with an optional port, for example sip.carrier.example or 203.0.113.7:5080; \
             no scheme, user part, parameter, whitespace or control character"
                .to_owned()
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, tail) = rest.split_once(']').ok_or_else(rule)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| rule())?;
            (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(rule)?) })
        } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            None => None,
            Some(digits)
                if !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                match digits.parse::<u16>() {
                    Ok(0) | Err(_) => return Err("has a port outside 1-65535".to_owned()),
                    Ok(port) => Some(port),
                }
            }
            Some(_) => return Err(rule()),
        };
        if host.parse::<IpAddr>().is_err() {
            let name = host.strip_suffix('.').unwrap_or(host);
            let label = |l: &str| {
                !l.is_empty()
                    && l.len() <= 63
                    && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !l.starts_with('-')
                    && !l.ends_with('-')
            };
            // A name whose last label is all digits would be read as an address by resolvers (RFC 1123 2.1).
            let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
            if name.len() > MAX_HOST || numeric || !name.split('.').all(label) {
                return Err(rule());
            }
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ipv6_is_unmapped_on_both_sides() {
        let range: AddressRange = "::ffff:203.0.113.0/120".parse().unwrap();
        assert!(range.contains("203.0.113.9".parse().unwrap()));
        let range: AddressRange = "203.0.113.7".parse().unwrap();
        assert!(range.contains("::ffff:203.0.113.7".parse().unwrap()));
        assert!(!range.contains("203.0.113.8".parse().unwrap()));
        assert!(!range.contains("::203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn empty_entries_are_stripped_and_an_empty_list_means_no_restriction() {
        let list = |l: &[&str]| {
            parse_address_ranges("allowed_addresses", &l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(list(&[]).unwrap(), None);
        assert_eq!(list(&["", "  "]).unwrap(), None);
        assert_eq!(list(&["", "10.0.0.1"]).unwrap().unwrap().len(), 1);
        let error = list(&["10.0.0.1", "sip.example.com"]).unwrap_err();
        assert_eq!(error.path, ["allowed_addresses", "1"]);
        assert!(list(&vec!["10.0.0.1"; 257]).is_err());
        assert!(list(&vec![""; 257]).is_err(), "an entry that is stripped counts");
    }

    #[test]
    fn carrier_addresses() {
        for good in [
            "a.example",
            "a.example:5080",
            "203.0.113.7",
            "[2001:db8::1]:5061",
            "2001:db8::1",
            "localhost",
            "sip_1.example.",
        ] {
            assert!(good.parse::<CarrierAddress>().is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "sip:a.example",
            "u@a.example",
            "a.example;transport=tcp",
            "a.example\r\nX: y",
            "a b",
            "a.example:0",
            "a.example:65536",
            "a.example:",
            ":5060",
            "a..b",
            "-a.example",
            ".1",
            "[.1]",
            "[::1",
            "300.1.1.1",
            "2130706433",
            "a.example?x=y",
            "a.example/",
            "\u{e9}.example",
            "[::1]5060",
            "a.example:+5",
        ] {
            assert!(bad.parse::<CarrierAddress>().is_err(), "{bad:?}");
        }
    }
}
