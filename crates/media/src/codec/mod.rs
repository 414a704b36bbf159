//! Codecs of the SIP leg.

pub mod g711;

/// An audio codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

impl Codec {
    /// Every codec, in our order of preference.
    pub const ALL: &'static [Self] = &[Self::Pcmu, Self::Pcma];

    /// Encoding name as in `a=rtpmap`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// RTP clock rate in hertz.
    #[must_use]
    pub fn clock_rate(self) -> u32 {
        8_000
    }

    /// Static payload type (RFC 3551 6).
    #[must_use]
    pub fn static_payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Encodes 16-bit samples, appending one byte each.
    pub fn encode(self, samples: &[i16], out: &mut Vec<u8>) {
        match self {
            Self::Pcmu => out.extend(samples.iter().map(|&s| g711::encode_ulaw(s))),
            Self::Pcma => out.extend(samples.iter().map(|&s| g711::encode_alaw(s))),
        }
    }

    /// Decodes a payload, appending one 16-bit sample a byte.
    pub fn decode(self, payload: &[u8], out: &mut Vec<i16>) {
        match self {
            Self::Pcmu => out.extend(payload.iter().map(|&b| g711::decode_ulaw(b))),
            Self::Pcma => out.extend(payload.iter().map(|&b| g711::decode_alaw(b))),
        }
    }
}
