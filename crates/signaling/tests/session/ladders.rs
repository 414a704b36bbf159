//! Whole calls as ladders. Times are seconds; the number behind a method is its CSeq.

use signaling::{EndCause, Method, Reason, Refusal, StatusCode};

use crate::link::{A, B, FAIR, Link, OFFER, Weather, request, sdp};

/// B rings at once and answers after a second.
fn answered() -> Link {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.tell(1.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link
}

fn reason(protocol: &str, cause: u16) -> Option<Reason> {
    Some(Reason { protocol: protocol.to_owned(), cause, text: None })
}

#[test]
fn a_plain_call() {
    let mut link = answered();
    link.tell(5.0, A, |a, now| assert!(a.hang_up(reason("Q.850", 16), now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn the_called_side_hangs_up() {
    let mut link = answered();
    link.tell(5.0, B, |b, now| assert!(b.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn trying_after_200_ms_and_ringing_each_minute() {
    let mut link = Link::call();
    link.tell(0.5, B, |b, now| assert!(b.ring(now)));
    link.tell(130.0, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    link.tell(131.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.tell(132.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_lost_invite() {
    let mut link = Link::call();
    let mut left = 2;
    link.lose(move |_, message| {
        let lost = message.cseq().method == Method::Invite && left > 0;
        left -= i32::from(lost);
        lost
    });
    link.tell(1.6, B, |b, now| assert!(b.ring(now)));
    link.tell(3.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.tell(5.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_lost_200() {
    let mut link = answered();
    let mut left = 3;
    link.lose(move |side, message| {
        let lost = side == B && !message.body().is_empty() && left > 0;
        left -= i32::from(lost);
        lost
    });
    link.tell(8.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_lost_ack() {
    let mut link = answered();
    let mut left = 2;
    link.lose(move |side, message| {
        let lost = side == A && message.cseq().method == Method::Ack && left > 0;
        left -= i32::from(lost);
        lost
    });
    link.tell(8.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn no_ack_ever() {
    let mut link = answered();
    link.lose(|_, message| message.cseq().method == Method::Ack);
    let ladder = link.finish();
    assert_eq!(link.ended(B).cause, EndCause::NoAck);
    assert_eq!(link.ended(A).cause, EndCause::ByeFromPeer);
    insta::assert_snapshot!(ladder);
}

#[test]
fn hanging_up_before_the_ack_waits_for_it() {
    let mut link = answered();
    let mut left = 1;
    link.lose(move |side, message| {
        let lost = side == A && message.cseq().method == Method::Ack && left > 0;
        left -= i32::from(lost);
        lost
    });
    link.tell(1.1, B, |b, now| assert!(b.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn cancel() {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.tell(2.0, A, |a, now| assert!(a.hang_up(reason("Q.850", 16), now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut link = Link::call();
    link.tell(0.05, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn cancel_crosses_200() {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.tell(2.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.tell(2.005, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ladder = link.finish();
    assert_eq!(link.ended(A).cause, EndCause::CancelledByUs);
    assert_eq!(link.ended(B).cause, EndCause::ByeFromPeer);
    insta::assert_snapshot!(ladder);
}

#[test]
fn busy() {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| {
        let headers = vec![
            ("Retry-After".to_owned(), "30 (soon)".to_owned()),
            ("Warning".to_owned(), "399 b \"in a call\"".to_owned()),
            ("Reason".to_owned(), "Q.850;cause=17;text=\"busy\"".to_owned()),
        ];
        let reason = Some("In A Call".to_owned());
        assert!(b.refuse(Refusal { status: StatusCode(486), reason, headers }, now));
    });
    let ladder = link.finish();
    let ended = link.ended(A);
    assert_eq!((ended.phrase.as_deref(), ended.retry_after), (Some("In A Call"), Some(30)));
    assert_eq!(ended.warning.as_deref(), Some("399 b \"in a call\""));
    insta::assert_snapshot!(ladder);
}

#[test]
fn a_called_side_that_hangs_up_before_it_answers_refuses() {
    for (given, status) in [(None, 480), (reason("Q.850", 19), 480), (reason("SIP", 603), 603)] {
        let mut link = Link::call();
        link.tell(0.1, B, move |b, now| assert!(b.hang_up(given, now)));
        link.finish();
        assert_eq!(link.ended(A).status, Some(StatusCode(status)));
        assert_eq!(link.ended(B).cause, EndCause::RefusedByUs);
    }
}

#[test]
fn glare() {
    let mut link = answered();
    link.tell(2.0, A, |a, now| assert!(a.offer(sdp("v=0 of A"), now)));
    link.tell(2.0, B, |b, now| assert!(b.offer(sdp("v=0 of B"), now)));
    for at in 0..60 {
        for side in [A, B] {
            link.tell(2.1 + f64::from(at) * 0.1, side, |session, now| {
                session.answer_offer(sdp("v=0 answer"), now);
            });
        }
    }
    link.tell(10.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn bye_in_the_early_dialog() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.at(1.0, |link| {
        let tag = link.b.as_ref().unwrap().local_tag().to_owned();
        link.say(A, &request("BYE", 2, "2", &tag, "Reason: Q.850;cause=16\n\n"));
    });
    link.at(1.1, |link| {
        let tag = link.b.as_ref().unwrap().local_tag().to_owned();
        link.say(A, &request("ACK", 1, "1", &tag, ""));
    });
    let ladder = link.finish();
    assert_eq!(link.ended(B).cause, EndCause::CancelledByPeer);
    insta::assert_snapshot!(ladder);
}

#[test]
fn bye_before_the_ack() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.at(0.2, |link| {
        let tag = link.b.as_ref().unwrap().local_tag().to_owned();
        link.say(A, &request("BYE", 2, "2", &tag, ""));
    });
    let ladder = link.finish();
    assert_eq!(link.ended(B).cause, EndCause::ByeFromPeer);
    insta::assert_snapshot!(ladder);
}

#[test]
fn byes_cross() {
    let mut link = answered();
    link.tell(5.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.tell(5.0, B, |b, now| assert!(b.hang_up(None, now)));
    let ladder = link.finish();
    assert_eq!((link.ended(A).cause, link.ended(B).cause), (EndCause::ByeFromUs, EndCause::ByeFromUs));
    insta::assert_snapshot!(ladder);
}

#[test]
fn a_bye_ends_a_reinvite_that_waits() {
    let mut link = answered();
    link.tell(2.0, A, |a, now| assert!(a.offer(sdp("v=0 again"), now)));
    link.tell(3.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn the_same_seed_gives_the_same_ladder() {
    let ladder = |seed| {
        let storm = Weather { loss: 20, repeat: 10, jitter: 300, ..FAIR };
        let mut link = Link::call_in(seed, storm, signaling::Transport::Udp);
        link.tell(3.0, B, |b, now| {
            b.answer(sdp("v=0 answer"), now);
        });
        link.tell(20.0, A, |a, now| {
            a.hang_up(None, now);
        });
        link.run(120.0);
        link.ladder().to_owned()
    };
    assert_eq!(ladder(5), ladder(5));
    assert_ne!(ladder(5), ladder(6));
}
