//! RTCP (RFC 3550 6): sender and receiver reports about one stream each way.

const VERSION: u8 = 0x80;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
/// Item type of CNAME in a source description.
const CNAME: u8 = 1;

/// Length of a canonical name, in characters (RFC 7022 4.2: 96 bits and more).
pub const CNAME_LENGTH: usize = 24;

/// What one side tells about a stream it receives (RFC 3550 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Block {
    /// The stream.
    pub ssrc: u32,
    /// Part lost since the report before, in 256ths.
    pub fraction_lost: u8,
    /// Packets lost since the beginning.
    pub lost: i32,
    /// Highest sequence number, extended by its cycles.
    pub highest: u32,
    /// Interarrival jitter, in clock units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 when there was none.
    pub last_report: u32,
    /// Time since then, in 65,536ths of a second.
    pub delay: u32,
}

/// What a sender tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// NTP time.
    pub ntp: u64,
    /// The same instant as RTP timestamp.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// What a received compound packet tells us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The SSRC of the last report's sender.
    pub reporter: u32,
    /// Middle 32 bits of the sender's NTP time, when it sends.
    pub sender_ntp: Option<u32>,
    /// About our stream.
    pub about_us: Option<Block>,
    /// Blocks about any stream.
    pub blocks: u32,
    /// The peer says goodbye.
    pub bye: bool,
}

/// Appends a report: SR when `sender` is given, else RR, and the source description that every compound must have.
pub fn write(
    ssrc: u32,
    sender: Option<Sender>,
    block: Option<Block>,
    cname: &[u8; CNAME_LENGTH],
    out: &mut Vec<u8>,
) {
    let blocks = u8::from(block.is_some());
    let (kind, words) = if sender.is_some() { (SENDER_REPORT, 6) } else { (RECEIVER_REPORT, 1) };
    out.extend_from_slice(&[VERSION | blocks, kind]);
    out.extend_from_slice(&(words + 6 * u16::from(blocks)).to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
    if let Some(sender) = sender {
        out.extend_from_slice(&sender.ntp.to_be_bytes());
        for value in [sender.timestamp, sender.packets, sender.octets] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    if let Some(block) = block {
        // 24 bits, signed and clamped (RFC 3550 A.3).
        let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff) & 0xff_ffff;
        let lost = u32::from(block.fraction_lost) << 24 | lost.cast_unsigned();
        for value in [block.ssrc, lost, block.highest, block.jitter, block.last_report, block.delay] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
    // One chunk: SSRC, the item, and zeros up to the next word.
    let item = 2 + CNAME_LENGTH;
    let padded = (item / 4 + 1) * 4;
    out.extend_from_slice(&[VERSION | 1, DESCRIPTION]);
    out.extend_from_slice(&u16::try_from(1 + padded / 4).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[CNAME, CNAME_LENGTH as u8]);
    out.extend_from_slice(cname);
    out.resize(out.len() + padded - item, 0);
}

/// Reads a compound packet; `None` when its lengths do not fit (RFC 3550 A.2).
#[must_use]
pub fn read(mut bytes: &[u8], our_ssrc: u32) -> Option<Received> {
    let mut received = Received::default();
    while !bytes.is_empty() {
        let [first, kind, high, low, ..] = *bytes else { return None };
        if first >> 6 != 2 {
            return None;
        }
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let packet = bytes.get(..length)?;
        bytes = bytes.get(length..)?;
        if matches!(kind, SENDER_REPORT | RECEIVER_REPORT) {
            received.reporter = word(packet, 4)?;
        }
        let mut blocks = match kind {
            SENDER_REPORT => {
                received.sender_ntp = Some(word(packet, 10)?);
                packet.get(28..)?
            }
            RECEIVER_REPORT => packet.get(8..)?,
            BYE => {
                received.bye = true;
                continue;
            }
            _ => continue,
        };
        for _ in 0..first & 31 {
            let block = blocks.get(..24)?;
            blocks = blocks.get(24..)?;
            received.blocks += 1;
            if word(block, 0)? != our_ssrc {
                continue;
            }
            let lost = word(block, 4)?;
            received.about_us = Some(Block {
                ssrc: our_ssrc,
                fraction_lost: (lost >> 24) as u8,
                // The shift back spreads the sign of 24 bits.
                lost: (lost << 8).cast_signed() >> 8,
                highest: word(block, 8)?,
                jitter: word(block, 12)?,
                last_report: word(block, 16)?,
                delay: word(block, 20)?,
            });
        }
    }
    Some(received)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let block = Block {
            ssrc: 7,
            fraction_lost: 25,
            lost: -3,
            highest: 0x1_0003,
            jitter: 160,
            last_report: 5,
            delay: 6,
        };
        let sender = Sender { ntp: 0x1111_2222_3333_4444, timestamp: 9, packets: 10, octets: 1_600 };
        let mut bytes = Vec::new();
        write(1, Some(sender), Some(block), b"abcdefghijklmnopqrstuvwx", &mut bytes);
        assert_eq!(bytes.len() % 4, 0);
        let received = read(&bytes, 7).unwrap();
        assert_eq!((received.sender_ntp, received.about_us), (Some(0x2222_3333), Some(block)));
        assert_eq!(read(&bytes, 8).unwrap().about_us, None);
        bytes.clear();
        write(1, None, None, b"abcdefghijklmnopqrstuvwx", &mut bytes);
        assert_eq!(read(&bytes, 7), Some(Received { reporter: 1, ..Received::default() }));
        bytes.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 1]);
        assert!(read(&bytes, 7).unwrap().bye);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for bytes in [&[0x80][..], &[0x80, 200, 0, 9, 1], &[0x40, 201, 0, 0], &[0x9f, 201, 0, 1, 0, 0, 0, 1]]
        {
            assert_eq!(read(bytes, 1), None);
        }
        let mut bytes = Vec::new();
        write(1, None, Some(Block::default()), b"abcdefghijklmnopqrstuvwx", &mut bytes);
        for length in 0..bytes.len() {
            let _ = read(&bytes[..length], 1);
        }
    }
}
