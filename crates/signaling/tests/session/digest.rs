//! Challenges (RFC 3261 22): answered only in a call of ours, only to its peer, and not for ever.

use signaling::{EndCause, HeaderName, Invite, Message, Method, Request};

use crate::link::{A, B, Link, OFFER, account, hop, invite, request, sdp};

const WWW: &str = "WWW-Authenticate";
const PROXY: &str = "Proxy-Authenticate";

fn challenge(realm: &str, nonce: &str, rest: &str) -> String {
    format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\"{rest}")
}

fn with_account() -> Invite {
    Invite { credentials: Some(account()), ..invite() }
}

impl Link {
    /// B challenges the last request of `method`.
    fn challenge(&mut self, method: Method, status: u16, header: &str, value: &str) {
        self.respond(B, method, status, "b", &[(header, value)], "");
        self.run(self.elapsed() + 0.03);
    }
}

/// Checks an answer with our own arithmetic under the server's knowledge.
fn check(request: &Request, name: HeaderName, realm: &str, nonce: &str, algorithm: &str, count: u32) {
    let value = request.header(name).unwrap_or_else(|| panic!("no {name:?} in {request:?}"));
    let field = |name: &str| {
        let at = value.split(&format!("{name}=")).nth(1).unwrap();
        at.trim_start_matches('"').split(['"', ',']).next().unwrap().to_owned()
    };
    assert_eq!((field(" realm"), field("username")), (realm.to_owned(), "alice".to_owned()));
    assert_eq!((field(" nonce"), field("nc")), (nonce.to_owned(), format!("{count:08x}")));
    assert_eq!(field("algorithm"), algorithm);
    assert_eq!(field(" uri"), request.uri());
    let line = challenge(realm, nonce, &format!(", algorithm={algorithm}"));
    let line = signaling::digest::Challenge::parse(&line).unwrap();
    let method = request.method_token();
    let expected =
        signaling::digest::answer(&line, &account(), method, request.uri(), count, &field("cnonce"));
    assert_eq!(value, expected);
    assert!(!value.contains("secret"));
}

#[test]
fn answers_401_and_407_with_md5_and_sha_256() {
    for algorithm in ["MD5", "SHA-256"] {
        for (status, header, name) in
            [(401, WWW, HeaderName::Authorization), (407, PROXY, HeaderName::ProxyAuthorization)]
        {
            let mut link = Link::caller(with_account());
            link.run(0.02);
            let first = link.last(Method::Invite);
            let value = challenge("carrier", "n1", &format!(", algorithm={algorithm}"));
            link.challenge(Method::Invite, status, header, &value);
            let second = link.last(Method::Invite);
            check(&second, name, "carrier", "n1", algorithm, 1);
            assert_eq!(second.cseq().number, 2);
            assert_eq!(second.call_id(), first.call_id());
            assert_eq!(second.from_tag(), first.from_tag());
            assert_eq!(second.to_tag(), None);
            assert_ne!(second.top_via().unwrap().branch(), first.top_via().unwrap().branch());
            assert_eq!(link.heard(), ["INVITE (1) +sdp", "ACK (1)", "INVITE (2) +sdp"]);
        }
    }
}

#[test]
fn a_challenged_call_as_a_ladder() {
    let mut link = Link::caller(with_account());
    link.run(0.1);
    link.challenge(Method::Invite, 407, PROXY, &challenge("proxy", "p1", ", algorithm=SHA-256"));
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "w1", ", algorithm=MD5"));
    let invite = link.last(Method::Invite);
    check(&invite, HeaderName::ProxyAuthorization, "proxy", "p1", "SHA-256", 2);
    check(&invite, HeaderName::Authorization, "carrier", "w1", "MD5", 1);
    link.respond(B, Method::Invite, 200, "b", &[], "v=0 answer");
    link.run(1.0);
    let ack = link.last(Method::Ack);
    // The ACK carries the INVITE's credentials as they were (RFC 3261 22.1).
    assert_eq!(ack.header(HeaderName::Authorization), invite.header(HeaderName::Authorization));
    assert_eq!(ack.header(HeaderName::ProxyAuthorization), invite.header(HeaderName::ProxyAuthorization));
    link.tell(2.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.run(2.02);
    let bye = link.last(Method::Bye);
    check(&bye, HeaderName::Authorization, "carrier", "w1", "MD5", 2);
    check(&bye, HeaderName::ProxyAuthorization, "proxy", "p1", "SHA-256", 3);
    link.challenge(Method::Bye, 401, WWW, &challenge("carrier", "w2", ", stale=true"));
    let again = link.last(Method::Bye);
    assert_eq!(again.cseq().number, bye.cseq().number + 1);
    check(&again, HeaderName::Authorization, "carrier", "w2", "MD5", 1);
    link.respond(B, Method::Bye, 200, "b", &[], "");
    insta::assert_snapshot!(link.finish_a());
}

#[test]
fn a_refused_invite_is_acknowledged_again_while_the_next_one_runs() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    let first = link.last(Method::Invite);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    let again = signaling::ResponseBuilder::new(
        &first,
        signaling::StatusCode(401),
        None,
        Some("b"),
        hop(A, signaling::Transport::Udp).remote,
    );
    link.send(B, again.build());
    link.run(0.2);
    assert_eq!(link.heard(), ["INVITE (1) +sdp", "ACK (1)", "INVITE (2) +sdp", "ACK (1)"]);
}

fn challenged_end(link: &mut Link) {
    assert_eq!(link.ended(A).cause, EndCause::Challenged, "{}", link.ladder());
    link.finish_a();
}

#[test]
fn the_same_nonce_again_ends_the_call() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    challenged_end(&mut link);
}

#[test]
fn a_wrong_password_is_not_tried_under_every_nonce() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n2", ""));
    challenged_end(&mut link);
}

#[test]
fn a_stale_nonce_is_renewed_once() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n2", ", stale=true"));
    check(&link.last(Method::Invite), HeaderName::Authorization, "carrier", "n2", "MD5", 1);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n3", ", stale=true"));
    challenged_end(&mut link);
}

#[test]
fn what_cannot_be_answered_ends_the_call() {
    for value in ["Basic realm=\"x\"", "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-512-256"] {
        let mut link = Link::caller(with_account());
        link.run(0.02);
        link.challenge(Method::Invite, 401, WWW, value);
        challenged_end(&mut link);
    }
    let mut link = Link::caller(invite());
    link.run(0.02);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    challenged_end(&mut link);
}

/// A call of A's, answered by the test with `contact`.
fn answered(contact: &str) -> Link {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    link.challenge(Method::Invite, 401, WWW, &challenge("carrier", "n1", ""));
    link.respond(B, Method::Invite, 200, "b", &[("Contact", contact)], "v=0 answer");
    link.run(0.2);
    link.tell(1.0, A, |a, now| assert!(a.hang_up(None, now)));
    link.run(1.02);
    link
}

#[test]
fn a_realm_of_nobody_we_know_learns_nothing() {
    let mut link = answered("<sip:b@198.51.100.2>");
    assert!(link.last(Method::Bye).header(HeaderName::Authorization).is_some());
    link.challenge(Method::Bye, 401, WWW, &challenge("elsewhere", "n9", ""));
    assert_eq!(link.last(Method::Bye).cseq().number, 3, "{}", link.ladder());
}

#[test]
fn another_host_than_the_peer_gets_no_credentials() {
    // The callee names an address of its own in Contact: neither ACK nor BYE there carries a digest, and a challenge
    // from there, under the carrier's realm, is not answered.
    let mut link = answered("<sip:b@203.0.113.66>");
    for method in [Method::Ack, Method::Bye] {
        assert_eq!(link.last(method).header(HeaderName::Authorization), None);
    }
    link.challenge(Method::Bye, 401, WWW, &challenge("carrier", "n2", ""));
    assert_eq!(link.last(Method::Bye).cseq().number, 3, "{}", link.ladder());
}

#[test]
fn a_challenge_from_another_address_is_not_answered() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    let invite = link.last(Method::Invite);
    let source = hop(A, signaling::Transport::Udp).remote;
    let bytes = signaling::ResponseBuilder::new(&invite, signaling::StatusCode(401), None, Some("b"), source)
        .header_named(WWW, challenge("carrier", "n1", ""))
        .build();
    let mut from = hop(B, signaling::Transport::Udp);
    from.remote.set_port(6_666);
    let now = link.now;
    let session = link.a.as_mut().unwrap();
    session.handle_message(Message::parse(bytes).unwrap(), from, now);
    link.run(0.1);
    assert_eq!(link.ended(A).cause, EndCause::Challenged);
    assert_eq!(link.heard(), ["INVITE (1) +sdp", "ACK (1)"]);
}

#[test]
fn a_call_that_somebody_else_began_answers_no_challenge() {
    let mut link = Link::called(&request("INVITE", 1, "1", "", OFFER));
    let tag = link.b.as_ref().unwrap().local_tag().to_owned();
    link.tell(0.1, B, |b, now| assert!(b.answer(sdp("v=0 answer"), now)));
    link.at(0.2, move |l| l.say(A, &request("ACK", 1, "2", &tag, "")));
    link.tell(0.3, B, |b, now| assert!(b.hang_up(None, now)));
    link.run(0.4);
    link.respond(A, Method::Bye, 401, "", &[(WWW, &challenge("carrier", "n1", ""))], "");
    link.run(100.0);
    assert_eq!(link.heard().iter().filter(|m| m.starts_with("BYE")).count(), 1, "{}", link.ladder());
}

#[test]
fn a_challenged_reinvite_is_sent_again() {
    let mut link = Link::caller(with_account());
    link.run(0.02);
    link.respond(B, Method::Invite, 200, "b", &[("Contact", "<sip:b@198.51.100.2>")], "v=0 answer");
    link.tell(1.0, A, |a, now| assert!(a.offer(sdp("v=0 again"), now)));
    link.run(1.02);
    link.challenge(Method::Invite, 407, PROXY, &challenge("carrier", "n1", ""));
    let again = link.last(Method::Invite);
    check(&again, HeaderName::ProxyAuthorization, "carrier", "n1", "MD5", 1);
    assert_eq!((again.cseq().number, again.to_tag()), (3, Some("b")));
}

#[test]
fn every_request_inside_a_dialog_of_ours_answers_its_challenge() {
    let name = HeaderName::ProxyAuthorization;
    let mut link = Link::caller(with_account());
    link.run(0.02);
    let headers = [("Require", "100rel"), ("RSeq", "1"), ("Allow", "UPDATE")];
    link.respond(B, Method::Invite, 183, "b", &headers, "v=0 early");
    link.run(0.1);
    link.challenge(Method::Prack, 407, PROXY, &challenge("carrier", "n1", ", algorithm=MD5"));
    let prack = link.last(Method::Prack);
    check(&prack, name, "carrier", "n1", "MD5", 1);
    assert_eq!((prack.cseq().number, prack.header(HeaderName::RAck)), (3, Some("1 1 INVITE")));
    link.respond(B, Method::Prack, 200, "b", &[], "");
    link.tell(0.2, A, |a, now| assert!(a.offer(sdp("v=0 ours"), now)));
    link.run(0.3);
    check(&link.last(Method::Update), name, "carrier", "n1", "MD5", 2);
    link.challenge(Method::Update, 407, PROXY, &challenge("carrier", "n2", ", algorithm=MD5, stale=true"));
    check(&link.last(Method::Update), name, "carrier", "n2", "MD5", 1);
    link.respond(B, Method::Update, 200, "b", &[], "v=0 theirs");
    link.run(0.5);
    let answered =
        signaling::Event::Modified { status: signaling::StatusCode(200), sdp: Some(sdp("v=0 theirs")) };
    assert_eq!(link.of(A).last(), Some(&&answered));
    link.respond(B, Method::Invite, 200, "b", &[], "");
    link.run(0.6);
    link.tell(0.7, A, |a, now| assert!(a.offer(sdp("v=0 again"), now)));
    link.run(0.8);
    link.challenge(Method::Invite, 407, PROXY, &challenge("carrier", "n3", ", algorithm=MD5, stale=true"));
    let reinvite = link.last(Method::Invite);
    check(&reinvite, name, "carrier", "n3", "MD5", 1);
    assert_eq!(reinvite.to_tag(), Some("b"));
}
