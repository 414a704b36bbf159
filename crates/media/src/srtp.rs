//! SRTP and SRTCP (RFC 3711, RFC 7714): one [`Sender`] and one [`Receiver`] of a stream's cryptographic contexts. The
//! framing is ours, on the primitives of aws-lc: it works in the caller's buffers, so a packet costs no allocation.

mod index;
mod session_keys;

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use crate::rtp;
use index::Streams;
use session_keys::SessionKeys;

/// Longest master key and salt together, in bytes.
const MAX_MATERIAL: usize = 46;
/// Header of an RTCP packet that is never encrypted (RFC 3711 3.4).
const RTCP_HEADER: usize = 8;
/// E flag and SRTCP index.
const RTCP_INDEX: usize = 4;
/// The flag that says the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// Most packets under one master key (RFC 3711 9.2).
pub const MAX_LIFETIME: u64 = 1 << 48;

/// A crypto suite (RFC 4568 6.2, RFC 7714 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES-256 in GCM.
    AeadAes256Gcm,
    /// AES-128 in GCM.
    AeadAes128Gcm,
    /// AES-128 in counter mode with an 80-bit HMAC-SHA1 tag.
    AesCm128HmacSha1_80,
    /// The same with a 32-bit tag for RTP.
    AesCm128HmacSha1_32,
}

impl Suite {
    /// All, the strongest first.
    pub const ALL: [Self; 4] =
        [Self::AeadAes256Gcm, Self::AeadAes128Gcm, Self::AesCm128HmacSha1_80, Self::AesCm128HmacSha1_32];

    /// The name in SDP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of a name, whatever its case (RFC 4568 9.2 writes it in ABNF).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of master key and salt together.
    #[must_use]
    pub fn material_length(self) -> usize {
        self.key_length() + self.salt_length()
    }

    fn key_length(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            _ => 16,
        }
    }

    fn salt_length(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 14,
        }
    }

    fn rtp_tag(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::AesCm128HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 => 4,
        }
    }

    /// RTCP keeps the long tag also under the 32-bit suite (RFC 4568 6.2.2).
    fn rtcp_tag(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_32 => 10,
            suite => suite.rtp_tag(),
        }
    }
}

/// A master key with its salt: a secret that is cleared when dropped and shown to nobody.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    material: Zeroizing<[u8; MAX_MATERIAL]>,
}

impl MasterKey {
    /// Takes key and salt; `None` when they are not as long as the suite's.
    #[must_use]
    pub fn new(suite: Suite, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != suite.material_length() {
            return None;
        }
        let mut material = Zeroizing::new([0; MAX_MATERIAL]);
        material.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { suite, material })
    }

    /// A fresh one of unpredictable bytes.
    #[must_use]
    pub fn random(suite: Suite, random: fn(&mut [u8])) -> Self {
        let mut material = Zeroizing::new([0; MAX_MATERIAL]);
        random(&mut material[..suite.material_length()]);
        Self { suite, material }
    }

    /// The suite it is for.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt, for the one line of SDP that carries them. Never pass them to a formatter of a log or an error.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        // In range: no suite's material is longer than the array.
        &self.material[..self.suite.material_length()]
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && verify_slices_are_equal(self.expose(), other.expose()).is_ok()
    }
}

impl Eq for MasterKey {}

/// The keys of an encrypted stream. Both are of one suite (RFC 4568 5.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Ours: of packets we send.
    pub send: MasterKey,
    /// The peer's: of packets we receive.
    pub receive: MasterKey,
    /// Packets the peer's key may be used for.
    pub lifetime: u64,
}

impl Keys {
    /// The suite of both.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.receive.suite
    }
}

/// Why a packet is not taken, or not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A length does not fit.
    Malformed,
    /// Wrong key, changed on the way, or not SRTP at all.
    Unauthenticated,
    /// Taken or sent before, or too old to tell.
    Replayed,
    /// The master key has protected as many packets as it may.
    Expired,
}

/// The context of packets we send.
pub struct Sender {
    keys: SessionKeys,
    streams: Streams,
    next_rtcp_index: u32,
}

impl Sender {
    /// A context with rollover counters of zero.
    #[must_use]
    pub fn new(key: &MasterKey) -> Self {
        Self { keys: SessionKeys::derive(key), streams: Streams::default(), next_rtcp_index: 0 }
    }

    /// Protects the RTP packet that begins at `start`, where the buffer's last packet is. An index is never used
    /// twice: with GCM that would give the key away.
    pub fn protect(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), Refused> {
        let packet = buffer.get(start..).ok_or(Refused::Malformed)?;
        let header = Header::read(packet)?;
        let slot = self.streams.find(header.ssrc);
        let index = match slot.and_then(|slot| self.streams.get(slot)) {
            Some(stream) => stream.estimate(header.sequence).ok_or(Refused::Replayed)?,
            None => u64::from(header.sequence),
        };
        self.streams.check(slot, index)?;
        // In range: the packet was read from there, and the header lies in it.
        let (clear, payload) = buffer[start..].split_at_mut(header.length);
        let tag = self.keys.seal_rtp(clear, payload, header.ssrc, index)?;
        buffer.extend_from_slice(&tag[..self.keys.suite().rtp_tag()]);
        self.streams.take(slot, header.ssrc, index);
        Ok(())
    }

    /// Protects the compound RTCP packet that begins at `start` and ends the buffer.
    pub fn protect_rtcp(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), Refused> {
        let packet = buffer.get(start..).ok_or(Refused::Malformed)?;
        let ssrc = rtcp_ssrc(packet).ok_or(Refused::Malformed)?;
        let index = self.next_rtcp_index;
        if index >= ENCRYPTED {
            return Err(Refused::Expired);
        }
        let word = (index | ENCRYPTED).to_be_bytes();
        // In range: `rtcp_ssrc` has read the header.
        let (clear, payload) = buffer[start..].split_at_mut(RTCP_HEADER);
        let tag = self.keys.seal_rtcp(clear, payload, ssrc, index, word)?;
        let tag = &tag[..self.keys.suite().rtcp_tag()];
        if self.keys.is_aead() {
            buffer.extend_from_slice(tag);
            buffer.extend_from_slice(&word);
        } else {
            buffer.extend_from_slice(&word);
            buffer.extend_from_slice(tag);
        }
        self.next_rtcp_index = index + 1;
        Ok(())
    }
}

/// The context of packets we receive: replayed packets are refused, and nothing is learned from a packet before it
/// has been authenticated.
pub struct Receiver {
    keys: SessionKeys,
    streams: Streams,
    /// Packets the master key may still be used for.
    left: u64,
}

impl Receiver {
    /// A context with rollover counters of zero, for at most `lifetime` packets.
    #[must_use]
    pub fn new(key: &MasterKey, lifetime: u64) -> Self {
        Self { keys: SessionKeys::derive(key), streams: Streams::default(), left: lifetime }
    }

    /// Writes the RTP packet that `packet` protects to `plain`, in place of what was there.
    pub fn unprotect(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<(), Refused> {
        let header = Header::read(packet)?;
        let end = packet.len().checked_sub(self.keys.suite().rtp_tag()).ok_or(Refused::Malformed)?;
        if end < header.length {
            return Err(Refused::Malformed);
        }
        if self.left == 0 {
            return Err(Refused::Expired);
        }
        let (body, tag) = packet.split_at(end);
        let slot = self.streams.find(header.ssrc);
        let index = match slot.and_then(|slot| self.streams.get(slot)).filter(|stream| stream.heard()) {
            Some(stream) => {
                let index = stream.estimate(header.sequence).ok_or(Refused::Replayed)?;
                self.streams.check(slot, index)?;
                self.keys.open_rtp(body, tag, header.length, header.ssrc, index, plain)?;
                index
            }
            None => {
                // A stream may have wrapped before its first packet reached us: early media nobody listened to, or a
                // first sequence number just below the wrap. The tag tells which counter is right.
                let first = u64::from(header.sequence);
                let wrapped = first | 1 << 16;
                match self.keys.open_rtp(body, tag, header.length, header.ssrc, first, plain) {
                    Ok(()) => first,
                    Err(_) => {
                        self.keys.open_rtp(body, tag, header.length, header.ssrc, wrapped, plain)?;
                        wrapped
                    }
                }
            }
        };
        self.streams.take(slot, header.ssrc, index);
        self.left -= 1;
        Ok(())
    }

    /// Writes the compound RTCP packet that `packet` protects to `plain`. A packet that says it is not encrypted is
    /// refused: nobody agreed on `UNENCRYPTED_SRTCP`.
    pub fn unprotect_rtcp(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<(), Refused> {
        let tag_length = self.keys.suite().rtcp_tag();
        let ssrc = rtcp_ssrc(packet).ok_or(Refused::Malformed)?;
        let end = packet.len().checked_sub(tag_length + RTCP_INDEX).ok_or(Refused::Malformed)?;
        if end < RTCP_HEADER {
            return Err(Refused::Malformed);
        }
        let (body, trailer) = packet.split_at(end);
        let (tag, word) = if self.keys.is_aead() {
            trailer.split_at(tag_length)
        } else {
            let (word, tag) = trailer.split_at(RTCP_INDEX);
            (tag, word)
        };
        let word: [u8; RTCP_INDEX] = word.try_into().map_err(|_| Refused::Malformed)?;
        let flagged = u32::from_be_bytes(word);
        if flagged & ENCRYPTED == 0 {
            return Err(Refused::Unauthenticated);
        }
        let index = flagged & !ENCRYPTED;
        let slot = self.streams.find(ssrc);
        if let Some(stream) = slot.and_then(|slot| self.streams.get(slot)) {
            stream.rtcp.check(index.into())?;
        }
        self.keys.open_rtcp(body, tag, ssrc, index, word, plain)?;
        self.streams.take_rtcp(slot, ssrc, index.into());
        Ok(())
    }
}

/// Both contexts of an encrypted stream.
pub struct Contexts {
    keys: Keys,
    /// For packets we send.
    pub sender: Sender,
    /// For packets we receive.
    pub receiver: Receiver,
}

impl Contexts {
    /// Fresh contexts.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let sender = Sender::new(&keys.send);
        let receiver = Receiver::new(&keys.receive, keys.lifetime);
        Self { keys, sender, receiver }
    }

    /// Takes the keys of a new agreement. A key that stays keeps its context, counters and replay window included; a
    /// new one begins anew (RFC 4568 7.1.4).
    pub fn update(&mut self, keys: Keys) {
        if keys.send != self.keys.send {
            self.sender = Sender::new(&keys.send);
        }
        if keys.receive != self.keys.receive {
            self.receiver = Receiver::new(&keys.receive, keys.lifetime);
        }
        self.keys = keys;
    }
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contexts")
    }
}

/// What SRTP must know of an RTP header.
struct Header {
    ssrc: u32,
    sequence: u16,
    /// Up to the payload, CSRCs and extension included.
    length: usize,
}

impl Header {
    fn read(packet: &[u8]) -> Result<Self, Refused> {
        let [first, _, s0, s1, _, _, _, _, c0, c1, c2, c3, ..] = *packet else {
            return Err(Refused::Malformed);
        };
        if first >> 6 != 2 {
            return Err(Refused::Malformed);
        }
        let mut length = rtp::HEADER + 4 * usize::from(first & 15);
        if first & 0x10 != 0 {
            let words = packet.get(length + 2..length + 4).ok_or(Refused::Malformed)?;
            length += 4 + 4 * words.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        }
        if length > packet.len() {
            return Err(Refused::Malformed);
        }
        Ok(Self {
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            sequence: u16::from_be_bytes([s0, s1]),
            length,
        })
    }
}

fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let [first, _, _, _, c0, c1, c2, c3, ..] = *packet else { return None };
    (first >> 6 == 2).then(|| u32::from_be_bytes([c0, c1, c2, c3]))
}

#[cfg(test)]
mod tests;
