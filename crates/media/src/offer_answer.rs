//! Offer/answer (RFC 3264) for one audio stream.

mod choice;
mod encryption;

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use encryption::{Encryption, Random, Srtp};

use crate::codec::Codec;
use crate::sdp::crypto::Crypto;
use crate::sdp::{Description, ParseError, Profile, address_type};
use crate::srtp::Keys;
use choice::{Choice, choose};
use encryption::Offered;

/// Direction of a stream, seen from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// This side sends.
    SendOnly,
    /// This side receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The same seen from the other side (RFC 3264 6.1).
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            both => both,
        }
    }

    /// Whether this side may send.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether this side may receive.
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn of(attributes: &[(&str, &str)]) -> Option<Self> {
        let all = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];
        attributes
            .iter()
            .rev()
            .find_map(|(name, _)| all.into_iter().find(|d| name.eq_ignore_ascii_case(d.as_str())))
    }
}

/// Payload types of telephone-events (RFC 4733), each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// In packets we send.
    pub send: u8,
    /// In packets we receive.
    pub receive: u8,
    /// Units of durations, in hertz.
    pub clock_rate: u32,
}

/// The audio stream both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Codec.
    pub codec: Codec,
    /// Payload type of packets we send.
    pub payload_type: u8,
    /// Payload type of packets we receive.
    pub receive_payload_type: u8,
    /// Telephone-events, when both sides have them.
    pub telephone_event: Option<TelephoneEvent>,
    /// Where the peer receives RTP.
    pub remote: SocketAddr,
    /// Where the peer receives RTCP (RFC 3605); the next port unless it says another.
    pub remote_rtcp: SocketAddr,
    /// RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// What we do.
    pub direction: Direction,
    /// Packet length we send, 10 to 60 ms.
    pub ptime_ms: u32,
    /// The keys of an SRTP stream; `None` is plain RTP.
    pub encryption: Option<Keys>,
}

impl Negotiated {
    /// Encoding name of the codec.
    #[must_use]
    pub fn codec_name(&self) -> &'static str {
        self.codec.name()
    }
}

/// What we offer and where we receive.
#[derive(Debug, Clone)]
pub struct LocalMedia {
    /// Address in SDP.
    pub address: IpAddr,
    /// RTP port.
    pub port: u16,
    /// `sess-id` of the o= line.
    pub session_id: u64,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Packet length we offer, in milliseconds.
    pub ptime_ms: u32,
    /// What is done about SRTP.
    pub encryption: Encryption,
    /// Addresses that the other side may not name.
    pub forbidden: Forbidden,
}

/// Which addresses a peer's media must not be sent to though they are a host's: those at which our own calls receive,
/// and what only this machine hears.
#[derive(Clone, Default)]
pub struct Forbidden(Option<Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>>);

impl Forbidden {
    /// Those that `forbids` says.
    pub fn by(forbids: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(forbids)))
    }

    fn names(&self, address: SocketAddr) -> bool {
        self.0.as_ref().is_some_and(|forbids| forbids(address))
    }
}

impl fmt::Debug for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forbidden")
    }
}

impl Default for LocalMedia {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            port: 0,
            session_id: 0,
            codecs: Codec::ALL.to_vec(),
            ptime_ms: DEFAULT_PTIME,
            encryption: Encryption::Disable,
            forbidden: Forbidden::default(),
        }
    }
}

const DEFAULT_PTIME: u32 = 20;
/// Payload types of telephone-events in our offers: of the codecs with an 8 kHz clock, and of Opus (RFC 4733 2.5.1.1
/// wants one clock for both).
const OFFERED_EVENT: u8 = 101;
const OFFERED_EVENT_48K: u8 = 110;
/// Payload type of Opus in our offers.
const OFFERED_OPUS: u8 = 107;

/// Why an offer or answer cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not SDP.
    #[error("the session description cannot be read: {0}")]
    Malformed(String),
    /// Over a limit.
    #[error("the session description is over 64 KiB, 64 media lines or 1,024 attributes a line")]
    TooLarge,
    /// Nothing in common.
    #[error("no common codec: offered are {}; ours are opus, G722, PCMU and PCMA", offered.join(", "))]
    NoCommonCodec {
        /// What the peer has.
        offered: Vec<String>,
    },
    /// The stream is SRTP, and the policy is plain RTP.
    #[error("the stream is SRTP, and the policy is plain RTP alone")]
    EncryptionDisabled,
    /// The stream is plain RTP, and the policy is SRTP. Holds why its `crypto` lines cannot be used.
    #[error("the stream is not encrypted, and the policy is SRTP alone{}", told(.0))]
    EncryptionRequired(Vec<String>),
    /// The stream is SRTP without a line we can use. Holds why not.
    #[error("the stream is SRTP and has no usable a=crypto line{}", told(.0))]
    NoUsableCrypto(Vec<String>),
    /// No audio line that is wanted.
    #[error("there is no audio stream")]
    NoAudio,
    /// The media address cannot be used.
    #[error(
        "the media address {0} cannot be used: it must be another host's unicast address of our address family"
    )]
    BadAddress(String),
    /// Another transport than RTP.
    #[error("the transport profile {0} is not RTP/AVP, RTP/AVPF, RTP/SAVP or RTP/SAVPF")]
    UnsupportedProfile(String),
}

fn told(problems: &[String]) -> String {
    if problems.is_empty() { String::new() } else { format!(": {}", problems.join(", ")) }
}

impl From<ParseError> for OfferError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooLarge => Self::TooLarge,
            ParseError::Malformed(what) => Self::Malformed(what),
        }
    }
}

/// One side's descriptions across a dialog: keeps the o= line and what was agreed last.
#[derive(Debug)]
pub struct OfferAnswer {
    local: LocalMedia,
    version: u64,
    /// A hash of the last description without its o= version: the text itself holds keys.
    last: Option<u64>,
    negotiated: Option<Negotiated>,
    /// The profile agreed on, for offers of ours inside the dialog.
    profile: Profile,
    /// Our keys in the offer that waits for its answer.
    offered: Offered,
}

impl OfferAnswer {
    /// Nothing agreed yet.
    #[must_use]
    pub fn new(local: LocalMedia) -> Self {
        Self {
            version: local.session_id,
            local,
            last: None,
            negotiated: None,
            profile: Profile::Avp,
            offered: Vec::new(),
        }
    }

    /// What was agreed last.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// Answers an offer (RFC 3264 6). Every media line is answered, all but one audio with port 0. What was agreed
    /// before stands when the offer is refused.
    pub fn answer(&mut self, offer: &[u8]) -> Result<(Vec<u8>, Negotiated), OfferError> {
        let offer = Description::parse(offer)?;
        let policy = self.local.encryption;
        let (index, choice, line) = choose(&offer, &self.local.codecs, |media, profile| {
            encryption::of_offer(&policy, media, profile)
        })?;
        let tag = line.as_ref().map(|line| line.tag);
        let before = self.negotiated.as_ref().and_then(|n| n.encryption.as_ref());
        let keys = line.and_then(|line| encryption::answered(&policy, line, before));
        let negotiated = choice.negotiated(&self.local, &offer, &offer.media[index], keys)?;
        let mut body = String::with_capacity(512);
        for (at, media) in offer.media.iter().enumerate() {
            if at == index {
                self.audio(&mut body, media.profile, &choice);
                if let (Some(tag), Some(keys)) = (tag, &negotiated.encryption) {
                    body.push_str(&Crypto::line(tag, &keys.send));
                }
            } else {
                let formats = media.formats.first().copied().unwrap_or("0");
                let _ = write!(body, "m={} 0 {} {formats}\r\n", media.kind, media.profile);
            }
        }
        self.agreed(choice.profile, negotiated.clone());
        Ok((self.describe(body), negotiated))
    }

    /// Our offer in an INVITE: SRTP where the policy has it. Inside a dialog it repeats what is agreed already, keys
    /// included.
    #[must_use]
    pub fn offer(&mut self) -> Vec<u8> {
        let lines = encryption::fresh(&self.local.encryption);
        let profile = if lines.is_empty() { Profile::Avp } else { Profile::Savp };
        self.offer_as(profile, lines)
    }

    /// Our offer in the answer to an INVITE that carries none: the peer has not said what it can, so a policy that
    /// allows both offers both in one line (RFC 8643).
    #[must_use]
    pub fn offer_in_response(&mut self) -> Vec<u8> {
        let lines = encryption::fresh(&self.local.encryption);
        let required = matches!(self.local.encryption, Encryption::Require(_));
        self.offer_as(if required { Profile::Savp } else { Profile::Avp }, lines)
    }

    /// Our offer of plain RTP, for a peer that refused SRTP under a policy that allows it.
    #[must_use]
    pub fn offer_in_clear(&mut self) -> Vec<u8> {
        self.offer_as(Profile::Avp, Vec::new())
    }

    fn offer_as(&mut self, profile: Profile, lines: Offered) -> Vec<u8> {
        let (profile, lines) = match &self.negotiated {
            None => (profile, lines),
            Some(agreed) => {
                (self.profile, agreed.encryption.iter().map(|keys| (1, keys.send.clone())).collect())
            }
        };
        let mut body = String::with_capacity(512);
        let formats = self.formats();
        let _ = write!(body, "m=audio {} {}", self.local.port, profile.as_str());
        for (payload_type, ..) in &formats {
            let _ = write!(body, " {payload_type}");
        }
        body.push_str("\r\n");
        for (payload_type, rtpmap, fmtp) in &formats {
            let _ = write!(body, "a=rtpmap:{payload_type} {rtpmap}\r\n");
            if let Some(fmtp) = fmtp {
                let _ = write!(body, "a=fmtp:{payload_type} {fmtp}\r\n");
            }
        }
        let _ = write!(body, "a=ptime:{}\r\na=sendrecv\r\n", self.local.ptime_ms);
        for (tag, key) in &lines {
            body.push_str(&Crypto::line(*tag, key));
        }
        self.offered = lines;
        self.describe(body)
    }

    /// Payload type, `a=rtpmap` and `a=fmtp` of each format we offer. What was agreed keeps its payload type, and no
    /// other format takes it (RFC 3264 8.3.2).
    fn formats(&self) -> Vec<(u8, &'static str, Option<&'static str>)> {
        let agreed = self.negotiated.as_ref();
        let codec = |codec: Codec| agreed.filter(|n| n.codec == codec).map(|n| n.receive_payload_type);
        let event = |clock: u32| {
            agreed.and_then(|n| n.telephone_event).filter(|e| e.clock_rate == clock).map(|e| e.receive)
        };
        let taken = [agreed.map(|n| n.receive_payload_type), event(8_000), event(48_000)];
        let free = |wished: u8, used: &[(u8, &str, Option<&str>)]| {
            let free = |pt: &u8| !taken.contains(&Some(*pt)) && used.iter().all(|(used, ..)| used != pt);
            std::iter::once(wished).chain(96..=127).find(free).unwrap_or(wished)
        };
        let mut formats = Vec::with_capacity(self.local.codecs.len() + 2);
        for &offered in &self.local.codecs {
            let payload_type = codec(offered)
                .or(offered.static_payload_type())
                .unwrap_or_else(|| free(OFFERED_OPUS, &formats));
            formats.push((payload_type, offered.rtpmap(), offered.fmtp()));
        }
        let clocks = [
            (8_000, OFFERED_EVENT, "telephone-event/8000"),
            (48_000, OFFERED_EVENT_48K, "telephone-event/48000"),
        ];
        for (clock, wished, rtpmap) in clocks {
            if self.local.codecs.iter().any(|c| c.clock_rate() == clock) {
                let payload_type = event(clock).unwrap_or_else(|| free(wished, &formats));
                formats.push((payload_type, rtpmap, Some("0-16")));
            }
        }
        formats
    }

    /// Takes the answer to our offer.
    pub fn accept(&mut self, answer: &[u8]) -> Result<Negotiated, OfferError> {
        let answer = Description::parse(answer)?;
        let (policy, offered) = (self.local.encryption, &self.offered);
        let (index, choice, keys) = choose(&answer, &self.local.codecs, |media, profile| {
            encryption::of_answer(&policy, offered, media, profile)
        })?;
        let negotiated = choice.negotiated(&self.local, &answer, &answer.media[index], keys)?;
        self.agreed(choice.profile, negotiated.clone());
        Ok(negotiated)
    }

    fn agreed(&mut self, profile: Profile, negotiated: Negotiated) {
        self.profile = profile;
        self.negotiated = Some(negotiated);
    }

    fn audio(&self, body: &mut String, profile: &str, choice: &Choice) {
        let _ = write!(body, "m=audio {} {profile} {}", self.local.port, choice.payload_type);
        if let Some((event, _)) = choice.event {
            let _ = write!(body, " {event}");
        }
        let _ = write!(body, "\r\na=rtpmap:{} {}\r\n", choice.payload_type, choice.codec.rtpmap());
        if let Some(fmtp) = choice.codec.fmtp() {
            let _ = write!(body, "a=fmtp:{} {fmtp}\r\n", choice.payload_type);
        }
        if let Some((event, clock)) = choice.event {
            let _ = write!(body, "a=rtpmap:{event} telephone-event/{clock}\r\na=fmtp:{event} 0-16\r\n");
        }
        if choice.rtcp_mux {
            body.push_str("a=rtcp-mux\r\n");
        }
        let _ = write!(body, "a=ptime:{}\r\na={}\r\n", choice.ptime_ms, choice.direction.as_str());
    }

    /// Puts the session lines before the media lines; the version rises when something changed (RFC 3264 8).
    fn describe(&mut self, body: String) -> Vec<u8> {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let now = hasher.finish();
        if self.last.is_some_and(|last| last != now) {
            self.version += 1;
        }
        let (kind, address) = (address_type(self.local.address), self.local.address);
        let text = format!(
            "v=0\r\no=- {} {} IN {kind} {address}\r\ns=-\r\nc=IN {kind} {address}\r\nt=0 0\r\n{body}",
            self.local.session_id, self.version
        );
        self.last = Some(now);
        text.into_bytes()
    }
}

/// The address an offer's first wanted audio stream names, when it is one.
#[must_use]
pub fn offered_address(offer: &[u8]) -> Option<IpAddr> {
    let offer = Description::parse(offer).ok()?;
    let audio = offer.media.iter().find(|m| m.kind.eq_ignore_ascii_case("audio") && m.port != 0)?;
    let address: IpAddr = audio.connection.or(offer.connection)?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests;
