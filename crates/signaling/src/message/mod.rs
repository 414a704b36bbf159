//! SIP messages (RFC 3261 7): a lazy, zero-copy reading of bytes from the wire, and builders for what we send.
//!
//! One pass finds the start line and every header's range and checks framing and the headers a transaction needs;
//! typed values are read when somebody asks.

mod build;
mod mask;
mod method;
mod name_addr;
mod parse;
mod peek;
mod replaces;
mod scan;
mod stream;
mod uri;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

pub use build::{RequestBuilder, ResponseBuilder};
pub use mask::masked;
pub use method::{HeaderName, Method, StatusCode};
pub use name_addr::{NameAddr, Via};
pub use parse::Malformed;
pub use peek::Peek;
pub use replaces::Replaces;
pub(crate) use scan::{find_outside, param, split_outside};
pub use stream::{StreamItem, StreamParser};
pub use uri::Uri;

/// Longest start line plus headers, in bytes.
pub const MAX_HEAD: usize = 16 << 10;
/// Longest body, in bytes.
pub const MAX_BODY: usize = 64 << 10;
/// Most header lines.
pub const MAX_HEADERS: usize = 100;
/// Longest Request-URI, in bytes.
pub const MAX_REQUEST_URI: usize = 512;

/// A sequence number and the method it counts (RFC 3261 20.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: HeaderName,
    name_at: (u32, u32),
    value_at: (u32, u32),
}

/// What requests and responses share: header lines and a body.
#[derive(Debug, Clone)]
pub struct Head {
    text: ByteString,
    fields: SmallVec<[Field; 16]>,
    body: Bytes,
    cseq: Option<CSeq>,
    from_tag: Option<(u32, u32)>,
    to_tag: Option<(u32, u32)>,
}

impl Head {
    fn slice(&self, (from, to): (u32, u32)) -> &str {
        self.text.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.fields.iter().find(|f| f.name == name).map(|f| self.slice(f.value_at))
    }

    /// The values of a header, one a line.
    pub fn headers(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |f| f.name == name).map(|f| self.slice(f.value_at))
    }

    /// The values of a header, lines split at commas.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.headers(name)
            .flat_map(|line| split_outside(line, b','))
            .map(str::trim_ascii)
            .filter(|v| !v.is_empty())
    }

    /// Whether a header's list holds a token, whatever its case: an option tag, a method.
    #[must_use]
    pub fn lists(&self, name: HeaderName, token: &str) -> bool {
        self.list(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The first value of a header of any name.
    #[must_use]
    pub fn header_named(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| self.slice(f.name_at).eq_ignore_ascii_case(name))
            .map(|f| self.slice(f.value_at))
    }

    /// The Call-ID; empty in a malformed message.
    #[must_use]
    pub fn call_id(&self) -> &str {
        self.header(HeaderName::CallId).unwrap_or_default()
    }

    /// The CSeq. A message that lacks it is malformed.
    #[must_use]
    pub fn cseq(&self) -> CSeq {
        self.cseq.unwrap_or(CSeq { number: 0, method: Method::Other })
    }

    /// The From value; `None` only in a malformed message.
    #[must_use]
    pub fn from(&self) -> Option<NameAddr<'_>> {
        self.header(HeaderName::From).and_then(NameAddr::parse)
    }

    /// The To value; `None` only in a malformed message.
    #[must_use]
    pub fn to(&self) -> Option<NameAddr<'_>> {
        self.header(HeaderName::To).and_then(NameAddr::parse)
    }

    /// The From tag.
    #[must_use]
    pub fn from_tag(&self) -> Option<&str> {
        self.from_tag.map(|at| self.slice(at))
    }

    /// The To tag.
    #[must_use]
    pub fn to_tag(&self) -> Option<&str> {
        self.to_tag.map(|at| self.slice(at))
    }

    /// The topmost Via.
    #[must_use]
    pub fn top_via(&self) -> Option<Via<'_>> {
        self.list(HeaderName::Via).next().and_then(Via::parse)
    }

    /// The first Contact.
    #[must_use]
    pub fn contact(&self) -> Option<NameAddr<'_>> {
        self.list(HeaderName::Contact).next().and_then(NameAddr::parse)
    }

    /// The whole message: start line and headers with the empty line, and the body. Folds have become spaces.
    #[must_use]
    pub fn raw(&self) -> [&[u8]; 2] {
        [self.text.as_bytes(), &self.body]
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body when it is SDP.
    #[must_use]
    pub fn sdp(&self) -> Option<Bytes> {
        let kind = self
            .header(HeaderName::ContentType)
            .map_or("application/sdp", |c| c.split(';').next().unwrap_or(c).trim());
        (!self.body.is_empty() && kind.eq_ignore_ascii_case("application/sdp")).then(|| self.body.clone())
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    head: Head,
    method: Method,
    method_at: (u32, u32),
    uri_at: (u32, u32),
}

impl std::ops::Deref for Request {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Request {
    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method's token as written.
    #[must_use]
    pub fn method_token(&self) -> &str {
        self.head.slice(self.method_at)
    }

    /// The Request-URI as written.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.head.slice(self.uri_at)
    }

    /// The Request-URI's parts.
    #[must_use]
    pub fn parsed_uri(&self) -> Option<Uri<'_>> {
        Uri::parse(self.uri())
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    head: Head,
    status: StatusCode,
    reason_at: (u32, u32),
}

impl std::ops::Deref for Response {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Response {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The reason phrase as written; may be empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.head.slice(self.reason_at)
    }
}

/// A request or a response.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Message {
    Request(Request),
    Response(Response),
}

impl std::ops::Deref for Message {
    type Target = Head;
    fn deref(&self) -> &Head {
        match self {
            Self::Request(request) => request,
            Self::Response(response) => response,
        }
    }
}
