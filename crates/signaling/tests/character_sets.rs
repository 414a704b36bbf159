//! Heads that are not UTF-8: names in other character sets are taken, and what tells messages apart is not guessed at.

use bytes::Bytes;
use signaling::{HeaderName, Message, Method};

fn invite(display: &[u8], tag: &[u8], call_id: &[u8], uri: &[u8]) -> Bytes {
    let parts: [&[u8]; 9] = [
        b"INVITE ",
        uri,
        b" SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: \"",
        display,
        b"\" <sip:a@h>;tag=",
        tag,
        b"\r\nTo: <sip:b@h>\r\nCall-ID: ",
        call_id,
        b"\r\nCSeq: 1 INVITE\r\nSubject: \xe9t\xe9\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
    ];
    Bytes::from(parts.concat())
}

#[test]
fn a_caller_whose_name_is_in_latin_1_is_heard() {
    let Ok(Message::Request(request)) = Message::parse(invite(b"M\xfcller", b"t", b"c", b"sip:b@h")) else {
        panic!("it is refused");
    };
    assert_eq!((request.from_tag(), request.call_id()), (Some("t"), "c"));
    assert_eq!(request.from().map(|from| from.uri.text), Some("sip:a@h"));
    let answer = b"SIP/2.0 404 Num\xe9ro inconnu\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=t\r\nTo: <sip:b@h>;tag=u\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n";
    let Ok(Message::Response(answer)) = Message::parse(Bytes::from_static(answer)) else {
        panic!("it is dropped")
    };
    assert_eq!((answer.status().0, answer.reason()), (404, "Num\u{fffd}ro inconnu"));
}

#[test]
fn what_tells_messages_apart_is_text_or_refused() {
    let whole = |refused: Result<Message, signaling::Malformed>| {
        refused.err().and_then(|m| Some((m.reason, m.request?)))
    };
    for bytes in [
        invite(b"a", b"t\xfc", b"c", b"sip:b@h"),
        invite(b"a", b"t", b"c\xfc", b"sip:b@h"),
        invite(b"M\xfcller", b"t", b"c", b"sip:b\xfc@h"),
        invite(b"a\" <sip:\xfc@h>;x=\"", b"t", b"c", b"sip:b@h"),
    ] {
        let (reason, request) = whole(Message::parse(bytes)).expect("it is refused, and can be answered");
        assert_eq!((reason, request.method()), ("Headers Are Not UTF-8", Method::Invite));
        assert!(request.header(HeaderName::Via).is_some());
    }
    // The character itself, written as it should be, is nothing odd.
    assert!(
        Message::parse(invite("\u{fffd}".as_bytes(), "t".as_bytes(), b"c", b"sip:b@h").slice(..)).is_ok()
    );
}
