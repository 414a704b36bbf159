//! The one map between what happened on the wire and what the API and the peer are told.

use media::offer_answer::OfferError;
use model::{ConversationStatus, Direction, EndedBy};
use signaling::{EndCause, Ended, Refusal, StatusCode};

/// What a call's end means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: ConversationStatus,
    pub(crate) ended_by: EndedBy,
    pub(crate) reason: Option<String>,
}

/// Why we ended a call ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurReason {
    /// Somebody else has the call.
    Transfer,
    /// `POST …/end`.
    Api,
    /// The agent hung up.
    Agent,
    /// The agent could not be made ready.
    AgentNotReady,
    /// The agent did not want the call.
    AgentRefused,
    /// The agent's connection broke.
    AgentGone,
    /// An outbound call rang too long.
    RingTimeout,
    /// The call reached its longest duration.
    MaxDuration,
    /// No RTP came.
    MediaTimeout,
    /// The node is leaving.
    Drain,
    /// The answer to our offer cannot be used.
    BadAnswer,
    /// The answer to our offer is plain RTP, and the policy is SRTP alone.
    EncryptionRequired,
}

impl OurReason {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Api | Self::Agent | Self::Transfer => None,
            Self::AgentNotReady => Some("agent_not_ready"),
            Self::AgentRefused => Some("agent_refused"),
            Self::AgentGone => Some("agent_gone"),
            Self::RingTimeout => Some("ring_timeout"),
            Self::MaxDuration => Some("max_duration"),
            Self::MediaTimeout => Some("media_timeout"),
            Self::Drain => Some("node_drain"),
            Self::BadAnswer => Some("bad_answer"),
            Self::EncryptionRequired => Some("encryption_required"),
        }
    }

    fn ended_by(self) -> EndedBy {
        match self {
            Self::Api | Self::Transfer => EndedBy::Api,
            Self::Agent | Self::AgentRefused => EndedBy::Agent,
            _ => EndedBy::System,
        }
    }
}

/// The status map of the wire contract.
pub(crate) fn outcome(
    direction: Direction,
    answered: bool,
    ended: &Ended,
    ours: Option<OurReason>,
) -> Outcome {
    use ConversationStatus::{Cancelled, Completed, Failed, Unanswered};
    let peer = match direction {
        Direction::Inbound => EndedBy::Caller,
        Direction::Outbound => EndedBy::Carrier,
    };
    let us = ours.map_or(EndedBy::System, OurReason::ended_by);
    let (status, ended_by, code) = match ended.cause {
        EndCause::ByeFromPeer => (Completed, peer, None),
        EndCause::ByeFromUs if matches!(ours, Some(OurReason::BadAnswer | OurReason::EncryptionRequired)) => {
            (Failed, us, None)
        }
        EndCause::ByeFromUs => (Completed, us, None),
        // Both sides of a crossed CANCEL and 2xx: the call was given up before anybody spoke.
        EndCause::CancelledByUs if ours == Some(OurReason::RingTimeout) => {
            (if ended.rang { Unanswered } else { Failed }, us, None)
        }
        EndCause::CancelledByUs if answered => (Completed, us, None),
        EndCause::CancelledByUs => (Cancelled, us, None),
        EndCause::CancelledByPeer => (Cancelled, peer, None),
        EndCause::RefusedByPeer => {
            let nobody = matches!(ended.status.map(|s| s.0), Some(486 | 600 | 603 | 480 | 408));
            (if nobody { Unanswered } else { Failed }, peer, None)
        }
        EndCause::RefusedByUs => (Failed, us, None),
        EndCause::SessionExpired => (Completed, EndedBy::System, Some("session_expired")),
        EndCause::NoAck => (Failed, EndedBy::System, Some("no_ack")),
        EndCause::NoPrack => (Failed, EndedBy::System, Some("no_prack")),
        EndCause::NoResponse => (Failed, EndedBy::System, Some("no_response")),
        EndCause::TransportError => (Failed, EndedBy::System, Some("transport_error")),
        EndCause::Challenged => (Failed, peer, Some("authentication_failed")),
        EndCause::ProtocolError => (Failed, EndedBy::System, Some("protocol_error")),
    };
    let reason = ours.and_then(OurReason::code).or(code).map(str::to_owned).or_else(|| told(ended));
    Outcome { status, ended_by, reason }
}

/// What the peer said of the end: its Reason header, else its reason phrase.
fn told(ended: &Ended) -> Option<String> {
    if let Some(reason) = &ended.reason {
        let text = reason.text.as_deref().map(|t| format!(" ({t})")).unwrap_or_default();
        return Some(format!("{} {}{text}", reason.protocol, reason.cause));
    }
    let status = ended.status.filter(|s| s.0 >= 300)?;
    let phrase = ended.phrase.as_deref().unwrap_or_default();
    Some(format!("{} {phrase}", status.0).trim_end().to_owned())
}

/// What an operator should change after an outbound call failed.
pub(crate) fn outbound_advice(ended: &Ended) -> &'static str {
    match ended.cause {
        EndCause::NoResponse => {
            "The carrier did not answer at all: check the trunk's address, port and transport, and that the carrier accepts this node's address."
        }
        EndCause::TransportError => {
            "The carrier's address could not be reached: check the trunk's address, port and transport."
        }
        EndCause::Challenged => {
            "The carrier refused the credentials: check the trunk's auth_username and auth_password."
        }
        EndCause::NoAck => "No ACK came for our answer: check Contact and NAT (sip.advertise).",
        _ => match ended.status.map(|s| s.0) {
            Some(403) => {
                "The carrier forbids the call: check that the caller ID is one of its numbers and that this node's address is allowed there."
            }
            Some(404 | 484 | 604) => "The carrier does not know the number: check the callee.",
            Some(488 | 415 | 606) => {
                "The carrier takes none of the codecs or the encryption offered: check the trunk's media_encryption and the carrier's codecs."
            }
            Some(500..=599) => "The carrier is out of order or over a limit: try again, or ask the carrier.",
            Some(401 | 407) => {
                "The carrier wants credentials: check the trunk's auth_username and auth_password."
            }
            _ => "See the status and the carrier's own words.",
        },
    }
}

/// The refusal of an offer, with its Warning (RFC 3261 20.43).
pub(crate) fn offer_refusal(error: &OfferError, host: &str) -> (Refusal, &'static str, &'static str) {
    let (status, code, reason, advice) = match error {
        OfferError::Malformed(_) => {
            (400, 399, "bad_sdp", "The offer is not valid SDP: ask the caller's side.")
        }
        OfferError::TooLarge => (400, 399, "sdp_too_large", "The offer is too large: ask the caller's side."),
        OfferError::NoCommonCodec { .. } => (
            488,
            305,
            "no_common_codec",
            "The caller offers no codec of ours: enable PCMU or PCMA at the carrier.",
        ),
        OfferError::EncryptionDisabled => (
            488,
            304,
            "encryption_disabled",
            "The caller insists on SRTP: set the trunk's inbound_config.media_encryption to SIP_MEDIA_ENCRYPT_ALLOW or SIP_MEDIA_ENCRYPT_REQUIRE, or switch secure media off at the carrier for this trunk.",
        ),
        OfferError::EncryptionRequired(_) => (
            488,
            304,
            "encryption_required",
            "The caller offers plain RTP: switch SRTP (SDES) on at the carrier for this trunk, or set the trunk's inbound_config.media_encryption to SIP_MEDIA_ENCRYPT_ALLOW.",
        ),
        OfferError::NoUsableCrypto(_) => (
            488,
            304,
            "no_usable_crypto",
            "The caller offers SRTP in no way of ours: enable one of AEAD_AES_256_GCM, AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_80, AES_CM_128_HMAC_SHA1_32 at the carrier, without an MKI.",
        ),
        OfferError::NoAudio => (488, 304, "no_audio", "The offer has no audio: ask the caller's side."),
        OfferError::BadAddress(_) => (
            488,
            301,
            "bad_media_address",
            "The offer's media address cannot be used: check the carrier's NAT settings and its address family.",
        ),
        OfferError::UnsupportedProfile(_) => (
            488,
            302,
            "unsupported_profile",
            "The offer's transport is neither RTP nor SRTP with SDES: switch DTLS or other profiles off at the carrier.",
        ),
    };
    // Quoted by RFC 3261 25.1: the text names the offer's own words only through Display, which holds no quote.
    let text: String =
        error.to_string().chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).take(200).collect();
    let warning = format!("{code} {} \"{text}\"", crate::advertise::uri_host(host));
    (
        Refusal { status: StatusCode(status), reason: None, headers: vec![("Warning".to_owned(), warning)] },
        reason,
        advice,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(cause: EndCause, status: u16, rang: bool) -> Ended {
        Ended {
            cause,
            status: Some(StatusCode(status)),
            phrase: None,
            reason: None,
            retry_after: None,
            warning: None,
            rang,
            trying: rang,
        }
    }

    #[test]
    fn the_status_map_of_the_contract() {
        use ConversationStatus::{Cancelled, Completed, Failed, Unanswered};
        let out = |cause, status, rang, ours| {
            outcome(Direction::Outbound, false, &ended(cause, status, rang), ours).status
        };
        for status in [486, 600, 603, 480, 408] {
            assert_eq!(out(EndCause::RefusedByPeer, status, true, None), Unanswered, "{status}");
        }
        for status in [403, 404, 500, 503, 488] {
            assert_eq!(out(EndCause::RefusedByPeer, status, true, None), Failed, "{status}");
        }
        assert_eq!(out(EndCause::CancelledByUs, 487, true, Some(OurReason::RingTimeout)), Unanswered);
        assert_eq!(out(EndCause::CancelledByUs, 487, false, Some(OurReason::RingTimeout)), Failed);
        assert_eq!(out(EndCause::CancelledByUs, 487, true, Some(OurReason::Api)), Cancelled);
        assert_eq!(out(EndCause::CancelledByPeer, 487, true, None), Cancelled);
        assert_eq!(out(EndCause::NoResponse, 408, false, None), Failed);
        assert_eq!(out(EndCause::NoAck, 200, true, None), Failed);
        assert_eq!(out(EndCause::ByeFromPeer, 200, true, None), Completed);
        assert_eq!(out(EndCause::ByeFromUs, 200, true, Some(OurReason::MediaTimeout)), Completed);
        assert_eq!(out(EndCause::ByeFromUs, 200, true, Some(OurReason::BadAnswer)), Failed);
    }
}
