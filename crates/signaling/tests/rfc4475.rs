//! The torture messages of RFC 4475: what is valid is accepted, what is not is refused with the right status.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

use std::net::SocketAddr;

use bytes::Bytes;
use signaling::{Hop, Message, Method, StreamItem, StreamParser, Transport, stateless};

fn read(name: &str) -> Bytes {
    let path = format!("{}/tests/rfc4475/{name}.dat", env!("CARGO_MANIFEST_DIR"));
    Bytes::from(std::fs::read(path).unwrap())
}

/// The status the message is refused with; 0 when it is accepted, 1 when it is dropped.
fn verdict(name: &str) -> u16 {
    match Message::parse(read(name)) {
        Ok(Message::Request(request)) => {
            stateless::check(&request).map_or_else(|(status, _)| status.0, |()| 0)
        }
        Ok(Message::Response(_)) => 0,
        Err(malformed) => malformed.request.map_or(1, |_| malformed.status.0),
    }
}

#[test]
fn section_3_1_1_is_accepted() {
    for name in [
        "wsinv",
        "intmeth",
        "esc01",
        "escnull",
        "esc02",
        "lwsdisp",
        "longreq",
        "dblreq",
        "semiuri",
        "transports",
        "mpart01",
        "unreason",
        "noreason",
    ] {
        assert_eq!(verdict(name), 0, "{name}");
    }
    let Ok(Message::Request(request)) = Message::parse(read("dblreq")) else { panic!() };
    assert_eq!((request.method(), request.body().len()), (Method::Register, 0));
    let Ok(Message::Request(request)) = Message::parse(read("wsinv")) else { panic!() };
    assert_eq!(
        (request.cseq().number, request.from_tag(), request.to_tag()),
        (9, Some("98asjd8"), Some("1918181833n"))
    );
}

#[test]
fn section_3_1_2_is_refused() {
    for (name, status) in [
        ("badvers", 505),
        ("mismatch01", 400),
        ("escruri", 400),
        ("insuf", 400),
        ("ltgtruri", 400),
        ("lwsruri", 400),
        ("badinv01", 400),
        ("quotbal", 400),
        ("scalar02", 400),
        ("mcl01", 400),
        ("ncl", 400),
        ("clerr", 400),
        ("unkscm", 416),
        ("novelsc", 416),
        ("bext01", 420),
        ("invut", 415),
        ("sdp01", 406),
        ("multi01", 400),
        ("lwsstart", 400),
        ("trws", 400),
        ("badaspec", 400),
        ("baddn", 400),
        ("mismatch02", 400),
        ("bigcode", 1),
    ] {
        assert_eq!(verdict(name), status, "{name}");
    }
}

#[test]
fn a_refusal_can_be_built_for_whatever_is_refused() {
    let source: SocketAddr = "198.51.100.10:5060".parse().unwrap();
    let hop = Hop { transport: Transport::Udp, remote: source, flow: 0 };
    for entry in std::fs::read_dir(format!("{}/tests/rfc4475", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let request = match Message::parse(read(&name)) {
            Ok(Message::Request(request)) => request,
            Err(malformed) => match malformed.request {
                Some(request) => *request,
                None => continue,
            },
            Ok(Message::Response(_)) => continue,
        };
        let answer = stateless::respond(&request, signaling::StatusCode(400), None, &[], hop, &[7; 16]);
        assert_eq!(answer.hop.remote.ip(), source.ip(), "{name}");
        assert!(answer.bytes.starts_with(b"SIP/2.0 400 Bad Request\r\n"), "{name}");
    }
}

#[test]
fn on_a_stream_every_message_is_framed_or_ends_it() {
    for entry in std::fs::read_dir(format!("{}/tests/rfc4475", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let mut parser = StreamParser::new();
        let mut items = 0;
        for chunk in bytes.chunks(7) {
            parser.push(chunk);
            while let Some(item) = parser.next() {
                items += 1;
                if matches!(&item, StreamItem::Malformed(m) if m.fatal) {
                    assert_eq!(parser.buffered(), 0);
                }
            }
        }
        // Two requests in dblreq, and line ends around messages.
        assert!(items <= 4);
    }
}
