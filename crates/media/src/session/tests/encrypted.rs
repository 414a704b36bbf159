//! Encrypted streams: nothing that is not authentic leaves a trace.

use super::*;
use crate::srtp::{Keys, MAX_LIFETIME, MasterKey, Receiver, Sender, Suite};

fn key(suite: Suite, byte: u8) -> MasterKey {
    MasterKey::new(suite, &vec![byte; suite.material_length()]).unwrap()
}

fn keys(suite: Suite, send: u8, receive: u8) -> Option<Keys> {
    Some(Keys { send: key(suite, send), receive: key(suite, receive), lifetime: MAX_LIFETIME })
}

/// The peer of a session: what it sends, and what it reads of what comes back.
struct Peer {
    sender: Sender,
    receiver: Receiver,
}

impl Peer {
    fn new(suite: Suite, ours: u8, theirs: u8) -> Self {
        Self {
            sender: Sender::new(&key(suite, ours)),
            receiver: Receiver::new(&key(suite, theirs), MAX_LIFETIME),
        }
    }

    fn protect(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = plain.to_vec();
        self.sender.protect(&mut bytes, 0).unwrap();
        bytes
    }
}

fn encrypted(suite: Suite, agent: Agent, now: Instant) -> Session {
    let negotiated = Negotiated { encryption: keys(suite, 1, 2), ..negotiated() };
    let mut session = session(Agent::Silent, now);
    session.set_agent(agent, now);
    session.update(negotiated, now);
    session
}

fn receive(session: &mut Session, bytes: &[u8], from: &str, now: Instant) -> Vec<Vec<u8>> {
    let mut out = Outbox::default();
    session.handle_rtp(bytes, from.parse().unwrap(), now, &mut out);
    out.iter().map(|(_, bytes)| bytes.to_vec()).collect()
}

#[test]
fn echo_comes_back_encrypted_and_bit_for_bit() {
    let now = Instant::now();
    for suite in Suite::ALL {
        let mut session = encrypted(suite, Agent::Echo, now);
        let mut peer = Peer::new(suite, 2, 1);
        for sequence in [65_534, 65_535, 0, 1] {
            let payload: Vec<u8> = (0..160).map(|n| n as u8 ^ sequence as u8).collect();
            let srtp = peer.protect(&packet(sequence, 9, 0, &payload));
            let back = receive(&mut session, &srtp, PEER, now);
            assert!(!back[0].windows(16).any(|w| w == &payload[..16]));
            let mut plain = Vec::new();
            peer.receiver.unprotect(&back[0], &mut plain).unwrap();
            assert_eq!(Packet::parse(&plain).unwrap().payload, payload);
        }
    }
}

/// Anybody may send to the port, the signalled address included: a carrier's address can be forged.
#[test]
fn what_is_not_authentic_latches_nothing_and_counts_as_nothing() {
    let now = Instant::now();
    for suite in Suite::ALL {
        let mut session = encrypted(suite, Agent::Echo, now);
        let (mut peer, mut stranger) = (Peer::new(suite, 2, 1), Peer::new(suite, 7, 7));
        let recorded = peer.protect(&packet(1, 9, 0, &[7; 160]));
        for sequence in 0..200 {
            let wrong = stranger.protect(&packet(sequence, 9, 0, &[1; 160]));
            let digit = packet(sequence, 9, 101, &[5, 0x8a, 3, 32]);
            for bytes in [&wrong, &packet(sequence, 9, 0, &[1; 160]), &digit, &recorded[..40], b"junk"] {
                assert!(receive(&mut session, bytes, PEER, now).is_empty());
                assert!(receive(&mut session, bytes, "203.0.113.5:4000", now).is_empty());
            }
        }
        assert_eq!(session.poll_event(), None);
        assert_eq!(session.statistics().received, 0);
        // The first packet that is authentic is the first at all.
        assert_eq!(receive(&mut session, &recorded, PEER, now).len(), 1);
        assert_eq!(session.poll_event(), Some(MediaEvent::FirstPacket));
        for _ in 0..1_000 {
            assert!(receive(&mut session, &recorded, PEER, now).is_empty());
            assert!(receive(&mut session, &recorded, "203.0.113.5:4000", now).is_empty());
        }
        let statistics = session.statistics();
        assert_eq!((statistics.received, statistics.lost, statistics.dropped_replayed), (1, 0, 2_000));
        assert!(statistics.dropped_unauthenticated + statistics.dropped_malformed == 2_000, "{statistics:?}");
        assert_eq!(session.poll_event(), None);
        // Silence is silence, whatever a stranger sends.
        assert_eq!(session.silence_ends(), Some(now + Duration::from_secs(15)));
    }
}

/// The control of the test above: without encryption the very same forged packets get in.
#[test]
fn without_keys_a_forged_address_gets_in() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    assert_eq!(receive(&mut session, &packet(1, 9, 0, &[1; 160]), PEER, now).len(), 1);
    let wrong = Peer::new(Suite::AesCm128HmacSha1_32, 7, 7).protect(&packet(2, 9, 0, &[1; 160]));
    assert_eq!(receive(&mut session, &wrong, PEER, now).len(), 1);
    receive(&mut session, &packet(3, 9, 101, &[5, 0x8a, 3, 32]), PEER, now);
    assert!(std::iter::from_fn(|| session.poll_event()).any(|e| matches!(e, MediaEvent::Digit { .. })));
}

#[test]
fn a_re_invite_keeps_or_changes_keys() {
    let now = Instant::now();
    let suite = Suite::AeadAes128Gcm;
    let mut session = encrypted(suite, Agent::Echo, now);
    let mut peer = Peer::new(suite, 2, 1);
    let old = peer.protect(&packet(65_535, 9, 0, &[7; 160]));
    assert_eq!(receive(&mut session, &old, PEER, now).len(), 1);
    session.update(Negotiated { encryption: keys(suite, 1, 2), ..negotiated() }, now);
    // The rollover counter went on: this packet is the first of the second round.
    let wrapped = peer.protect(&packet(0, 9, 0, &[7; 160]));
    assert_eq!(receive(&mut session, &wrapped, PEER, now).len(), 1);
    assert!(receive(&mut session, &old, PEER, now).is_empty());
    session.update(Negotiated { encryption: keys(suite, 3, 4), ..negotiated() }, now);
    let late = peer.protect(&packet(1, 9, 0, &[7; 160]));
    assert!(receive(&mut session, &late, PEER, now).is_empty());
    let mut rekeyed = Peer::new(suite, 4, 3);
    let fresh = rekeyed.protect(&packet(1, 9, 0, &[7; 160]));
    let back = receive(&mut session, &fresh, PEER, now);
    rekeyed.receiver.unprotect(&back[0], &mut Vec::new()).unwrap();
    session.update(negotiated(), now);
    assert!(
        receive(&mut session, &rekeyed.protect(&packet(2, 9, 0, &[7; 160])), PEER, now)
            .iter()
            .all(|back| rekeyed.receiver.unprotect(back, &mut Vec::new()).is_err())
    );
    assert_eq!(receive(&mut session, &packet(3, 9, 0, &[7; 160]), PEER, now).len(), 1);
}

#[test]
fn what_an_agent_says_is_encrypted() {
    let start = Instant::now();
    let mut session =
        encrypted(Suite::AesCm128HmacSha1_32, Agent::Play(Player::tones(&[(440.0, 200)], false)), start);
    let mut peer = Peer::new(Suite::AesCm128HmacSha1_32, 2, 1);
    let mut out = Outbox::default();
    session.handle_timeout(start + Duration::from_millis(80), &mut out);
    let mut heard = 0;
    for (_, bytes) in out.iter() {
        assert!(bytes.len() == 12 + 160 + 4);
        peer.receiver.unprotect(bytes, &mut Vec::new()).unwrap();
        heard += 1;
    }
    assert_eq!(heard, 5);
}
