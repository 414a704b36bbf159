//! Session descriptions and packets that somebody has damaged, by the ten thousand (`MUTATIONS` says how many): no panic,
//! and memory stays flat.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use media::offer_answer::{LocalMedia, OfferAnswer};
use media::session::{Agent, Outbox, Session, SessionConfig};

/// xorshift64*: any seed but 0 will do.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        usize::try_from(value % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
        for _ in 0..=self.below(5) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => {
                    let end = (at + 1 + self.below(30)).min(bytes.len());
                    bytes.drain(at..end);
                }
                3 => bytes.truncate(at),
                4 => {
                    let token = tokens[self.below(tokens.len())];
                    bytes.splice(at..at, token.iter().copied());
                }
                _ => {
                    let line =
                        bytes[at..].split_inclusive(|b| *b == b'\n').next().unwrap_or_default().to_vec();
                    bytes.splice(at..at, line);
                }
            }
        }
    }
}

fn count() -> u64 {
    std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

/// Resident memory in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok())
}

fn flat(before: Option<u64>) {
    let grown = before.zip(resident()).map_or(0, |(before, after)| after.saturating_sub(before));
    assert!(grown < 32 << 10, "{grown} KiB more");
}

const OFFERS: &[&str] = &[
    "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 9 96 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n",
    "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\na=sendonly\r\nm=video 5000 RTP/AVP 31\r\nm=audio 4000 RTP/SAVP 8\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4\r\na=crypto:2 AEAD_AES_256_GCM inline:MTIzNDU2Nzg5QUJDREUwMTIzNDU2Nzg5QUJDREVGMDEyMzQ1Njc4OUFCQ0RFRjAx\r\na=rtcp:4001 IN IP6 2001:db8::1\r\na=maxptime:60\r\n",
    "v=0\no=- 1 1 IN IP4 1.2.3.4\nc=IN IP4 0.0.0.0\nm=audio 4000 RTP/AVPF 0\na=inactive\n",
];
const SDP_TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"=",
    b"m=audio 0 RTP/AVP 0\r\n",
    b"m=",
    b"a=rtpmap:0 ",
    b"a=ptime:0\r\n",
    b"a=ptime:4294967296\r\n",
    b"a=crypto:999999999999 ",
    b"inline:",
    b"|2^99|",
    b"|1:4",
    b"65536",
    b"-1",
    b"99999999999999999999",
    b"/",
    b"0.0.0.0",
    b"224.0.0.1",
    b"c=IN IP4 ",
    b"\0",
    b"\xff",
    b" ",
    b"UNENCRYPTED_SRTP",
    b"a=fmtp:96 ",
    b"opus/48000/2",
    b"v=1\r\n",
];

#[test]
fn damaged_descriptions_break_nothing() {
    let mut random = Random(4_711);
    let (count, mut before) = (count(), None);
    let local = LocalMedia { address: "192.0.2.1".parse().unwrap(), port: 20_000, ..LocalMedia::default() };
    let mut side = OfferAnswer::new(local.clone());
    for number in 0..count {
        let mut text = OFFERS[random.below(OFFERS.len())].as_bytes().to_vec();
        random.damage(&mut text, SDP_TOKENS);
        if number % 2 == 0 {
            if let Ok((answer, _)) = side.answer(&text) {
                assert!(answer.starts_with(b"v=0\r\n"));
            }
        } else {
            let _ = side.offer();
            let _ = side.accept(&text);
        }
        if number % 200 == 199 {
            side = OfferAnswer::new(local.clone());
        }
        if number == count / 10 {
            before = resident();
        }
    }
    flat(before);
}

fn rtp(sequence: u16, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    bytes.extend_from_slice(&9u32.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn damaged_packets_break_nothing_and_the_true_ones_are_still_heard() {
    let mut random = Random(42);
    let (count, mut before) = (count(), None);
    let peer: SocketAddr = "198.51.100.10:4000".parse().unwrap();
    let mut now = Instant::now();
    let mut offer_answer = OfferAnswer::new(LocalMedia::default());
    let plain = "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    let (_, negotiated) = offer_answer.answer(plain.as_bytes()).unwrap();
    let payload_type = negotiated.receive_payload_type;
    let mut session = Session::new(SessionConfig::new(negotiated, Agent::Echo, [3; 16]), now);
    session.start(now);
    // SR with a report, SDES, BYE, APP, XR.
    let mut report = vec![0x81, 200, 0, 12];
    report.extend_from_slice(&[7; 48]);
    report.extend_from_slice(&[0x81, 202, 0, 3, 0, 0, 0, 9, 1, 2, b'a', b'b', 0, 0, 0, 0]);
    let bye = vec![0x81, 203, 0, 1, 0, 0, 0, 9];
    let other = vec![0x80, 204, 0, 2, 0, 0, 0, 9, b'n', b'a', b'm', b'e', 0x80, 207, 0, 1, 0, 0, 0, 9];
    let mut out = Outbox::default();
    for number in 0..count {
        now += Duration::from_millis(2);
        let sequence = u16::try_from(number % 65_536).unwrap();
        let mut bytes = match random.below(6) {
            0 => rtp(sequence, 101, &[5, 0x8a, 3, 32]),
            1 => report.clone(),
            2 => [report.clone(), bye.clone()].concat(),
            3 => other.clone(),
            _ => rtp(sequence, payload_type, &[0xd5; 160]),
        };
        random.damage(&mut bytes, &[&[0xff; 4], &[0x80, 0], &[0; 40], &[0x9f, 200, 255, 255]]);
        let from = if number % 3 == 0 { "203.0.113.66:1".parse().unwrap() } else { peer };
        session.handle_rtp(&bytes, from, now, &mut out);
        if session.poll_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now, &mut out);
        }
        out.clear();
        while session.poll_event().is_some() {}
        if number == count / 10 {
            before = resident();
        }
    }
    flat(before);
    // The stream goes on as if nothing had been.
    now += Duration::from_secs(2);
    let mut heard = 0;
    for sequence in 0..50 {
        now += Duration::from_millis(20);
        session.handle_rtp(&rtp(sequence, payload_type, &[0xd5; 160]), peer, now, &mut out);
        session.handle_timeout(now, &mut out);
        heard += out.iter().filter(|(to, _)| *to == peer).count();
        out.clear();
    }
    assert!(heard > 40, "{heard}");
}
