//! An INVITE that is given up for another target: whatever comes of it late rings at nobody's for long.

use signaling::{EndCause, Method};

use crate::link::{A, B, Link, invite};

#[test]
fn without_any_answer_it_ends_at_once_and_is_sent_no_more() {
    let mut link = Link::caller(invite());
    link.tell(0.7, A, |a, now| assert!(a.abandon(now) && !a.abandon(now)));
    link.finish_a();
    let ended = link.ended(A);
    assert_eq!((ended.cause, ended.rang, ended.trying), (EndCause::NoResponse, false, false));
    assert_eq!(link.heard(), ["INVITE (1) +sdp", "INVITE (1) +sdp"]);
}

#[test]
fn a_late_ringing_is_cancelled() {
    let mut link = Link::caller(invite());
    link.tell(0.7, A, |a, now| assert!(a.abandon(now)));
    link.at(1.0, |l| l.respond(B, Method::Invite, 180, "b", &[], ""));
    link.at(1.2, |l| l.respond(B, Method::Cancel, 200, "b", &[], ""));
    link.at(1.3, |l| l.respond(B, Method::Invite, 487, "b", &[], ""));
    link.finish_a();
    assert_eq!(link.heard()[2..], ["CANCEL (1)", "ACK (1)"]);
}

#[test]
fn a_late_answer_is_ended() {
    let mut link = Link::caller(invite());
    link.tell(0.7, A, |a, now| assert!(a.abandon(now)));
    link.at(3.0, |l| l.respond(B, Method::Invite, 200, "b", &[], "v=0 answer"));
    link.at(3.2, |l| l.respond(B, Method::Bye, 200, "b", &[], ""));
    link.finish_a();
    assert_eq!(link.heard()[2..], ["ACK (1)", "BYE (2)"]);
}

#[test]
fn a_late_challenge_is_not_answered() {
    let mut link = Link::caller(invite());
    link.tell(0.7, A, |a, now| assert!(a.abandon(now)));
    let challenge = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\"")];
    link.at(3.0, move |l| l.respond(B, Method::Invite, 401, "b", &challenge, ""));
    link.finish_a();
    assert_eq!(link.heard()[2..], ["ACK (1)"]);
}

#[test]
fn whoever_has_said_something_is_not_given_up() {
    for (status, trying) in [(100, true), (401, false)] {
        let mut link =
            Link::caller(signaling::Invite { credentials: Some(crate::link::account()), ..invite() });
        let challenge = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\"")];
        link.at(0.1, move |l| l.respond(B, Method::Invite, status, "b", &challenge, ""));
        link.tell(0.7, A, |a, now| assert!(!a.abandon(now)));
        link.at(1.0, |l| l.respond(B, Method::Invite, 503, "b", &[], ""));
        link.finish_a();
        assert_eq!((link.ended(A).cause, link.ended(A).trying), (EndCause::RefusedByPeer, trying));
    }
}
