//! `name-addr` and `addr-spec` header values, and Via values (RFC 3261 20.10, 20.42).

use super::scan::{cut, cut_blank, find, find2, holds, is_token, param, split_params};
use super::uri::{self, Uri};

/// A From, To, Contact, Route or Record-Route value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Display name as written, quotes included; empty when there is none.
    pub display: &'a str,
    /// The URI.
    pub uri: Uri<'a>,
    /// Header parameters, without the leading semicolon.
    pub params: &'a str,
}

impl<'a> NameAddr<'a> {
    /// Reads one value. `None` when it breaks the grammar.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim_ascii();
        let open = find_open(text)?;
        let (display, addr, params) = match open {
            Some(at) => {
                let (display, rest) = (text[..at].trim_ascii(), &text[at + 1..]);
                let (addr, params) = cut(rest, b'>')?;
                (display, addr, params.trim_ascii_start())
            }
            None => {
                // Without brackets, parameters belong to the header, and the URI may hold none of , ; ? (20.10).
                let end = find(b';', text.as_bytes()).unwrap_or(text.len());
                let addr = text[..end].trim_ascii_end();
                if find2(b',', b'?', addr.as_bytes()).is_some() {
                    return None;
                }
                ("", addr, &text[end..])
            }
        };
        let params = match params.strip_prefix(';') {
            Some(params) => params,
            None if params.is_empty() => params,
            None => return None,
        };
        let well_formed = display_is_well_formed(display) && params_are_well_formed(params);
        if !well_formed {
            return None;
        }
        // A name-addr's URI may carry a scheme of any kind.
        Some(Self { display, uri: Uri::parse(addr)?, params })
    }

    /// A header parameter's value; empty when it has none.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        param(self.params, name)
    }

    /// The tag, when there is one that is not empty.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }
}

/// Where the angle bracket opens, outside a quoted display name; the outer `None` is an unbalanced quote.
fn find_open(text: &str) -> Option<Option<usize>> {
    // Nearly every value opens with its bracket, or has no quote before it.
    let first = find2(b'<', b'"', text.as_bytes());
    if first.is_none_or(|at| text.as_bytes()[at] == b'<') {
        return Some(first);
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => return Some(Some(at)),
            _ => {}
        }
    }
    (!quoted).then_some(None)
}

fn display_is_well_formed(display: &str) -> bool {
    if let Some(inner) = display.strip_prefix('"') {
        // find_open has seen the quotes balanced: what is left is that nothing follows the closing one.
        return inner.ends_with('"');
    }
    display.bytes().all(|b| is_token(b) || matches!(b, b' ' | b'\t') || b >= 0x80)
}

/// No empty parameter, quotes balanced.
pub(crate) fn params_are_well_formed(params: &str) -> bool {
    if params.is_empty() {
        return true;
    }
    split_params(params).all(|item| {
        let (name, value) = cut(item, b'=').unwrap_or((item, "-"));
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        let plain = !holds(value.as_bytes(), |b| b <= b' ' || b == b'"');
        !name.is_empty() && name.bytes().all(is_token) && (quoted || plain)
    })
}

/// One Via value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// Transport token as written.
    pub transport: &'a str,
    /// Sent-by host.
    pub host: &'a str,
    /// Sent-by port.
    pub port: Option<u16>,
    /// Parameters, without the leading semicolon.
    pub params: &'a str,
}

impl<'a> Via<'a> {
    /// Reads one value. `None` when it breaks the grammar.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim_ascii();
        let (protocol, rest) = cut(text, b'/')?;
        let (version, rest) = cut(rest, b'/')?;
        let rest = rest.trim_ascii_start();
        let (transport, rest) = cut_blank(rest)?;
        if !protocol.trim_ascii().eq_ignore_ascii_case("SIP")
            || version.trim_ascii() != "2.0"
            || !transport.bytes().all(is_token)
        {
            return None;
        }
        let (sent_by, params) = match cut(rest, b';') {
            Some((_, "")) => return None,
            Some((sent_by, params)) => (sent_by, params),
            None => (rest, ""),
        };
        // White space may stand around the colon (RFC 3261 25.1 COLON).
        let (host, port) = match uri::split_host_port(sent_by.trim_ascii()) {
            Some(found) => found,
            None => {
                let (host, port) = sent_by.trim_ascii().rsplit_once(':')?;
                let (host, none) = uri::split_host_port(host.trim_ascii_end())?;
                (host, if none.is_none() { Some(port.trim_ascii_start().parse().ok()?) } else { None })
            }
        };
        params_are_well_formed(params).then_some(Self { transport, host, port, params })
    }

    /// The transaction's branch.
    #[must_use]
    pub fn branch(&self) -> Option<&'a str> {
        param(self.params, "branch").filter(|branch| !branch.is_empty())
    }

    /// Where the request came from, as its receiver saw it (RFC 3261 18.2.1).
    #[must_use]
    pub fn received(&self) -> Option<&'a str> {
        param(self.params, "received").filter(|address| !address.is_empty())
    }

    /// Whether the sender asks for the response at its source port (RFC 3581).
    #[must_use]
    pub fn wants_rport(&self) -> bool {
        param(self.params, "rport").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_addrs() {
        let value = NameAddr::parse("\"Bob \\\"B\\\" <x>\" <sip:bob@b.example;lr>;tag=1;x=\"a;b\"").unwrap();
        assert_eq!((value.uri.host, value.tag(), value.param("x")), ("b.example", Some("1"), Some("a;b")));
        assert_eq!(NameAddr::parse("sip:a@b;tag=2").unwrap().tag(), Some("2"));
        assert_eq!(NameAddr::parse("Bob B <sip:a@b>").unwrap().display, "Bob B");
        for bad in [
            "\"Bob <sip:a@b>",
            "<sip:a@b",
            "<sip:a@b>x",
            "Bob, x <sip:a@b>",
            "<sip:a@b>;;",
            "sip:a@b?c=d",
            "< sip:a@b>",
            "",
        ] {
            assert_eq!(NameAddr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn vias() {
        let via = Via::parse(
            "SIP / 2.0 / UDP first.example: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1",
        )
        .unwrap();
        assert_eq!(
            (via.host, via.port, via.branch()),
            ("first.example", Some(4000), Some("z9hG4bKa7c6a8dlze.1"))
        );
        assert!(Via::parse("SIP/2.0/TCP [::1]:5;rport").unwrap().wants_rport());
        for bad in [
            "SIP/2.0/UDP",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP h;",
            "SIP/3.0/UDP h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP ;branch=x",
        ] {
            assert_eq!(Via::parse(bad), None, "{bad}");
        }
    }
}
