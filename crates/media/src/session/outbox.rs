//! What a session wants sent.

use std::net::SocketAddr;

use crate::srtp::Contexts;

/// Packets to send, in memory that is used again.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    packets: Vec<(Leaves, SocketAddr, usize)>,
}

/// Which way a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Rtp,
    /// RTCP on the RTP port (RFC 5761).
    Muxed,
    Rtcp,
}

impl Outbox {
    /// Adds an RTP packet, protected when the stream is SRTP. `false` when it must not be sent.
    pub(super) fn push(
        &mut self,
        to: SocketAddr,
        header: &[u8],
        payload: &[u8],
        srtp: Option<&mut Contexts>,
    ) -> bool {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
        let protected = srtp.map_or(Ok(()), |srtp| srtp.sender.protect(&mut self.bytes, start));
        match protected {
            Ok(()) => self.packets.push((Leaves::Rtp, to, self.bytes.len())),
            Err(_) => self.bytes.truncate(start),
        }
        protected.is_ok()
    }

    /// Adds an RTCP packet, protected when the stream is SRTP, or nothing.
    pub(super) fn push_control(
        &mut self,
        muxed: bool,
        to: SocketAddr,
        packet: &[u8],
        srtp: Option<&mut Contexts>,
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        if srtp.is_some_and(|srtp| srtp.sender.protect_rtcp(&mut self.bytes, start).is_err()) {
            self.bytes.truncate(start);
            return;
        }
        let leaves = if muxed { Leaves::Muxed } else { Leaves::Rtcp };
        self.packets.push((leaves, to, self.bytes.len()));
    }

    /// The RTP packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.all().filter(|(leaves, ..)| *leaves == Leaves::Rtp).map(|(_, to, packet)| (to, packet))
    }

    /// Every packet, in order, and whether it leaves by the RTCP port.
    pub fn datagrams(&self) -> impl Iterator<Item = (bool, SocketAddr, &[u8])> {
        self.all().map(|(leaves, to, packet)| (leaves == Leaves::Rtcp, to, packet))
    }

    fn all(&self) -> impl Iterator<Item = (Leaves, SocketAddr, &[u8])> {
        let mut start = 0;
        self.packets.iter().filter_map(move |&(leaves, to, end)| {
            let packet = self.bytes.get(start..end)?;
            start = end;
            Some((leaves, to, packet))
        })
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }
}
