//! Requests inside a dialog, against a caller that the test plays.

use signaling::{Event, HeaderName, Message, Method, Refusal, StatusCode};

use crate::link::{A, B, Link, OFFER, request, sdp, title};

/// A call to B, answered and acknowledged; the sequence number 1 and the branches 1 and 2 are used.
pub(crate) struct Call {
    pub(crate) link: Link,
    pub(crate) tag: String,
}

pub(crate) fn established() -> Call {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.run(0.2);
    link.say(A, &request("ACK", 1, "2", &tag, ""));
    link.run(0.3);
    link.inbox.clear();
    link.events.clear();
    Call { link, tag }
}

impl Call {
    fn say(&mut self, text: &str) -> Vec<String> {
        let before = self.link.inbox.len();
        self.link.say(A, text);
        self.link.run(self.link.elapsed() + 0.03);
        self.link.inbox.iter().skip(before).map(title).collect()
    }

    fn ask(&mut self, method: &str, cseq: u32, branch: &str, rest: &str) -> String {
        let text = request(method, cseq, branch, &self.tag, rest);
        self.say(&text).join(" | ")
    }

    fn b(&mut self, act: impl FnOnce(&mut signaling::Session, std::time::Instant) -> bool) -> Vec<String> {
        let (before, now) = (self.link.inbox.len(), self.link.now);
        assert!(act(self.link.b.as_mut().unwrap(), now));
        self.link.run(self.link.elapsed() + 0.03);
        self.link.inbox.iter().skip(before).map(title).collect()
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.link.inbox.last().and_then(|message| message.header(name))
    }
}

#[test]
fn each_method_gets_its_answer() {
    let mut call = established();
    assert_eq!(call.ask("INFO", 2, "i", "Content-Type: application/dtmf-relay\n\nSignal=5"), "200 INFO (2)");
    assert_eq!(call.ask("OPTIONS", 3, "o", ""), "200 OPTIONS (3)");
    let allow = call.header(HeaderName::Allow).unwrap().to_owned();
    assert!(allow.contains("UPDATE") && allow.contains("REFER"), "{allow}");
    assert_eq!(call.ask("PRACK", 4, "p", "RAck: 1 1 INVITE\n\n"), "481 PRACK (4)");
    assert_eq!(call.ask("NOTIFY", 5, "n", "Event: refer\n\n"), "481 NOTIFY (5)");
    let pressed = "Content-Type: application/dtmf\n\n7";
    assert_eq!(call.ask("MESSAGE", 6, "m", pressed), "200 MESSAGE (6)");
    assert_eq!(call.ask("CHAT", 7, "c", ""), "405  (7)");
    assert_eq!(call.header(HeaderName::Allow), Some(allow.as_str()));
    assert_eq!(call.ask("UPDATE", 8, "u", "Require: timer, gruu, 100rel\n\n"), "420 UPDATE (8)");
    assert_eq!(call.header(HeaderName::Unsupported), Some("gruu"));
    let infos = call.link.of(B);
    let [Event::Info { content_type, body }, Event::Info { body: message, .. }] = infos[..] else {
        panic!("{infos:?}")
    };
    assert_eq!((content_type.as_str(), &body[..]), ("application/dtmf-relay", &b"Signal=5"[..]));
    assert_eq!(&message[..], b"7");
}

#[test]
fn out_of_order_is_500_and_a_repetition_gets_the_same_answer() {
    let mut call = established();
    assert_eq!(call.ask("INFO", 10, "i", ""), "200 INFO (10)");
    assert_eq!(call.ask("INFO", 9, "j", ""), "500 INFO (9)");
    assert_eq!(call.ask("INFO", 10, "i", ""), "200 INFO (10)");
    assert_eq!(call.ask("INFO", 10, "k", ""), "500 INFO (10)");
    assert_eq!(call.ask("INFO", 11, "l", ""), "200 INFO (11)");
    assert_eq!(call.link.of(B).len(), 2);
}

#[test]
fn wrong_tags_are_481_and_end_nothing() {
    let mut call = established();
    let tag = call.tag.clone();
    let bye = request("BYE", 2, "w", "wrong", "");
    assert_eq!(call.say(&bye), ["481 BYE (2)"]);
    let other = request("BYE", 2, "x", &tag, "").replace("tag=alice", "tag=mallory");
    assert_eq!(call.say(&other), ["481 BYE (2)"]);
    let none = request("BYE", 2, "y", &tag, "").replace(";tag=alice", "");
    // Without a From tag it is no request that the parser lets through, or one of no dialog of ours.
    if Message::parse(bytes::Bytes::from(none.replace('\n', "\r\n"))).is_ok() {
        assert_eq!(call.say(&none), ["481 BYE (2)"]);
    }
    assert_eq!(call.say(&request("CANCEL", 9, "z", "", "")), ["481 CANCEL (9)"]);
    assert_eq!(call.say(&request("INFO", 9, "z2", "", "")), ["481 INFO (9)"]);
    assert!(call.link.events.is_empty());
}

#[test]
fn an_ack_of_a_stranger_confirms_nothing() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.run(0.2);
    link.say(A, &request("ACK", 1, "2", &tag, "").replace("tag=alice", "tag=mallory"));
    link.say(A, &request("ACK", 1, "2", "wrong", ""));
    link.say(A, &request("ACK", 7, "2", &tag, ""));
    link.run(0.3);
    assert!(link.events.is_empty());
    link.say(A, &request("ACK", 1, "2", &tag, ""));
    link.run(0.4);
    assert_eq!(link.of(B), [&Event::Confirmed { sdp: None }]);
}

#[test]
fn the_same_invite_by_another_path_is_482() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.say(A, &request("INVITE", 1, "other", "", OFFER));
    link.say(A, &request("INVITE", 2, "next", "", OFFER));
    link.run(0.1);
    assert_eq!(link.heard(), ["482 INVITE (1)", "500 INVITE (2)"]);
    assert!(!link.b.as_ref().unwrap().is_over());
}

#[test]
fn cancel_after_the_answer_has_no_effect() {
    let mut call = established();
    assert_eq!(call.say(&request("CANCEL", 1, "1", "", "")), ["200 CANCEL (1)"]);
    assert!(call.link.events.is_empty() && !call.link.b.as_ref().unwrap().is_over());
}

#[test]
fn a_reinvite_is_answered_refused_and_confirmed() {
    let mut call = established();
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "");
    assert_eq!(call.link.of(B), [&Event::Offer { sdp: Some(sdp("v=0 offer")) }]);
    // Another one while it waits, and an UPDATE with an offer (RFC 3261 14.2, RFC 3311 5.2).
    assert_eq!(call.ask("INVITE", 3, "s", OFFER), "500 INVITE (3)");
    assert!(call.header(HeaderName::RetryAfter).unwrap().parse::<u8>().unwrap() <= 10);
    assert_eq!(call.ask("ACK", 3, "s", ""), "");
    assert_eq!(call.ask("UPDATE", 4, "u", OFFER), "500 UPDATE (4)");
    assert_eq!(call.ask("UPDATE", 5, "v", ""), "200 UPDATE (5)");
    assert_eq!(call.b(|b, now| b.answer_offer(sdp("v=0 new"), now)), ["200 INVITE (2) +sdp"]);
    assert!(!call.link.b.as_mut().unwrap().answer_offer(sdp("v=0 new"), call.link.now));
    assert_eq!(call.ask("ACK", 2, "t", ""), "");
    assert_eq!(call.link.of(B).last(), Some(&&Event::Confirmed { sdp: None }));
    assert_eq!(call.ask("INVITE", 6, "w", ""), "");
    assert_eq!(call.link.of(B).last(), Some(&&Event::Offer { sdp: None }));
    let refusal = Refusal::new(StatusCode(488));
    assert_eq!(call.b(|b, now| b.refuse_offer(refusal, now)), ["488 INVITE (6)"]);
    assert_eq!(call.ask("ACK", 6, "w", ""), "");
    assert!(!call.link.b.as_ref().unwrap().is_over());
}

#[test]
fn the_first_invite_is_no_offer_to_answer() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let now = link.now;
    let b = link.b.as_mut().unwrap();
    assert!(!b.answer_offer(sdp("v=0"), now) && !b.refuse_offer(Refusal::new(StatusCode(488)), now));
    assert!(!b.offer(sdp("v=0"), now));
    assert!(b.answer(sdp("v=0 answer"), now));
    assert!(!b.answer(sdp("v=0 answer"), now) && !b.ring(now) && !b.progress(sdp("v=0"), now));
    assert!(!b.refuse(Refusal::new(StatusCode(486)), now));
}

#[test]
fn a_reinvite_does_not_ring() {
    let mut call = established();
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "");
    let now = call.link.now;
    assert!(!call.link.b.as_mut().unwrap().ring(now));
}

#[test]
fn a_cancelled_reinvite_leaves_the_call() {
    let mut call = established();
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "");
    assert_eq!(call.say(&request("CANCEL", 2, "r", "", "")), ["200 CANCEL (2)", "487 INVITE (2)"]);
    assert_eq!(call.ask("ACK", 2, "r", ""), "");
    assert!(!call.link.b.as_ref().unwrap().is_over());
    assert_eq!(call.ask("INVITE", 3, "s", OFFER), "");
    assert_eq!(call.link.of(B).len(), 2);
}

#[test]
fn an_update_waits_for_its_answer() {
    let mut call = established();
    assert_eq!(call.ask("UPDATE", 2, "u", OFFER), "");
    // Its repetition is absorbed, not out of order.
    assert_eq!(call.ask("UPDATE", 2, "u", OFFER), "");
    assert_eq!(call.link.of(B).len(), 1);
    assert_eq!(call.b(|b, now| b.answer_offer(sdp("v=0 new"), now)), ["200 UPDATE (2) +sdp"]);
    assert_eq!(call.ask("UPDATE", 2, "u", OFFER), "200 UPDATE (2) +sdp");
    assert_eq!(call.ask("UPDATE", 3, "w", OFFER), "");
    let refusal = Refusal::new(StatusCode(488));
    assert_eq!(call.b(|b, now| b.refuse_offer(refusal, now)), ["488 UPDATE (3)"]);
    // What waits when the call ends gets 487.
    assert_eq!(call.ask("UPDATE", 4, "x", OFFER), "");
    assert_eq!(call.ask("BYE", 5, "y", ""), "200 BYE (5) | 487 UPDATE (4)");
}

#[test]
fn a_bye_ends_the_reinvite_that_waits() {
    let mut call = established();
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "");
    assert_eq!(call.ask("BYE", 3, "y", ""), "200 BYE (3) | 487 INVITE (2)");
    assert_eq!(call.ask("ACK", 2, "r", ""), "");
    call.link.run(100.0);
    assert!(call.link.b.is_none());
}

#[test]
fn glare_with_an_offer_of_ours() {
    let mut call = established();
    assert_eq!(call.b(|b, now| b.offer(sdp("v=0 ours"), now)), ["INVITE (1) +sdp"]);
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "491 INVITE (2)");
    assert_eq!(call.ask("UPDATE", 3, "u", OFFER), "491 UPDATE (3)");
    // The refused re-INVITE again is a repetition, not out of order.
    assert_eq!(call.ask("INVITE", 2, "r", OFFER), "491 INVITE (2)");
    assert!(!call.link.b.as_mut().unwrap().offer(sdp("v=0"), call.link.now));
    call.link.respond(A, Method::Invite, 200, "", &[("Contact", "<sip:new@192.0.2.77>")], "v=0 theirs");
    call.link.run(call.link.elapsed() + 0.03);
    let answered = Event::Modified { status: StatusCode(200), sdp: Some(sdp("v=0 theirs")) };
    assert_eq!(call.link.of(B).last(), Some(&&answered));
    // The target is the new Contact (RFC 3261 12.2.1.2).
    assert_eq!(call.link.last(Method::Ack).uri(), "sip:new@192.0.2.77");
}

#[test]
fn an_offer_that_is_refused_leaves_the_call() {
    let mut call = established();
    call.b(|b, now| b.offer(sdp("v=0 ours"), now));
    call.link.respond(A, Method::Invite, 488, "", &[], "");
    call.link.run(1.0);
    let refused = Event::Modified { status: StatusCode(488), sdp: None };
    assert_eq!(call.link.of(B), [&refused]);
    assert!(!call.link.b.as_ref().unwrap().is_over());
}

#[test]
fn a_peer_that_knows_of_no_call_is_sent_bye() {
    for status in [408, 481] {
        let mut call = established();
        call.b(|b, now| b.offer(sdp("v=0 ours"), now));
        call.link.respond(A, Method::Invite, status, "", &[], "");
        call.link.run(1.0);
        assert_eq!(call.link.heard().last().unwrap(), "BYE (2)");
        assert_eq!(call.link.ended(B).status, Some(StatusCode(status)));
    }
}

#[test]
fn an_offer_without_any_answer_ends_the_call() {
    let mut call = established();
    call.b(|b, now| b.offer(sdp("v=0 ours"), now));
    call.link.run(200.0);
    assert_eq!(call.link.ended(B).status, Some(StatusCode(408)));
    assert!(call.link.b.is_none());
}

#[test]
fn a_reinvite_moves_the_target_and_the_way_back() {
    let mut call = established();
    let moved =
        request("INVITE", 2, "r", &call.tag, OFFER).replace("sip:A@192.0.2.1:5060", "sip:A@192.0.2.200:7000");
    call.say(&moved);
    let now = call.link.now;
    let b = call.link.b.as_mut().unwrap();
    assert!(b.answer_offer(sdp("v=0 new"), now));
    while b.poll_transmit().is_some() {}
    call.ask("ACK", 2, "t", "");
    let now = call.link.now;
    let b = call.link.b.as_mut().unwrap();
    assert!(b.hang_up(None, now));
    let bye = b.poll_transmit().unwrap();
    assert_eq!(bye.hop.remote.to_string(), "192.0.2.200:7000");
    assert!(bye.bytes.starts_with(b"BYE sip:A@192.0.2.200:7000 SIP/2.0"));
}

#[test]
fn a_peer_of_rfc_2543_without_branches_is_told_apart_by_its_numbers() {
    let plain = |text: String| {
        let (before, rest) = text.split_once(";branch=").unwrap();
        let (_, after) = rest.split_once(';').unwrap();
        format!("{before};{after}")
    };
    let mut call = established();
    let tag = call.tag.clone();
    for cseq in [2, 3] {
        let info = plain(request("INFO", cseq, "x", &tag, ""));
        assert_eq!(call.say(&info), [format!("200 INFO ({cseq})")]);
    }
    assert_eq!(call.link.of(B).len(), 2);
}
