//! Each timer of RFC 3261 table 4 and RFC 6026 alone, against a peer that the test plays.

use signaling::{EndCause, Method, Refusal, StatusCode};

use crate::link::{A, B, Link, OFFER, Side, invite, request, sdp};

/// Every line of the ladder with `what`, as seconds since `begin`.
fn times(link: &Link, what: &str, begin: f64) -> Vec<f64> {
    let seconds = |line: &str| line.trim_start().split(' ').next().unwrap().parse::<f64>().unwrap();
    let round = |at: f64| (at * 1_000.0).round() / 1_000.0;
    link.ladder().lines().filter(|l| l.contains(what)).map(|l| round(seconds(l) - begin)).collect()
}

fn local_tag(link: &mut Link, side: Side) -> String {
    link.session(side).unwrap().local_tag().to_owned()
}

/// Doubling up to T2.
const CAPPED: [f64; 11] = [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5];

#[test]
fn a_and_b() {
    let mut link = Link::caller(invite());
    link.finish_a();
    assert_eq!(times(&link, "INVITE", 0.0), [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]);
    assert_eq!(times(&link, "Ended NoResponse", 0.0), [32.0]);
    assert_eq!(times(&link, "terminated", 0.0), [32.0]);
}

#[test]
fn a_provisional_response_stops_a_and_b() {
    let mut link = Link::caller(invite());
    link.at(0.1, |l| l.respond(B, Method::Invite, 100, "", &[], ""));
    link.run(500.0);
    assert_eq!(times(&link, "INVITE (1)", 0.0), [0.0, 0.1]);
    assert!(!link.a.as_ref().unwrap().is_over());
}

#[test]
fn d() {
    let mut link = Link::caller(invite());
    for at in [0.09, 10.09, 32.0] {
        link.at(at, |l| l.respond(B, Method::Invite, 486, "b", &[], ""));
    }
    link.finish_a();
    assert_eq!(times(&link, "ACK", 0.0), [0.1, 10.1, 32.01]);
    assert_eq!(times(&link, "terminated", 0.0), [32.1]);
    assert_eq!(link.ended(A).cause, EndCause::RefusedByPeer);
}

/// A call that A has, and the BYE it sends at 50 s.
fn bye_at_50() -> Link {
    let mut link = Link::caller(invite());
    link.at(0.09, |l| l.respond(B, Method::Invite, 200, "b", &[], "v=0 answer"));
    link.tell(50.0, A, |a, now| assert!(a.hang_up(None, now)));
    link
}

#[test]
fn e_and_f() {
    let mut link = bye_at_50();
    link.finish_a();
    assert_eq!(times(&link, "BYE", 50.0), CAPPED);
    assert_eq!(times(&link, "terminated", 50.0), [32.0]);
}

#[test]
fn e_in_proceeding_is_t2() {
    let mut link = bye_at_50();
    link.at(50.2, |l| l.respond(B, Method::Bye, 100, "b", &[], ""));
    link.finish_a();
    assert_eq!(times(&link, "--> B  BYE", 50.0), [0.0, 0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]);
}

#[test]
fn k() {
    let mut link = bye_at_50();
    link.at(50.09, |l| l.respond(B, Method::Bye, 200, "b", &[], ""));
    link.at(53.0, |l| l.respond(B, Method::Bye, 200, "b", &[], ""));
    link.finish_a();
    assert_eq!(times(&link, "--> B  BYE", 50.0), [0.0]);
    assert_eq!(times(&link, "terminated", 50.0), [5.1]);
}

#[test]
fn m() {
    let mut link = Link::caller(invite());
    for at in [0.09, 20.09, 32.0, 33.0] {
        link.at(at, |l| l.respond(B, Method::Invite, 200, "b", &[], "v=0 answer"));
    }
    link.run(40.0);
    // Each repetition is acknowledged until timer M; later ones are nobody's.
    assert_eq!(times(&link, "ACK", 0.0), [0.1, 20.1, 32.01]);
    assert_eq!(link.of(A).len(), 1);
}

#[test]
fn g_and_h() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.tell(0.1, B, |b, now| assert!(b.refuse(Refusal::new(StatusCode(486)), now)));
    link.run(100.0);
    assert_eq!(times(&link, "486 INVITE", 0.1), CAPPED);
    assert_eq!(times(&link, "terminated", 0.1), [32.0]);
}

#[test]
fn i() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = local_tag(&mut link, B);
    link.tell(0.1, B, |b, now| assert!(b.refuse(Refusal::new(StatusCode(486)), now)));
    for at in [0.19, 3.0] {
        let ack = request("ACK", 1, "1", &tag, "");
        link.at(at, move |l| l.say(A, &ack));
    }
    link.at(1.0, |l| l.say(A, &request("INVITE", 1, "1", "", OFFER)));
    link.run(100.0);
    assert_eq!(times(&link, "486 INVITE", 0.1), [0.0]);
    assert_eq!(times(&link, "terminated", 0.2), [5.0]);
}

#[test]
fn j_and_l() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = local_tag(&mut link, B);
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    for at in [0.99, 20.0, 32.9] {
        let bye = request("BYE", 2, "3", &tag, "");
        link.at(at, move |l| l.say(A, &bye));
    }
    // Absorbed in Accepted (RFC 6026 7.1): no second 200, no 482.
    link.at(31.0, |l| l.say(A, &request("INVITE", 1, "1", "", OFFER)));
    link.run(100.0);
    assert_eq!(times(&link, "200 INVITE", 0.1), [0.0]);
    assert_eq!(times(&link, "200 BYE", 1.0), [0.0, 19.01, 31.91]);
    assert_eq!(times(&link, "482", 0.0), [0.0; 0]);
    assert_eq!(times(&link, "terminated", 1.0), [32.0]);
    assert_eq!(link.of(B).len(), 2);
}

#[test]
fn a_repeated_invite_gets_the_last_response_again() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.tell(0.3, B, |b, now| assert!(b.ring(now)));
    for at in [0.1, 0.25, 0.5] {
        link.at(at, |l| l.say(A, &request("INVITE", 1, "1", "", OFFER)));
    }
    link.run(1.0);
    assert_eq!(times(&link, "100 INVITE", 0.0), [0.21, 0.26]);
    assert_eq!(times(&link, "180 INVITE", 0.0), [0.3, 0.51]);
}

#[test]
fn after_cancel_without_final_response_patience_ends() {
    let mut link = Link::caller(invite());
    link.at(0.09, |l| l.respond(B, Method::Invite, 180, "b", &[], ""));
    link.tell(1.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.at(1.09, |l| l.respond(B, Method::Cancel, 200, "b", &[], ""));
    link.finish_a();
    assert_eq!(times(&link, "Ended CancelledByUs", 1.0), [32.0]);
}

#[test]
fn hanging_up_while_nobody_answers_ends_as_cancelled() {
    let mut link = Link::caller(invite());
    link.tell(1.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.finish_a();
    assert_eq!(times(&link, "CANCEL (", 0.0), [0.0; 0]);
    assert_eq!(times(&link, "Ended CancelledByUs", 0.0), [32.0]);
}
