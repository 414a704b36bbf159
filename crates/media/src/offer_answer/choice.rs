//! What is usable of a description: its first audio line that can be carried as asked, and where its RTP goes.

use std::net::{IpAddr, SocketAddr};

use super::{DEFAULT_PTIME, Direction, LocalMedia, Negotiated, OfferError, TelephoneEvent};
use crate::codec::Codec;
use crate::sdp::{Description, Media, Profile};
use crate::srtp::Keys;

const MIN_PTIME: u32 = 10;
const MAX_PTIME: u32 = 60;
/// Codec names listed in an error.
const MAX_NAMES: usize = 16;

/// What is usable of one audio line.
pub(super) struct Choice {
    pub(super) profile: Profile,
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    /// Payload type and clock rate of telephone-events.
    pub(super) event: Option<(u8, u32)>,
    /// Ours.
    pub(super) direction: Direction,
    pub(super) ptime_ms: u32,
    pub(super) rtcp_mux: bool,
}

/// The port of `a=rtcp`, else the next one.
fn rtcp_port(media: &Media<'_>) -> u16 {
    let said = media.attribute("rtcp").and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    said.filter(|port| *port != 0).unwrap_or(media.port.wrapping_add(1))
}

/// The first usable audio line, with its first codec of ours: the offerer's order is its preference. `encryption`
/// says how the line is to be encrypted.
pub(super) fn choose<T>(
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
    pub(super) fn negotiated(
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
    let remote = SocketAddr::new(address, media.port);
    let same_family = address.is_ipv4() == local.address.to_canonical().is_ipv4();
    if !usable || ours || local.forbidden.names(remote) || !same_family {
        return Err(refused());
    }
    Ok(remote)
}
