//! From bytes to a message: framing, header lines, and the headers without which nothing can be done (RFC 3261 8.1.1).

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::name_addr::{NameAddr, Via};
use super::scan::{cut, cut_blank, find, holds, is_token, split_outside};
use super::{
    CSeq, Field, Head, HeaderName, MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_REQUEST_URI, Message, Method,
    Request, Response, StatusCode,
};

/// Why a message is refused.
#[derive(Debug)]
pub struct Malformed {
    /// The status to answer a request with.
    pub status: StatusCode,
    /// The reason phrase: what is wrong.
    pub reason: &'static str,
    /// The request, when enough of it could be read to answer; its headers may be broken.
    pub request: Option<Box<Request>>,
    /// Whether a stream has lost its framing: close it.
    pub fatal: bool,
}

impl Malformed {
    fn new(reason: &'static str) -> Self {
        Self { status: StatusCode(400), reason, request: None, fatal: true }
    }
}

/// Where the head ends and how long the body is.
pub(super) struct Frame {
    pub(super) head: usize,
    pub(super) body: Option<usize>,
}

impl Message {
    /// Reads one datagram. Bytes after Content-Length are ignored; without Content-Length the body goes to the end
    /// (RFC 3261 18.3).
    pub fn parse(datagram: Bytes) -> Result<Self, Malformed> {
        let start = datagram.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let datagram = datagram.slice(start..);
        let Some(head) = head_length(&datagram) else {
            // Answered when a request can be made out: its sender is a careless peer rather than noise.
            let mut whole = datagram.to_vec();
            whole.extend_from_slice(b"\r\n\r\n");
            let refused = parse_head(Bytes::from(whole), |_| Err("No End Of Headers"));
            return refused.and(Err(Malformed::new("No End Of Headers")));
        };
        let body = datagram.slice(head..);
        parse_head(datagram.slice(..head), |length| match length {
            Some(length) if length <= body.len() => Ok(body.slice(..length)),
            Some(_) => Err("Content-Length Beyond End Of Datagram"),
            None => Ok(body.clone()),
        })
    }
}

/// Length of start line and headers with the empty line, when it is there.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).map(|at| at + 1).find(|&end| bytes[..end].ends_with(b"\r\n\r\n"))
}

/// Reads the frame of a message on a stream, where Content-Length is required (RFC 3261 20.14).
pub(super) fn frame(bytes: &[u8]) -> Result<Option<Frame>, &'static str> {
    let Some(head) = head_length(bytes) else {
        return if bytes.len() > MAX_HEAD { Err("Headers Too Long") } else { Ok(None) };
    };
    if head > MAX_HEAD {
        return Err("Headers Too Long");
    }
    let mut length = None;
    for line in bytes[..head].split(|&b| b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = line[..colon].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l") {
            let value = std::str::from_utf8(line[colon + 1..].trim_ascii()).ok().and_then(content_length);
            let value = value.ok_or("Bad Content-Length")?;
            if length.is_some_and(|seen| seen != value) {
                return Err("Content-Length Given Twice");
            }
            length = Some(value);
        }
    }
    Ok(Some(Frame { head, body: length }))
}

fn content_length(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads a head; `body` turns the Content-Length into the body.
pub(super) fn parse_head(
    head: Bytes,
    body: impl FnOnce(Option<usize>) -> Result<Bytes, &'static str>,
) -> Result<Message, Malformed> {
    if head.len() > MAX_HEAD {
        return Err(Malformed { status: StatusCode(413), ..Malformed::new("Headers Too Long") });
    }
    let (text, replaced) = text_of(unfold(head));
    let lines = Lines { text: &text, at: 0 };
    let mut problem = None;
    let mut fields: SmallVec<[Field; 16]> = SmallVec::new();
    let mut start = (0, 0);
    for (index, (from, to)) in lines.enumerate() {
        let line = &text[from..to];
        if has_control_character(line) {
            problem.get_or_insert("Control Character In Header");
            // What follows cannot be trusted to be the header it seems to be.
            if index == 0 {
                return Err(Malformed::new("Control Character In Start Line"));
            }
            continue;
        }
        if index == 0 {
            start = (from, to);
            continue;
        }
        if fields.len() >= MAX_HEADERS {
            problem.get_or_insert("Too Many Headers");
            break;
        }
        match field(line, from) {
            Some(field) => {
                if replaced && identifies(field.name) && line.contains(char::REPLACEMENT_CHARACTER) {
                    problem.get_or_insert(NOT_UTF_8);
                }
                fields.push(field);
            }
            None => {
                problem.get_or_insert("Bad Header Line");
            }
        }
    }
    let mut parsed =
        Head { text: text.clone(), fields, body: Bytes::new(), cseq: None, from_tag: None, to_tag: None };
    parsed.from_tag = tag_of(&parsed, HeaderName::From);
    parsed.to_tag = tag_of(&parsed, HeaderName::To);
    if replaced && is_obscured(&parsed, &text[start.0..start.1]) {
        problem.get_or_insert(NOT_UTF_8);
    }
    let mut length = None;
    for value in parsed.headers(HeaderName::ContentLength) {
        match (content_length(value), length) {
            (Some(value), None) => length = Some(value),
            (Some(value), Some(seen)) if seen == value => {}
            _ => {
                problem.get_or_insert("Bad Content-Length");
            }
        }
    }
    let mut fatal = problem.is_some();
    let mut status = StatusCode(400);
    if length.is_some_and(|l| l > MAX_BODY) {
        (status, fatal) = (StatusCode(413), true);
        problem.get_or_insert("Body Too Long");
    } else if problem.is_none() {
        match body(length) {
            Ok(body) if body.len() <= MAX_BODY => parsed.body = body,
            Ok(_) => problem = Some("Body Too Long"),
            Err(reason) => {
                problem = Some(reason);
                fatal = true;
            }
        }
    }
    start_line(parsed, start, problem, status, fatal)
}

const NOT_UTF_8: &str = "Headers Are Not UTF-8";

/// The head as text, and whether something in it had to be replaced: older PBXs write names in Latin-1.
fn text_of(head: Bytes) -> (ByteString, bool) {
    // Sharing the bytes costs nothing; a second look at them is for the rare head that is no text.
    ByteString::try_from(head.clone())
        .map_or_else(|_| (String::from_utf8_lossy(&head).into_owned().into(), true), |text| (text, false))
}

/// Whether something was replaced where it matters: in a request line, or in From or To behind the display name.
fn is_obscured(head: &Head, start: &str) -> bool {
    let replaced = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
    let is_request = !start.get(..4).is_some_and(|version| version.eq_ignore_ascii_case("SIP/"));
    let hides = |name, tag: Option<&str>| {
        let value = head.header(name).unwrap_or_default();
        let behind = value.get(value.rfind('<').unwrap_or(0)..).unwrap_or(value);
        replaced(value) && (replaced(behind) || NameAddr::parse(behind).and_then(|named| named.tag()) != tag)
    };
    (is_request && replaced(start))
        || hides(HeaderName::From, head.from_tag())
        || hides(HeaderName::To, head.to_tag())
}

/// Whether a header says whose message it is or where it goes, so that it is taken as it stands or not at all.
fn identifies(name: HeaderName) -> bool {
    matches!(
        name,
        HeaderName::Via
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::ContentLength
            | HeaderName::MaxForwards
            | HeaderName::Authorization
            | HeaderName::Replaces
    )
}

/// Where a header's tag stands in the head: nearly every look-up of a call asks for it.
fn tag_of(head: &Head, name: HeaderName) -> Option<(u32, u32)> {
    let at = head.fields.iter().find(|field| field.name == name)?.value_at;
    let value = head.slice(at);
    let tag = NameAddr::parse(value)?.tag()?;
    // A tag is part of its value.
    let from = at.0 as usize + (tag.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
    Some(range(from, from + tag.len()))
}

/// Control characters have no place in a head but as quoted-pair in a quoted string (RFC 3261 25.1).
fn has_control_character(line: &str) -> bool {
    let control = |b: u8| (b < b' ' && b != b'\t') || b == 0x7f;
    if !holds(line.as_bytes(), control) {
        return false;
    }
    let (mut quoted, mut escaped) = (false, false);
    for byte in line.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if control(byte) => return true,
            _ => {}
        }
        // A line end is no quoted-pair.
        if matches!(byte, b'\r' | b'\n') {
            return true;
        }
    }
    false
}

/// Whether a line goes on with the one before (RFC 3261 7.3.1).
pub(super) fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Replaces line folds by spaces, in place of a copy, so that a value is one slice (RFC 3261 7.3.1).
fn unfold(head: Bytes) -> Bytes {
    let folds = |bytes: &[u8]| {
        memchr::memchr_iter(b'\n', bytes).find(|&at| matches!(bytes.get(at + 1), Some(b' ' | b'\t')))
    };
    if folds(&head).is_none() {
        return head;
    }
    let mut copy = head.to_vec();
    let mut at = 0;
    while let Some(found) = copy.get(at..).and_then(folds) {
        let newline = at + found;
        copy[newline] = b' ';
        if newline > 0 && copy[newline - 1] == b'\r' {
            copy[newline - 1] = b' ';
        }
        at = newline + 1;
    }
    Bytes::from(copy)
}

/// Lines between CRLFs, up to the empty one. A bare CR or LF stays in its line and is refused there.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = (usize, usize);
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..)?;
        let rest = rest.as_bytes();
        let end = memchr::memchr_iter(b'\n', rest).find(|&at| rest[..at].ends_with(b"\r"))? - 1;
        if end == 0 {
            return None;
        }
        let line = (self.at, self.at + end);
        self.at += end + 2;
        Some(line)
    }
}

fn range(from: usize, to: usize) -> (u32, u32) {
    // MAX_HEAD is far below 2^32.
    (u32::try_from(from).unwrap_or(u32::MAX), u32::try_from(to).unwrap_or(u32::MAX))
}

fn field(line: &str, at: usize) -> Option<Field> {
    let name = line.bytes().position(|b| !is_token(b)).filter(|&length| length > 0)?;
    let (name, rest) = line.split_at(name);
    let value = rest.trim_ascii_start().strip_prefix(':')?;
    let colon = line.len() - value.len() - 1;
    let lead = value.len() - value.trim_ascii_start().len();
    let value_from = at + colon + 1 + lead;
    let value_to = value_from + value[lead..].trim_ascii_end().len();
    Some(Field {
        name: HeaderName::parse(name),
        name_at: range(at, at + name.len()),
        value_at: range(value_from, value_to),
    })
}

fn start_line(
    mut head: Head,
    (from, to): (usize, usize),
    problem: Option<&'static str>,
    mut status: StatusCode,
    fatal: bool,
) -> Result<Message, Malformed> {
    let text = head.text.clone();
    let line = &text[from..to];
    if let Some(rest) =
        line.get(..4).filter(|p| p.eq_ignore_ascii_case("SIP/")).and_then(|_| cut(line, b' ')).map(|(_, r)| r)
    {
        return response(head, line, rest, from, to, problem, fatal);
    }
    let (Some(first), Some(last)) = (find(b' ', line.as_bytes()), memchr::memrchr(b' ', line.as_bytes()))
    else {
        return Err(Malformed::new("Bad Request Line"));
    };
    let (token, version) = (&line[..first], &line[last + 1..]);
    if token.is_empty() || !token.bytes().all(is_token) {
        return Err(Malformed::new("Bad Method"));
    }
    let uri = line.get(first + 1..last).unwrap_or_default();
    let method = Method::parse(token);
    let mut problem = problem;
    let mut refuse = |reason: &'static str| {
        problem.get_or_insert(reason);
    };
    let version_ok = version.eq_ignore_ascii_case("SIP/2.0");
    if !version_ok && version.get(..4).is_some_and(|v| v.eq_ignore_ascii_case("SIP/")) && !uri.is_empty() {
        status = StatusCode(505);
        refuse("Version Not Supported");
    } else if !version_ok || uri.is_empty() || cut_blank(uri).is_some() {
        refuse("Bad Request Line");
    } else if uri.len() > MAX_REQUEST_URI {
        refuse("Request-URI Too Long");
    } else if let Some(parsed) = super::Uri::parse(uri) {
        // RFC 3261 19.1.1: headers have no place in a Request-URI.
        if parsed.is_sip() && !parsed.headers.is_empty() {
            refuse("Headers In Request-URI");
        }
    } else {
        refuse("Bad Request-URI");
    }
    let (cseq, bad) = mandatory(&head, Some((method, token)));
    head.cseq = cseq;
    if let Some(reason) = bad {
        refuse(reason);
    }
    let at = from + first + 1;
    let request =
        Request { method, method_at: range(from, from + first), uri_at: range(at, at + uri.len()), head };
    match problem {
        None => Ok(Message::Request(request)),
        Some(reason) => {
            let answerable = request.header(HeaderName::Via).is_some();
            Err(Malformed { status, reason, request: answerable.then(|| Box::new(request)), fatal })
        }
    }
}

fn response(
    mut head: Head,
    line: &str,
    rest: &str,
    from: usize,
    to: usize,
    problem: Option<&'static str>,
    fatal: bool,
) -> Result<Message, Malformed> {
    let bad = |reason| Malformed { fatal, ..Malformed::new(reason) };
    if !line.get(..8).is_some_and(|v| v.eq_ignore_ascii_case("SIP/2.0 ")) {
        return Err(bad("Version Not Supported"));
    }
    let (code, phrase) = cut(rest, b' ').unwrap_or((rest, ""));
    let status = Some(code)
        .filter(|c| c.len() == 3 && c.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|c| c.parse().ok());
    let Some(status) = status.filter(|s| (100..700).contains(s)) else {
        return Err(bad("Bad Status Code"));
    };
    let (cseq, missing) = mandatory(&head, None);
    head.cseq = cseq;
    match problem.or(missing) {
        None => Ok(Message::Response(Response {
            head,
            status: StatusCode(status),
            reason_at: range(to - phrase.len().min(to - from), to),
        })),
        Some(reason) => Err(bad(reason)),
    }
}

/// How often a header stands in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    /// Once, without a value.
    Empty,
    Once,
    /// Twice or more often.
    Twice,
}

/// The headers every message needs, each once and well-formed.
fn mandatory(head: &Head, request: Option<(Method, &str)>) -> (Option<CSeq>, Option<&'static str>) {
    let mut problem = None;
    let mut refuse = |reason: &'static str| {
        problem.get_or_insert(reason);
    };
    let (mut call_id, mut cseq, mut from, mut to) = (Seen::No, Seen::No, Seen::No, Seen::No);
    let (mut max_forwards, mut content_type) = (Seen::No, Seen::No);
    for field in &head.fields {
        let seen = match field.name {
            HeaderName::CallId => &mut call_id,
            HeaderName::CSeq => &mut cseq,
            HeaderName::From => &mut from,
            HeaderName::To => &mut to,
            HeaderName::MaxForwards => &mut max_forwards,
            HeaderName::ContentType => &mut content_type,
            _ => continue,
        };
        *seen = match seen {
            Seen::No if field.value_at.0 == field.value_at.1 => Seen::Empty,
            Seen::No => Seen::Once,
            _ => Seen::Twice,
        };
    }
    for (seen, missing, twice) in [
        (call_id, "Missing Call-ID", "Call-ID Given Twice"),
        (cseq, "Missing CSeq", "CSeq Given Twice"),
        (from, "Missing From", "From Given Twice"),
        (to, "Missing To", "To Given Twice"),
    ] {
        match seen {
            Seen::Once => {}
            Seen::No | Seen::Empty => refuse(missing),
            Seen::Twice => refuse(twice),
        }
    }
    // Neither has to be there.
    if max_forwards == Seen::Twice || content_type == Seen::Twice {
        refuse("Header Given Twice");
    }
    if holds(head.call_id().as_bytes(), |b| b <= b' ') {
        refuse("Bad Call-ID");
    }
    if head.from_tag.is_none() && head.header(HeaderName::From).is_some() && head.from().is_none() {
        refuse("Bad From");
    }
    if head.to_tag.is_none() && head.header(HeaderName::To).is_some() && head.to().is_none() {
        refuse("Bad To");
    }
    let mut vias = head.list(HeaderName::Via).peekable();
    if vias.peek().is_none() {
        refuse("Missing Via");
    }
    // An answer returns them as they stand, so none may be empty.
    let gap = |line: &str| split_outside(line, b',').any(|via| via.trim_ascii().is_empty());
    if !vias.all(|via| Via::parse(via).is_some()) || head.headers(HeaderName::Via).any(gap) {
        refuse("Bad Via");
    }
    let cseq = head.header(HeaderName::CSeq).and_then(|value| {
        let (number, method) = cut_blank(value)?;
        let digits =
            !number.is_empty() && number.len() <= 10 + 20 && number.bytes().all(|b| b.is_ascii_digit());
        let number: u32 = digits.then(|| number.parse().ok()).flatten().filter(|n| *n < 1 << 31)?;
        let method = method.trim_ascii();
        let matches = request.is_none_or(|(_, token)| token == method);
        matches.then(|| CSeq { number, method: Method::parse(method) })
    });
    if head.header(HeaderName::CSeq).is_some() && cseq.is_none() {
        refuse("Bad CSeq");
    }
    if request.is_some() {
        let forwards = head.header(HeaderName::MaxForwards);
        if forwards.is_some_and(|v| {
            v.is_empty()
                || v.len() > 10
                || !v.bytes().all(|b| b.is_ascii_digit())
                || v.parse::<u64>().is_ok_and(|n| n > 255)
        }) {
            refuse("Bad Max-Forwards");
        }
        let dialog =
            matches!(request, Some((Method::Invite | Method::Update | Method::Refer | Method::Subscribe, _)));
        if dialog && !head.list(HeaderName::Contact).all(|c| NameAddr::parse(c).is_some()) {
            refuse("Bad Contact");
        }
        let routes = head.list(HeaderName::RecordRoute).chain(head.list(HeaderName::Route));
        if !routes.into_iter().all(|r| NameAddr::parse(r).is_some()) {
            refuse("Bad Route");
        }
    }
    (cseq, problem)
}
