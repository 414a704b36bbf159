//! Over TCP nothing is repeated but a 2xx, no transaction lingers for repetitions, and a lost connection is told.

use signaling::{EndCause, Refusal, Session, StatusCode, Transport};

use crate::link::{A, B, FAIR, Link, OFFER, hop, identity, invite, request, sdp};

#[test]
fn a_call_over_tcp() {
    let mut link = Link::call_in(0, FAIR, Transport::Tcp);
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.tell(8.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.tell(9.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_refusal_over_tcp_is_forgotten_at_once() {
    let mut link = Link::call_in(0, FAIR, Transport::Tcp);
    link.tell(0.1, B, |b, now| assert!(b.refuse(Refusal::new(StatusCode(486)), now)));
    link.run(0.2);
    assert!(link.a.is_none() && link.b.is_none(), "{}", link.ladder());
}

#[test]
fn an_invite_over_tcp_is_sent_once() {
    let mut link = Link::caller_over(invite(), Transport::Tcp);
    link.finish_a();
    assert_eq!(link.heard(), ["INVITE (1) +sdp"]);
    assert_eq!(link.ended(A).cause, EndCause::NoResponse);
}

#[test]
fn a_connection_that_is_lost_before_any_response() {
    let mut link = Link::caller_over(invite(), Transport::Tcp);
    link.tell(1.0, A, |a, now| a.handle_transport_error(hop(B, Transport::Tcp), now));
    link.finish_a();
    assert_eq!(link.ended(A).cause, EndCause::TransportError);
    // Another connection's loss is none of this call's.
    let mut link = Link::caller_over(invite(), Transport::Tcp);
    link.tell(1.0, A, |a, now| a.handle_transport_error(hop(A, Transport::Tcp), now));
    link.run(2.0);
    assert!(link.events.is_empty());
}

#[test]
fn a_caller_whose_connection_is_lost_before_the_answer() {
    let mut link = Link::called_over(&request("INVITE", 1, "1", "", OFFER), Transport::Tcp);
    link.tell(1.0, B, |b, now| b.handle_transport_error(hop(A, Transport::Tcp), now));
    link.run(1.1);
    assert_eq!(link.ended(B).cause, EndCause::TransportError);
    assert!(link.b.is_none());
}

#[test]
fn a_bye_that_cannot_be_sent_leaves_nothing_behind() {
    let mut link = Link::caller_over(invite(), Transport::Tcp);
    link.at(0.1, |l| l.respond(B, signaling::Method::Invite, 200, "b", &[], "v=0 answer"));
    link.tell(40.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.tell(40.1, A, |a, now| a.handle_transport_error(hop(B, Transport::Tcp), now));
    link.run(40.2);
    assert!(link.a.is_none(), "{}", link.ladder());
}

#[test]
fn a_call_that_was_hung_up_before_the_connection_failed_was_cancelled() {
    let now = std::time::Instant::now();
    let to = hop(B, Transport::Tcp);
    let mut session = Session::connect(invite(), to, identity(A), now);
    assert!(session.hang_up(None, now));
    session.handle_transport_error(to, now);
    let Some(signaling::Event::Ended(ended)) = session.poll_event() else { panic!() };
    assert_eq!(ended.cause, EndCause::CancelledByUs);
}
