//! A proxy that forks our INVITE (RFC 3261 13.2.2.4): one call is enough.

use signaling::{EndCause, Event, Message, Method, Request};

use crate::link::{A, B, Link, invite, title};

fn tags(link: &Link, method: Method) -> Vec<String> {
    let requests = link.inbox.iter().filter_map(|message| match message {
        Message::Request(request) if request.method() == method => Some(request),
        _ => None,
    });
    requests.map(|r: &Request| r.to_tag().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_first_2xx_wins_and_the_others_are_ended() {
    let mut link = Link::caller(invite());
    link.at(0.1, |l| l.respond(B, Method::Invite, 180, "one", &[], ""));
    link.at(0.2, |l| l.respond(B, Method::Invite, 180, "two", &[], ""));
    link.at(1.0, |l| l.respond(B, Method::Invite, 200, "two", &[], "v=0 answer"));
    link.at(1.2, |l| l.respond(B, Method::Invite, 200, "one", &[], "v=0 answer"));
    link.at(1.3, |l| l.respond(B, Method::Bye, 200, "one", &[], ""));
    // Both 2xx again: both ACKs again, no second BYE.
    link.at(1.7, |l| l.respond(B, Method::Invite, 200, "one", &[], "v=0 answer"));
    link.at(1.8, |l| l.respond(B, Method::Invite, 200, "two", &[], "v=0 answer"));
    link.tell(5.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.at(5.1, |l| l.respond(B, Method::Bye, 200, "two", &[], ""));
    let ladder = link.finish_a();
    assert_eq!(tags(&link, Method::Ack), ["two", "one", "one", "two"]);
    assert_eq!(tags(&link, Method::Bye), ["one", "two"]);
    let answered = link.of(A).into_iter().filter(|e| matches!(e, Event::Answered { .. })).count();
    assert_eq!((answered, link.ended(A).cause), (1, EndCause::ByeFromUs));
    insta::assert_snapshot!(ladder);
}

#[test]
fn a_fork_that_answers_after_the_call_is_ended_too() {
    let mut link = Link::caller(invite());
    link.at(0.1, |l| l.respond(B, Method::Invite, 200, "one", &[], "v=0 answer"));
    link.tell(1.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.at(1.1, |l| l.respond(B, Method::Bye, 200, "one", &[], ""));
    link.at(20.0, |l| l.respond(B, Method::Invite, 200, "two", &[], "v=0 answer"));
    link.at(20.1, |l| l.respond(B, Method::Bye, 200, "two", &[], ""));
    link.finish_a();
    assert_eq!(tags(&link, Method::Bye), ["one", "two"]);
    assert_eq!(tags(&link, Method::Ack), ["one", "two"]);
}

#[test]
fn only_so_many_forks_are_taken() {
    let mut link = Link::caller(invite());
    for fork in 0..40 {
        link.at(0.1 + f64::from(fork) * 0.01, move |l| {
            l.respond(B, Method::Invite, 200, &format!("t{fork}"), &[], "v=0 answer");
        });
    }
    link.run(0.6);
    assert_eq!(tags(&link, Method::Ack).len(), 16);
}

#[test]
fn requests_of_early_dialogs_are_told_apart() {
    let mut link = Link::caller(invite());
    link.run(0.02);
    link.respond(B, Method::Invite, 183, "one", &[], "");
    link.respond(B, Method::Invite, 183, "two", &[], "");
    link.run(0.1);
    let invite = link.last(Method::Invite);
    let (call, ours) = (invite.call_id().to_owned(), invite.from_tag().unwrap().to_owned());
    let ask = move |method: &str, cseq: u32, tag: &str, rest: &str| {
        format!(
            "{method} sip:A@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.2:5060;branch=z9hG4bK{method}{cseq}{tag}\nFrom: <sip:b@h>;tag={tag}\nTo: <sip:a@h>;tag={ours}\nCall-ID: {call}\nCSeq: {cseq} {method}\n{rest}"
        )
    };
    let update = "Content-Type: application/sdp\n\nv=0 update";
    for text in [
        ask("INFO", 5, "one", "\n"),
        ask("INFO", 5, "two", "\n"),
        ask("INFO", 4, "two", "\n"),
        ask("INFO", 5, "three", "\n"),
        ask("UPDATE", 6, "one", "\n"),
        ask("UPDATE", 7, "one", update),
        ask("BYE", 8, "one", "\n"),
    ] {
        link.say(B, &text);
        link.run(link.elapsed() + 0.03);
    }
    let answers: Vec<String> = link.inbox.iter().skip(1).map(title).collect();
    assert_eq!(
        answers,
        [
            "200 INFO (5)",
            "200 INFO (5)",
            "500 INFO (4)",
            "481 INFO (5)",
            "200 UPDATE (6)",
            "491 UPDATE (7)",
            "481 BYE (8)"
        ]
    );
}
