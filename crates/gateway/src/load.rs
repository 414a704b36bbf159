//! Whether signalling keeps up with what comes in. Who is behind answers everybody late; a node that turns new calls
//! away while it is behind keeps the calls it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use signaling::{Method, NameAddr, Peek, Transport};

use crate::edge::Edge;

/// How often the event loop's lag is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Lag from which the event loop is late.
const LAG: Duration = Duration::from_millis(50);
/// How long signalling may be behind without a break: a burst of calls, or a processor that others had for a moment, is
/// no overload.
const TOLERANCE: Duration = Duration::from_millis(250);
/// From when on telling new calls so is too much as well: they go unread, so that the messages of calls behind them do not
/// wait. Who is not told repeats its INVITE.
const DESPERATE: Duration = Duration::from_secs(1);

/// Since when something is behind, in microseconds since the gateway began, and one; 0 when it is not.
#[derive(Default)]
struct Behind(AtomicU64);

impl Behind {
    fn begins(&self, now: u64) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(now + 1, Ordering::Relaxed);
        }
    }

    fn ends(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn for_long(&self, how_long: Duration, now: u64) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != 0 && u128::from((now + 1).saturating_sub(since)) >= how_long.as_micros()
    }
}

/// What shows that signalling is behind: the event loop is late, or a UDP socket is never empty.
pub(crate) struct Load {
    begun: Instant,
    event_loop: Behind,
    sockets: Box<[Behind]>,
}

impl Load {
    /// Of a gateway with so many UDP sockets.
    pub(crate) fn new(sockets: usize, now: Instant) -> Self {
        let sockets = (0..sockets).map(|_| Behind::default()).collect();
        Self { begun: now, event_loop: Behind::default(), sockets }
    }

    /// A socket has something to read.
    pub(crate) fn reads(&self, socket: usize, now: Instant) {
        if let Some(socket) = self.sockets.get(socket) {
            socket.begins(self.micros(now));
        }
    }

    /// Nothing waits in a socket any more.
    pub(crate) fn emptied(&self, socket: usize) {
        if let Some(socket) = self.sockets.get(socket) {
            socket.ends();
        }
    }

    /// The event loop came so late to what was due.
    fn ticked(&self, late: Duration, now: Instant) {
        if late > LAG { self.event_loop.begins(self.micros(now)) } else { self.event_loop.ends() }
    }

    /// Whether new calls are to be turned away. Of a call that comes by UDP the sockets tell more than the event loop,
    /// which may be late and still see to everything that comes.
    pub(crate) fn is_over(&self, by: Option<Transport>, now: Instant) -> bool {
        let event_loop = by != Some(Transport::Udp) && self.event_loop.for_long(TOLERANCE, self.micros(now));
        event_loop || self.is_behind(TOLERANCE, now)
    }

    /// Whether new calls are not even to be read.
    pub(crate) fn is_desperate(&self, now: Instant) -> bool {
        self.is_behind(DESPERATE, now)
    }

    fn is_behind(&self, how_long: Duration, now: Instant) -> bool {
        let now = self.micros(now);
        self.sockets.iter().any(|socket| socket.for_long(how_long, now))
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX - 1)
    }
}

/// Whether a datagram is of nothing but a call that is to begin.
pub(crate) fn begins_a_call(edge: &Edge, datagram: &[u8]) -> bool {
    let Some(peek) = Peek::of(datagram) else { return false };
    let invite = peek.request.is_some_and(|(method, _)| method == Method::Invite);
    let begins = invite && !peek.folded && peek.to().as_ref().and_then(NameAddr::tag).is_none();
    begins && !edge.calls.knows(&peek)
}

/// Measures the event loop's lag until the gateway stops.
pub(crate) async fn watch(edge: Arc<Edge>) {
    loop {
        let due = Instant::now() + TICK;
        tokio::select! {
            () = edge.stop.cancelled() => return,
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = Instant::now();
        edge.load.ticked(now.saturating_duration_since(due), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const UDP: Option<Transport> = Some(Transport::Udp);

    #[test]
    fn a_socket_that_is_never_empty_is_overload_and_a_burst_is_none() {
        let start = Instant::now();
        let load = Load::new(2, start);
        load.reads(1, start);
        load.reads(1, start + 200 * MS);
        assert!(!load.is_over(UDP, start + 249 * MS));
        load.emptied(1);
        load.reads(1, start + 249 * MS);
        assert!(!load.is_over(UDP, start + 260 * MS));
        // Another socket that keeps up does not hide it.
        load.reads(0, start + 400 * MS);
        load.emptied(0);
        assert!(load.is_over(UDP, start + 499 * MS));
        assert!(!load.is_desperate(start + 1_248 * MS) && load.is_desperate(start + 1_249 * MS));
        load.emptied(1);
        assert!(!load.is_over(UDP, start + 500 * MS));
    }

    #[test]
    fn a_late_event_loop_is_overload_once_it_stays_late() {
        let start = Instant::now();
        let load = Load::new(0, start);
        // A process that was stopped for a while, such as a virtual machine that was moved.
        load.ticked(10_000 * MS, start);
        assert!(!load.is_over(None, start));
        load.ticked(5 * MS, start + 20 * MS);
        assert!(!load.is_over(None, start + 1_000 * MS));
        for tick in 0..4 {
            load.ticked(60 * MS, start + 1_000 * MS + 80 * MS * tick);
        }
        let late = start + 1_250 * MS;
        assert!(load.is_over(None, late) && load.is_over(Some(Transport::Tcp), late));
        assert!(!load.is_over(UDP, late));
        load.ticked(50 * MS, start + 1_300 * MS);
        assert!(!load.is_over(None, start + 1_300 * MS));
    }
}
