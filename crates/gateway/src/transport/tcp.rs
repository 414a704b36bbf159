//! SIP over TCP: connections, bounded in number, in what they may hold, and in how long they may say nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use signaling::{Hop, StreamItem, StreamParser, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FIRST_CONNECTION, Unsent};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::listener;

/// Connections in all.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections from one address.
const MAX_PER_SOURCE: usize = 64;
/// Time to the first whole message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Silence after which a connection is closed.
const IDLE: Duration = Duration::from_secs(120);
/// Longest time a message may take from its first byte.
const STALL: Duration = Duration::from_secs(5);
/// Messages that may wait for a peer to read.
const MAX_QUEUED: usize = 256;
/// Bytes that may wait for a peer to read.
const MAX_QUEUED_BYTES: usize = 256 << 10;
/// Longest time one write may take.
const WRITE_STALL: Duration = Duration::from_secs(10);
/// Longest time a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(4);
/// Read buffer.
const READ: usize = 16 << 10;

/// The open connections.
pub(crate) struct Connections {
    open: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_flow: AHashMap<u64, Connection>,
    /// Connections we made, for reuse.
    outbound: AHashMap<SocketAddr, u64>,
    per_source: AHashMap<IpAddr, usize>,
}

struct Connection {
    writer: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    remote: SocketAddr,
    close: CancellationToken,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(FIRST_CONNECTION) }
    }

    /// Queues bytes on a connection.
    pub(crate) fn send(&self, flow: u64, bytes: Bytes) -> Result<(), Unsent> {
        let table = self.open.lock();
        let connection = table.by_flow.get(&flow).ok_or(Unsent)?;
        let length = bytes.len();
        let waiting = connection.queued.fetch_add(length, Ordering::Relaxed) + length;
        if waiting > MAX_QUEUED_BYTES || connection.writer.try_send(bytes).is_err() {
            connection.queued.fetch_sub(length, Ordering::Relaxed);
            connection.close.cancel();
            return Err(Unsent);
        }
        Ok(())
    }

    /// Open connections.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().by_flow.len()
    }

    fn add(&self, connection: Connection, outbound: bool) -> Option<u64> {
        let mut table = self.open.lock();
        let source = connection.remote.ip();
        let of_source = table.per_source.get(&source).copied().unwrap_or(0);
        if !outbound && (table.by_flow.len() >= MAX_CONNECTIONS || of_source >= MAX_PER_SOURCE) {
            return None;
        }
        let flow = self.next.fetch_add(1, Ordering::Relaxed);
        table.per_source.insert(source, of_source + 1);
        if outbound {
            table.outbound.insert(connection.remote, flow);
        }
        table.by_flow.insert(flow, connection);
        Some(flow)
    }

    fn remove(&self, flow: u64) {
        let mut table = self.open.lock();
        let Some(connection) = table.by_flow.remove(&flow) else { return };
        if table.outbound.get(&connection.remote) == Some(&flow) {
            table.outbound.remove(&connection.remote);
        }
        let source = connection.remote.ip();
        match table.per_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                table.per_source.remove(&source);
            }
        }
    }
}

pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the gateway stops.
pub(crate) async fn serve(edge: Arc<Edge>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                if open(&edge, stream, remote, false, &stop).is_none() {
                    edge.counters.count(Counter::ConnectionsRefused);
                }
            }
            // Out of descriptors: give closing connections time rather than spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The flow to `remote`: an open connection of ours, or a new one, made within `limit`.
pub(crate) async fn connect(
    edge: &Arc<Edge>,
    remote: SocketAddr,
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> io::Result<u64> {
    let known = edge.transports.tcp.open.lock().outbound.get(&remote).copied();
    if let Some(flow) = known {
        return Ok(flow);
    }
    let limit = limit.unwrap_or(CONNECT);
    let stream = tokio::time::timeout(limit, TcpStream::connect(remote)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("none within {} ms", limit.as_millis()))
    })??;
    open(edge, stream, remote, true, stop).ok_or_else(|| io::Error::other("the connection could not be kept"))
}

fn open(
    edge: &Arc<Edge>,
    stream: TcpStream,
    remote: SocketAddr,
    outbound: bool,
    stop: &CancellationToken,
) -> Option<u64> {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    // Small messages must not wait for one another.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (sender, queue) = mpsc::channel(MAX_QUEUED);
    let queued = Arc::new(AtomicUsize::new(0));
    let close = stop.child_token();
    let connection = Connection { writer: sender, queued: Arc::clone(&queued), remote, close: close.clone() };
    let flow = edge.transports.tcp.add(connection, outbound)?;
    edge.counters.count(Counter::Connections);
    let hop = Hop { transport: Transport::Tcp, remote, flow };
    tokio::spawn(write(Arc::clone(edge), writer, queue, queued, close.clone()));
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        tokio::select! {
            () = close.cancelled() => {}
            () = read(&edge, reader, hop, outbound) => {}
        }
        edge.transports.tcp.remove(flow);
    });
    Some(flow)
}

/// Reads messages until the peer is done, silent for too long, or not speaking SIP. Dropping out of here takes the
/// connection off the table, which ends its writer once the queue is empty.
async fn read(edge: &Arc<Edge>, mut reader: OwnedReadHalf, hop: Hop, outbound: bool) {
    let mut parser = StreamParser::new();
    let mut buffer = vec![0u8; READ];
    let mut first = !outbound;
    let mut served = outbound;
    loop {
        let patience = match (parser.buffered(), first) {
            (0, false) => IDLE,
            (0, true) => FIRST_MESSAGE,
            _ => STALL,
        };
        let length = match tokio::time::timeout(patience, reader.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(length)) => length,
            Err(_) => {
                edge.counters.count(Counter::ConnectionsIdle);
                return;
            }
        };
        // In range: read returns at most the buffer's length.
        parser.push(&buffer[..length]);
        while let Some(item) = parser.next() {
            match item {
                StreamItem::Message(message) => {
                    first = false;
                    served |= listener::handle_message(edge, message, hop);
                }
                // A connection that carried nothing of ours is a stranger's.
                StreamItem::Ping if !served && edge.answers(hop.remote.ip(), Instant::now()).is_err() => {}
                StreamItem::Ping => {
                    let _ = edge.transports.send(hop, Bytes::from_static(b"\r\n"));
                }
                StreamItem::Malformed(malformed) => {
                    let fatal = malformed.fatal;
                    listener::handle_malformed(edge, malformed, hop);
                    if fatal {
                        edge.counters.count(Counter::ConnectionsMalformed);
                        return;
                    }
                }
            }
        }
        tokio::task::consume_budget().await;
    }
}

async fn write(
    edge: Arc<Edge>,
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    close: CancellationToken,
) {
    while let Some(bytes) = queue.recv().await {
        match tokio::time::timeout(WRITE_STALL, writer.write_all(&bytes)).await {
            Ok(Ok(())) => queued.fetch_sub(bytes.len(), Ordering::Relaxed),
            Ok(Err(_)) => break,
            Err(_) => {
                edge.counters.count(Counter::ConnectionsStalled);
                break;
            }
        };
    }
    close.cancel();
    let _ = writer.shutdown().await;
}
