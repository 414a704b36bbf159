//! Agents elsewhere, whose audio is plugged in by links.

use super::*;
use crate::link::Link;
use crate::playout::{Limits, Overrun};

pub(super) fn link() -> Arc<Link> {
    let limits = Limits { queued_ms: 120_000, overrun: Overrun::RefuseNew, marks: 100 };
    Arc::new(Link::new(8_000, limits, || ()))
}

/// Runs a session's clock for a while, and returns when each packet left and its samples.
fn run(session: &mut Session, now: &mut Instant, length: Duration) -> Vec<(Instant, Vec<i16>)> {
    let (mut out, mut sent, end) = (Outbox::default(), Vec::new(), *now + length);
    while let Some(due) = session.poll_timeout().filter(|due| *due < end) {
        *now = due.max(*now);
        session.handle_timeout(*now, &mut out);
        for (_, bytes) in out.iter() {
            let mut samples = Vec::new();
            Codec::Pcmu.decoder().decode(Packet::parse(bytes).unwrap().payload, &mut samples);
            sent.push((*now, samples));
        }
        out.clear();
    }
    *now = end;
    sent
}

#[test]
fn a_linked_agent_is_paced_by_our_clock_and_cleared_within_a_frame() {
    let start = Instant::now();
    let link = link();
    let mut session = session(Agent::Linked(Arc::clone(&link) as _), start);
    let mut now = start;
    let tone: Vec<i16> = {
        let mut player = Player::tones(&[(440.0, 2_000)], false);
        let mut samples = vec![0; 16_000];
        player.fill(&mut samples);
        samples
    };
    link.say(&tone);
    link.mark("end".to_owned()).unwrap();
    let sent = run(&mut session, &mut now, Duration::from_secs(1));
    assert_eq!(sent.len(), 50);
    assert!(sent.windows(2).all(|w| w[1].0 - w[0].0 == Duration::from_millis(20)));
    let heard: Vec<i16> = sent.into_iter().flat_map(|(_, samples)| samples).collect();
    assert!(crate::detect::hears(&heard, 8_000, 440.0));
    assert_eq!(link.next_mark(), None);
    link.clear();
    assert!(link.next_mark().is_some_and(|mark| mark.cleared));
    let silent = run(&mut session, &mut now, Duration::from_secs(1));
    assert_eq!(silent.len(), 50);
    assert!(silent.iter().all(|(_, samples)| samples.iter().all(|&s| s == 0)));
}

#[test]
fn nothing_is_sent_or_lost_on_hold() {
    let start = Instant::now();
    let (link, mut now) = (link(), start);
    let mut session = session(Agent::Linked(Arc::clone(&link) as _), start);
    link.say(&[1_000; 1_600]);
    session.update(Negotiated { direction: Direction::RecvOnly, ..negotiated() }, now);
    assert!(run(&mut session, &mut now, Duration::from_secs(1)).is_empty());
    assert_eq!(link.progress().queued, 1_600);
    session.update(negotiated(), now);
    let sent = run(&mut session, &mut now, Duration::from_millis(210));
    assert_eq!(sent.iter().filter(|(_, s)| s[159] != 0).count(), 10);
}

#[test]
fn two_links_crosswise_are_a_bridge() {
    let start = Instant::now();
    let links = [link(), link()];
    let mut sessions = links.clone().map(|link| session(Agent::Linked(link), start));
    let mut out = Outbox::default();
    let mut now = start;
    let mut heard = Vec::new();
    for n in 0..100u16 {
        let payload: Vec<u8> = {
            let mut bytes = Vec::new();
            let tone = |i: u16| {
                let phase = f32::from(n * 160 + i) * 700.0 / 8_000.0 * std::f32::consts::TAU;
                (8_000.0 * phase.sin()) as i16
            };
            Codec::Pcmu.encoder().encode(&(0..160).map(tone).collect::<Vec<_>>(), &mut bytes);
            bytes
        };
        sessions[0].handle_rtp(&packet(n, 9, 0, &payload), PEER.parse().unwrap(), now, &mut out);
        let mut beside = now;
        run(&mut sessions[0], &mut beside, Duration::from_millis(20));
        let mut frame = Vec::new();
        while links[0].listen(&mut frame) {}
        links[1].say(&frame);
        heard.extend(
            run(&mut sessions[1], &mut now, Duration::from_millis(20)).into_iter().flat_map(|(_, s)| s),
        );
    }
    assert!(crate::detect::hears(&heard[800..], 8_000, 700.0));
    assert_eq!(links[1].statistics().playout.underruns, 0);
}

#[test]
fn another_codec_in_mid_call_keeps_the_audio() {
    let start = Instant::now();
    let link = link();
    let mut session = session(Agent::Linked(Arc::clone(&link) as _), start);
    let mut out = Outbox::default();
    let mut heard = Vec::new();
    let mut encoder = Codec::Pcmu.encoder();
    for n in 0..100_u16 {
        let now = start + Duration::from_millis(20) * u32::from(n);
        let codec = if n < 50 { Codec::Pcmu } else { Codec::G722 };
        let payload_type = if n < 50 { 0 } else { 9 };
        if n == 50 {
            let agreed = Negotiated { codec, payload_type: 9, receive_payload_type: 9, ..negotiated() };
            session.update(agreed, now);
            encoder = codec.encoder();
        }
        let rate = codec.rate().hz() as f32;
        let samples: Vec<i16> = (0..codec.rate().samples(20))
            .map(|k| {
                (8_000.0 * ((f32::from(n) * 0.02 + k as f32 / rate) * 700.0 * std::f32::consts::TAU).sin())
                    as i16
            })
            .collect();
        let mut payload = Vec::new();
        encoder.encode(&samples, &mut payload);
        out.clear();
        session.handle_rtp(&packet(n, 9, payload_type, &payload), PEER.parse().unwrap(), now, &mut out);
        while session.poll_timeout().is_some_and(|due| due < now + Duration::from_millis(20)) {
            let due = session.poll_timeout().unwrap();
            session.handle_timeout(due, &mut out);
        }
        while link.listen(&mut heard) {}
    }
    assert!((98..=101).contains(&(heard.len() / 160)), "{}", heard.len() / 160);
    for stretch in [800..7_200, 9_600..15_200] {
        assert!(crate::detect::hears(&heard[stretch.clone()], 8_000, 700.0), "{stretch:?}");
    }
}
