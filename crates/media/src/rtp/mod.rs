//! RTP packets (RFC 3550 5.1): a view without allocation, and a writer.

/// Size of a header without CSRCs and extension.
pub const HEADER: usize = 12;

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Marker bit.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in units of the clock rate.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet; `None` when a length does not fit (RFC 3550 A.1).
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3, ..] = *bytes else { return None };
        if first >> 6 != 2 {
            return None;
        }
        let mut payload = bytes.get(HEADER + 4 * usize::from(first & 15)..)?;
        if first & 0x10 != 0 {
            let [_, _, high, low, ..] = *payload else { return None };
            payload = payload.get(4 + 4 * usize::from(u16::from_be_bytes([high, low]))..)?;
        }
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            if padding == 0 {
                return None;
            }
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload,
        })
    }

    /// The header of this packet, without CSRCs, extension or padding.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = 0x80;
        header[1] = u8::from(self.marker) << 7 | (self.payload_type & 0x7f);
        header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header
    }
}

/// Whether a datagram on a shared port would be RTCP (RFC 5761 4).
#[must_use]
pub fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [_, kind, ..] if (192..=223).contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let packet = Packet {
            marker: true,
            payload_type: 101,
            sequence: 65_535,
            timestamp: 7,
            ssrc: 9,
            payload: &[1, 2, 3],
        };
        let mut bytes = packet.header().to_vec();
        bytes.extend_from_slice(packet.payload);
        assert_eq!(Packet::parse(&bytes), Some(packet));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let with = |first: u8, tail: &[u8]| {
            let mut bytes = vec![first, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
            bytes.extend_from_slice(tail);
            Packet::parse(&bytes).map(|p| p.payload.len())
        };
        assert_eq!(with(0x80, &[]), Some(0));
        assert_eq!(with(0x40, &[]), None);
        assert_eq!(with(0x8f, &[0; 10]), None);
        assert_eq!(with(0x90, &[0, 0, 255, 255, 1]), None);
        assert_eq!(with(0x90, &[0, 0, 0, 1, 1, 1, 1, 1, 9]), Some(1));
        assert_eq!(with(0xa0, &[5, 5, 2]), Some(1));
        assert_eq!(with(0xa0, &[5, 5, 4]), None);
        assert_eq!(with(0xa0, &[5, 5, 0]), None);
        assert_eq!(Packet::parse(&[0x80; 11]), None);
    }
}
