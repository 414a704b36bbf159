//! Any bytes as a datagram and as a stream: no panic, and what is answered can be read.
#![no_main]

use std::net::SocketAddr;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
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

fuzz_target!(|bytes: &[u8]| {
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
});
