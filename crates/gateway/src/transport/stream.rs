//! SIP over TCP and TLS: connections bounded in what they may hold, and in how long they may say nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::TlsSession;
use signaling::{Hop, StreamItem, StreamParser, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connections::{Connection, Peer};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::listener;
use crate::settings::{RateLimit, UnknownSources};

/// Longest a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// TLS handshakes with a source that no trunk lists.
pub(crate) const HANDSHAKES: RateLimit = RateLimit { count: 20, window: Duration::from_secs(1) };
/// TLS handshakes with all such sources in a second: a tenth of a core or so.
pub(crate) const HANDSHAKES_PER_SECOND: u32 = 200;
/// Time to the first whole message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// Silence after which a connection is closed.
const IDLE: Duration = Duration::from_secs(120);
/// Longest time a message may take from its first byte.
const STALL: Duration = Duration::from_secs(5);
/// Messages that may wait for a peer to read.
const MAX_QUEUED: usize = 256;
/// Longest time one write may take.
const WRITE_STALL: Duration = Duration::from_secs(10);
/// Longest time a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(4);
/// Silence after which TCP itself asks whether the peer is there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Read buffer: thousands of connections may be open.
const READ: usize = 4 << 10;

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

/// What a connection's two tasks share.
struct Ends {
    hop: Hop,
    queue: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    close: CancellationToken,
    /// Whether we made it.
    ours: bool,
}

/// Accepts connections until the gateway stops.
pub(crate) async fn serve(
    edge: Arc<Edge>,
    listener: TcpListener,
    transport: Transport,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) if is_stranger(&edge, remote.ip().to_canonical()) => {
                refuse(stream);
                edge.counters.count(Counter::ConnectionsStranger);
            }
            Ok((stream, remote)) => match take(&edge, transport, remote, None, None) {
                Some(ends) => {
                    tokio::spawn(accept(Arc::clone(&edge), stream, ends));
                }
                None => edge.counters.count(Counter::ConnectionsRefused),
            },
            // Out of descriptors: give closing connections time rather than spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Whether nothing that may come from there concerns us, and it is to get nothing: not even a handshake.
fn is_stranger(edge: &Edge, source: IpAddr) -> bool {
    edge.settings.unknown_sources == UnknownSources::Drop
        && !edge.directory.load().serves(source)
        && !edge.transports.streams.reaches(source)
}

/// Closes a connection so that nothing of it is left.
fn refuse(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Whether a source gets the costly half of a TLS handshake.
fn may_shake(edge: &Edge, source: IpAddr) -> bool {
    let now = Instant::now();
    edge.directory.load().lists(source)
        || (edge.handshakes.take(source, now) && edge.stranger_handshakes.take(now))
}

async fn accept(edge: Arc<Edge>, stream: TcpStream, ends: Ends) {
    prepare(&stream);
    let (flow, source) = (ends.hop.flow, ends.hop.remote.ip());
    match ends.hop.transport {
        Transport::Tls => {
            let shaken = tokio::select! {
                () = ends.close.cancelled() => return edge.transports.streams.remove(flow),
                shaken = tokio::time::timeout(HANDSHAKE, edge.tls.accept(stream, || may_shake(&edge, source))) => shaken,
            };
            match shaken {
                Ok(Ok(Some(stream))) => run(edge, stream, ends).await,
                Ok(Ok(None)) => {
                    edge.counters.count(Counter::ConnectionsRate);
                    edge.transports.streams.remove(flow);
                }
                Ok(Err(_)) | Err(_) => {
                    edge.counters.count(Counter::ConnectionsHandshake);
                    edge.transports.streams.remove(flow);
                }
            }
        }
        Transport::Tcp | Transport::Udp => run(edge, stream, ends).await,
    }
}

/// The flow to a peer: an open connection of ours, or a new one, made within `limit`.
pub(crate) async fn connect(edge: &Arc<Edge>, peer: Peer, limit: Option<Duration>) -> io::Result<u64> {
    if let Some(flow) = edge.transports.streams.to(&peer) {
        return Ok(flow);
    }
    let limit = limit.unwrap_or(CONNECT);
    let late = || {
        io::Error::new(io::ErrorKind::TimedOut, format!("it was not there within {} ms", limit.as_millis()))
    };
    let stream = TcpStream::connect(peer.remote);
    let stream = tokio::time::timeout(limit, stream).await.map_err(|_| late())??;
    // Whoever takes connections is there: the handshake has some time of its own.
    let shaken = tokio::time::timeout(limit.saturating_mul(2).min(HANDSHAKE), make(edge, peer, stream)).await;
    shaken.map_err(|_| late())?
}

async fn make(edge: &Arc<Edge>, peer: Peer, stream: TcpStream) -> io::Result<u64> {
    prepare(&stream);
    let (transport, remote) = (peer.transport, peer.remote);
    let kept = || io::Error::other("the connection could not be kept");
    match &peer.name {
        None => {
            let ends = take(edge, transport, remote, Some(peer), None).ok_or_else(kept)?;
            let flow = ends.hop.flow;
            tokio::spawn(run(Arc::clone(edge), stream, ends));
            Ok(flow)
        }
        Some(name) => {
            let (stream, session) = edge.tls.connect(stream, name).await?;
            let ends = take(edge, transport, remote, Some(peer), Some(session)).ok_or_else(kept)?;
            let flow = ends.hop.flow;
            tokio::spawn(run(Arc::clone(edge), stream, ends));
            Ok(flow)
        }
    }
}

/// Small messages must not wait for one another, and a peer that is gone must be found out.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// A place on the table; `None` when there is none.
fn take(
    edge: &Arc<Edge>,
    transport: Transport,
    remote: SocketAddr,
    made_for: Option<Peer>,
    tls: Option<TlsSession>,
) -> Option<Ends> {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let (writer, queue) = mpsc::channel(MAX_QUEUED);
    let queued = Arc::new(AtomicUsize::new(0));
    let close = edge.stop.child_token();
    let ours = made_for.is_some();
    let connection = Connection {
        writer,
        queued: Arc::clone(&queued),
        remote,
        close: close.clone(),
        made_for,
        transport,
        users: Arc::default(),
        tls,
        listed: edge.directory.load().lists(remote.ip()),
    };
    let flow = edge.transports.streams.add(connection)?;
    edge.counters.count(Counter::Connections);
    Some(Ends { hop: Hop { transport, remote, flow }, queue, queued, close, ours })
}

/// Carries a connection until its end.
async fn run<S>(edge: Arc<Edge>, stream: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Ends { hop, queue, queued, close, ours } = ends;
    let (reader, writer) = tokio::io::split(stream);
    tokio::spawn(write(Arc::clone(&edge), writer, queue, queued, close.clone()));
    tokio::select! {
        () = close.cancelled() => {}
        () = read(&edge, reader, hop, ours) => {}
    }
    // Off the table there is nobody who could send: the writer ends once its queue is empty.
    edge.transports.streams.remove(hop.flow);
}

/// Reads messages until the peer is done, silent for too long, or not speaking SIP.
async fn read<S: AsyncRead>(edge: &Arc<Edge>, mut reader: ReadHalf<S>, hop: Hop, ours: bool) {
    let mut parser = StreamParser::new();
    let mut buffer = [0u8; READ];
    let mut first = !ours;
    let mut served = ours;
    // Bytes that drip in do not move it: a message's time counts from its first byte.
    let mut until = tokio::time::Instant::now() + if first { FIRST_MESSAGE } else { IDLE };
    loop {
        let length = match tokio::time::timeout_at(until, reader.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(length)) => length,
            // A call may be silent for hours: our end says something now and then, so that no NAT on the way forgets.
            Err(_) if parser.buffered() == 0 && edge.transports.streams.in_use(hop.flow) => {
                if ours {
                    let _ = edge.transports.send(hop, Bytes::from_static(b"\r\n\r\n"));
                }
                until = tokio::time::Instant::now() + IDLE;
                continue;
            }
            Err(_) => {
                edge.counters.count(Counter::ConnectionsIdle);
                return;
            }
        };
        let began = parser.buffered() == 0;
        // In range: read returns at most the buffer's length.
        parser.push(&buffer[..length]);
        let mut whole = false;
        while let Some(item) = parser.next() {
            match item {
                StreamItem::Message(message) => {
                    if std::mem::take(&mut first) {
                        edge.transports.streams.prove(hop.flow);
                    }
                    whole = true;
                    served |= listener::handle_message(edge, message, hop);
                }
                // A keep-alive (RFC 5626 3.5.1). It proves nothing, and a connection that carried nothing of ours is a
                // stranger's.
                StreamItem::Ping => {
                    whole = true;
                    if served || edge.answers(hop.remote.ip(), Instant::now()).is_ok() {
                        let _ = edge.transports.send(hop, Bytes::from_static(b"\r\n"));
                    }
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
        let now = tokio::time::Instant::now();
        if parser.buffered() == 0 {
            if !first {
                until = now + IDLE;
            }
        } else if began || whole {
            until = if first { until.min(now + STALL) } else { now + STALL };
        }
        tokio::task::consume_budget().await;
    }
}

async fn write<S: AsyncWrite>(
    edge: Arc<Edge>,
    mut writer: WriteHalf<S>,
    mut queue: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    close: CancellationToken,
) {
    while let Some(bytes) = queue.recv().await {
        let sent = async {
            writer.write_all(&bytes).await?;
            // A TLS stream keeps what it has encrypted until it is told.
            writer.flush().await
        };
        match tokio::time::timeout(WRITE_STALL, sent).await {
            Ok(Ok(())) => queued.fetch_sub(bytes.len(), Ordering::Relaxed),
            Ok(Err(_)) => break,
            Err(_) => {
                edge.counters.count(Counter::ConnectionsStalled);
                break;
            }
        };
    }
    close.cancel();
    let _ = tokio::time::timeout(WRITE_STALL, writer.shutdown()).await;
}
