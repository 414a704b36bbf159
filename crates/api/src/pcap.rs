//! A trace as a capture file, for Wireshark and sngrep: the classic pcap format with raw IP packets. Addresses, ports and
//! times are the call's; IP, UDP and TCP headers are made up around its messages.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use model::TraceMessage;

/// `LINKTYPE_RAW`: packets begin with their IP header.
const LINK_TYPE: u32 = 101;
/// Longest packet.
const SNAP_LENGTH: u32 = 65_535;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// The message of one IP packet, with room for the headers.
const MAX_PAYLOAD: usize = 65_400;

/// The capture file of some messages. TLS stands as TCP, since what was inside it is shown.
pub(crate) fn file(messages: &[TraceMessage]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + messages.iter().map(|m| m.raw.len() + 80).sum::<usize>());
    for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, SNAP_LENGTH, LINK_TYPE] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let mut sequences: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
    for message in messages {
        let (source, target) =
            if message.sent { (message.local, message.remote) } else { (message.remote, message.local) };
        let payload = message.raw.as_bytes();
        let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
        let segment = if message.transport == "UDP" {
            udp(source, target, payload)
        } else {
            let acknowledged = sequences.get(&(target, source)).copied().unwrap_or(1);
            let sequence = sequences.entry((source, target)).or_insert(1);
            let segment = tcp(source, target, *sequence, acknowledged, payload);
            *sequence = sequence.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
            segment
        };
        let protocol = if message.transport == "UDP" { UDP } else { TCP };
        let packet = ip(source.ip(), target.ip(), protocol, &segment);
        let (seconds, micros) = (message.at.0.div_euclid(1_000_000), message.at.0.rem_euclid(1_000_000));
        let length = u32::try_from(packet.len()).unwrap_or(SNAP_LENGTH);
        for word in [u32::try_from(seconds).unwrap_or(0), u32::try_from(micros).unwrap_or(0), length, length]
        {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&packet);
    }
    out
}

fn udp(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut segment = Vec::with_capacity(usize::from(length));
    for half in [source.port(), target.port(), length, 0] {
        segment.extend_from_slice(&half.to_be_bytes());
    }
    segment.extend_from_slice(payload);
    with_checksum(segment, 6, source.ip(), target.ip(), UDP)
}

fn tcp(source: SocketAddr, target: SocketAddr, sequence: u32, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend_from_slice(&source.port().to_be_bytes());
    segment.extend_from_slice(&target.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    // A header of five words, PSH and ACK, a full window, no checksum yet, nothing urgent.
    segment.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    with_checksum(segment, 16, source.ip(), target.ip(), TCP)
}

fn ip(source: IpAddr, target: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + segment.len());
    if let (IpAddr::V4(source), IpAddr::V4(target)) = (source, target) {
        let length = u16::try_from(20 + segment.len()).unwrap_or(u16::MAX);
        packet.extend_from_slice(&[0x45, 0]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend_from_slice(&source.octets());
        packet.extend_from_slice(&target.octets());
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[protocol, 64]);
        packet.extend_from_slice(&v6(source));
        packet.extend_from_slice(&v6(target));
    }
    packet.extend_from_slice(segment);
    packet
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Writes the checksum over the pseudo-header (RFC 768, RFC 9293, RFC 8200 8.1) at `at`, where zeros stand.
fn with_checksum(mut segment: Vec<u8>, at: usize, source: IpAddr, target: IpAddr, protocol: u8) -> Vec<u8> {
    let length = u32::try_from(segment.len()).unwrap_or(0).to_be_bytes();
    let tail = [0, 0, 0, protocol];
    let sum = match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            checksum(&[&source.octets(), &target.octets(), &length, &tail, &segment])
        }
        _ => checksum(&[&v6(source), &v6(target), &length, &tail, &segment]),
    };
    // Zero would mean that there is none (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// RFC 1071; each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn message(transport: &str, sent: bool, local: &str, raw: &str) -> TraceMessage {
        TraceMessage {
            at: Timestamp(1_700_000_000_000_123),
            sent,
            transport: transport.to_owned(),
            local: local.parse().unwrap(),
            remote: if local.contains('[') { "[2001:db8::9]:5062" } else { "198.51.100.10:5062" }
                .parse()
                .unwrap(),
            raw: raw.to_owned(),
        }
    }

    #[test]
    fn packets_have_true_lengths_addresses_and_checksums() {
        let bytes = file(&[message("UDP", false, "192.0.2.1:5060", "abc")]);
        assert_eq!(&bytes[..8], [0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4]);
        assert_eq!(&bytes[20..24], [0, 0, 0, 101]);
        assert_eq!(&bytes[24..32], [1_700_000_000u32.to_be_bytes(), 123u32.to_be_bytes()].concat());
        let packet = &bytes[40..];
        assert_eq!(packet.len(), 20 + 8 + 3);
        assert_eq!(&packet[12..20], [198, 51, 100, 10, 192, 0, 2, 1]);
        assert_eq!(&packet[20..24], [5_062u16.to_be_bytes(), 5_060u16.to_be_bytes()].concat());
        // A header that holds its checksum sums up to nothing.
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [&packet[12..20], &[0, 17, 0, 11]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
        assert_eq!(&packet[28..], b"abc");
    }

    #[test]
    fn a_tcp_peer_sees_one_stream_each_way() {
        let one = |sent, raw| message("TLS", sent, "[2001:db8::1]:5061", raw);
        let bytes = file(&[one(false, "abc"), one(true, "defgh"), one(false, "ij")]);
        let mut at = 24;
        let mut seen = Vec::new();
        while at < bytes.len() {
            let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
            let packet = &bytes[at + 16..at + 16 + length];
            assert_eq!((packet[0], packet[6]), (0x60, TCP));
            let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            seen.push((word(44), word(48), packet[60..].to_vec()));
            at += 16 + length;
        }
        assert_eq!(seen, [(1, 1, b"abc".to_vec()), (1, 4, b"defgh".to_vec()), (4, 6, b"ij".to_vec())]);
        assert!(file(&[message("TCP", true, "192.0.2.1:1", &"x".repeat(200_000))]).len() < 66_000);
    }
}
