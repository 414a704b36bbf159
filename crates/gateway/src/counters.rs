//! Counters with closed label sets: never a header's value, a number or an address.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $({ $label:literal : $value:literal })?),+ $(,)?) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Counter { $($(#[$doc])* $variant),+ }

        const NAMES: &[(&str, &[(&str, &str)])] = &[$(($name, &[$(($label, $value))?])),+];
    };
}

counters! {
    /// SIP messages read.
    Received = "sip_messages_received_total",
    /// Not a SIP message, and nobody to answer.
    DroppedParse = "sip_rx_dropped_total" {"reason": "parse_error"},
    /// A source that may not call, with `sip.unknown_sources = "drop"`.
    DroppedUnknownSource = "sip_rx_dropped_total" {"reason": "src_not_allowed"},
    /// A source that has been refused too often.
    DroppedMuted = "sip_rx_dropped_total" {"reason": "refusals_exceeded"},
    /// Strangers, once all of them together have been refused too often.
    DroppedBusy = "sip_rx_dropped_total" {"reason": "strangers_exceeded"},
    /// A call that does not keep up with its own messages.
    DroppedCallQueue = "sip_rx_dropped_total" {"reason": "call_queue_full"},
    /// INVITEs while signalling is so far behind that telling them so would be too much.
    DroppedOverload = "sip_rx_dropped_total" {"reason": "overload"},
    /// A message of a call from outside its trunk's list.
    DroppedSource = "sip_rx_dropped_total" {"reason": "src_mismatch"},
    /// A response or ACK to nothing of ours.
    DroppedStray = "sip_rx_dropped_total" {"reason": "stray"},
    /// A send that the socket or a connection's queue did not take.
    DroppedSend = "sip_tx_dropped_total",
    /// Requests refused as malformed.
    RejectedMalformed = "sip_rejected_total" {"reason": "malformed"},
    /// Requests refused for their method.
    RejectedMethod = "sip_rejected_total" {"reason": "method"},
    /// INVITEs to nobody.
    RejectedNotFound = "sip_rejected_total" {"reason": "not_found"},
    /// INVITEs from an address outside the trunk's list.
    RejectedSource = "sip_rejected_total" {"reason": "src_not_allowed"},
    /// INVITEs without the credentials that the trunk asks for.
    RejectedCredentials = "sip_rejected_total" {"reason": "unauthorized"},
    /// Requests to be passed on, and such as came back to us.
    RejectedRelay = "sip_rejected_total" {"reason": "relay"},
    /// INVITEs that no agent takes now.
    RejectedUnavailable = "sip_rejected_total" {"reason": "unavailable"},
    /// INVITEs whose media cannot be agreed on.
    RejectedMedia = "sip_rejected_total" {"reason": "media"},
    /// INVITEs over a limit of the node.
    RejectedLimit = "sip_rejected_total" {"reason": "limit"},
    /// INVITEs while signalling is behind with its work.
    RejectedOverload = "sip_rejected_total" {"reason": "overload"},
    /// INVITEs while draining.
    RejectedDraining = "sip_rejected_total" {"reason": "draining"},
    /// In-dialog requests without a dialog.
    RejectedNoDialog = "sip_rejected_total" {"reason": "no_dialog"},
    /// INVITEs without credentials to a trunk that asks for them.
    DigestChallenged = "digest_refused_total" {"reason": "absent"},
    /// INVITEs with a nonce that is not taken any more.
    DigestStale = "digest_refused_total" {"reason": "stale"},
    /// INVITEs with wrong credentials.
    DigestWrong = "digest_refused_total" {"reason": "wrong"},
    /// INVITEs from a source that sent too many wrong ones.
    DigestMuted = "digest_refused_total" {"reason": "guesses_exceeded"},
    /// Messages exported to the collector.
    HepSent = "hep_packets_total" {"result": "sent"},
    /// Messages that the collector's queue or the network did not take.
    HepDropped = "hep_packets_total" {"result": "dropped"},
    /// Refusals without a decision record, because there were too many.
    DecisionsSkipped = "decisions_skipped_total",
    /// Calls begun from outside.
    CallsInbound = "calls_total" {"direction": "inbound"},
    /// Calls begun by us.
    CallsOutbound = "calls_total" {"direction": "outbound"},
    /// Connections taken.
    Connections = "sip_connections_total",
    /// Connections refused over a limit.
    ConnectionsRefused = "sip_conn_closed_total" {"reason": "limit"},
    /// Connections of strangers, closed unread with `sip.unknown_sources = "drop"`.
    ConnectionsStranger = "sip_conn_closed_total" {"reason": "src_not_allowed"},
    /// TLS handshakes of strangers over their rate.
    ConnectionsRate = "sip_conn_closed_total" {"reason": "tls_handshake_rate"},
    /// Connections closed for silence.
    ConnectionsIdle = "sip_conn_closed_total" {"reason": "idle"},
    /// TLS handshakes that came to nothing.
    ConnectionsHandshake = "sip_conn_closed_total" {"reason": "tls_handshake"},
    /// Connections closed for what they sent.
    ConnectionsMalformed = "sip_conn_closed_total" {"reason": "malformed"},
    /// Connections closed because the peer does not read.
    ConnectionsStalled = "sip_conn_closed_total" {"reason": "write_stall"},
    /// RTP packets read.
    RtpReceived = "rtp_packets_total" {"direction": "received"},
    /// RTP packets sent.
    RtpSent = "rtp_packets_total" {"direction": "sent"},
    /// RTP from a source that is not believed.
    RtpDroppedSource = "rtp_dropped_total" {"reason": "src_mismatch"},
    /// RTP of our own stream come back, or of streams that changed too often.
    RtpDroppedSsrc = "rtp_dropped_total" {"reason": "ssrc"},
    /// What came to an RTP port and is no RTP.
    RtpDroppedMalformed = "rtp_dropped_total" {"reason": "malformed"},
    /// RTP of a payload type nobody agreed on.
    RtpDroppedPayloadType = "rtp_dropped_total" {"reason": "payload_type"},
    /// SRTP packets that are not authentic: wrong key, changed on the way, or plain.
    RtpDroppedUnauthenticated = "rtp_dropped_total" {"reason": "srtp_auth"},
    /// SRTP packets that came before.
    RtpDroppedReplayed = "rtp_dropped_total" {"reason": "srtp_replay"},
    /// RTP not sent: nobody was heard from where it would go.
    RtpSuppressed = "rtp_suppressed_total",
    /// AudioSocket connections from a source that is not on the list.
    AudioSocketSource = "audiosocket_refused_total" {"reason": "src_not_allowed"},
    /// AudioSocket connections while too many have not said whom they want.
    AudioSocketLimit = "audiosocket_refused_total" {"reason": "limit"},
    /// AudioSocket connections whose first frame is no call id, or comes too late.
    AudioSocketMalformed = "audiosocket_refused_total" {"reason": "malformed"},
    /// AudioSocket connections that no agent answers.
    AudioSocketRefused = "audiosocket_refused_total" {"reason": "refused"},
    /// Calls that found no RTP port.
    NoRtpPort = "rtp_ports_exhausted_total",
}

/// A counter as it is shown: name, labels, value.
pub type Count = (&'static str, Vec<(&'static str, &'static str)>, u64);

/// All counters of a gateway.
pub(crate) struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn add(&self, counter: Counter, n: u64) {
        // In range: NAMES and the enum come from one list.
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(crate) fn read(&self) -> Vec<Count> {
        NAMES
            .iter()
            .zip(&self.0)
            .map(|((name, labels), value)| (*name, labels.to_vec(), value.load(Ordering::Relaxed)))
            .collect()
    }
}
