//! The messages of live calls, kept until they end: bounded a call, and bounded altogether.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use bytes::Bytes;
use model::{Conversation, DecisionRecord, Timestamp, Trace, TraceMessage};
use parking_lot::Mutex;
use signaling::{Hop, masked};

use crate::calls::Key;
use crate::record::Records;

/// Messages kept of a call: the first ones, and the last.
const MAX_MESSAGES: usize = 64;
/// The first ones that are kept whatever follows.
const FIRST: usize = 8;
/// Bytes kept of a call.
const MAX_BYTES: usize = 64 << 10;
/// Bytes kept of all calls; beyond it a new message is left out.
const MAX_TOTAL: usize = 64 << 20;
/// How often a trace that was written down is written again for what came after it.
const MAX_UPDATES: u8 = 4;
/// Tables, so that calls on different cores rarely wait for each other.
const SHARDS: usize = 64;

/// One message of a live call.
struct Kept {
    at: Timestamp,
    sent: bool,
    hop: Hop,
    local: SocketAddr,
    raw: Bytes,
}

#[derive(Default)]
struct Capture {
    messages: Vec<Kept>,
    bytes: usize,
    left_out: u32,
    ended: Option<Box<End>>,
    /// Nothing more is kept.
    closed: bool,
}

/// How the call ended, once it has.
struct End {
    /// Without messages.
    trace: Trace,
    written: usize,
    updates: u8,
}

/// The captures of all calls, by the key of our side of their dialog.
pub(crate) struct Traces {
    shards: Vec<Mutex<AHashMap<Key, Capture>>>,
    total: AtomicUsize,
}

impl Traces {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), total: AtomicUsize::new(0) }
    }

    fn shard(&self, key: Key) -> &Mutex<AHashMap<Key, Capture>> {
        &self.shards[(key % SHARDS as u128) as usize]
    }

    /// Keeps a message of a call.
    pub(crate) fn add(&self, key: Key, sent: bool, hop: Hop, local: SocketAddr, raw: Bytes) {
        let length = raw.len();
        let mut shard = self.shard(key).lock();
        let capture = shard.entry(key).or_default();
        if capture.closed {
            return;
        }
        let room = length <= MAX_BYTES / 2 && self.total.load(Ordering::Relaxed) + length <= MAX_TOTAL;
        if !room {
            capture.left_out += 1;
            return;
        }
        while capture.messages.len() >= MAX_MESSAGES || capture.bytes + length > MAX_BYTES {
            let oldest = FIRST.min(capture.messages.len().saturating_sub(1));
            let gone = capture.messages.remove(oldest).raw.len();
            capture.bytes -= gone;
            capture.left_out += 1;
            self.total.fetch_sub(gone, Ordering::Relaxed);
        }
        self.total.fetch_add(length, Ordering::Relaxed);
        capture.bytes += length;
        capture.messages.push(Kept { at: Timestamp::now(), sent, hop, local, raw });
    }

    /// The messages of a live call, and how many were left out.
    pub(crate) fn read(&self, key: Key) -> (Vec<TraceMessage>, u32) {
        let shard = self.shard(key).lock();
        shard.get(&key).map_or_else(Default::default, |c| (shown(&c.messages), c.left_out))
    }

    /// The call has ended: what was kept is written down. What still comes will be, unless nothing was wrong with the
    /// call (`to_the_end`): then only retransmissions are to come, and half a minute of calls is not held for them.
    pub(crate) fn ended(
        &self,
        key: Key,
        conversation: &Conversation,
        decision: DecisionRecord,
        to_the_end: bool,
        records: &Records,
    ) {
        let mut shard = self.shard(key).lock();
        let capture = shard.entry(key).or_default();
        let trace = Trace {
            conversation_id: conversation.id,
            organization_id: conversation.organization_id,
            at: Timestamp::now(),
            messages: Vec::new(),
            left_out: 0,
            decision: Some(decision),
        };
        capture.ended = Some(Box::new(End { trace, written: usize::MAX, updates: 0 }));
        capture.write(records);
        if !to_the_end {
            self.total.fetch_sub(capture.bytes, Ordering::Relaxed);
            *capture = Capture { closed: true, ..Capture::default() };
        }
    }

    /// Writes down what came since the call's end.
    pub(crate) fn update(&self, key: Key, records: &Records) {
        if let Some(capture) = self.shard(key).lock().get_mut(&key) {
            capture.write(records);
        }
    }

    /// A call goes on under another key: what was kept so far goes with it.
    pub(crate) fn carry_on(&self, from: Key, to: Key) {
        let Some(earlier) = self.shard(from).lock().remove(&from) else { return };
        let mut shard = self.shard(to).lock();
        let later = shard.insert(to, earlier);
        if let (Some(later), Some(capture)) = (later, shard.get_mut(&to)) {
            capture.bytes += later.bytes;
            capture.left_out += later.left_out;
            capture.messages.extend(later.messages);
        }
    }

    /// Forgets a call.
    pub(crate) fn forget(&self, key: Key) {
        let mut shard = self.shard(key).lock();
        if let Some(capture) = shard.remove(&key) {
            self.total.fetch_sub(capture.bytes, Ordering::Relaxed);
        }
        if shard.capacity() > 256 && shard.len() * 8 < shard.capacity() {
            let wanted = shard.len() * 2;
            shard.shrink_to(wanted);
        }
    }
}

impl Capture {
    fn write(&mut self, records: &Records) {
        let Some(end) = &mut self.ended else { return };
        if end.written == self.messages.len() || end.updates >= MAX_UPDATES {
            return;
        }
        end.written = self.messages.len();
        end.updates += 1;
        let trace = Trace { messages: shown(&self.messages), left_out: self.left_out, ..end.trace.clone() };
        records.trace(trace, self.bytes);
    }
}

fn shown(kept: &[Kept]) -> Vec<TraceMessage> {
    let show = |kept: &Kept| TraceMessage {
        at: kept.at,
        sent: kept.sent,
        transport: kept.hop.transport.as_via().to_owned(),
        local: kept.local,
        remote: kept.hop.remote,
        raw: text(masked(&kept.raw)),
    };
    kept.iter().map(show).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signaling::Transport;

    #[test]
    fn a_storm_keeps_the_beginning_and_the_end_and_never_more_than_its_share() {
        let traces = Traces::new();
        let address: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let hop = Hop { transport: Transport::Udp, remote: address, flow: 0 };
        for number in 0..10_000 {
            let raw = Bytes::from(format!("OPTIONS sip:{number} {}", "x".repeat(number % 3_000)));
            traces.add(1, number % 2 == 0, hop, address, raw);
        }
        traces.add(1, true, hop, address, Bytes::from(vec![b'x'; MAX_BYTES]));
        let (messages, left_out) = traces.read(1);
        assert!(
            messages.len() <= MAX_MESSAGES
                && messages.iter().map(|m| m.raw.len()).sum::<usize>() <= MAX_BYTES
        );
        assert_eq!(messages.len() + left_out as usize, 10_001);
        assert!(messages[0].raw.starts_with("OPTIONS sip:0 "));
        assert!(messages[messages.len() - 1].raw.starts_with("OPTIONS sip:9999 "));
        traces.forget(1);
        assert_eq!(traces.total.load(Ordering::Relaxed), 0);
        assert!(traces.read(1).0.is_empty());
    }
}
