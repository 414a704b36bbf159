//! Export of every SIP message to a Homer collector (HEP3), over UDP. What the collector or the network does not take is
//! lost and counted; no call waits for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::Timestamp;
use signaling::{Hop, Transport, masked};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counter, Counters};

/// Packets that may wait for the socket.
const MAX_QUEUED: usize = 4_096;
/// Longest packet: a UDP payload.
const MAX_PACKET: usize = 65_507;
/// Time between two look-ups of the collector's name.
const LOOK_UP: std::time::Duration = std::time::Duration::from_secs(60);

/// Chunk types of vendor 0 (HEP3 specification, section 5).
mod chunk {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const SOURCE_V4: u16 = 3;
    pub(super) const TARGET_V4: u16 = 4;
    pub(super) const SOURCE_V6: u16 = 5;
    pub(super) const TARGET_V6: u16 = 6;
    pub(super) const SOURCE_PORT: u16 = 7;
    pub(super) const TARGET_PORT: u16 = 8;
    pub(super) const SECONDS: u16 = 9;
    pub(super) const MICROSECONDS: u16 = 10;
    pub(super) const KIND: u16 = 11;
    pub(super) const AGENT: u16 = 12;
    pub(super) const PAYLOAD: u16 = 15;
    pub(super) const NODE: u16 = 19;
}

/// The `KIND` of SIP.
const SIP: u8 = 1;

/// The way to the collector.
pub(crate) struct Hep {
    queue: mpsc::Sender<Vec<u8>>,
    node: String,
    counters: Arc<Counters>,
}

impl Hep {
    /// Starts to export to `collector`, a host and port, until `stop`.
    pub(crate) fn start(
        collector: String,
        node: String,
        counters: &Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        let (queue, packets) = mpsc::channel(MAX_QUEUED);
        tokio::spawn(run(collector, packets, Arc::clone(counters), stop));
        Self { queue, node, counters: Arc::clone(counters) }
    }

    /// Exports a message.
    pub(crate) fn export(&self, sent: bool, hop: Hop, local: SocketAddr, message: &[u8]) {
        // A place first: a full queue costs no copy.
        let Ok(place) = self.queue.try_reserve() else {
            self.counters.count(Counter::HepDropped);
            return;
        };
        let (source, target) = if sent { (local, hop.remote) } else { (hop.remote, local) };
        match packet(&self.node, hop.transport, source, target, Timestamp::now(), &masked(message)) {
            Some(packet) => place.send(packet),
            None => self.counters.count(Counter::HepDropped),
        }
    }
}

/// One packet; `None` when the message does not fit.
fn packet(
    node: &str,
    transport: Transport,
    source: SocketAddr,
    target: SocketAddr,
    at: Timestamp,
    message: &[u8],
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(128 + node.len() + message.len());
    out.extend_from_slice(b"HEP3\0\0");
    let mut add = |kind: u16, value: &[u8]| {
        let length = u16::try_from(6 + value.len()).ok()?;
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(value);
        Some(())
    };
    let (seconds, micros) = (at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000));
    match (source.ip().to_canonical(), target.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            add(chunk::FAMILY, &[2])?;
            add(chunk::SOURCE_V4, &source.octets())?;
            add(chunk::TARGET_V4, &target.octets())?;
        }
        (source, target) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            add(chunk::FAMILY, &[10])?;
            add(chunk::SOURCE_V6, &v6(source))?;
            add(chunk::TARGET_V6, &v6(target))?;
        }
    }
    add(chunk::PROTOCOL, &[if transport == Transport::Udp { 17 } else { 6 }])?;
    add(chunk::SOURCE_PORT, &source.port().to_be_bytes())?;
    add(chunk::TARGET_PORT, &target.port().to_be_bytes())?;
    add(chunk::SECONDS, &u32::try_from(seconds).ok()?.to_be_bytes())?;
    add(chunk::MICROSECONDS, &u32::try_from(micros).ok()?.to_be_bytes())?;
    add(chunk::KIND, &[SIP])?;
    add(chunk::AGENT, &0u32.to_be_bytes())?;
    add(chunk::NODE, node.as_bytes())?;
    add(chunk::PAYLOAD, message)?;
    if out.len() > MAX_PACKET {
        return None;
    }
    let length = u16::try_from(out.len()).ok()?;
    out[4..6].copy_from_slice(&length.to_be_bytes());
    Some(out)
}

async fn run(
    collector: String,
    mut packets: mpsc::Receiver<Vec<u8>>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    let mut socket = None;
    let mut looked_up = None;
    loop {
        let packet = tokio::select! {
            () = stop.cancelled() => return,
            packet = packets.recv() => match packet {
                Some(packet) => packet,
                None => return,
            },
        };
        let now = tokio::time::Instant::now();
        if looked_up.is_none_or(|at| now.duration_since(at) >= LOOK_UP) {
            looked_up = Some(now);
            match connect(&collector).await {
                Ok(connected) => socket = Some(connected),
                Err(error) => {
                    tracing::warn!(%collector, %error, "sip.hep: the collector is not reached");
                }
            }
        }
        let sent = match &socket {
            Some(socket) => socket.send(&packet).await.is_ok(),
            None => false,
        };
        counters.count(if sent { Counter::HepSent } else { Counter::HepDropped });
    }
}

async fn connect(collector: &str) -> io::Result<UdpSocket> {
    let address = tokio::net::lookup_host(collector).await?.next();
    let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_what_the_specification_says() {
        let (source, target) = ("192.0.2.1:5060".parse().unwrap(), "198.51.100.10:5062".parse().unwrap());
        let bytes =
            packet("n1", Transport::Udp, source, target, Timestamp(1_700_000_000_000_007), b"OPTIONS")
                .unwrap();
        assert_eq!(&bytes[..6], [b'H', b'E', b'P', b'3', 0, u8::try_from(bytes.len()).unwrap()]);
        let mut chunks = Vec::new();
        let mut rest = &bytes[6..];
        while let [v0, v1, t0, t1, l0, l1, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            assert_eq!([v0, v1], [0, 0]);
            chunks.push((u16::from_be_bytes([t0, t1]), rest[6..length].to_vec()));
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        let value = |kind| chunks.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
        assert_eq!(value(1), Some(&[2][..]));
        assert_eq!(value(2), Some(&[17][..]));
        assert_eq!(value(3), Some(&[192, 0, 2, 1][..]));
        assert_eq!(value(4), Some(&[198, 51, 100, 10][..]));
        assert_eq!(value(8), Some(&5_062u16.to_be_bytes()[..]));
        assert_eq!(value(9), Some(&1_700_000_000u32.to_be_bytes()[..]));
        assert_eq!(value(10), Some(&7u32.to_be_bytes()[..]));
        assert_eq!(value(11), Some(&[1][..]));
        assert_eq!(value(15), Some(&b"OPTIONS"[..]));
        let six = packet("n", Transport::Tls, "[2001:db8::1]:1".parse().unwrap(), target, Timestamp(0), b"x")
            .unwrap();
        assert_eq!((six[12], six[13]), (10, 0));
        assert!(packet("n", Transport::Tcp, source, target, Timestamp(0), &vec![0; MAX_PACKET]).is_none());
    }
}
