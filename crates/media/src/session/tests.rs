mod encrypted;
mod linked;
mod reports;
mod unproven;

use super::latch::PORT_CHANGE;
use super::play::MAX_CATCH_UP;
use super::*;
use crate::codec::Codec;
use crate::offer_answer::{Direction, TelephoneEvent};

pub(super) const PEER: &str = "198.51.100.10:4000";

pub(super) fn negotiated() -> Negotiated {
    Negotiated {
        codec: Codec::Pcmu,
        payload_type: 0,
        receive_payload_type: 0,
        telephone_event: Some(TelephoneEvent { send: 101, receive: 101, clock_rate: 8_000 }),
        remote: PEER.parse().unwrap(),
        remote_rtcp: "198.51.100.10:4001".parse().unwrap(),
        rtcp_mux: false,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        encryption: None,
    }
}

fn session(agent: Agent, now: Instant) -> Session {
    let config = SessionConfig {
        believed: Believed {
            signalling_source: Some("203.0.113.5".parse().unwrap()),
            media_addresses: vec!["192.0.2.128/25".parse().unwrap()],
            stale: Some("198.51.100.10:7777".parse().unwrap()),
            may_be_forged: false,
        },
        ..SessionConfig::new(negotiated(), agent, [3; 16])
    };
    let mut session = Session::new(config, now);
    session.start(now);
    session
}

pub(super) fn packet(sequence: u16, ssrc: u32, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let packet =
        Packet { marker: false, payload_type, sequence, timestamp: u32::from(sequence) * 160, ssrc, payload };
    let mut bytes = packet.header().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends one packet and returns how many came back and where to.
fn send(session: &mut Session, from: &str, sequence: u16, now: Instant) -> Vec<SocketAddr> {
    let mut out = Outbox::default();
    session.handle_rtp(&packet(sequence, 9, 0, &[7; 160]), from.parse().unwrap(), now, &mut out);
    out.iter().map(|(to, _)| to).collect()
}

#[test]
fn echo_returns_payloads_bit_for_bit_while_nothing_is_lost() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    let mut last = None;
    for (sequence, payload_type) in [(65_534, 0), (65_535, 0), (0, 101), (1, 0)] {
        let payload: Vec<u8> = (0..160).map(|n| (n as u8) ^ (sequence as u8)).collect();
        let mut out = Outbox::default();
        session.handle_rtp(
            &packet(sequence, 9, payload_type, &payload),
            PEER.parse().unwrap(),
            now,
            &mut out,
        );
        let (_, bytes) = out.iter().next().unwrap();
        let back = Packet::parse(bytes).unwrap();
        assert_eq!((back.payload, back.payload_type, back.ssrc), (&payload[..], payload_type, 0x0303_0303));
        if let Some((before, seq)) = last {
            assert_eq!(back.sequence.wrapping_sub(before), sequence.wrapping_sub(seq));
        }
        last = Some((back.sequence, sequence));
    }
    assert_eq!(session.statistics().lost, 0);
}

#[test]
fn echo_on_a_bad_line_comes_back_whole_and_in_order() {
    let start = Instant::now();
    let mut session = session(Agent::Echo, start);
    let mut encoder = Codec::Pcmu.encoder();
    let mut arrivals: Vec<(u64, Vec<u8>)> = (0..500_u16)
        // Every tenth is lost, every seventh comes 25 ms late, behind the next.
        .filter(|n| n % 10 != 5)
        .map(|n| {
            let samples: Vec<i16> = (0..160)
                .map(|k| (8_000.0 * ((f32::from(n) * 160.0 + k as f32) * 0.345_575_2).sin()) as i16)
                .collect();
            let mut payload = Vec::new();
            encoder.encode(&samples, &mut payload);
            (u64::from(n) * 20 + if n % 7 == 3 { 25 } else { 0 }, packet(n, 9, 0, &payload))
        })
        .collect();
    arrivals.sort_by_key(|(at, _)| *at);
    let mut out = Outbox::default();
    let mut back: Vec<(u16, u32, Vec<u8>)> = Vec::new();
    let mut arrivals = arrivals.into_iter().peekable();
    while let Some(&(at, _)) = arrivals.peek() {
        let arrival = start + Duration::from_millis(at);
        match session.poll_timeout().filter(|due| *due <= arrival) {
            Some(due) => session.handle_timeout(due, &mut out),
            None => {
                let (_, bytes) = arrivals.next().unwrap();
                session.handle_rtp(&bytes, PEER.parse().unwrap(), arrival, &mut out);
            }
        }
        for (_, bytes) in out.iter() {
            let packet = Packet::parse(bytes).unwrap();
            back.push((packet.sequence, packet.timestamp, packet.payload.to_vec()));
        }
        out.clear();
    }
    assert!((490..=500).contains(&back.len()), "{}", back.len());
    let mut heard = Vec::new();
    for pair in back.windows(2) {
        assert_eq!(pair[1].0.wrapping_sub(pair[0].0), 1);
        assert_eq!(pair[1].1.wrapping_sub(pair[0].1), 160);
    }
    for (.., payload) in &back {
        Codec::Pcmu.decoder().decode(payload, &mut heard);
    }
    let level = crate::detect::level_db(&heard[8_000..], 8_000, 440.0);
    assert!(crate::detect::total_db(&heard[8_000..]) - level < 1.5, "{level}");
}

#[test]
fn a_stranger_gets_nothing_and_is_not_heard() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    for sequence in 0..100 {
        assert!(send(&mut session, "192.0.2.66:4000", sequence, now).is_empty());
    }
    assert_eq!(send(&mut session, PEER, 1, now).len(), 1);
    for sequence in 0..100 {
        assert!(send(&mut session, "192.0.2.66:4000", sequence, now).is_empty());
        assert!(send(&mut session, "203.0.113.5:4000", sequence, now).is_empty());
    }
    assert_eq!(session.statistics().dropped_source, 300);
}

#[test]
fn another_port_takes_over_after_four_packets_in_order_and_only_early() {
    let start = Instant::now();
    let other = "198.51.100.10:5555";
    let mut learned = session(Agent::Echo, start);
    assert_eq!((0..4).map(|n| send(&mut learned, other, n, start).len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert_eq!(send(&mut learned, other, 4, start), [other.parse().unwrap()]);
    assert!(send(&mut learned, PEER, 5, start).is_empty());
    // A source that only tries does not disturb the true one.
    let mut disturbed = session(Agent::Echo, start);
    let taken = (0..4).map(|n| {
        send(&mut disturbed, "198.51.100.10:6666", 1_000 + n * 7, start);
        send(&mut disturbed, other, n, start).len()
    });
    assert_eq!(taken.collect::<Vec<_>>(), [0, 0, 0, 1]);
    let mut gaps = session(Agent::Echo, start);
    assert!((0..20).all(|n| send(&mut gaps, other, n * 2, start).is_empty()));
    let mut late = session(Agent::Echo, start);
    assert!((0..20).all(|n| send(&mut late, other, n, start + PORT_CHANGE).is_empty()));
}

#[test]
fn the_signalling_source_is_believed_until_something_is_locked_and_a_new_offer_unlocks() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    let behind_nat = "203.0.113.5:9999";
    assert!((0..4).any(|n| !send(&mut session, behind_nat, n, now).is_empty()));
    // The same description again: what was learned is taken back at once, and may be learned anew.
    session.update(negotiated(), now);
    assert_eq!(send(&mut session, behind_nat, 4, now), [behind_nat.parse().unwrap()]);
    session.update(negotiated(), now);
    let rebound = "203.0.113.5:1111";
    assert_eq!((0..4).map(|n| send(&mut session, rebound, n, now).len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert!(send(&mut session, behind_nat, 9, now).is_empty());
    let moved = Negotiated { remote: "198.51.100.10:6000".parse().unwrap(), ..negotiated() };
    session.update(moved, now);
    assert!(send(&mut session, behind_nat, 9, now).is_empty());
    assert_eq!(send(&mut session, "198.51.100.10:6000", 1, now).len(), 1);
}

#[test]
fn the_trunks_media_addresses_are_believed_after_probation_and_nothing_takes_over_once_locked() {
    let now = Instant::now();
    let (gateway, other_port) = ("192.0.2.200:4000", "198.51.100.10:5555");
    let mut learned = session(Agent::Echo, now);
    assert_eq!((0..4).map(|n| send(&mut learned, gateway, n, now).len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
    let mut locked = session(Agent::Echo, now);
    assert_eq!(send(&mut locked, PEER, 0, now).len(), 1);
    for from in [gateway, other_port, "203.0.113.5:4000", "192.0.2.100:4000"] {
        assert!((0..20).all(|n| send(&mut locked, from, n, now).is_empty()), "{from}");
    }
    // What still comes from the peer of the port's last call belongs to that call.
    let mut reused = session(Agent::Echo, now);
    assert!((0..20).all(|n| send(&mut reused, "198.51.100.10:7777", n, now).is_empty()));
}

/// What 1,000 calls give to a stranger who knows SSRC and sequence numbers: packets that leak, samples and digits
/// that get in, and packets lost to the true peer.
fn sprayed(open_to_all: bool) -> (usize, usize, usize, usize) {
    let (mut leaked, mut samples, mut digits, mut lost) = (0, 0, 0, 0);
    let stranger: SocketAddr = "192.0.2.66:9".parse().unwrap();
    for call in 0..1_000_u32 {
        let start = Instant::now();
        let agent = if call % 2 == 0 { Agent::Echo } else { Agent::Silent };
        let config = SessionConfig {
            believed: Believed {
                signalling_source: Some("203.0.113.5".parse().unwrap()),
                ..Believed::default()
            },
            tap: true,
            ..SessionConfig::new(negotiated(), agent, [3; 16])
        };
        let mut session = Session::new(config, start);
        session.latch.open_to_all = open_to_all;
        session.start(start);
        let mut out = Outbox::default();
        for n in 0..20_u16 {
            let now = start + Duration::from_millis(20) * u32::from(n);
            let event = u8::from(n == 19) << 7;
            // Another stream now and then: what follows a change begins anew, so all the time would silence itself.
            let foreign = if n % 10 == 9 { 0x6666 } else { 9 };
            for bytes in [
                packet(n, 9, 0, &[0x80; 160]),
                packet(n.wrapping_add(1), 9, 0, &[0x80; 160]),
                packet(n, 9, 101, &[5, event, 3, 32]),
                packet(n, foreign, 101, &[5, 0x80, 3, 32]),
            ] {
                session.handle_rtp(&bytes, stranger, now, &mut out);
            }
            // The true peer begins later than the stranger, with silence.
            if n >= 5 {
                session.handle_rtp(&packet(n, 9, 0, &[0xff; 160]), PEER.parse().unwrap(), now, &mut out);
            }
            session.handle_timeout(now, &mut out);
        }
        leaked += out.iter().filter(|(to, _)| *to == stranger).count();
        samples += session.take_captured().1.iter().filter(|s| **s != 0).count();
        while let Some(event) = session.poll_event() {
            digits += usize::from(matches!(event, MediaEvent::Digit { .. }));
        }
        let statistics = session.statistics();
        lost += usize::try_from(15_u64.saturating_sub(statistics.received)).unwrap();
    }
    (leaked, samples, digits, lost)
}

#[test]
fn a_stranger_gets_and_gives_nothing_in_a_thousand_calls_and_would_without_the_guard() {
    assert_eq!(sprayed(false), (0, 0, 0, 0));
    let (leaked, samples, digits, _) = sprayed(true);
    assert!(leaked > 0 && samples > 0 && digits > 0, "{leaked} {samples} {digits}");
}

#[test]
fn headers_that_lie_and_foreign_streams_change_nothing() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    let peer: SocketAddr = PEER.parse().unwrap();
    let mut out = Outbox::default();
    session.handle_rtp(&packet(1, 9, 0, &[7; 160]), peer, now, &mut out);
    let mut bad = vec![packet(2, 9, 0, &[]), packet(2, 9, 0, &[7; 1_489])];
    for (first, tail) in
        [(0x40, &[7; 160][..]), (0x8f, &[0; 10]), (0x90, &[0, 0, 255, 255, 1]), (0xa0, &[5, 5, 0])]
    {
        let mut bytes = packet(2, 9, 0, tail);
        bytes[0] = first;
        bad.push(bytes);
    }
    let count = u64::try_from(bad.len()).unwrap();
    bad.iter().for_each(|bytes| session.handle_rtp(bytes, peer, now, &mut out));
    assert_eq!(session.statistics().dropped_malformed, count);
    // Our own stream come back, and a thousand others.
    session.handle_rtp(&packet(2, 0x0303_0303, 0, &[7; 160]), peer, now, &mut out);
    (10..1_010).for_each(|ssrc| session.handle_rtp(&packet(2, ssrc, 0, &[7; 160]), peer, now, &mut out));
    let statistics = session.statistics();
    assert_eq!((statistics.received, statistics.dropped_ssrc), (1 + 3, 1 + 997));
    assert_eq!(out.iter().count(), 4);
}

#[test]
fn play_is_paced_without_drift_and_finishes_once() {
    let start = Instant::now();
    let mut session = session(Agent::Play(Player::tones(&[(440.0, 60_000)], false)), start);
    // Nothing is received here, and need not be from where the signalling comes from.
    let signalling_source = Some("198.51.100.10".parse().unwrap());
    session.believe(Believed { signalling_source, ..Believed::default() });
    session.update(Negotiated { direction: Direction::SendOnly, ..negotiated() }, start);
    let (mut out, mut sent, mut now) = (Outbox::default(), 0, start);
    let finished = loop {
        // A clock that wakes up to 7 ms late.
        now =
            session.poll_timeout().unwrap().max(now) + Duration::from_millis(u64::from(sent as u32 * 3 % 8));
        session.handle_timeout(now, &mut out);
        sent += out.iter().count();
        out.clear();
        if let Some(event) = session.poll_event() {
            break event;
        }
    };
    assert_eq!((sent, finished), (3_000, MediaEvent::PlayFinished));
    assert!((now.duration_since(start).as_secs_f64() - 60.0).abs() < 0.02);
}

#[test]
fn a_held_up_clock_skips_ahead_instead_of_bursting() {
    let start = Instant::now();
    let mut session = session(Agent::Play(Player::tones(&[(440.0, 60_000)], true)), start);
    let mut out = Outbox::default();
    session.handle_timeout(start, &mut out);
    out.clear();
    session.handle_timeout(start + Duration::from_secs(2), &mut out);
    assert_eq!(out.iter().count(), MAX_CATCH_UP as usize);
    assert!(session.next_frame.unwrap() > start + Duration::from_secs(2));
    assert_eq!(session.statistics().skipped_frames, 95);
}

#[test]
fn silence_ends_the_call_but_not_on_hold() {
    let start = Instant::now();
    let mut out = Outbox::default();
    let mut never = session(Agent::Echo, start);
    assert_eq!(never.silence_ends(), Some(start + Duration::from_secs(30)));
    never.handle_timeout(start + Duration::from_secs(30), &mut out);
    assert_eq!(never.poll_event(), Some(MediaEvent::Timeout { ever_received: false }));
    assert_eq!(never.silence_ends(), None);
    let mut heard = session(Agent::Echo, start);
    send(&mut heard, PEER, 1, start);
    assert_eq!(heard.silence_ends(), Some(start + Duration::from_secs(15)));
    heard.update(Negotiated { direction: Direction::RecvOnly, ..negotiated() }, start);
    assert_eq!(heard.silence_ends(), None);
    assert!(send(&mut heard, PEER, 2, start).is_empty());
    heard.update(negotiated(), start + Duration::from_secs(60));
    assert_eq!(heard.silence_ends(), Some(start + Duration::from_secs(75)));
}

#[test]
fn digits_and_unknown_payload_types() {
    let now = Instant::now();
    let mut session = session(Agent::Silent, now);
    let mut out = Outbox::default();
    session.handle_rtp(&packet(1, 9, 101, &[5, 0x8a, 3, 32]), PEER.parse().unwrap(), now, &mut out);
    assert_eq!(session.poll_event(), Some(MediaEvent::FirstPacket));
    assert_eq!(
        session.poll_event(),
        Some(MediaEvent::Digit { digit: '5', duration_ms: 100, source: dtmf::Source::Event })
    );
    session.handle_rtp(&packet(2, 9, 96, &[1; 160]), PEER.parse().unwrap(), now, &mut out);
    session.handle_rtp(b"junk", PEER.parse().unwrap(), now, &mut out);
    let statistics = session.statistics();
    assert_eq!((statistics.dropped_payload_type, statistics.dropped_malformed), (1, 1));
}
