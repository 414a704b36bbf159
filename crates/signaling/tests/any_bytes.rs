//! Any bytes as a datagram and as a stream: no panic, and what is answered can be read. The bytes come from the test below, or from a fuzzer.

use std::net::SocketAddr;

use bytes::Bytes;
use signaling::{Hop, Message, StreamItem, StreamParser, Transport, stateless};

fn read(message: &Message, transport: Transport) {
    let hop = Hop { transport, remote: SocketAddr::from(([203, 0, 113, 5], 5060)), flow: 1 };
    match message {
        Message::Request(request) => {
            let _ = (
                request.parsed_uri().and_then(|uri| uri.user_unescaped().map(|user| user.len())),
                request.sdp(),
            );
            let _ = (request.top_via(), request.from(), request.to(), request.contact(), request.to_tag());
            let status =
                stateless::check(request).map_or_else(|(status, _)| status, |()| signaling::StatusCode(404));
            let answer = stateless::respond(request, status, None, &[], hop, &[7; 16]);
            // Its Via is the sender's, letter for letter, so it need not be one that we would take.
            assert!(answer.bytes.starts_with(b"SIP/2.0 ") && answer.bytes.ends_with(b"\r\n\r\n"));
        }
        Message::Response(response) => {
            let _ =
                (response.top_via(), response.contact(), response.to_tag(), response.sdp(), response.cseq());
        }
    }
}

pub(crate) fn run(bytes: &[u8]) {
    match Message::parse(Bytes::copy_from_slice(bytes)) {
        Ok(message) => read(&message, Transport::Udp),
        Err(malformed) => {
            if let Some(request) = malformed.request {
                read(&Message::Request(*request), Transport::Udp);
            }
        }
    }
    let mut stream = StreamParser::new();
    for piece in bytes.chunks(97) {
        stream.push(piece);
        while let Some(item) = stream.next() {
            match item {
                StreamItem::Message(message) => read(&message, Transport::Tcp),
                StreamItem::Malformed(malformed) if malformed.fatal => return,
                StreamItem::Malformed(_) | StreamItem::Ping => {}
            }
        }
    }
}

/// The fuzz target's way in, so that it is never left behind: a fuzzer makes the millions.
#[test]
fn bytes_of_any_kind_hurt_nothing() {
    run(b"");
    let whole: &[u8] = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    for at in 0..whole.len() {
        run(&whole[..at]);
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x15;
        run(&damaged);
    }
}
