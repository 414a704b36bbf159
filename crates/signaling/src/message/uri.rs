//! SIP, SIPS and TEL URIs (RFC 3261 19.1, RFC 3966), borrowed from the message.

use std::borrow::Cow;

use memchr::arch::all::memchr::One;

use super::scan::{cut, find, holds, param};

/// A URI's parts. For schemes other than `sip` and `sips` everything after the colon is the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The whole text.
    pub text: &'a str,
    /// Scheme as written.
    pub scheme: &'a str,
    /// User part, still escaped, without password.
    pub user: Option<&'a str>,
    /// Host: a name, an IPv4 literal or an IPv6 literal in brackets. Empty for other schemes.
    pub host: &'a str,
    /// Port, when one is written.
    pub port: Option<u16>,
    /// Parameters, without the leading semicolon.
    pub params: &'a str,
    /// Headers, without the question mark.
    pub headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Splits and checks a URI. `None` when it is not one.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = cut(text, b':')?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if !scheme_ok
            || rest.is_empty()
            || holds(text.as_bytes(), |b| b <= b' ' || matches!(b, b'<' | b'>' | b'"' | 0x7f))
        {
            return None;
        }
        let other = Self { text, scheme, user: Some(rest), host: "", port: None, params: "", headers: "" };
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return Some(other);
        }
        // The user part may hold ; and ? (RFC 3261 25.1 user-unreserved), so the @ is looked for first.
        let (user, rest) = match cut(rest, b'@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let user = match user {
            Some("") => return None,
            Some(userinfo) => Some(cut(userinfo, b':').map_or(userinfo, |(user, _)| user)),
            None => None,
        };
        let (rest, headers) = cut(rest, b'?').unwrap_or((rest, ""));
        let (hostport, params) = cut(rest, b';').unwrap_or((rest, ""));
        let (host, port) = split_host_port(hostport)?;
        if !escapes_are_whole(user.unwrap_or_default()) {
            return None;
        }
        Some(Self { text, scheme, user, host, port, params, headers })
    }

    /// Whether the scheme is one we can be reached by.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip") || self.scheme.eq_ignore_ascii_case("sips")
    }

    /// The user part with its %-escapes resolved; not text when they do not form UTF-8.
    #[must_use]
    pub fn user_unescaped(&self) -> Option<Cow<'a, str>> {
        unescape(self.user?)
    }

    /// A header of the URI's header part, its %-escapes resolved.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        let value = self.headers.split('&').find_map(|header| {
            let (named, value) = header.split_once('=')?;
            named.eq_ignore_ascii_case(name).then_some(value)
        })?;
        unescape(value)
    }

    /// A parameter's value; empty when it has none.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        param(self.params, name)
    }
}

/// Resolves %-escapes; `None` when the result is not text.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => {
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn escapes_are_whole(text: &str) -> bool {
    let bytes = text.as_bytes();
    One::new(b'%').iter(bytes).all(|at| {
        bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
            && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// Splits `host[:port]`, an IPv6 literal in brackets.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let bytes = text.as_bytes();
    let end =
        if text.starts_with('[') { find(b']', bytes)? + 1 } else { find(b':', bytes).unwrap_or(text.len()) };
    let (host, rest) = text.split_at(end);
    if host.is_empty() || host.len() > 255 {
        return None;
    }
    let host_ok = if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        // RFC 5118 4.10: a third colon before an IPv4 part is a known mistake and tolerated.
        v6.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) && v6.contains(':')
    } else {
        host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    if !host_ok {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok()?)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_sip_uri() {
        let uri = Uri::parse("sip:%2B1415:pw@[2001:db8::1]:5080;transport=tcp;lr?a=b").unwrap();
        assert_eq!(uri.user_unescaped().unwrap(), "+1415");
        assert_eq!((uri.host, uri.port, uri.headers), ("[2001:db8::1]", Some(5080), "a=b"));
        assert_eq!((uri.param("Transport"), uri.param("lr"), uri.param("x")), (Some("tcp"), Some(""), None));
        assert_eq!(Uri::parse("tel:+1-415;phone-context=x").unwrap().user, Some("+1-415;phone-context=x"));
        assert_eq!(Uri::parse("sip:1;2@h").unwrap().user, Some("1;2"));
    }

    #[test]
    fn what_is_not_a_uri() {
        for bad in [
            "",
            "sip:",
            "sip:@h",
            "sip:u@",
            "sip:u@h:",
            "sip:u@h:99999",
            "<sip:u@h>",
            "sip:u v@h",
            "u@h",
            "sip:u@[::1",
            "sip:%4@h",
            "sip:u@h:+5",
        ] {
            assert_eq!(Uri::parse(bad), None, "{bad}");
        }
    }
}
