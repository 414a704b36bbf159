//! Messages whose way has to be found first: the next hop of a dialog is a name or wants another transport
//! (RFC 3261 8.1.2), or the connection a message belongs on is lost and made again (RFC 3261 18.2.2, RFC 5923). They
//! wait in a lane of their own, in order, while the call goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;
use signaling::{Hop, Transmit, Transport, Way};
use tokio::sync::mpsc;

use crate::calls::{CallInput, Key};
use crate::edge::Edge;
use crate::transport::Unsent;
use crate::transport::connections::Peer;
use crate::transport::stream;

/// Ways that are looked for at once.
const MAX_LANES: usize = 1_024;
/// Messages that may wait for one.
const MAX_WAITING: usize = 64;
/// Ways remembered; forgotten all at once when full.
const MAX_KNOWN: usize = 4_096;
/// How long a way is good for before it is looked for again.
const GOOD: Duration = Duration::from_secs(60);
/// Longest a name may take: the other side repeats what it waits for.
const RESOLVE: Duration = Duration::from_millis(1_500);
/// Longest a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const MAX_TRIED: usize = 4;

/// What a lane leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Goal {
    /// A connection of ours that was lost.
    Peer(Peer),
    /// What a message names; where the dialog's messages come from when that leads nowhere.
    Way(Transport, Way, SocketAddr),
}

struct Waiting {
    hop: Hop,
    bytes: Bytes,
    owner: Key,
}

/// The ways that are known, and those that are looked for.
#[derive(Default)]
pub(crate) struct Lanes {
    known: Mutex<AHashMap<Goal, (Hop, Instant)>>,
    open: Mutex<AHashMap<Goal, mpsc::Sender<Waiting>>>,
}

/// Sends a message of the call under `owner`: at once where its way is known, else as soon as it is found. What cannot
/// be sent then comes to the call as [`CallInput::Unsent`].
pub(crate) fn send(edge: &Arc<Edge>, transmit: Transmit, owner: Key) -> Result<(), Unsent> {
    let Transmit { hop, bytes } = transmit;
    if hop.flow != Hop::BY_URI {
        match edge.send(hop, bytes.clone()) {
            // A full UDP socket is a lost packet, for which the transaction retransmits.
            Err(Unsent) if hop.transport.is_reliable() => {}
            Ok(()) | Err(Unsent) => return Ok(()),
        }
    }
    let goal = match edge.transports.streams.lost(hop) {
        Some(peer) => Goal::Peer(peer),
        None => Goal::Way(hop.transport, Way::of(&bytes).ok_or(Unsent)?, hop.remote),
    };
    let known = edge.lanes.known.lock().get(&goal).filter(|(_, at)| at.elapsed() < GOOD).map(|(hop, _)| *hop);
    if let Some(known) = known
        && edge.send(known, bytes.clone()).is_ok()
    {
        return Ok(());
    }
    let mut open = edge.lanes.open.lock();
    let waiting = Waiting { hop, bytes, owner };
    if let Some(lane) = open.get(&goal) {
        return lane.try_send(waiting).map_err(|_| Unsent);
    }
    if open.len() >= MAX_LANES {
        return Err(Unsent);
    }
    let (lane, queue) = mpsc::channel(MAX_WAITING);
    lane.try_send(waiting).map_err(|_| Unsent)?;
    open.insert(goal.clone(), lane);
    drop(open);
    tokio::spawn(carry(Arc::clone(edge), goal, queue));
    Ok(())
}

/// Finds the way, and sends what waits for it.
async fn carry(edge: Arc<Edge>, goal: Goal, mut queue: mpsc::Receiver<Waiting>) {
    let found = match &goal {
        Goal::Peer(peer) => connect(&edge, peer.clone()).await,
        Goal::Way(transport, way, origin) => find(&edge, *transport, way, *origin).await,
    };
    if let Some(found) = found {
        let mut known = edge.lanes.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(goal.clone(), (found, Instant::now()));
    }
    loop {
        let waiting = {
            // Whoever sends looks under the same lock: nothing is left behind in a lane that ends.
            let mut open = edge.lanes.open.lock();
            match queue.try_recv() {
                Ok(waiting) => waiting,
                Err(_) => {
                    open.remove(&goal);
                    return;
                }
            }
        };
        let sent = found.is_some_and(|found| edge.send(found, waiting.bytes).is_ok());
        if !sent && let Some(call) = edge.calls.dialog(waiting.owner) {
            // A call that does not keep up runs into its timers.
            let _ = call.try_send(CallInput::Unsent(waiting.hop));
        }
    }
}

async fn connect(edge: &Arc<Edge>, peer: Peer) -> Option<Hop> {
    let (transport, remote) = (peer.transport, peer.remote);
    let flow = stream::connect(edge, peer, Some(CONNECT)).await.ok()?;
    Some(Hop { transport, remote, flow })
}

async fn find(edge: &Arc<Edge>, transport: Transport, way: &Way, origin: SocketAddr) -> Option<Hop> {
    let resolved = edge.names.resolve(&way.host, way.port, transport);
    let addresses = tokio::time::timeout(RESOLVE, resolved).await;
    for remote in addresses.ok().and_then(Result::ok).unwrap_or_default().into_iter().take(MAX_TRIED) {
        // The peer itself may be where it likes; it may not send us on to where a tenant may not.
        let allowed = remote.ip() == origin.ip() || edge.settings.private_targets.check(remote.ip()).is_ok();
        if !allowed {
            continue;
        }
        let found = match transport {
            Transport::Udp => edge.transports.udp_flow(remote).map(|flow| Hop { transport, remote, flow }),
            Transport::Tcp | Transport::Tls => match edge.transports.streams.with(transport, remote) {
                Some(open) => Some(open),
                None => {
                    let name = (transport == Transport::Tls).then(|| way.host.clone());
                    connect(edge, Peer { transport, remote, name }).await
                }
            },
        };
        if found.is_some() {
            return found;
        }
    }
    match transport {
        Transport::Udp => {
            edge.transports.udp_flow(origin).map(|flow| Hop { transport, remote: origin, flow })
        }
        Transport::Tcp | Transport::Tls => edge.transports.streams.with(transport, origin),
    }
}
