//! Frames on a TCP stream, read and written by one task without either waiting for the other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use media::resample::Rate;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// What may wait to be written: several seconds of audio.
const MAX_UNWRITTEN: usize = 1024 * 1024;
/// Read at once.
const READ_BUFFER: usize = 4 * 1024;
/// When a silent peer is asked for a sign of life, how often, and after how many it is gone.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

/// See the module's text.
pub(crate) struct Frames {
    stream: TcpStream,
    read: BytesMut,
    unwritten: BytesMut,
}

/// The peer leaves too much unread.
pub(crate) struct Unread;

/// The kind of 16-bit samples at a rate.
pub(crate) fn kind_of(rate: Rate) -> u8 {
    match rate {
        Rate::Hz8000 => 0x10,
        Rate::Hz16000 => 0x12,
        Rate::Hz24000 => 0x13,
        Rate::Hz48000 => 0x16,
    }
}

/// The rate of samples of a kind, when it is one of ours.
pub(crate) fn rate_of(kind: u8) -> Option<Rate> {
    [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000]
        .into_iter()
        .find(|rate| kind_of(*rate) == kind)
}

/// A whole frame. A payload is at most 65,535 bytes; ours are 20 ms of audio.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let mut bytes = Vec::with_capacity(payload.len() + 3);
    bytes.extend([kind, high, low]);
    bytes.extend(&payload[..usize::from(length)]);
    bytes
}

/// Has TCP find out about a peer that is gone without a word.
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Frames {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, read: BytesMut::with_capacity(READ_BUFFER), unwritten: BytesMut::new() }
    }

    /// Takes bytes to write; [`Frames::poll_flush`] writes them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Unread> {
        if self.unwritten.len() + bytes.len() > MAX_UNWRITTEN {
            return Err(Unread);
        }
        self.unwritten.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what waits. Ready when nothing does.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.unwritten.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next frame, its head included; `None` when the peer has closed.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if let [_, high, low, ..] = *self.read {
                let length = 3 + usize::from(u16::from_be_bytes([high, low]));
                if self.read.len() >= length {
                    return Poll::Ready(Ok(Some(self.read.split_to(length).freeze())));
                }
            }
            let mut space = [0; READ_BUFFER];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(None));
            }
            self.read.extend_from_slice(buffer.filled());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_rates() {
        for (kind, hz) in [(0x10, 8_000), (0x12, 16_000), (0x13, 24_000), (0x16, 48_000)] {
            assert_eq!(rate_of(kind).map(Rate::hz), Some(hz));
        }
        assert_eq!((rate_of(0x11), rate_of(0x00)), (None, None));
        assert_eq!(frame(3, b"5"), [3, 0, 1, b'5']);
    }
}
