//! What we send. Every value passes one gate: a line break or NUL never reaches the wire, whatever put it there.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::scan::{cut, find_outside, holds, split_params};
use super::{HeaderName, Request, StatusCode};

/// Typical size of a message with SDP.
const CAPACITY: usize = 1_024;

/// Writes text without the characters that end a header line.
struct Gate<'a>(&'a mut BytesMut);

impl fmt::Write for Gate<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if holds(text.as_bytes(), |b| matches!(b, b'\r' | b'\n' | 0)) {
            // A NUL may come from a peer, as a quoted-pair (RFC 3261 25.1); a line end only from ourselves.
            debug_assert!(!text.contains(['\r', '\n']), "a header value holds a line break");
            for byte in text.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)) {
                self.0.put_u8(byte);
            }
        } else {
            self.0.put_slice(text.as_bytes());
        }
        Ok(())
    }
}

fn line(out: &mut BytesMut, name: &str, value: impl fmt::Display) {
    // Writing to memory does not fail.
    let _ = write!(Gate(out), "{name}: {value}");
    out.put_slice(b"\r\n");
}

/// Writes a value of a request that was read: it holds no line end, and is returned as it came.
fn copy(out: &mut BytesMut, name: &str, value: &str) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn finish(mut out: BytesMut, body: &[u8]) -> Bytes {
    line(&mut out, "Content-Length", body.len());
    out.put_slice(b"\r\n");
    out.put_slice(body);
    out.freeze()
}

/// Builds a request; headers stand in the order they are added, Content-Length last.
#[derive(Debug)]
pub struct RequestBuilder {
    out: BytesMut,
}

impl RequestBuilder {
    /// Starts with the request line.
    #[must_use]
    pub fn new(method: &str, uri: &str) -> Self {
        let mut out = BytesMut::with_capacity(CAPACITY);
        let _ = write!(Gate(&mut out), "{method} {uri} SIP/2.0");
        out.put_slice(b"\r\n");
        Self { out }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl fmt::Display) -> Self {
        self.header_named(name.as_str(), value)
    }

    /// Adds a header of any name.
    #[must_use]
    pub fn header_named(mut self, name: &str, value: impl fmt::Display) -> Self {
        line(&mut self.out, name, value);
        self
    }

    /// Ends with a body of a type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Bytes {
        line(&mut self.out, "Content-Type", content_type);
        finish(self.out, body)
    }

    /// Ends without a body.
    #[must_use]
    pub fn build(self) -> Bytes {
        finish(self.out, &[])
    }
}

/// Builds a response: Via, From, To, Call-ID and CSeq are the request's (RFC 3261 8.2.6).
#[derive(Debug)]
pub struct ResponseBuilder {
    out: BytesMut,
}

impl ResponseBuilder {
    /// Starts a response to a request that came from `source`, which the top Via is marked with (RFC 3261 18.2.1,
    /// RFC 3581 4). `to_tag` is added to a To without one. Header lines that a malformed request lacks are left out.
    #[must_use]
    pub fn new(
        request: &Request,
        status: StatusCode,
        reason: Option<&str>,
        to_tag: Option<&str>,
        source: SocketAddr,
    ) -> Self {
        let mut out = BytesMut::with_capacity(CAPACITY);
        let _ = write!(Gate(&mut out), "SIP/2.0 {status} {}", reason.unwrap_or(status.phrase()));
        out.put_slice(b"\r\n");
        let mut top = true;
        for value in request.headers(HeaderName::Via) {
            if std::mem::take(&mut top) {
                via(&mut out, value, request, source);
            } else {
                copy(&mut out, "Via", value);
            }
        }
        if let Some(from) = request.header(HeaderName::From) {
            copy(&mut out, "From", from);
        }
        if let Some(to) = request.header(HeaderName::To) {
            match to_tag.filter(|_| request.to_tag().is_none()) {
                Some(tag) => {
                    copy(&mut out, "To", to);
                    // Behind the value, before its line end.
                    out.truncate(out.len() - 2);
                    let _ = write!(Gate(&mut out), ";tag={tag}");
                    out.put_slice(b"\r\n");
                }
                None => copy(&mut out, "To", to),
            }
        }
        for name in [HeaderName::CallId, HeaderName::CSeq] {
            if let Some(value) = request.header(name) {
                copy(&mut out, name.as_str(), value);
            }
        }
        Self { out }
    }

    /// Copies the Record-Route lines, as a response that makes a dialog must (RFC 3261 12.1.1).
    #[must_use]
    pub fn record_route(mut self, request: &Request) -> Self {
        for value in request.headers(HeaderName::RecordRoute) {
            copy(&mut self.out, "Record-Route", value);
        }
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: HeaderName, value: impl fmt::Display) -> Self {
        self.header_named(name.as_str(), value)
    }

    /// Adds a header of any name.
    #[must_use]
    pub fn header_named(mut self, name: &str, value: impl fmt::Display) -> Self {
        line(&mut self.out, name, value);
        self
    }

    /// Ends with a body of a type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Bytes {
        line(&mut self.out, "Content-Type", content_type);
        finish(self.out, body)
    }

    /// Ends without a body.
    #[must_use]
    pub fn build(self) -> Bytes {
        finish(self.out, &[])
    }
}

/// The top Via line, marked with where the request came from.
fn via(out: &mut BytesMut, value: &str, request: &Request, source: SocketAddr) {
    let end = find_outside(value, b',').unwrap_or(value.len());
    let (top, rest) = value.split_at(end);
    let (host, wants_rport) = request.top_via().map_or(("", false), |v| (v.host, v.wants_rport()));
    let literal = host.trim_matches(['[', ']']).parse().ok() == Some(source.ip().to_canonical());
    let mut marked = String::with_capacity(top.len() + 48);
    for (index, item) in split_params(top.trim_ascii_end()).enumerate() {
        let name = cut(item, b'=').map_or(item, |(name, _)| name).trim_ascii();
        // What the sender claims of its own source is replaced by what was seen.
        if index > 0 && name.eq_ignore_ascii_case("received") {
            continue;
        }
        if index > 0 {
            marked.push(';');
        }
        if index > 0 && name.eq_ignore_ascii_case("rport") {
            let _ = write!(marked, "rport={}", source.port());
        } else {
            marked.push_str(item);
        }
    }
    if !literal || wants_rport {
        let _ = write!(marked, ";received={}", source.ip().to_canonical());
    }
    marked.push_str(rest);
    copy(out, "Via", &marked);
}
