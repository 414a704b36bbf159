//! REFER (RFC 3515), from us and to us.

use signaling::{Event, HeaderName, Invite, Method, Referral, Refusal, StatusCode};

use crate::link::{A, B, Link, OFFER, account, invite, request, sdp};

fn established() -> Link {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.run(0.2);
    link
}

#[test]
fn a_transfer_followed_to_its_end_as_a_ladder() {
    let mut link = established();
    link.tell(1.0, A, |a, now| assert!(a.refer("sip:+14155550199@198.51.100.2", now)));
    link.tell(1.1, B, |b, now| assert!(b.accept_refer(now)));
    link.tell(2.0, B, |b, now| assert!(b.notify_refer(StatusCode(180), now)));
    link.tell(3.0, B, |b, now| assert!(b.notify_refer(StatusCode(200), now)));
    link.tell(3.5, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_refused_one() {
    let mut link = established();
    link.tell(1.0, A, |a, now| assert!(a.refer("sip:x@h", now)));
    link.tell(1.1, B, |b, now| {
        assert!(b.refuse_refer(&Refusal::new(StatusCode(603)), now));
        assert!(!b.accept_refer(now) && !b.notify_refer(StatusCode(200), now));
    });
    link.run(2.0);
    assert_eq!(link.of(A).last(), Some(&&Event::Referral(Referral::Refused(StatusCode(603)))));
    // And one that gets no answer at all.
    link.lose(|_, message| message.cseq().method == Method::Refer);
    link.tell(3.0, A, |a, now| assert!(a.refer("sip:x@h", now) && !a.refer("sip:y@h", now)));
    link.run(40.0);
    assert_eq!(link.of(A).last(), Some(&&Event::Referral(Referral::Refused(StatusCode(408)))));
    assert!(!link.a.as_ref().unwrap().is_over());
}

/// A asks; the test plays B.
fn asked(invite: Invite) -> Link {
    let mut link = Link::caller(invite);
    link.run(0.02);
    link.respond(B, Method::Invite, 200, "b", &[], "v=0 answer");
    link.tell(0.1, A, |a, now| assert!(a.refer("sip:x@h", now)));
    link.run(0.2);
    link
}

impl Link {
    fn notify(&mut self, cseq: u32, state: &str, fragment: &str) {
        let invite = self.last(Method::Invite);
        let (tag, call_id) = (invite.from_tag().unwrap().to_owned(), invite.call_id().to_owned());
        let rest = format!(
            "Event: refer\nSubscription-State: {state}\nContent-Type: message/sipfrag;version=2.0\n\n{fragment}\n"
        );
        let text = request("NOTIFY", cseq, &format!("n{cseq}"), &tag, &rest)
            .replace("tag=alice", "tag=b")
            .replace("Call-ID: scripted", &format!("Call-ID: {call_id}"));
        self.say(B, &text);
        self.run(self.elapsed() + 0.03);
    }
}

#[test]
fn the_target_is_named_and_the_outcome_told_once() {
    let mut link = asked(invite());
    let refer = link.last(Method::Refer);
    assert_eq!(refer.header(HeaderName::ReferTo), Some("<sip:x@h>"));
    assert_eq!(refer.header(HeaderName::ReferredBy), Some("<sip:alice@192.0.2.1>"));
    // A NOTIFY may overtake the 202.
    link.notify(1, "active;expires=60", "SIP/2.0 100 Trying");
    link.respond(B, Method::Refer, 202, "b", &[], "");
    link.run(0.3);
    link.notify(2, "active;expires=60", "SIP/2.0 180 Ringing");
    link.notify(3, "terminated;reason=noresource", "SIP/2.0 486 Busy Here");
    link.notify(4, "terminated", "SIP/2.0 200 OK");
    let told: Vec<_> = link.of(A).into_iter().filter(|e| matches!(e, Event::Referral(_))).cloned().collect();
    assert_eq!(
        told,
        [
            Event::Referral(Referral::Progress(StatusCode(100))),
            Event::Referral(Referral::Progress(StatusCode(180))),
            Event::Referral(Referral::Done(Some(StatusCode(486)))),
        ]
    );
    assert_eq!(link.heard().iter().filter(|m| m.starts_with("200 NOTIFY")).count(), 4);
}

#[test]
fn a_subscription_that_ends_without_a_word() {
    let mut link = asked(invite());
    link.respond(B, Method::Refer, 202, "b", &[], "");
    link.notify(1, "terminated;reason=timeout", "SIP/2.0 100 Trying");
    assert_eq!(link.of(A).last(), Some(&&Event::Referral(Referral::Done(None))));
}

#[test]
fn a_peer_that_notifies_of_nothing() {
    let mut link = asked(invite());
    link.respond(B, Method::Refer, 202, "b", &[("Refer-Sub", "false")], "");
    link.run(0.3);
    assert_eq!(link.of(A).last(), Some(&&Event::Referral(Referral::Accepted { followed: false })));
}

#[test]
fn a_late_notify_finds_somebody() {
    let mut link = asked(invite());
    link.respond(B, Method::Refer, 202, "b", &[], "");
    link.tell(0.3, A, |a, now| assert!(a.hang_up(None, now)));
    link.run(0.4);
    let before = link.of(A).len();
    link.notify(1, "terminated", "SIP/2.0 200 OK");
    assert_eq!(link.heard().last().unwrap(), "200 NOTIFY (1)");
    assert_eq!(link.of(A).len(), before);
}

#[test]
fn a_challenged_refer_is_asked_again() {
    let mut link = asked(Invite { credentials: Some(account()), ..invite() });
    let value = "Digest realm=\"carrier\", nonce=\"n\", qop=\"auth\"";
    link.respond(B, Method::Refer, 407, "b", &[("Proxy-Authenticate", value)], "");
    link.run(0.3);
    let again = link.last(Method::Refer);
    assert_eq!(again.cseq().number, 3);
    assert!(again.header(HeaderName::ProxyAuthorization).is_some());
    assert_eq!(again.header(HeaderName::ReferTo), Some("<sip:x@h>"));
}

#[test]
fn a_call_that_others_began_answers_no_challenge() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    link.tell(0.3, B, |b, now| assert!(b.refer("sip:x@h", now)));
    link.run(0.4);
    let value = "Digest realm=\"carrier\", nonce=\"n\", qop=\"auth\"";
    link.respond(A, Method::Refer, 401, "", &[("WWW-Authenticate", value)], "");
    link.run(0.5);
    assert_eq!(link.heard().iter().filter(|m| m.starts_with("REFER")).count(), 1);
    assert_eq!(link.of(B).last(), Some(&&Event::Referral(Referral::Refused(StatusCode(401)))));
}

#[test]
fn one_at_a_time_and_only_with_one_target() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.say(A, &request("REFER", 2, "r2", &tag, "Refer-To: <sip:x@h>\n\n"));
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    link.run(0.3);
    link.inbox.clear();
    for (cseq, rest) in [
        (3, "\n"),
        (4, "Refer-To: <sip:x@h>\nRefer-To: <sip:y@h>\n\n"),
        (5, "Refer-To: <sip:x@h?Route=y>\nRefer-Sub: false\n\n"),
        (6, "r: sip:z@h\n\n"),
    ] {
        link.say(A, &request("REFER", cseq, &format!("r{cseq}"), &tag, rest));
    }
    link.run(0.4);
    assert_eq!(link.heard(), ["400 REFER (3)", "400 REFER (4)", "500 REFER (6)"]);
    assert_eq!(link.of(B).last(), Some(&&Event::Refer { target: "sip:x@h?Route=y".to_owned() }));
    link.inbox.clear();
    // Without subscription (RFC 4488) nothing is told.
    link.tell(0.5, B, |b, now| assert!(b.accept_refer(now) && b.notify_refer(StatusCode(200), now)));
    link.run(0.6);
    assert_eq!(link.heard(), ["202 REFER (5)"]);
    assert_eq!(link.inbox[0].header(HeaderName::ReferSub), Some("false"));
    link.say(A, &request("BYE", 7, "b7", &tag, ""));
    link.run(0.7);
    assert_eq!(link.heard().last().unwrap(), "200 BYE (7)");
}
