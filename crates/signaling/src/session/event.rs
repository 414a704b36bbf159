//! What a session is told at its beginning, and what it tells.

use std::fmt;

use bytes::Bytes;

use super::{Referral, SessionTimer};
use crate::digest::Credentials;
use crate::message::StatusCode;

/// This side of a session.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our Contact URI, without angle brackets.
    pub contact: String,
    /// Sent-by of our requests: `host:port`.
    pub via: String,
    /// User-Agent and Server.
    pub user_agent: &'static str,
    /// What we want of session timers (RFC 4028).
    pub session_timer: SessionTimer,
    /// Unpredictable bytes: tags, branches, Call-ID and cnonces are derived from them.
    pub seed: [u8; 16],
}

/// An INVITE to send.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Request-URI.
    pub request_uri: String,
    /// From value without tag.
    pub from: String,
    /// To value.
    pub to: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Route values.
    pub route: Vec<String>,
    /// The account to answer challenges with.
    pub credentials: Option<Credentials>,
    /// The session description offered.
    pub offer: Bytes,
}

/// A final response that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 300 to 699.
    pub status: StatusCode,
    /// Reason phrase; the standard one when not given.
    pub reason: Option<String>,
    /// Further headers, such as Warning and Retry-After.
    pub headers: Vec<(String, String)>,
}

impl Refusal {
    /// A refusal without further words.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, reason: None, headers: Vec::new() }
    }
}

/// A Reason header (RFC 3326).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `SIP` or `Q.850`.
    pub protocol: String,
    /// Status code or cause value.
    pub cause: u16,
    /// In words.
    pub text: Option<String>,
}

/// Longest text kept of a Reason header, in characters.
const MAX_TEXT: usize = 128;

impl Reason {
    /// Reads a header's first value that names a cause.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        crate::message::split_outside(value, b',').find_map(|value| {
            let (protocol, params) = value.split_once(';')?;
            let cause = crate::message::param(params, "cause")?.parse().ok()?;
            let text = crate::message::param(params, "text")
                .map(|t| t.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect());
            Some(Self { protocol: protocol.trim().chars().take(16).collect(), cause, text })
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};cause={}", self.protocol, self.cause)?;
        match &self.text {
            Some(text) => write!(f, ";text=\"{}\"", text.replace(['"', '\\'], "")),
            None => Ok(()),
        }
    }
}

/// Something the caller must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// UAC: a provisional response beyond 100.
    Progress {
        /// 101 to 199.
        status: StatusCode,
        /// Early media.
        sdp: Option<Bytes>,
    },
    /// UAC: the 2xx to the INVITE that began the call. Its ACK is on the way.
    Answered {
        /// 200 to 299.
        status: StatusCode,
        /// The answer to our offer; `None` when a reliable provisional response brought it.
        sdp: Option<Bytes>,
    },
    /// The final response to [`crate::Session::offer`], or to a session refresh that carried our description once
    /// more. With 300 and above the session goes on as it was.
    Modified {
        /// 200 to 699; 408 and 503 also when there was no response at all.
        status: StatusCode,
        /// The answer to our offer.
        sdp: Option<Bytes>,
    },
    /// UAS: the ACK of our 2xx, with the answer when the 2xx carried our offer. Also of an answered re-INVITE, and
    /// the PRACK of an offer in a reliable provisional response.
    Confirmed {
        /// The answer.
        sdp: Option<Bytes>,
    },
    /// A re-INVITE, UPDATE or PRACK with an offer: [`crate::Session::answer_offer`] or [`crate::Session::refuse_offer`].
    Offer {
        /// The offer; `None` asks for ours.
        sdp: Option<Bytes>,
    },
    /// A REFER: [`crate::Session::accept_refer`] or [`crate::Session::refuse_refer`].
    Refer {
        /// The Refer-To URI as written, its header part included. Not checked at all.
        target: String,
    },
    /// How a REFER of ours fares.
    Referral(Referral),
    /// INFO, already answered.
    Info {
        /// Content-Type as written.
        content_type: String,
        /// Body.
        body: Bytes,
    },
    /// The call is over. Comes exactly once.
    Ended(Ended),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub cause: EndCause,
    /// Final status of the INVITE, sent or received.
    pub status: Option<StatusCode>,
    /// The peer's reason phrase.
    pub phrase: Option<String>,
    /// The peer's Reason header.
    pub reason: Option<Reason>,
    /// The peer's Retry-After, in seconds.
    pub retry_after: Option<u32>,
    /// The peer's Warning.
    pub warning: Option<String>,
    /// Whether a 18x came.
    pub rang: bool,
    /// Whether any provisional response came, 100 included.
    pub trying: bool,
}

impl Ended {
    pub(super) fn new(cause: EndCause) -> Self {
        Self {
            cause,
            status: None,
            phrase: None,
            reason: None,
            retry_after: None,
            warning: None,
            rang: false,
            trying: false,
        }
    }

    /// Of a call that was refused with a status of ours.
    #[must_use]
    pub fn refused(status: StatusCode) -> Self {
        Self::with_status(EndCause::RefusedByUs, status)
    }

    pub(super) fn with_status(cause: EndCause, status: StatusCode) -> Self {
        Self { status: Some(status), ..Self::new(cause) }
    }
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// We sent a non-2xx final response.
    RefusedByUs,
    /// We received one.
    RefusedByPeer,
    /// CANCEL, or BYE before the answer, from the peer.
    CancelledByPeer,
    /// We gave up before the answer, or as it crossed our CANCEL.
    CancelledByUs,
    /// BYE from the peer.
    ByeFromPeer,
    /// BYE from us.
    ByeFromUs,
    /// No ACK within 64·T1; a BYE was sent.
    NoAck,
    /// No PRACK of a reliable provisional response within 64·T1; the INVITE was refused.
    NoPrack,
    /// The session timer ran out, or a refresh found the peer gone; a BYE was sent.
    SessionExpired,
    /// No final response before timer B.
    NoResponse,
    /// The INVITE could not be sent.
    TransportError,
    /// A challenge we cannot answer: no credentials, an unknown scheme, or refused again.
    Challenged,
    /// The peer broke the protocol.
    ProtocolError,
}
