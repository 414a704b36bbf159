//! What is left of a call that is over answers as the session did.

use std::time::Duration;

use bytes::Bytes;
use signaling::{Departed, Message, Request, Session, Transport};

use crate::in_dialog::{Call, established};
use crate::link::{A, B, Link, OFFER, hop, request, title};

/// A call to B that the caller has hung up; the BYE had sequence number 2 and branch 3.
fn hung_up() -> (Link, String) {
    let Call { mut link, tag } = established();
    link.say(A, &request("BYE", 2, "3", &tag, ""));
    link.run(0.4);
    assert_eq!(link.inbox.last().map(title).unwrap(), "200 BYE (2)");
    link.inbox.clear();
    (link, tag)
}

fn departed(link: &mut Link) -> Departed {
    let mut session = link.b.take().unwrap();
    while session.poll_event().is_some() {}
    Box::new(session).depart().unwrap_or_else(|_| panic!("something is still to be done"))
}

fn asked(text: &str) -> Request {
    match Message::parse(Bytes::from(text.replace('\n', "\r\n"))) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn repetitions_and_latecomers_are_answered_as_by_the_session() {
    let (mut link, tag) = hung_up();
    let now = link.now;
    let left = departed(&mut link);
    let (mut other, same_tag) = hung_up();
    assert_eq!(tag, same_tag);
    let session: &mut Session = other.b.as_mut().unwrap();
    let from = hop(A, Transport::Udp);
    for (method, cseq, branch, to, rest) in [
        ("BYE", 2, "3", tag.as_str(), ""),
        ("INVITE", 1, "1", "", OFFER),
        ("ACK", 1, "2", &tag, ""),
        ("ACK", 1, "1", &tag, ""),
        ("CANCEL", 1, "1", "", ""),
        ("CANCEL", 1, "none", "", ""),
        ("INVITE", 1, "by-another-path", "", OFFER),
        ("INVITE", 2, "once-more", "", OFFER),
        ("INVITE", 3, "again", &tag, OFFER),
        ("INFO", 4, "late", &tag, ""),
        ("OPTIONS", 4, "late", &tag, ""),
        ("INFO", 4, "late", "of-another", ""),
        ("UPDATE", 5, "u", "", ""),
    ] {
        let request = asked(&request(method, cseq, branch, to, rest));
        let answer = left.answer(&request, from);
        session.handle_message(Message::Request(request), from, now);
        let wanted = session.poll_transmit();
        let line = |sent: &signaling::Transmit| {
            let text = String::from_utf8_lossy(&sent.bytes).into_owned();
            let lines = text.split("\r\n").filter(|line| !line.starts_with("Retry-After"));
            (sent.hop, lines.map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(answer.as_ref().map(line), wanted.as_ref().map(line), "{method} {cseq} {branch}");
    }
    assert_eq!(left.until(), now - Duration::from_millis(90) + Duration::from_secs(32));
}

#[test]
fn a_session_that_waits_for_something_stays() {
    // For an answer to its BYE.
    let mut link = established().link;
    let mut session = Box::new(link.b.take().unwrap());
    while session.poll_event().is_some() {}
    // For its end.
    session = session.depart().expect_err("the call goes on");
    assert!(session.hang_up(None, link.now));
    while session.poll_event().is_some() {}
    session = session.depart().expect_err("the BYE is not sent");
    let bye = session.poll_transmit().unwrap();
    session = session.depart().expect_err("the BYE is not answered");
    let sent = String::from_utf8_lossy(&bye.bytes).into_owned();
    let head = |name: &str| sent.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].map(head);
    let ok = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", names.join("\r\n"));
    session.handle_message(Message::parse(Bytes::from(ok)).unwrap(), bye.hop, link.now);
    assert!(session.depart().is_ok());
    // For the ACK of a refusal.
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    link.tell(0.1, B, |b, now| assert!(b.refuse(signaling::Refusal::new(signaling::StatusCode(486)), now)));
    link.run(0.2);
    let mut session = Box::new(link.b.take().unwrap());
    while session.poll_event().is_some() {}
    assert!(session.depart().is_err());
}
