//! SIP over UDP: one socket a listener, read in batches.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use signaling::{Hop, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Unsent;
use crate::counters::Counter;
use crate::edge::Edge;
use crate::{listener, load, strangers};

/// Largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;
/// Datagrams read before other tasks get a turn, and about how many bytes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 128 << 10;
/// Socket buffers: some tenths of a second of a flood while the process is held up.
const SOCKET_BUFFER: usize = 8 << 20;
/// Messages are copied out of the read buffer into blocks of this size, many to a block. The allocator keeps what is not
/// larger at hand; of a larger one every page is the system's to give again and again.
const BLOCK: usize = 32 << 10;

/// Keep-alives (RFC 5626 3.5.1) and other things shorter than any message cost nothing: `X a:b SIP/2.0` and a line end
/// are longer than this.
const SHORTEST: usize = 12;

/// A bound UDP listener.
pub(crate) struct Listener {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_nonblocking(true)?;
        // The system caps these, but for a process that may pass its cap; what it grants is enough to start with.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        }
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> Result<(), Unsent> {
        let to = match (self.local, to.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        self.socket.try_send_to(bytes, to).map(|_| ()).map_err(|_| Unsent)
    }
}

/// Datagrams that were read one after the other.
struct Batch {
    bytes: Vec<u8>,
    /// Where each is, and from whom.
    datagrams: Vec<(Range<usize>, SocketAddr)>,
}

impl Batch {
    fn new() -> Self {
        Self { bytes: vec![0; BATCH_BYTES + MAX_DATAGRAM], datagrams: Vec::with_capacity(BATCH) }
    }

    /// Reads what waits in a socket; whether that was all.
    fn fill(&mut self, socket: &UdpSocket) -> bool {
        self.datagrams.clear();
        let mut at = 0;
        for _ in 0..BATCH {
            // In range: `at` is at most BATCH_BYTES, and recv_from returns at most the buffer's length.
            match socket.try_recv_from(&mut self.bytes[at..at + MAX_DATAGRAM]) {
                Ok((length, from)) => {
                    if length >= SHORTEST {
                        self.datagrams.push((at..at + length, from));
                        at += length;
                    }
                    if at > BATCH_BYTES {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // An ICMP error of an earlier send: the next read is unaffected.
                Err(_) => {}
            }
        }
        false
    }
}

/// Reads a listener until the gateway stops.
pub(crate) async fn serve(edge: Arc<Edge>, index: usize, stop: CancellationToken) {
    let Some(listener) = edge.transports.udp.get(index) else { return };
    let Ok(flow) = u64::try_from(index) else { return };
    let mut batch = Batch::new();
    let mut block = BytesMut::with_capacity(BLOCK);
    let mut stopped = std::pin::pin!(stop.cancelled());
    loop {
        tokio::select! {
            () = stopped.as_mut() => return,
            ready = listener.socket.readable() => if ready.is_err() { return },
        }
        edge.load.reads(index, Instant::now());
        // Told before the batch is looked at: the last of a burst find nobody behind them, and are no call too many.
        let emptied = batch.fill(&listener.socket);
        if emptied {
            edge.load.emptied(index);
        }
        let desperate = edge.load.is_desperate(Instant::now());
        for (at, from) in &batch.datagrams {
            let bytes = &batch.bytes[at.clone()];
            let remote = SocketAddr::new(from.ip().to_canonical(), from.port());
            let hop = Hop { transport: Transport::Udp, remote, flow };
            match strangers::admit(&edge, bytes, hop) {
                Ok(()) if desperate && load::begins_a_call(&edge, bytes) => {
                    edge.counters.count(Counter::DroppedOverload);
                }
                Ok(()) => listener::handle_datagram(&edge, copy(&mut block, bytes), hop),
                Err(dropped) => edge.counters.count(dropped),
            }
        }
        if !emptied {
            // The calls there are have their turn before more is read.
            tokio::task::yield_now().await;
        }
    }
}

/// Copies a datagram into the current block.
fn copy(block: &mut BytesMut, datagram: &[u8]) -> Bytes {
    if block.capacity() < datagram.len() {
        *block = BytesMut::with_capacity(BLOCK.max(datagram.len()));
    }
    block.extend_from_slice(datagram);
    block.split().freeze()
}
