//! The table of stream connections: how many there may be, whose they are, and which of them is given up for a
//! newcomer. A peer that has not said a whole message yet holds its place only as long as nobody else wants it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::AHashMap;
use bytes::Bytes;
use cluster::TlsSession;
use parking_lot::Mutex;
use signaling::{Hop, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FIRST_CONNECTION, Unsent};
use crate::calls::{CallInput, Mailbox};

/// Connections in all.
const MAX_CONNECTIONS: usize = 4_096;
/// Of these, kept free for the addresses that some trunk lists.
const RESERVED: usize = MAX_CONNECTIONS / 10;
/// Connections from one address that no trunk lists.
const MAX_PER_SOURCE: usize = 64;
/// Bytes that may wait for a peer to read.
const MAX_QUEUED_BYTES: usize = 256 << 10;
/// Connections of ours that are remembered when they are lost, so that they can be made again.
const MAX_LOST: usize = 1_024;

/// What a connection of ours reaches: who wants the same may use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) transport: Transport,
    pub(crate) remote: SocketAddr,
    /// Whose certificate was asked for; `None` without TLS.
    pub(crate) name: Option<Box<str>>,
}

/// Who uses a connection, and is told of its end.
#[derive(Default)]
pub(super) struct Users {
    next: u64,
    of: AHashMap<u64, Option<Mailbox>>,
}

/// Keeps a connection open that says nothing.
pub(crate) struct InUse(Arc<Mutex<Users>>, u64);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.lock().of.remove(&self.1);
    }
}

/// The open connections.
pub(crate) struct Connections {
    table: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_flow: AHashMap<u64, Connection>,
    outbound: AHashMap<Peer, u64>,
    sources: AHashMap<IpAddr, Source>,
    /// Connections from outside that have said nothing yet, the oldest first: from addresses no trunk lists, and from
    /// those some trunk does.
    unproven: [BTreeSet<u64>; 2],
    lost: AHashMap<u64, Peer>,
}

#[derive(Default)]
struct Source {
    count: usize,
    /// Of these, made by us.
    ours: usize,
    unproven: BTreeSet<u64>,
}

pub(super) struct Connection {
    pub(super) writer: mpsc::Sender<Bytes>,
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) remote: SocketAddr,
    pub(super) close: CancellationToken,
    /// What we made it for; `None` when the peer did.
    pub(super) made_for: Option<Peer>,
    pub(super) transport: Transport,
    pub(super) users: Arc<Mutex<Users>>,
    pub(super) tls: Option<TlsSession>,
    /// Whether some trunk lists the peer's address.
    pub(super) listed: bool,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::default(), next: AtomicU64::new(FIRST_CONNECTION) }
    }

    /// Queues bytes on a connection.
    pub(crate) fn send(&self, flow: u64, bytes: Bytes) -> Result<(), Unsent> {
        let table = self.table.lock();
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
        self.table.lock().by_flow.len()
    }

    /// The open connection of ours to a peer.
    pub(crate) fn to(&self, peer: &Peer) -> Option<u64> {
        self.table.lock().outbound.get(peer).copied()
    }

    /// An open connection with an address: of ours to it, whatever name it was made for; else one of a carrier's with
    /// its host, or the only one there is. Of several peers at one address the wrong one must not be told.
    pub(crate) fn with(&self, transport: Transport, remote: SocketAddr) -> Option<Hop> {
        let table = self.table.lock();
        let open = || table.by_flow.iter().filter(|(_, c)| c.transport == transport);
        let ours = open().find(|(_, c)| c.made_for.is_some() && c.remote == remote);
        let mut of_host = open().filter(|(_, c)| c.remote.ip() == remote.ip());
        let any = || {
            let first = of_host.next()?;
            (first.1.listed || of_host.next().is_none()).then_some(first)
        };
        let (flow, connection) = ours.or_else(any)?;
        Some(Hop { transport, remote: connection.remote, flow: *flow })
    }

    /// Whether a connection of ours with a host is open: it may answer on one of its own.
    pub(super) fn reaches(&self, host: IpAddr) -> bool {
        self.table.lock().sources.get(&host).is_some_and(|source| source.ours > 0)
    }

    /// Keeps a connection open as long as a call runs over it; when it is lost, `told` learns of it.
    pub(crate) fn hold(&self, flow: u64, told: Option<Mailbox>) -> Option<InUse> {
        let users = Arc::clone(&self.table.lock().by_flow.get(&flow)?.users);
        let mut locked = users.lock();
        locked.next += 1;
        let id = locked.next;
        locked.of.insert(id, told);
        drop(locked);
        Some(InUse(users, id))
    }

    pub(super) fn in_use(&self, flow: u64) -> bool {
        self.table.lock().by_flow.get(&flow).is_some_and(|c| !c.users.lock().of.is_empty())
    }

    /// What a connection of ours that is no more was made for.
    pub(crate) fn lost(&self, hop: Hop) -> Option<Peer> {
        self.table.lock().lost.get(&hop.flow).cloned()
    }

    /// The TLS session of a connection.
    pub(crate) fn tls(&self, flow: u64) -> Option<TlsSession> {
        self.table.lock().by_flow.get(&flow)?.tls.clone()
    }

    /// Takes a connection in. For one from outside another may have to go; `None` when there is no place.
    pub(super) fn add(&self, connection: Connection) -> Option<u64> {
        let mut table = self.table.lock();
        let source = connection.remote.ip();
        if connection.made_for.is_none() && !table.make_room(source, connection.listed) {
            return None;
        }
        let flow = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = table.sources.entry(source).or_default();
        entry.count += 1;
        entry.ours += usize::from(connection.made_for.is_some());
        if connection.made_for.is_none() {
            entry.unproven.insert(flow);
            table.unproven[usize::from(connection.listed)].insert(flow);
        }
        if let Some(peer) = &connection.made_for {
            table.outbound.insert(peer.clone(), flow);
        }
        table.by_flow.insert(flow, connection);
        Some(flow)
    }

    /// The peer has said a whole message: it keeps its place.
    pub(super) fn prove(&self, flow: u64) {
        self.table.lock().prove(flow);
    }

    pub(super) fn remove(&self, flow: u64) {
        self.table.lock().remove(flow);
    }
}

impl Table {
    /// Whether there is a place for one more from `source`, after another has been closed where need be: one that has
    /// said nothing yet, of the same address first.
    fn make_room(&mut self, source: IpAddr, listed: bool) -> bool {
        let entry = self.sources.get(&source);
        if !listed && entry.is_some_and(|entry| entry.count >= MAX_PER_SOURCE) {
            let oldest = entry.and_then(|entry| entry.unproven.first().copied());
            return oldest.is_some_and(|flow| self.close(flow));
        }
        let most = if listed { MAX_CONNECTIONS } else { MAX_CONNECTIONS - RESERVED };
        if self.by_flow.len() < most {
            return true;
        }
        let [strangers, of_trunks] = &self.unproven;
        let oldest = strangers.first().or_else(|| of_trunks.first().filter(|_| listed)).copied();
        oldest.is_some_and(|flow| self.close(flow))
    }

    fn close(&mut self, flow: u64) -> bool {
        if let Some(connection) = self.by_flow.get(&flow) {
            connection.close.cancel();
        }
        self.remove(flow);
        true
    }

    fn prove(&mut self, flow: u64) {
        let Some(connection) = self.by_flow.get(&flow) else { return };
        self.unproven[usize::from(connection.listed)].remove(&flow);
        if let Some(entry) = self.sources.get_mut(&connection.remote.ip()) {
            entry.unproven.remove(&flow);
        }
    }

    fn remove(&mut self, flow: u64) {
        self.prove(flow);
        let Some(connection) = self.by_flow.remove(&flow) else { return };
        let hop = Hop { transport: connection.transport, remote: connection.remote, flow };
        for told in connection.users.lock().of.values().flatten() {
            // A call that does not keep up finds out when it sends.
            let _ = told.try_send(CallInput::Closed(hop));
        }
        let ours = connection.made_for.is_some();
        if let Some(peer) = connection.made_for {
            if self.outbound.get(&peer) == Some(&flow) {
                self.outbound.remove(&peer);
            }
            if self.lost.len() >= MAX_LOST {
                self.lost.clear();
            }
            self.lost.insert(flow, peer);
        }
        let source = connection.remote.ip();
        match self.sources.get_mut(&source) {
            Some(entry) if entry.count > 1 => {
                entry.count -= 1;
                entry.ours -= usize::from(ours);
            }
            _ => {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: &str, listed: bool) -> Connection {
        Connection {
            writer: mpsc::channel(1).0,
            queued: Arc::default(),
            remote: SocketAddr::new(source.parse().unwrap(), 9),
            close: CancellationToken::new(),
            made_for: None,
            transport: Transport::Tcp,
            users: Arc::default(),
            tls: None,
            listed,
        }
    }

    #[test]
    fn who_says_nothing_makes_room_and_who_has_spoken_stays() {
        let connections = Connections::new();
        let first = from("192.0.2.1", false);
        let closed = first.close.clone();
        assert!(connections.add(first).is_some());
        let spoken: Vec<u64> = (1..MAX_PER_SOURCE)
            .map(|_| connections.add(from("192.0.2.1", false)).unwrap())
            .inspect(|flow| connections.prove(*flow))
            .collect();
        assert!(!closed.is_cancelled());
        let newcomer = connections.add(from("192.0.2.1", false)).unwrap();
        assert!(closed.is_cancelled());
        connections.prove(newcomer);
        assert_eq!(connections.add(from("192.0.2.1", false)), None);
        assert!(connections.add(from("192.0.2.2", false)).is_some());
        connections.remove(spoken[0]);
        assert!(connections.add(from("192.0.2.1", false)).is_some());
    }

    #[test]
    fn a_message_for_a_lost_connection_goes_to_no_neighbour() {
        let connections = Connections::new();
        let with =
            |host: &str| connections.with(Transport::Tcp, SocketAddr::new(host.parse().unwrap(), 5_060));
        let first = connections.add(from("192.0.2.1", false)).unwrap();
        assert_eq!(with("192.0.2.1").map(|hop| hop.flow), Some(first));
        let second = connections.add(from("192.0.2.1", false)).unwrap();
        assert_eq!(with("192.0.2.1"), None);
        connections.remove(first);
        assert_eq!(with("192.0.2.1").map(|hop| hop.flow), Some(second));
        for _ in 0..2 {
            connections.add(from("198.51.100.1", true)).unwrap();
        }
        assert!(with("198.51.100.1").is_some() && with("192.0.2.9").is_none());
    }

    #[test]
    fn listed_addresses_have_a_reserve_and_no_limit_of_their_own() {
        let connections = Connections::new();
        let add = |n: usize, listed| {
            let source = format!("10.{}.{}.{}", u8::from(listed), n / 250, n % 250);
            connections.add(from(&source, listed)).inspect(|flow| connections.prove(*flow))
        };
        for n in 0..MAX_CONNECTIONS - RESERVED {
            assert!(add(n, false).is_some());
        }
        assert!(add(9_000, false).is_none());
        for _ in 0..RESERVED {
            assert!(add(1, true).is_some());
        }
        assert!(add(1, true).is_none());
        assert_eq!(connections.len(), MAX_CONNECTIONS);
    }

    #[test]
    fn a_carrier_gets_the_place_of_a_silent_stranger() {
        let connections = Connections::new();
        for n in 0..MAX_CONNECTIONS - RESERVED {
            assert!(connections.add(from(&format!("10.0.{}.{}", n / 250, n % 250), false)).is_some());
        }
        for _ in 0..MAX_CONNECTIONS {
            assert!(connections.add(from("192.0.2.1", true)).is_some());
        }
        assert_eq!(connections.len(), MAX_CONNECTIONS);
    }
}
