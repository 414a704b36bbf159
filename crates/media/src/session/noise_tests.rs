//! Noise cancellation of a call: on what is received, before anybody hears it, and on nothing else.

use super::tests::{PEER, negotiated, packet};
use super::*;
use crate::codec::Codec;
use crate::detect::{level_db, total_db};

const FRAME: Duration = Duration::from_millis(20);

fn session(agent: Agent, mode: Option<Mode>, now: Instant) -> Session {
    let config = SessionConfig::new(negotiated(), agent, [3; 16]);
    let mut session = Session::new(SessionConfig { tap: true, noise_cancellation: mode, ..config }, now);
    session.start(now);
    session
}

/// Hiss as loud as a voice, by a generator of random numbers (xorshift64*).
fn hiss(state: &mut u64) -> Vec<u8> {
    let samples: Vec<i16> = (0..160)
        .map(|_| {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 53) as i16 - 1_024
        })
        .collect();
    let mut payload = Vec::new();
    Codec::Pcmu.encoder().encode(&samples, &mut payload);
    payload
}

/// What came back of five seconds of hiss with a digit in the middle: the audio, and the payloads of the events.
fn echoed(mode: Option<Mode>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Session) {
    let mut now = Instant::now();
    let mut session = session(Agent::Echo, mode, now);
    let (mut audio, mut events) = (Vec::new(), Vec::new());
    let mut state = 7;
    for sequence in 1..=250 {
        let mut out = Outbox::default();
        let (payload_type, payload) = match sequence {
            120..123 => (101, vec![5, 10 | if sequence == 122 { 0x80 } else { 0 }, 0, 160]),
            _ => (0, hiss(&mut state)),
        };
        let bytes = packet(sequence, 9, payload_type, &payload);
        session.handle_rtp(&bytes, PEER.parse().unwrap(), now, &mut out);
        let until = now + FRAME;
        while let Some(at) = session.poll_timeout().filter(|at| *at <= until) {
            now = at.max(now);
            session.handle_timeout(now, &mut out);
        }
        now = until;
        for (_, bytes) in out.iter() {
            let back = Packet::parse(bytes).unwrap();
            let kept = if back.payload_type == 0 { &mut audio } else { &mut events };
            kept.push(back.payload.to_vec());
        }
    }
    (audio, events, session)
}

fn decoded(payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut samples = Vec::new();
    payloads.iter().for_each(|p| Codec::Pcmu.decoder().decode(p, &mut samples));
    samples
}

#[test]
fn the_echo_returns_what_is_left_and_digits_as_they_were() {
    let (plain, events, _) = echoed(None);
    let noise = total_db(&decoded(&plain[200..]));
    for mode in [Mode::Standard, Mode::High] {
        let (audio, same, mut session) = echoed(Some(mode));
        assert_eq!(same, events, "{mode:?}: digits are untouched");
        assert_eq!(events.len(), 3);
        assert!(audio.len() > 240, "{mode:?}: a frame every 20 ms, {} of them", audio.len());
        let left = total_db(&decoded(&audio[200..]));
        assert!(left < noise - 12.0, "{mode:?}: {left} of {noise} dB is left");
        // Whoever else hears, hears the same.
        let (_, captured) = session.take_captured();
        let heard = total_db(&captured[captured.len() - 6_400..]);
        assert!((heard - left).abs() < 2.0, "{mode:?}: the tap has {heard} dB");
        assert!(
            std::iter::from_fn(|| session.poll_event())
                .any(|e| matches!(e, MediaEvent::Digit { digit: '5', .. }))
        );
    }
}

#[test]
fn what_the_agent_says_is_left_alone() {
    let said = |mode| {
        let mut now = Instant::now();
        let mut session = session(Agent::Play(Player::tones(&[(640.0, 1_000)], false)), mode, now);
        let mut payloads = Vec::new();
        for _ in 0..40 {
            let mut out = Outbox::default();
            session.handle_timeout(now, &mut out);
            payloads.extend(out.iter().map(|(_, bytes)| Packet::parse(bytes).unwrap().payload.to_vec()));
            now += FRAME;
        }
        payloads
    };
    let plain = said(None);
    assert!(level_db(&decoded(&plain), 8_000, 640.0) > -20.0);
    assert_eq!(said(Some(Mode::Standard)), plain);
}
