//! IPv6 torture (RFC 5118): what its section 4 gives as valid is taken, and its one invalid message refused.

use std::net::SocketAddr;

use bytes::Bytes;
use signaling::{Hop, Message, Request, Transport, stateless};

/// Request line, Via and whatever else a case turns on.
fn read(line: &str, via: &str, rest: &str) -> Result<Request, u16> {
    let method = line.split(' ').next().unwrap_or_default();
    let text = format!(
        "{line} SIP/2.0\r\nVia: {via}\r\nTo: sip:user@example.com\r\nFrom: sip:user@example.com;tag=81x2\r\nCall-ID: SSG9559905523997077@hlau_4100\r\nMax-Forwards: 70\r\nContact: \"Caller\" <sip:caller@[2001:db8::1]>\r\nCSeq: 98176 {method}\r\n{rest}"
    );
    match Message::parse(Bytes::from(text)) {
        Ok(Message::Request(request)) => Ok(request),
        Ok(Message::Response(_)) => Err(0),
        Err(malformed) => Err(malformed.status.0),
    }
}

const VIA: &str = "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111";
const EMPTY: &str = "Content-Length: 0\r\n\r\n";

#[test]
fn references_are_taken_with_and_without_ports() {
    let uri = |line: &str| {
        let request = read(line, VIA, EMPTY)?;
        let uri = request.parsed_uri().ok_or(0u16)?;
        Ok::<_, u16>((uri.host.to_owned(), uri.port))
    };
    // 4.1, 4.3 and 4.4: a number behind the last colon inside the brackets is part of the address.
    assert_eq!(uri("REGISTER sip:[2001:db8::10]"), Ok(("[2001:db8::10]".to_owned(), None)));
    assert_eq!(uri("REGISTER sip:[2001:db8::10:5070]"), Ok(("[2001:db8::10:5070]".to_owned(), None)));
    assert_eq!(uri("REGISTER sip:[2001:db8::10]:5070"), Ok(("[2001:db8::10]".to_owned(), Some(5070))));
    // 4.10: three colons before an IPv4 part are a known mistake of the grammar.
    assert_eq!(
        uri("OPTIONS sip:user@[2001:db8:::192.0.2.1]"),
        Ok(("[2001:db8:::192.0.2.1]".to_owned(), None))
    );
    // 4.2: without brackets nobody can tell the address from the port.
    assert_eq!(uri("REGISTER sip:2001:db8::10"), Err(400));
}

#[test]
fn received_is_read_with_brackets_and_without_and_replaced_by_what_was_seen() {
    let source: SocketAddr = "[2001:db8::9:255]:5060".parse().unwrap();
    let hop = Hop { transport: Transport::Udp, remote: source, flow: 0 };
    // 4.5.
    for received in ["[2001:db8::9:255]", "2001:db8::9:255", "[2001:db8::6:6]"] {
        let via = format!("SIP/2.0/UDP [2001:db8::9:1];received={received};branch=z9hG4bKas3-111");
        let request = read("BYE sip:[2001:db8::10]", &via, EMPTY).unwrap();
        let answer = stateless::respond(&request, signaling::StatusCode(481), None, &[], hop, &[0; 16]);
        let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
        assert!(text.contains(";received=2001:db8::9:255\r\n"), "{text}");
        assert_eq!(answer.hop.remote, source);
    }
}

#[test]
fn both_families_stand_in_one_message() {
    // 4.6, 4.8 and 4.9.
    let vias = "SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144, SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200\r\nVia: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19";
    let body = "v=0\r\no=assistant 971731711378798081 0 IN IP6 2001:db8::20\r\ns=Live video feed for today's meeting\r\nc=IN IP6 2001:db8::20\r\nt=3338481189 3370017201\r\nm=audio 6000 RTP/AVP 2\r\nc=IN IP4 192.0.2.10\r\n";
    let rest = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let request = read("INVITE sip:user@[2001:db8::10]", vias, &rest).unwrap();
    let top = request.top_via().unwrap();
    assert_eq!((top.host, top.port), ("[2001:db8::9:1]", Some(6050)));
    assert_eq!(request.list(signaling::HeaderName::Via).count(), 4);
    assert_eq!(request.sdp().as_deref(), Some(body.as_bytes()));
}
