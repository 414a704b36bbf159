//! Session timers (RFC 4028) in both roles.

use signaling::{EndCause, HeaderName, Method, SessionTimer, is_too_short};

use crate::link::{A, B, Link, OFFER, QUIET, request, sdp};

fn timer(interval: u32, min: u32) -> SessionTimer {
    SessionTimer { interval, min }
}

/// Both sides are ours; B answers after a second.
fn call(a: SessionTimer, b: SessionTimer) -> Link {
    let mut link = Link::timed(a, b);
    link.tell(1.0, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link
}

#[test]
fn the_called_side_refreshes_by_update() {
    let mut link = call(timer(90, 90), QUIET);
    link.tell(200.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn a_called_side_that_wants_a_timer_gets_one() {
    let mut link = call(QUIET, timer(100, 90));
    link.tell(120.0, A, |a, now| assert!(a.hang_up(None, now)));
    insta::assert_snapshot!(link.finish());
}

#[test]
fn no_refresh_ends_the_call_before_its_time_is_over() {
    let mut link = call(timer(90, 90), QUIET);
    link.lose(|_, message| message.cseq().method == Method::Update);
    let ladder = link.finish();
    // The refresher finds the peer silent, and the other side hears of no refresh.
    assert_eq!(link.ended(B).cause, EndCause::SessionExpired);
    insta::assert_snapshot!(ladder);
}

#[test]
fn the_side_that_does_not_refresh_ends_the_call_too() {
    let mut link = Link::timed_alone(timer(90, 90));
    link.run(0.02);
    let invite = link.last(Method::Invite);
    assert_eq!(invite.header(HeaderName::SessionExpires), Some("90"));
    assert!(invite.lists(HeaderName::Supported, "timer") && invite.lists(HeaderName::Supported, "100rel"));
    link.respond(B, Method::Invite, 200, "b", &[("Session-Expires", "90;refresher=uas")], "v=0 answer");
    // min(32, 90 / 3) seconds before the end.
    link.run(59.9);
    assert!(!link.heard().iter().any(|m| m.starts_with("BYE")));
    link.run(60.2);
    assert_eq!(
        link.last(Method::Bye).header(HeaderName::Reason),
        Some("SIP;cause=408;text=\"session expired\"")
    );
    assert_eq!(link.ended(A).cause, EndCause::SessionExpired);
}

#[test]
fn a_peer_without_update_is_refreshed_by_reinvite() {
    let mut link = Link::timed_alone(timer(90, 90));
    link.run(0.02);
    let headers = [("Session-Expires", "90;refresher=uac"), ("Contact", "<sip:b@198.51.100.2>")];
    link.respond(B, Method::Invite, 200, "b", &headers, "v=0 answer");
    link.run(44.0);
    assert_eq!(link.heard(), ["INVITE (1) +sdp", "ACK (1)"]);
    link.run(45.1);
    let refresh = link.last(Method::Invite);
    assert_eq!((refresh.cseq().number, &refresh.body()[..]), (2, &b"v=0 offer"[..]));
    assert_eq!(refresh.header(HeaderName::SessionExpires), Some("90;refresher=uac"));
    // A refusal that is not the end of the call: another one follows.
    link.respond(B, Method::Invite, 488, "b", &[], "");
    link.run(56.0);
    assert_eq!(link.last(Method::Invite).cseq().number, 3);
    link.respond(B, Method::Invite, 200, "b", &headers, "v=0 answer");
    link.run(100.0);
    assert_eq!(link.last(Method::Ack).cseq().number, 3);
    link.respond(B, Method::Invite, 481, "b", &[], "");
    link.run(101.0);
    assert!(!link.a.as_ref().unwrap().is_over(), "an answer to an old INVITE");
    link.run(101.2);
    assert_eq!(link.last(Method::Invite).cseq().number, 4);
    link.respond(B, Method::Invite, 481, "b", &[], "");
    link.run(102.0);
    assert_eq!(link.ended(A).cause, EndCause::SessionExpired);
}

#[test]
fn a_peer_that_refuses_update_is_refreshed_by_reinvite() {
    let mut link = Link::timed_alone(timer(90, 90));
    link.run(0.02);
    let headers = [("Session-Expires", "90;refresher=uac"), ("Allow", "INVITE, UPDATE")];
    link.respond(B, Method::Invite, 200, "b", &headers, "v=0 answer");
    link.run(45.1);
    assert_eq!(link.heard().last().unwrap(), "UPDATE (2)");
    link.respond(B, Method::Update, 405, "b", &[], "");
    link.run(45.2);
    assert_eq!(link.heard().last().unwrap(), "INVITE (3) +sdp");
}

#[test]
fn a_422_is_honoured_and_not_for_ever() {
    let mut link = Link::timed_alone(timer(1_800, 90));
    for (cseq, min) in [(1, "3600"), (2, "7200")] {
        link.run(link.elapsed() + 0.03);
        assert_eq!(link.last(Method::Invite).cseq().number, cseq);
        link.respond(B, Method::Invite, 422, "b", &[("Min-SE", min)], "");
    }
    link.run(link.elapsed() + 0.03);
    let invite = link.last(Method::Invite);
    assert_eq!(invite.header(HeaderName::SessionExpires), Some("7200"));
    assert_eq!(invite.header(HeaderName::MinSe), Some("7200"));
    // No longer one than it has: the call is refused.
    link.respond(B, Method::Invite, 422, "b", &[("Min-SE", "7200")], "");
    link.run(link.elapsed() + 0.03);
    assert_eq!(link.ended(A).cause, EndCause::RefusedByPeer);
}

#[test]
fn a_422_to_a_refresh_raises_it() {
    let mut link = Link::timed_alone(timer(90, 90));
    link.run(0.02);
    let headers = [("Session-Expires", "90;refresher=uac"), ("Allow", "UPDATE")];
    link.respond(B, Method::Invite, 200, "b", &headers, "v=0 answer");
    link.run(45.1);
    link.respond(B, Method::Update, 422, "b", &[("Min-SE", "120")], "");
    link.run(45.3);
    let update = link.last(Method::Update);
    assert_eq!(update.header(HeaderName::SessionExpires), Some("120;refresher=uac"));
    link.respond(B, Method::Update, 200, "b", &[("Session-Expires", "120;refresher=uac")], "");
    link.run(104.0);
    assert_eq!(link.last(Method::Update).cseq().number, update.cseq().number);
    link.run(106.0);
    assert_eq!(link.last(Method::Update).cseq().number, update.cseq().number + 1);
}

#[test]
fn what_an_invite_asks_for_is_agreed_to() {
    let asked = |headers: &str| {
        let mut link = Link::called(&request("INVITE", 1, "1", "", &format!("{headers}{OFFER}")));
        link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
        link.run(0.2);
        let answer = link.inbox.last().unwrap();
        let value = |name| answer.header(name).map(str::to_owned);
        (value(HeaderName::SessionExpires), value(HeaderName::Require))
    };
    let timer = || Some("timer".to_owned());
    assert_eq!(asked(""), (None, None));
    assert_eq!(asked("Supported: timer\n"), (None, None));
    assert_eq!(
        asked("Supported: timer\nSession-Expires: 600\n"),
        (Some("600;refresher=uas".to_owned()), timer())
    );
    assert_eq!(asked("k: timer\nx: 600;refresher=uac\n"), (Some("600;refresher=uac".to_owned()), timer()));
    // A proxy's wish: the caller knows of no timer, so we refresh.
    assert_eq!(asked("Session-Expires: 600;refresher=uac\n"), (Some("600;refresher=uas".to_owned()), None));
    assert_eq!(
        asked("Supported: timer\nSession-Expires: 600\nMin-SE: 900\n"),
        (Some("900;refresher=uas".to_owned()), timer())
    );
}

#[test]
fn too_short_an_interval_is_422() {
    let invite = |headers: &str| {
        let text = request("INVITE", 1, "1", "", &format!("{headers}{OFFER}")).replace('\n', "\r\n");
        match signaling::Message::parse(bytes::Bytes::from(text)).unwrap() {
            signaling::Message::Request(request) => is_too_short(&request, 90),
            signaling::Message::Response(_) => panic!(),
        }
    };
    assert!(invite("Supported: timer\nSession-Expires: 89\n"));
    assert!(!invite("Supported: timer\nSession-Expires: 90\n"));
    assert!(!invite("Session-Expires: 5\n"), "a caller without timer does not understand 422");
    // Inside the dialog the session says it itself.
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    link.run(0.3);
    link.say(A, &request("UPDATE", 2, "u", &tag, "Supported: timer\nSession-Expires: 30\n\n"));
    link.run(0.4);
    assert_eq!(link.heard().last().unwrap(), "422 UPDATE (2)");
    assert_eq!(link.inbox.last().unwrap().header(HeaderName::MinSe), Some("90"));
}

#[test]
fn a_request_that_says_nothing_of_timers_leaves_the_one_in_force() {
    let headers = "Supported: timer\nSession-Expires: 90;refresher=uac\n";
    let mut link = Link::called(&request("INVITE", 1, "1", "", &format!("{headers}{OFFER}")));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 1, "2", &tag, "");
    link.at(0.2, move |l| l.say(A, &ack));
    link.run(20.0);
    link.say(A, &request("INVITE", 2, "r", &tag, OFFER));
    link.tell(20.1, B, |b, now| assert!(b.answer_offer(sdp("v=0 answer"), now)));
    let ack = request("ACK", 2, "s", &tag, "");
    link.at(20.2, move |l| l.say(A, &ack));
    link.run(20.3);
    // It refreshed the session, and refreshing is ours from now on.
    assert_eq!(link.inbox.last().unwrap().header(HeaderName::SessionExpires), Some("90;refresher=uas"));
    link.run(65.2);
    assert_eq!(link.last(Method::Invite).header(HeaderName::SessionExpires), Some("90;refresher=uac"));
}
