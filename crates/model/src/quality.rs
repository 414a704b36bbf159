//! How a call sounded.

use serde::{Deserialize, Serialize};

/// One direction of a second or of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamQuality {
    /// Packets that came.
    pub packets: u64,
    /// Packets that should have come.
    pub expected: u64,
    /// Lost ones, in percent of those expected.
    pub loss_percent: f64,
    /// Interarrival jitter in milliseconds: the mean difference of two packets' transit times (RFC 3550 6.4.1).
    pub jitter_ms: f64,
    /// Mean opinion score by the E-model (ITU-T G.107), 1 to 4.5.
    pub mos: f64,
}

/// One second of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondQuality {
    /// Seconds since the answer.
    pub second: u64,
    /// How long it was, in milliseconds: the call's last one is a part.
    #[serde(default = "whole_second")]
    pub duration_ms: u32,
    /// What came from the peer.
    pub received: StreamQuality,
    /// What the peer's last RTCP report told of the packets we sent since the one before.
    pub sent: Option<StreamQuality>,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// Of records that do not say.
fn whole_second() -> u32 {
    1_000
}

/// Audio in one direction only, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneWayAudio {
    /// `nothing_received`, `source_not_believed` or `nothing_heard_by_peer`.
    pub verdict: String,
    /// The likely cause, and what to change.
    pub cause: String,
}

/// A call's quality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallQuality {
    /// The worse direction's score.
    pub mos: Option<f64>,
    /// Mean round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// What came from the peer.
    pub received: StreamQuality,
    /// What the peer's RTCP told of what we sent; `None` when it told nothing.
    pub sent: Option<StreamQuality>,
    /// Packets sent.
    pub packets_sent: u64,
    /// Audio in one direction only.
    pub one_way_audio: Option<OneWayAudio>,
    /// Second by second; of a call over an hour the last hour.
    pub seconds: Vec<SecondQuality>,
}
