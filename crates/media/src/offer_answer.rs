//! Offer/answer (RFC 3264) for one audio stream.

mod encryption;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest::{SHA256, digest};

pub use encryption::{Encryption, Random, Srtp};

use crate::codec::Codec;
use crate::sdp::crypto::Crypto;
use crate::sdp::{Description, Media, ParseError, Profile, address_type};
use crate::srtp::Keys;
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
        }
    }
}

const DEFAULT_PTIME: u32 = 20;
const MIN_PTIME: u32 = 10;
const MAX_PTIME: u32 = 60;
/// Payload types of telephone-events in our offers: of the codecs with an 8 kHz clock, and of Opus (RFC 4733 2.5.1.1
/// wants one clock for both).
const OFFERED_EVENT: u8 = 101;
const OFFERED_EVENT_48K: u8 = 110;
/// Payload type of Opus in our offers.
const OFFERED_OPUS: u8 = 107;
/// Codec names listed in an error.
const MAX_NAMES: usize = 16;

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
    /// SHA-256 of the last description without its o= version: the text itself holds keys.
    last: Option<[u8; 32]>,
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
        let mut now = [0; 32];
        now.copy_from_slice(digest(&SHA256, body.as_bytes()).as_ref());
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

/// What is usable of one audio line.
struct Choice {
    profile: Profile,
    codec: Codec,
    payload_type: u8,
    /// Payload type and clock rate of telephone-events.
    event: Option<(u8, u32)>,
    /// Ours.
    direction: Direction,
    ptime_ms: u32,
    rtcp_mux: bool,
}

/// The port of `a=rtcp`, else the next one.
fn rtcp_port(media: &Media<'_>) -> u16 {
    let said = media.attribute("rtcp").and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    said.filter(|port| *port != 0).unwrap_or(media.port.wrapping_add(1))
}

/// The first usable audio line, with its first codec of ours: the offerer's order is its preference. `encryption`
/// says how the line is to be encrypted.
fn choose<T>(
    description: &Description<'_>,
    codecs: &[Codec],
    encryption: impl Fn(&Media<'_>, Profile) -> Result<Option<T>, OfferError>,
) -> Result<(usize, Choice, Option<T>), OfferError> {
    let mut problem = OfferError::NoAudio;
    for (index, media) in description.media.iter().enumerate() {
        if !media.kind.eq_ignore_ascii_case("audio") || media.port == 0 {
            continue;
        }
        let choice = Profile::parse(media.profile)
            .ok_or_else(|| OfferError::UnsupportedProfile(media.profile.chars().take(64).collect()))
            .and_then(|profile| Ok((profile, encryption(media, profile)?)))
            .and_then(|(profile, keys)| Ok((choose_codec(description, media, profile, codecs)?, keys)));
        match choice {
            Ok((choice, keys)) => return Ok((index, choice, keys)),
            Err(error) if problem == OfferError::NoAudio => problem = error,
            Err(_) => {}
        }
    }
    Err(problem)
}

fn choose_codec(
    description: &Description<'_>,
    media: &Media<'_>,
    profile: Profile,
    codecs: &[Codec],
) -> Result<Choice, OfferError> {
    let mut chosen = None;
    let mut events = Vec::new();
    let mut offered = Vec::new();
    for payload_type in media.formats.iter().filter_map(|f| f.parse::<u8>().ok()).filter(|pt| *pt < 128) {
        let mapped = media.rtpmap(payload_type);
        let codec = match mapped {
            Some((name, rate)) => {
                codecs.iter().copied().find(|c| c.name().eq_ignore_ascii_case(name) && c.clock_rate() == rate)
            }
            None => codecs.iter().copied().find(|c| c.static_payload_type() == Some(payload_type)),
        };
        if let Some((name, clock @ (8_000 | 16_000 | 48_000))) = mapped
            && name.eq_ignore_ascii_case("telephone-event")
        {
            events.push((payload_type, clock));
            continue;
        }
        if let Some(codec) = codec {
            chosen.get_or_insert((codec, payload_type));
        } else if offered.len() < MAX_NAMES {
            offered.push(
                mapped.map_or_else(|| payload_type.to_string(), |(name, _)| name.chars().take(32).collect()),
            );
        }
    }
    let Some((codec, payload_type)) = chosen else { return Err(OfferError::NoCommonCodec { offered }) };
    // Audio and events share one time line, so their clocks should be the same; a peer that has none such still gets
    // its digits through.
    let same = events.iter().find(|(_, clock)| *clock == codec.clock_rate());
    let event = same.or(events.first()).copied();
    let theirs = Direction::of(&media.attributes)
        .or_else(|| Direction::of(&description.attributes))
        .unwrap_or(Direction::SendRecv);
    let on_hold = media.connection.or(description.connection) == Some("0.0.0.0");
    let direction = match theirs.reversed() {
        // The old way to hold (RFC 3264 8.4): we must not send there.
        Direction::SendRecv | Direction::RecvOnly if on_hold => Direction::RecvOnly,
        Direction::SendOnly if on_hold => Direction::Inactive,
        direction => direction,
    };
    let ms = |name: &str| media.attribute(name).and_then(|p| p.parse::<u32>().ok());
    let wished = ms("ptime").unwrap_or(DEFAULT_PTIME).min(ms("maxptime").unwrap_or(MAX_PTIME));
    let ptime_ms = codec.packet_ms(wished.clamp(MIN_PTIME, MAX_PTIME));
    let rtcp_mux = media.attribute("rtcp-mux").is_some();
    Ok(Choice { profile, codec, payload_type, event, direction, ptime_ms, rtcp_mux })
}

impl Choice {
    fn negotiated(
        &self,
        local: &LocalMedia,
        description: &Description<'_>,
        media: &Media<'_>,
        encryption: Option<Keys>,
    ) -> Result<Negotiated, OfferError> {
        let remote = media_address(local, description, media)?;
        Ok(Negotiated {
            codec: self.codec,
            payload_type: self.payload_type,
            receive_payload_type: self.payload_type,
            telephone_event: self.event.map(|(pt, clock_rate)| TelephoneEvent {
                send: pt,
                receive: pt,
                clock_rate,
            }),
            remote,
            remote_rtcp: SocketAddr::new(remote.ip(), rtcp_port(media)),
            rtcp_mux: self.rtcp_mux,
            direction: self.direction,
            ptime_ms: self.ptime_ms,
            encryption,
        })
    }
}

/// Where the peer receives RTP. It must be somewhere a packet of ours may go: not to many, not to nobody but for the
/// old way to hold, not to the link alone, and not back to us.
fn media_address(
    local: &LocalMedia,
    description: &Description<'_>,
    media: &Media<'_>,
) -> Result<SocketAddr, OfferError> {
    let text = media
        .connection
        .or(description.connection)
        .ok_or_else(|| OfferError::Malformed("it has no c= line".to_owned()))?;
    let refused = || OfferError::BadAddress(text.chars().take(64).collect());
    let address: IpAddr = text.parse().map_err(|_| refused())?;
    let address = address.to_canonical();
    let usable = match address {
        IpAddr::V4(v4) => {
            let to_nobody = v4.octets()[0] == 0 && !v4.is_unspecified();
            !v4.is_multicast() && !v4.is_broadcast() && !v4.is_link_local() && !to_nobody
        }
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    };
    let ours = address == local.address.to_canonical() && media.port == local.port;
    if !usable || ours || address.is_ipv4() != local.address.to_canonical().is_ipv4() {
        return Err(refused());
    }
    Ok(SocketAddr::new(address, media.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side() -> OfferAnswer {
        OfferAnswer::new(LocalMedia {
            address: "192.0.2.1".parse().unwrap(),
            port: 20_000,
            session_id: 7,
            ..LocalMedia::default()
        })
    }

    fn offer(media: &str) -> String {
        format!("v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\n{media}")
    }

    fn answered(media: &str) -> (String, Negotiated) {
        let (answer, negotiated) = side().answer(offer(media).as_bytes()).unwrap();
        (String::from_utf8(answer).unwrap(), negotiated)
    }

    #[test]
    fn a_carriers_offer_is_answered_in_its_order() {
        let (answer, negotiated) = answered(
            "m=audio 49170 RTP/AVP 18 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\na=ptime:30\r\nm=video 5000 RTP/AVP 31\r\n",
        );
        assert!(answer.contains("m=audio 20000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\n"), "{answer}");
        assert!(answer.contains("m=video 0 RTP/AVP 31\r\n"));
        assert_eq!(
            (negotiated.codec, negotiated.ptime_ms, negotiated.remote.to_string().as_str()),
            (Codec::Pcma, 30, "198.51.100.10:49170")
        );
        assert_eq!(
            negotiated.telephone_event,
            Some(TelephoneEvent { send: 96, receive: 96, clock_rate: 8_000 })
        );
    }

    #[test]
    fn hold_is_answered_as_the_rfc_asks() {
        for (theirs, ours) in [
            ("sendonly", Direction::RecvOnly),
            ("recvonly", Direction::SendOnly),
            ("inactive", Direction::Inactive),
        ] {
            let (answer, negotiated) = answered(&format!("m=audio 4000 RTP/AVP 0\r\na={theirs}\r\n"));
            assert_eq!(negotiated.direction, ours);
            assert!(answer.contains(&format!("a={}\r\n", ours.as_str())));
        }
        let (_, negotiated) = answered("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
        assert!(!negotiated.direction.sends());
    }

    #[test]
    fn refusals_say_why() {
        let refused = |media: &str| side().answer(offer(media).as_bytes()).unwrap_err();
        assert_eq!(refused("m=audio 4000 RTP/SAVP 0\r\n"), OfferError::EncryptionDisabled);
        assert_eq!(
            refused("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n"),
            OfferError::UnsupportedProfile("UDP/TLS/RTP/SAVPF".to_owned())
        );
        assert_eq!(
            refused("m=audio 4000 RTP/AVP 18\r\n"),
            OfferError::NoCommonCodec { offered: vec!["18".to_owned()] }
        );
        assert_eq!(refused("m=audio 0 RTP/AVP 0\r\n"), OfferError::NoAudio);
        assert_eq!(
            refused("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 224.0.0.1\r\n"),
            OfferError::BadAddress("224.0.0.1".to_owned())
        );
        assert_eq!(
            refused("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 pbx.example\r\n"),
            OfferError::BadAddress("pbx.example".to_owned())
        );
        assert!(matches!(side().answer(b"hello"), Err(OfferError::Malformed(_))));
        assert_eq!(side().answer(&vec![b'a'; 70_000]).unwrap_err(), OfferError::TooLarge);
    }

    #[test]
    fn addresses_that_must_not_be_sent_to() {
        let named = |address: &str| {
            let kind = if address.contains(':') { "IP6" } else { "IP4" };
            let text = format!("v=0\r\nc=IN {kind} {address}\r\nm=audio 4000 RTP/AVP 0\r\n");
            let local = if address.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
            let local = LocalMedia { address: local.parse().unwrap(), port: 4_000, ..LocalMedia::default() };
            OfferAnswer::new(local).answer(text.as_bytes())
        };
        for bad in [
            "224.0.0.1",
            "239.1.2.3/127",
            "255.255.255.255",
            "0.0.0.1",
            "169.254.169.254",
            "192.0.2.1",
            "::",
            "ff02::1",
            "fe80::1",
            "2001:db8::1",
            "::ffff:192.0.2.9",
            "1.2.3",
            "host.example",
        ] {
            assert!(matches!(named(bad), Err(OfferError::BadAddress(_))), "{bad}");
        }
        for good in ["192.0.2.2", "10.0.0.1", "127.0.0.1", "2001:db8::2", "::1", "0.0.0.0"] {
            assert!(named(good).is_ok(), "{good}");
        }
        // Nobody is there: only hold says so.
        assert!(!named("0.0.0.0").unwrap().1.direction.sends());
        assert!(matches!(answered_v6("192.0.2.9"), Err(OfferError::BadAddress(_))));
        let (answer, negotiated) = answered_v6("2001:db8::9").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.contains("c=IN IP6 2001:db8::1\r\n") && answer.contains(" IN IP6 2001:db8::1\r\ns="),
            "{answer}"
        );
        assert_eq!(negotiated.remote.to_string(), "[2001:db8::9]:4000");
    }

    fn answered_v6(address: &str) -> Result<(Vec<u8>, Negotiated), OfferError> {
        let kind = if address.contains(':') { "IP6" } else { "IP4" };
        let text = format!("v=0\r\nc=IN {kind} {address}\r\nm=audio 4000 RTP/AVP 0\r\n");
        assert_eq!(offered_address(text.as_bytes()), address.parse().ok());
        let local =
            LocalMedia { address: "2001:db8::1".parse().unwrap(), port: 20_000, ..LocalMedia::default() };
        OfferAnswer::new(local).answer(text.as_bytes())
    }

    #[test]
    fn bombs_are_bounded() {
        let begun = std::time::Instant::now();
        let answered =
            |media: String| side().answer(offer(&media).as_bytes()).map(|(_, negotiated)| negotiated);
        let audio = "m=audio 4000 RTP/AVP 0\r\n";
        for bomb in [
            "m=audio 4000 RTP/AVP 0\r\n".repeat(10_000),
            audio.to_owned() + &"a=x\r\n".repeat(100_000),
            audio.to_owned() + &"a=x\r\n".repeat(1_025),
            audio.to_owned() + "a=fmtp:0 " + &"x".repeat(64 << 10),
            "m=video 9 RTP/AVP 31\r\n".repeat(64) + audio,
        ] {
            assert_eq!(answered(bomb).unwrap_err(), OfferError::TooLarge);
        }
        let many: String = (0..=255).rev().map(|n| format!(" {n}")).collect();
        let maps: String = (0..1_000).map(|n| format!("a=rtpmap:{} x/1\r\n", n % 300)).collect();
        for odd in [
            audio.to_owned() + "a=fmtp:0 " + &"x".repeat(60 << 10),
            format!("m=audio 4000 RTP/AVP{many} 8\r\n"),
            format!("m=audio 4000 RTP/AVP 0{many}\r\n"),
            "m=video 9 RTP/AVP 31\r\n".repeat(63) + audio,
            audio.to_owned() + &"b=AS:64\r\n".repeat(5_000),
        ] {
            let negotiated = answered(odd).unwrap();
            assert!(negotiated.ptime_ms == 20);
        }
        let _ = answered(format!("m=audio 4000 RTP/AVP{many}\r\n{maps}"));
        for (text, ptime_ms) in [("0", 10), ("1000000000", 60), ("1e9", 20), ("-1", 20), ("", 20), ("25", 20)]
        {
            assert_eq!(answered(format!("{audio}a=ptime:{text}\r\n")).unwrap().ptime_ms, ptime_ms, "{text}");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[test]
    fn our_offer_and_its_answer() {
        let mut ours = side();
        let mut theirs = OfferAnswer::new(LocalMedia {
            address: "198.51.100.10".parse().unwrap(),
            port: 4_000,
            ..LocalMedia::default()
        });
        let (answer, at_peer) = theirs.answer(&ours.offer()).unwrap();
        let at_us = ours.accept(&answer).unwrap();
        assert_eq!((at_us.codec, at_us.payload_type, at_us.remote.port()), (Codec::Opus, 107, 4_000));
        assert_eq!(at_us.telephone_event.map(|e| (e.send, e.clock_rate)), Some((110, 48_000)));
        assert_eq!(at_peer.remote.port(), 20_000);
    }

    #[test]
    fn wideband_is_answered_with_its_names_and_clocks() {
        let (answer, negotiated) = answered(
            "m=audio 4000 RTP/AVP 111 9 0 101 102\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\na=ptime:30\r\n",
        );
        assert!(answer.contains("RTP/AVP 111 102\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=rtpmap:102 telephone-event/48000\r\n"), "{answer}");
        assert_eq!((negotiated.codec, negotiated.ptime_ms), (Codec::Opus, 20));
        let (answer, negotiated) = answered("m=audio 4000 RTP/AVP 9 0\r\na=maxptime:10\r\n");
        assert!(answer.contains("a=rtpmap:9 G722/8000\r\n"), "{answer}");
        assert_eq!((negotiated.codec, negotiated.ptime_ms), (Codec::G722, 10));
        let (_, negotiated) = answered("m=audio 4000 RTP/AVP 9\r\na=rtpmap:9 G722/8000/1\r\n");
        assert_eq!(negotiated.codec, Codec::G722);
    }

    #[test]
    fn what_was_agreed_keeps_its_payload_type_in_our_next_offer() {
        let mut side = side();
        let peers = offer(
            "m=audio 4000 RTP/AVP 101 107\r\na=rtpmap:101 opus/48000/2\r\na=rtpmap:107 telephone-event/48000\r\n",
        );
        side.answer(peers.as_bytes()).unwrap();
        let text = String::from_utf8(side.offer()).unwrap();
        assert!(text.contains("RTP/AVP 101 9 0 8 96 107\r\n"), "{text}");
        assert!(text.contains("a=rtpmap:96 telephone-event/8000\r\n") && text.len() < 600, "{text}");
    }

    #[test]
    fn the_version_rises_only_when_something_changed() {
        let mut side = side();
        let plain = offer("m=audio 4000 RTP/AVP 0\r\n");
        let version =
            |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().split(' ').nth(2).unwrap().to_owned();
        let first = version(side.answer(plain.as_bytes()).unwrap().0);
        assert_eq!(version(side.answer(plain.as_bytes()).unwrap().0), first);
        let held = offer("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n");
        assert_ne!(version(side.answer(held.as_bytes()).unwrap().0), first);
    }

    #[test]
    fn careless_descriptions_are_read() {
        let offer = b"v=0\no=- 1 1 IN IP4 1.2.3.4\nc=IN IP4 198.51.100.10\nm=audio 4000 RTP/AVP 0  \n";
        assert!(side().answer(offer).is_ok());
    }
}
