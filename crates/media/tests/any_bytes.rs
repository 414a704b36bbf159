//! Any bytes as a session description, offered and answered, and as packets of a call: no panic, and what is answered is
//! a description. The bytes come from the test below, or from a fuzzer.

use std::time::{Duration, Instant};

use media::offer_answer::{LocalMedia, OfferAnswer};
use media::session::{Agent, Outbox, Session, SessionConfig};

const OFFER: &[u8] = b"v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

pub(crate) fn run(bytes: &[u8]) {
    let mut side = OfferAnswer::new(LocalMedia::default());
    if let Ok((answer, _)) = side.answer(bytes) {
        assert!(answer.starts_with(b"v=0\r\n"));
    }
    let _ = side.offer();
    let _ = side.accept(bytes);

    let Ok((_, negotiated)) = OfferAnswer::new(LocalMedia::default()).answer(OFFER) else { return };
    let (remote, mut now) = (negotiated.remote, Instant::now());
    let config = SessionConfig {
        tap: true,
        dtmf_tones: true,
        beep: Some(Duration::from_secs(5)),
        ..SessionConfig::new(negotiated, Agent::Echo, [3; 16])
    };
    let (mut session, mut out) = (Session::new(config, now), Outbox::default());
    session.start(now);
    for piece in bytes.chunks(60) {
        now += Duration::from_millis(20);
        session.handle_rtp(piece, remote, now, &mut out);
        session.handle_timeout(now, &mut out);
        out.clear();
        while session.poll_event().is_some() {}
    }
}

/// The fuzz target's way in, so that it is never left behind: a fuzzer makes the millions.
#[test]
fn bytes_of_any_kind_hurt_nothing() {
    run(b"");
    let whole: &[u8] = OFFER;
    for at in 0..whole.len() {
        run(&whole[..at]);
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x15;
        run(&damaged);
    }
}
