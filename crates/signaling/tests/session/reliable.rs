//! Reliable provisional responses (RFC 3262), and offers before the answer (RFC 3311).

use signaling::{EndCause, Event, HeaderName, Method, StatusCode};

use crate::link::{A, B, Link, OFFER, invite, request, sdp};

const REQUIRED: &str = "Require: 100rel\nAllow: INVITE, UPDATE, PRACK\n";

fn called(headers: &str, body: &str) -> (Link, String) {
    let link = Link::called(&request("INVITE", 1, "1", "", &format!("{headers}{body}")));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    (link, tag)
}

fn rseq(link: &Link) -> u32 {
    link.inbox.last().unwrap().header(HeaderName::RSeq).unwrap().parse().unwrap()
}

fn prack(tag: &str, cseq: u32, rseq: u32, rest: &str) -> String {
    request("PRACK", cseq, &format!("p{cseq}"), tag, &format!("RAck: {rseq} 1 INVITE\n{rest}"))
}

#[test]
fn a_call_with_early_media_as_a_ladder() {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    link.tell(0.5, B, |b, now| assert!(b.offer(sdp("v=0 moved"), now)));
    link.tell(0.6, A, |a, now| assert!(a.answer_offer(sdp("v=0 taken"), now)));
    link.tell(1.0, A, |a, now| assert!(a.offer(sdp("v=0 ours"), now)));
    link.tell(1.1, B, |b, now| assert!(b.answer_offer(sdp("v=0 theirs"), now)));
    link.tell(2.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.tell(5.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_lost_prack_and_a_lost_183() {
    let mut link = Link::call();
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    // Asked for before the PRACK came, and sent after it (RFC 3262 3).
    link.tell(0.2, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let mut lost = std::collections::HashSet::new();
    link.lose(move |_, message| {
        let method = message.cseq().method;
        let is_183 = method == Method::Invite && message.header(HeaderName::RSeq).is_some();
        (is_183 && lost.insert("183")) || (method == Method::Prack && lost.insert("PRACK"))
    });
    link.tell(9.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn where_it_is_required_ringing_is_reliable() {
    let (mut link, tag) = called(REQUIRED, OFFER);
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.run(0.2);
    assert_eq!(link.heard(), ["180 INVITE (1)"]);
    let number = rseq(&link);
    link.say(A, &prack(&tag, 2, number + 1, "\n"));
    link.say(A, &prack(&tag, 3, number, "\n"));
    link.say(A, &prack(&tag, 4, number, "\n"));
    link.run(0.3);
    assert_eq!(link.heard()[1..], ["481 PRACK (2)", "200 PRACK (3)", "481 PRACK (4)"]);
    // The offer has no answer yet: none may follow (RFC 3311 5.2).
    link.say(A, &request("UPDATE", 5, "u", &tag, OFFER));
    link.tell(0.4, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.run(0.5);
    assert_eq!(link.heard()[4..], ["500 UPDATE (5)", "200 INVITE (1) +sdp"]);
}

#[test]
fn ringing_waits_for_the_one_before() {
    let (mut link, tag) = called(REQUIRED, OFFER);
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    link.tell(0.2, B, |b, now| assert!(b.ring(now)));
    link.run(0.3);
    assert_eq!(link.heard(), ["183 INVITE (1) +sdp"]);
    let number = rseq(&link);
    link.say(A, &prack(&tag, 2, number, "\n"));
    link.run(0.4);
    assert_eq!(link.heard()[1..], ["200 PRACK (2)", "180 INVITE (1)"]);
    assert_eq!(rseq(&link), number + 1);
}

#[test]
fn without_prack_the_invite_is_refused() {
    let (mut link, _) = called(REQUIRED, OFFER);
    link.tell(0.1, B, |b, now| assert!(b.ring(now)));
    link.run(40.0);
    assert_eq!(link.heard().iter().filter(|m| m.starts_with("180")).count(), 7);
    assert_eq!(link.ended(B).cause, EndCause::NoPrack);
    assert_eq!(link.ended(B).status, Some(StatusCode(504)));
}

#[test]
fn an_invite_without_offer_gets_one_reliably_and_its_answer_in_prack() {
    let (mut link, tag) = called(REQUIRED, "\n");
    let now = link.now;
    assert!(!link.b.as_mut().unwrap().ring(now), "a first reliable response without offer");
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 our offer"), now)));
    link.run(0.2);
    let number = rseq(&link);
    link.say(A, &prack(&tag, 2, number, "Content-Type: application/sdp\n\nv=0 answer"));
    link.run(0.3);
    assert_eq!(link.of(B), [&Event::Confirmed { sdp: Some(sdp("v=0 answer")) }]);
    link.tell(0.4, B, |b, now| assert!(b.answer(sdp("v=0"), now)));
    link.run(0.5);
    assert_eq!(link.heard()[1..], ["200 PRACK (2)", "200 INVITE (1)"]);
}

#[test]
fn an_offer_in_prack_is_answered_in_its_200() {
    let (mut link, tag) = called(REQUIRED, OFFER);
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    link.run(0.2);
    let number = rseq(&link);
    link.say(A, &prack(&tag, 2, number, "Content-Type: application/sdp\n\nv=0 next"));
    link.run(0.3);
    assert_eq!(link.of(B), [&Event::Offer { sdp: Some(sdp("v=0 next")) }]);
    link.tell(0.4, B, |b, now| assert!(b.answer_offer(sdp("v=0 taken"), now)));
    link.run(0.5);
    assert_eq!(link.heard()[1..], ["200 PRACK (2) +sdp"]);
}

#[test]
fn only_the_next_response_in_order_is_acknowledged() {
    let mut link = Link::caller(invite());
    link.run(0.02);
    for number in ["7", "7", "9", "8"] {
        let headers = [("Require", "100rel"), ("RSeq", number)];
        link.respond(B, Method::Invite, 183, "b", &headers, "v=0 early");
        link.run(link.elapsed() + 0.03);
    }
    let acknowledged: Vec<String> = link
        .inbox
        .iter()
        .filter(|m| m.cseq().method == Method::Prack)
        .map(|m| m.header(HeaderName::RAck).unwrap().to_owned())
        .collect();
    assert_eq!(acknowledged, ["7 1 INVITE", "8 1 INVITE"]);
    assert_eq!(link.of(A).len(), 2, "a repetition tells nothing new");
    // Another fork counts its own.
    link.respond(B, Method::Invite, 183, "c", &[("Require", "100rel"), ("RSeq", "1")], "");
    link.run(link.elapsed() + 0.03);
    assert_eq!(link.last(Method::Prack).header(HeaderName::RAck), Some("1 1 INVITE"));
    assert_eq!(link.last(Method::Prack).to_tag(), Some("c"));
}

#[test]
fn another_invite_before_the_answer_is_refused_even_where_the_first_is_settled() {
    let (mut link, tag) = called(REQUIRED, OFFER);
    link.tell(0.1, B, |b, now| assert!(b.progress(sdp("v=0 early"), now)));
    link.run(0.2);
    let number = rseq(&link);
    link.say(A, &prack(&tag, 2, number, "\n"));
    link.run(0.3);
    link.say(A, &request("INVITE", 3, "3", &tag, OFFER));
    link.run(0.4);
    // RFC 3261 14.2
    assert_eq!(link.heard().last().unwrap(), "500 INVITE (3)");
    assert!(link.inbox.last().unwrap().header(HeaderName::RetryAfter).is_some());
}
