//! What can be told of a datagram without reading it: enough to drop what nobody is to answer.

use super::parse::is_folded;
use super::scan::{cut, find};
use super::{HeaderName, MAX_HEAD, MAX_HEADERS, Method, NameAddr};

/// A datagram's first line and the headers that say whose it is, borrowed and unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek<'a> {
    /// Method and Request-URI; `None` for a response.
    pub request: Option<(Method, &'a str)>,
    call_id: Option<&'a str>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    /// Whether a header line is folded: then what was found may not be all.
    pub folded: bool,
}

impl<'a> Peek<'a> {
    /// Looks at a datagram. `None` when its first line is none of SIP's.
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Option<Self> {
        let start = datagram.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let rest = datagram.get(start..)?;
        let head = rest.get(..MAX_HEAD).unwrap_or(rest);
        let mut lines = lines(head);
        let first = lines.next()?;
        let mut peek = Self { request: None, call_id: None, from: None, to: None, folded: false };
        if !first.get(..8).is_some_and(|version| version.eq_ignore_ascii_case(b"SIP/2.0 ")) {
            let (method, rest) = cut(std::str::from_utf8(first).ok()?, b' ')?;
            let (uri, version) = rest.rsplit_once(' ')?;
            if !version.eq_ignore_ascii_case("SIP/2.0") {
                return None;
            }
            peek.request = Some((Method::parse(method), uri));
        }
        for line in lines.take(MAX_HEADERS).take_while(|line| !line.is_empty()) {
            peek.folded |= is_folded(line);
            // Only these begin the names that are looked for.
            if !matches!(line[0], b'c' | b'C' | b'i' | b'I' | b'f' | b'F' | b't' | b'T') {
                continue;
            }
            let Some((name, value)) = named(line) else { continue };
            let slot = match HeaderName::parse(name.trim_ascii_end()) {
                HeaderName::CallId => &mut peek.call_id,
                HeaderName::From => &mut peek.from,
                HeaderName::To => &mut peek.to,
                _ => continue,
            };
            slot.get_or_insert(value.trim_ascii());
        }
        Some(peek)
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> Option<&'a str> {
        self.call_id
    }

    /// The From value.
    #[must_use]
    pub fn from(&self) -> Option<NameAddr<'a>> {
        self.from.and_then(NameAddr::parse)
    }

    /// The To value.
    #[must_use]
    pub fn to(&self) -> Option<NameAddr<'a>> {
        self.to.and_then(NameAddr::parse)
    }
}

/// Lines as a stranger may end them.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr::memchr(b'\n', text);
        rest = end.and_then(|end| text.get(end + 1..));
        let line = &text[..end.unwrap_or(text.len())];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

/// The name and value of a header line. Of one that is not UTF-8 what follows the display name, which is where other
/// character sets stand.
fn named(line: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = line.split_at(find(b':', line)?);
    let value = value.get(1..)?;
    let text = std::str::from_utf8(value).or_else(|_| {
        let at = memchr::memrchr(b'<', value).unwrap_or(0);
        std::str::from_utf8(value.get(at..).unwrap_or(value))
    });
    Some((std::str::from_utf8(name).ok()?, text.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whose_a_message_is() {
        let text = "\r\nINVITE sip:+1@host;x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nf : \"a;tag=no\" <sip:a@b>;tag=yes\r\nTO:<sip:+2@c>\r\ni:  id@h\r\nCSeq: 1 INVITE\r\n\r\nCall-ID: body";
        let peek = Peek::of(text.as_bytes()).unwrap();
        assert_eq!(peek.request, Some((Method::Invite, "sip:+1@host;x")));
        assert_eq!((peek.call_id(), peek.from().unwrap().tag()), (Some("id@h"), Some("yes")));
        assert_eq!(peek.to().unwrap().uri.user, Some("+2"));
        assert!(!peek.folded);
        let response = Peek::of(b"sip/2.0 200 OK\r\nCall-ID: x\r\nTo:\r\n <sip:a@b>\r\n\r\n").unwrap();
        assert_eq!((response.request, response.call_id(), response.folded), (None, Some("x"), true));
    }

    #[test]
    fn a_name_in_latin_1_hides_no_tag() {
        let bytes = b"BYE sip:us@h SIP/2.0\r\nFrom: \"M\xfcller\" <sip:a@b>;tag=f\r\nTo: \xff<sip:us@h>;tag=t\r\nCall-ID: x\xff\r\n\r\n";
        let peek = Peek::of(bytes).unwrap();
        assert_eq!((peek.from().unwrap().tag(), peek.to().unwrap().tag()), (Some("f"), Some("t")));
        assert_eq!(peek.call_id(), None);
    }

    #[test]
    fn junk_is_none_of_sips() {
        for junk in
            [&b""[..], b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x01\xff", b"INVITE", b"INVITE sip:a"]
        {
            assert_eq!(Peek::of(junk), None);
        }
        let cut = Peek::of(b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID").unwrap();
        assert_eq!((cut.call_id(), cut.from(), cut.to()), (None, None, None));
    }
}
