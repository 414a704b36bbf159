//! Session descriptions (RFC 4566), as much of them as an offer/answer of audio needs: lenient in order and line
//! ends, strict in bounds. An existing parser was passed over because carriers leave out `s=` and `t=` and end lines
//! with LF alone, which it refuses.

pub mod crypto;

use std::net::IpAddr;

/// Longest description, in bytes.
pub const MAX_SDP: usize = 64 << 10;
/// Most media lines; more are refused.
pub const MAX_MEDIA: usize = 64;
/// Most payload types looked at in one media line.
pub const MAX_FORMATS: usize = 255;
/// Most attributes kept of one media line.
const MAX_ATTRIBUTES: usize = 1_024;

/// A description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description<'a> {
    /// Session-level connection address.
    pub connection: Option<&'a str>,
    /// Session-level attributes.
    pub attributes: Vec<(&'a str, &'a str)>,
    /// Media lines, in order.
    pub media: Vec<Media<'a>>,
}

/// A media line with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media<'a> {
    /// `audio`, `video`, …
    pub kind: &'a str,
    /// Transport port; 0 means not wanted.
    pub port: u16,
    /// Transport profile token.
    pub profile: &'a str,
    /// Formats as written.
    pub formats: Vec<&'a str>,
    /// Media-level connection address.
    pub connection: Option<&'a str>,
    /// Attributes: name and value.
    pub attributes: Vec<(&'a str, &'a str)>,
}

/// A transport profile of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// RTP (RFC 3551).
    Avp,
    /// RTP with early feedback (RFC 4585).
    Avpf,
    /// SRTP (RFC 3711).
    Savp,
    /// SRTP with early feedback (RFC 5124).
    Savpf,
}

impl Profile {
    const ALL: [Self; 4] = [Self::Avp, Self::Avpf, Self::Savp, Self::Savpf];

    /// The profile of a token.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == token)
    }

    /// The token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savp => "RTP/SAVP",
            Self::Savpf => "RTP/SAVPF",
        }
    }

    /// Whether the token says that the stream is SRTP.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Savp | Self::Savpf)
    }
}

/// Why a description cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// Over a limit.
    TooLarge,
    /// Not SDP, with what is wrong.
    Malformed(String),
}

impl<'a> Description<'a> {
    /// Reads a description.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_SDP {
            return Err(ParseError::TooLarge);
        }
        let bad = |what: &str| ParseError::Malformed(what.to_owned());
        let mut description = Self { connection: None, attributes: Vec::new(), media: Vec::new() };
        let mut versioned = false;
        let lines = bytes.split(|b| matches!(b, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end);
        for line in lines.filter(|line| !line.is_empty()) {
            // Names in other character sets stand in lines nobody reads here.
            let line = match std::str::from_utf8(line) {
                Ok(line) => line,
                Err(_) if matches!(line, [b's' | b'i' | b'u' | b'e' | b'p', b'=', ..]) => continue,
                Err(_) => return Err(bad("it is not UTF-8")),
            };
            let Some((kind, value)) = line.split_once('=') else { return Err(bad("a line has no =")) };
            let value = value.trim();
            match kind {
                "v" => versioned = value == "0",
                "c" => {
                    let address = connection(value)
                        .ok_or_else(|| bad("a c= line is not IN IP4 or IN IP6 and an address"))?;
                    match description.media.last_mut() {
                        Some(media) => media.connection = Some(address),
                        None => description.connection = Some(address),
                    }
                }
                "a" => {
                    let attribute = value.split_once(':').unwrap_or((value, ""));
                    let attributes = match description.media.last_mut() {
                        Some(media) => &mut media.attributes,
                        None => &mut description.attributes,
                    };
                    if attributes.len() >= MAX_ATTRIBUTES {
                        return Err(ParseError::TooLarge);
                    }
                    attributes.push((attribute.0, attribute.1.trim()));
                }
                "m" => {
                    if description.media.len() >= MAX_MEDIA {
                        return Err(ParseError::TooLarge);
                    }
                    description.media.push(
                        media(value)
                            .ok_or_else(|| bad("an m= line is not media, port, profile and formats"))?,
                    );
                }
                _ if kind.len() == 1 => {}
                _ => return Err(bad("a line's type is not one letter")),
            }
        }
        if versioned { Ok(description) } else { Err(bad("it does not say v=0")) }
    }
}

fn connection(value: &str) -> Option<&str> {
    let mut words = value.split_ascii_whitespace();
    let (net, kind, address) = (words.next()?, words.next()?, words.next()?);
    let known = net.eq_ignore_ascii_case("IN")
        && (kind.eq_ignore_ascii_case("IP4") || kind.eq_ignore_ascii_case("IP6"));
    // A TTL or address count may follow a slash (multicast, RFC 4566 5.7).
    known.then(|| address.split('/').next().unwrap_or(address))
}

fn media(value: &str) -> Option<Media<'_>> {
    let mut words = value.split_ascii_whitespace();
    let (kind, port, profile) = (words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let formats = words.take(MAX_FORMATS).collect();
    Some(Media { kind, port, profile, formats, connection: None, attributes: Vec::new() })
}

impl<'a> Media<'a> {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }

    /// Encoding name and clock rate of a payload type by `a=rtpmap`.
    #[must_use]
    pub fn rtpmap(&self, payload_type: u8) -> Option<(&'a str, u32)> {
        self.attributes.iter().filter(|(n, _)| n.eq_ignore_ascii_case("rtpmap")).find_map(|(_, value)| {
            let (number, encoding) = value.split_once([' ', '\t'])?;
            if number.parse() != Ok(payload_type) {
                return None;
            }
            let mut parts = encoding.trim().split('/');
            Some((parts.next()?, parts.next()?.parse().ok()?))
        })
    }
}

/// `IP4` or `IP6`.
#[must_use]
pub fn address_type(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IP4" } else { "IP6" }
}
