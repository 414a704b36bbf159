//! Messages on a stream (RFC 3261 18.3): framed by Content-Length, bounded, with keep-alives (RFC 5626 3.5.1).

use bytes::{Buf, Bytes, BytesMut};

use super::parse::{self, Malformed};
use super::{MAX_BODY, Message, StatusCode};

/// Cuts a byte stream into messages. Holds at most one message and one read's worth of bytes.
#[derive(Debug, Default)]
pub struct StreamParser {
    buffer: BytesMut,
    broken: bool,
}

/// What a stream carried.
#[allow(clippy::large_enum_variant, reason = "taken apart as soon as it comes, never kept")]
#[derive(Debug)]
pub enum StreamItem {
    /// A message.
    Message(Message),
    /// A keep-alive, to be answered with CRLF.
    Ping,
    /// Something else; after a fatal one nothing more comes.
    Malformed(Malformed),
}

impl StreamParser {
    /// An empty parser.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that wait for the rest of their message. The answer to a keep-alive waits for nothing.
    #[must_use]
    pub fn buffered(&self) -> usize {
        match &self.buffer[..] {
            b"\r\n" | b"\r\n\r" => 0,
            rest => rest.len(),
        }
    }

    /// The next item, when it is whole. After a fatal error the rest is dropped unread: bytes that follow a lost
    /// frame are never taken for a message.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<StreamItem> {
        if self.broken {
            return None;
        }
        if self.buffer.starts_with(b"\r\n\r\n") {
            self.buffer.advance(4);
            return Some(StreamItem::Ping);
        }
        // A single CRLF is the answer to a keep-alive of ours, or stands before a start line (RFC 3261 7.5).
        while self.buffer.starts_with(b"\r\n") && !matches!(&self.buffer[..], b"\r\n" | b"\r\n\r") {
            self.buffer.advance(2);
        }
        if matches!(&self.buffer[..], b"\r\n" | b"\r\n\r" | b"") {
            return None;
        }
        let frame = match parse::frame(&self.buffer) {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(reason) => return Some(self.lost(reason)),
        };
        let Some(length) = frame.body else {
            let head = self.buffer.split_to(frame.head).freeze();
            let refused = parse::parse_head(head, |_| Err("Missing Content-Length"));
            return Some(self.broken(refused));
        };
        if length > MAX_BODY {
            let head = self.buffer.split_to(frame.head).freeze();
            let refused = parse::parse_head(head, |_| Ok(Bytes::new()));
            return Some(self.broken(refused));
        }
        if self.buffer.len() < frame.head + length {
            return None;
        }
        let head = self.buffer.split_to(frame.head).freeze();
        let body = self.buffer.split_to(length).freeze();
        match parse::parse_head(head, |_| Ok(body)) {
            Ok(message) => Some(StreamItem::Message(message)),
            Err(malformed) if malformed.fatal => Some(self.broken(Err(malformed))),
            Err(malformed) => Some(StreamItem::Malformed(malformed)),
        }
    }

    fn lost(&mut self, reason: &'static str) -> StreamItem {
        let head = parse::head_length(&self.buffer).map(|length| self.buffer.split_to(length).freeze());
        let refused = head.map(|head| parse::parse_head(head, |_| Err(reason)));
        self.broken(refused.unwrap_or(Err(Malformed {
            status: StatusCode(400),
            reason,
            request: None,
            fatal: true,
        })))
    }

    fn broken(&mut self, refused: Result<Message, Malformed>) -> StreamItem {
        self.broken = true;
        self.buffer = BytesMut::new();
        match refused {
            Err(malformed) => StreamItem::Malformed(Malformed { fatal: true, ..malformed }),
            Ok(_) => StreamItem::Malformed(Malformed {
                status: StatusCode(413),
                reason: "Body Too Long",
                request: None,
                fatal: true,
            }),
        }
    }
}
