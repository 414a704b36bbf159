//! Answers that keep no state (RFC 3261 8.2.7), and what a UAS checks before it does anything (RFC 3261 8.2).

use sha2::{Digest, Sha256};

use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Method, Request, ResponseBuilder, StatusCode};

/// Methods we take.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, MESSAGE, PRACK, REFER, NOTIFY";
/// Option tags we support (RFC 3262, 4028, 3891, 4488).
pub const SUPPORTED: &str = "100rel, timer, replaces, norefersub";
/// Bodies of an INVITE that we take.
pub const ACCEPT: &str = "application/sdp";
/// Bodies of any request that we take.
pub(crate) const ACCEPT_ANY: &str =
    "application/sdp, message/sipfrag, application/dtmf-relay, application/dtmf";

/// What an answer to OPTIONS says that we can (RFC 3261 11.2).
pub const CAPABILITIES: [(&str, &str); 3] =
    [("Allow", ALLOW), ("Accept", ACCEPT_ANY), ("Supported", SUPPORTED)];

/// Where the response to a request goes (RFC 3261 18.2.2, RFC 3581): the connection it came by; over UDP its source,
/// at the source port when `rport` was asked for, else at the port the Via names. What the Via says of its transport
/// does not matter.
#[must_use]
pub fn response_hop(request: &Request, from: Hop) -> Hop {
    if from.transport.is_reliable() {
        return from;
    }
    let mut to = from;
    if let Some(via) = request.top_via()
        && !via.wants_rport()
    {
        to.remote.set_port(via.port.unwrap_or(from.transport.default_port()));
    }
    to
}

/// A final response without state. Its To tag is derived from the request under `key`, so that a retransmission gets
/// the same one.
#[must_use]
pub fn respond(
    request: &Request,
    status: StatusCode,
    reason: Option<&str>,
    headers: &[(&str, &str)],
    from: Hop,
    key: &[u8; 16],
) -> Transmit {
    let tag = derived_tag(request, key);
    let mut response = ResponseBuilder::new(request, status, reason, Some(&tag), from.remote);
    for (name, value) in headers {
        response = response.header_named(name, value);
    }
    Transmit { hop: response_hop(request, from), bytes: response.build() }
}

fn derived_tag(request: &Request, key: &[u8; 16]) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    for part in [request.call_id(), request.from_tag().unwrap_or_default()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(request.cseq().number.to_be_bytes());
    // 32 bits, as RFC 3261 19.3 asks for at least.
    hex(&hash.finalize()[..4])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Headers to add to a refusal.
pub type Headers = Vec<(&'static str, String)>;

/// What a UAS must be able to understand of a request before it looks at it (RFC 3261 8.2.2, 8.2.3): the scheme of
/// the Request-URI, required extensions, and the body.
pub fn check(request: &Request) -> Result<(), (StatusCode, Headers)> {
    match request.parsed_uri() {
        Some(uri) if uri.is_sip() || uri.scheme.eq_ignore_ascii_case("tel") => {}
        _ => return Err((StatusCode(416), Vec::new())),
    }
    let ours = |tag: &str| SUPPORTED.split(", ").any(|known| known.eq_ignore_ascii_case(tag));
    let required: Vec<&str> = request.list(HeaderName::Require).filter(|tag| !ours(tag)).collect();
    if !required.is_empty() {
        return Err((StatusCode(420), vec![("Unsupported", required.join(", "))]));
    }
    let accept = || vec![("Accept", ACCEPT.to_owned())];
    if request.list(HeaderName::ContentEncoding).any(|e| !e.eq_ignore_ascii_case("identity")) {
        return Err((StatusCode(415), vec![("Accept-Encoding", "identity".to_owned())]));
    }
    if request.method() == Method::Invite {
        if !request.body().is_empty() && request.sdp().is_none() {
            return Err((StatusCode(415), accept()));
        }
        let mut accepts = request.list(HeaderName::Accept).peekable();
        let takes_sdp = |range: &str| {
            let range = range.split(';').next().unwrap_or(range).trim();
            ["application/sdp", "application/*", "*/*"].iter().any(|r| range.eq_ignore_ascii_case(r))
        };
        if accepts.peek().is_some() && !accepts.any(takes_sdp) {
            return Err((StatusCode(406), Vec::new()));
        }
    }
    Ok(())
}
