//! A peer that floods a call gains nothing: what a session keeps is bounded, and little once the call is over.

use signaling::{EndCause, Message, Method, Session};

use crate::link::{A, B, Link, OFFER, invite, request, sdp};

fn called() -> (Link, String) {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    link.run(0.3);
    link.inbox.clear();
    (link, tag)
}

fn count(link: &Link, what: &str) -> usize {
    link.heard().iter().filter(|m| m.starts_with(what)).count()
}

#[test]
fn a_flood_of_requests_gets_500_and_the_call_can_still_be_ended() {
    let (mut link, tag) = called();
    for cseq in 2..202 {
        link.say(A, &request("INFO", cseq, &format!("i{cseq}"), &tag, ""));
    }
    link.run(0.4);
    assert_eq!((count(&link, "200 INFO"), count(&link, "500 INFO")), (10, 190));
    // A second later there is room for ten more.
    link.run(1.5);
    for cseq in 12..32 {
        link.say(A, &request("INFO", cseq, &format!("j{cseq}"), &tag, ""));
    }
    link.run(1.6);
    assert_eq!((count(&link, "200 INFO"), count(&link, "500 INFO")), (20, 200));
    // A 500 for want of room takes no sequence number: the request may be made again.
    link.say(A, &request("BYE", 30, "bye", &tag, ""));
    link.run(1.7);
    assert_eq!(link.ended(B).cause, EndCause::ByeFromPeer);
    // And BYEs are no way around the bound.
    for cseq in 31..131 {
        link.say(A, &request("BYE", cseq, &format!("b{cseq}"), &tag, ""));
    }
    link.run(1.8);
    assert_eq!(count(&link, "481 BYE"), 100);
}

#[test]
fn a_flood_of_reinvites_is_bounded() {
    let (mut link, tag) = called();
    for cseq in 2..102 {
        link.say(A, &request("INVITE", cseq, &format!("r{cseq}"), &tag, OFFER));
    }
    link.run(0.4);
    // One waits for its answer, the others are told to come again.
    assert_eq!(count(&link, "500 INVITE"), 99);
    link.say(A, &request("BYE", 200, "bye", &tag, ""));
    link.run(200.0);
    assert!(link.b.is_none());
}

#[test]
fn a_caller_that_does_not_drain_loses_messages_not_memory() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let (now, from) = (link.now, crate::link::hop(A, signaling::Transport::Udp));
    let b = link.b.as_mut().unwrap();
    let tag = b.local_tag().to_owned();
    for cseq in 2..1_002 {
        let text = request("INFO", cseq, &format!("i{cseq}"), &tag, "").replace('\n', "\r\n");
        b.handle_message(Message::parse(bytes::Bytes::from(text)).unwrap(), from, now);
    }
    let waiting = std::iter::from_fn(|| b.poll_transmit()).count();
    let events = std::iter::from_fn(|| b.poll_event()).count();
    assert_eq!((waiting, events), (64, 10));
}

#[test]
fn a_session_that_only_lingers_is_small() {
    // The fixed part; on it hang one or two transactions with a response of some 300 bytes each.
    assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
}

#[test]
fn nothing_secret_shows() {
    let mut invite = invite();
    invite.credentials = Some(crate::link::account());
    let mut link = Link::caller(invite);
    link.run(0.1);
    let shown = format!("{:?}", link.a);
    assert!(!shown.contains("secret"), "{shown}");
    // What is on the wire does not tell the seed that everything is derived from.
    let seed = "01".repeat(16);
    let wire = String::from_utf8(link.last(Method::Invite).body().to_vec()).unwrap() + link.ladder();
    assert!(!wire.contains(&seed));
    let via = link.last(Method::Invite).top_via().unwrap().branch().unwrap().to_owned();
    assert!(!via.contains(&seed[..16]), "{via}");
}
