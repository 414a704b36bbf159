//! Where nobody has been heard from, and where another dialog's signalling comes from.

use super::*;

fn speaking(now: Instant) -> Session {
    session(Agent::Linked(linked::link()), now)
}

/// Packets sent while the clock runs for so long, and where to.
fn ticks(session: &mut Session, from: Instant, seconds: u64) -> Vec<SocketAddr> {
    let (mut out, mut sent) = (Outbox::default(), Vec::new());
    while let Some(due) = session.poll_timeout().filter(|due| *due < from + Duration::from_secs(seconds)) {
        session.handle_timeout(due, &mut out);
        sent.extend(out.datagrams().map(|(_, to, _)| to));
        out.clear();
    }
    sent
}

#[test]
fn a_victim_that_a_description_names_gets_no_flood() {
    let now = Instant::now();
    let mut session = speaking(now);
    let sent = ticks(&mut session, now, 20);
    assert_eq!(sent.len(), 250);
    assert!(sent.iter().all(|to| to.ip() == PEER.parse::<SocketAddr>().unwrap().ip()));
    // Another description makes no new beginning.
    let mut moved = negotiated();
    moved.remote.set_port(4_002);
    session.update(moved, now + Duration::from_secs(20));
    assert_eq!(ticks(&mut session, now + Duration::from_secs(20), 5).len(), 0);
    // Who speaks is sent to, and so is who only listens and says so.
    let later = now + Duration::from_secs(25);
    send(&mut session, "198.51.100.10:4002", 1, later);
    assert!(ticks(&mut session, later, 5).len() >= 250);
    let mut session = speaking(now);
    ticks(&mut session, now, 20);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    session.handle_rtcp(&report, "198.51.100.10:4001".parse().unwrap(), now + Duration::from_secs(20));
    assert_eq!(ticks(&mut session, now + Duration::from_secs(20), 20).len(), 250);
    // Where the signalling comes from nobody is a victim.
    let mut session = speaking(now);
    let signalling = Believed {
        signalling_source: Some("198.51.100.10".parse().unwrap()),
        may_be_forged: true,
        ..Believed::default()
    };
    session.believe(signalling.clone());
    assert_eq!(ticks(&mut session, now, 20).len(), 250);
    // But for one that may be forged, until somebody there has shown that it is not.
    session.believe(Believed { may_be_forged: false, ..signalling });
    assert!(ticks(&mut session, now + Duration::from_secs(20), 20).len() >= 999);
}

#[test]
fn who_takes_a_call_over_is_believed_where_its_signalling_comes_from() {
    let now = Instant::now();
    let mut session = session(Agent::Echo, now);
    assert_eq!(send(&mut session, PEER, 1, now).len(), 1);
    let mut other = negotiated();
    other.remote = "10.0.0.9:4000".parse().unwrap();
    session.update(other, now);
    session.believe(Believed {
        signalling_source: Some("203.0.113.77".parse().unwrap()),
        ..Believed::default()
    });
    for sequence in 0..8 {
        assert_eq!(send(&mut session, "203.0.113.5:9000", sequence, now), []);
    }
    for sequence in 0..3 {
        assert_eq!(send(&mut session, "203.0.113.77:9000", sequence, now), []);
    }
    assert_eq!(send(&mut session, "203.0.113.77:9000", 3, now), ["203.0.113.77:9000".parse().unwrap()]);
}
