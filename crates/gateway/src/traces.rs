//! The messages of live calls, kept until they end: bounded a call, and bounded altogether.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use bytes::Bytes;
use model::{
    Conversation, ConversationId, DecisionRecord, OrganizationId, Timestamp, TraceMessage, TraceMessageView,
    TraceView,
};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use signaling::{Hop, masked};

use crate::calls::Key;
use crate::record::Records;

/// Messages kept of a call: the first ones, and the last.
const MAX_MESSAGES: usize = 64;
/// The first ones that are kept whatever follows.
const FIRST: usize = 8;
/// As many as a call has that is answered and ended.
const OF_A_CALL: usize = 6;
/// Bytes kept of a call.
const MAX_BYTES: usize = 64 << 10;
/// Bytes kept of all calls; beyond it a new message is left out.
const MAX_TOTAL: usize = 64 << 20;
/// How often a trace that was written down is written again for what came after it.
const MAX_UPDATES: u8 = 4;
/// Bytes kept of a message of a refused INVITE.
const MAX_REFUSED: usize = 4 << 10;
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

/// What is known under a key.
enum Entry {
    Own(Box<Capture>),
    /// The dialog is part of another's call.
    Part(Key),
}

/// Steps from a dialog to the one whose call it is part of: a carrier's targets, one after the other.
const MAX_STEPS: usize = 16;

#[derive(Default)]
struct Capture {
    messages: Vec<Kept>,
    bytes: usize,
    left_out: u32,
    ended: Option<Box<Written>>,
    /// Nothing more is kept.
    closed: bool,
}

/// How a call ended.
struct End {
    conversation_id: ConversationId,
    organization_id: OrganizationId,
    at: Timestamp,
    decision: DecisionRecord,
}

/// The end of a call whose trace goes on.
struct Written {
    end: End,
    /// Messages that are written down.
    messages: usize,
    updates: u8,
}

/// The captures of all calls, by the key of our side of their dialog.
pub(crate) struct Traces {
    shards: Vec<Mutex<AHashMap<Key, Entry>>>,
    total: AtomicUsize,
}

impl Traces {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), total: AtomicUsize::new(0) }
    }

    fn shard(&self, key: Key) -> &Mutex<AHashMap<Key, Entry>> {
        &self.shards[(key % SHARDS as u128) as usize]
    }

    /// The capture that a dialog's messages go to.
    fn with<T>(&self, mut key: Key, then: impl FnOnce(&mut Capture) -> T) -> Option<T> {
        for _ in 0..MAX_STEPS {
            match self.shard(key).lock().get_mut(&key)? {
                Entry::Own(capture) => return Some(then(capture)),
                Entry::Part(of) => key = *of,
            }
        }
        None
    }

    /// The dialog of a call begins.
    pub(crate) fn begin(&self, key: Key) {
        self.shard(key).lock().entry(key).or_insert_with(|| Entry::Own(Box::default()));
    }

    /// A dialog begins that is part of another's call.
    pub(crate) fn join(&self, key: Key, of: Key) {
        self.shard(key).lock().insert(key, Entry::Part(of));
    }

    /// Keeps a message of a call.
    pub(crate) fn add(&self, key: Key, sent: bool, hop: Hop, local: SocketAddr, raw: Bytes) {
        self.with(key, |capture| {
            capture.add(Kept { at: Timestamp::now(), sent, hop, local, raw }, &self.total)
        });
    }

    /// The messages of a live call, and how many were left out.
    pub(crate) fn read(&self, key: Key) -> (Vec<TraceMessage>, u32) {
        self.with(key, |capture| (shown(&capture.messages), capture.left_out)).unwrap_or_default()
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
        let end = End {
            conversation_id: conversation.id,
            organization_id: conversation.organization_id,
            at: Timestamp::now(),
            decision,
        };
        self.begin(key);
        self.with(key, |capture| {
            if to_the_end {
                capture.ended = Some(Box::new(Written { end, messages: usize::MAX, updates: 0 }));
                capture.write(records);
            } else {
                end.write(&capture.messages, capture.bytes, capture.left_out, records);
                self.total.fetch_sub(capture.bytes, Ordering::Relaxed);
                *capture = Capture { closed: true, ..Capture::default() };
            }
        });
    }

    /// Writes down what came since the call's end.
    pub(crate) fn update(&self, key: Key, records: &Records) {
        self.with(key, |capture| capture.write(records));
    }

    /// A call goes on under another key: what was kept so far goes with it, and so does what comes under the old one.
    pub(crate) fn carry_on(&self, from: Key, to: Key) {
        let Some(Entry::Own(mut capture)) = self.shard(from).lock().insert(from, Entry::Part(to)) else {
            return;
        };
        let mut shard = self.shard(to).lock();
        if let Some(Entry::Own(later)) = shard.remove(&to) {
            capture.bytes += later.bytes;
            capture.left_out += later.left_out;
            capture.messages.extend(later.messages);
        }
        shard.insert(to, Entry::Own(capture));
    }

    /// Whether nothing more is kept of a dialog's messages.
    pub(crate) fn is_closed(&self, key: Key) -> bool {
        self.with(key, |capture| capture.closed).unwrap_or(true)
    }

    /// Forgets a dialog.
    pub(crate) fn forget(&self, key: Key) {
        let mut shard = self.shard(key).lock();
        if let Some(Entry::Own(capture)) = shard.remove(&key) {
            self.total.fetch_sub(capture.bytes, Ordering::Relaxed);
        }
        if shard.capacity() > 256 && shard.len() * 8 < shard.capacity() {
            let wanted = shard.len() * 2;
            shard.shrink_to(wanted);
        }
    }
}

impl Capture {
    fn add(&mut self, kept: Kept, total: &AtomicUsize) {
        let length = kept.raw.len();
        if self.closed {
            return;
        }
        if length > MAX_BYTES / 2 || total.load(Ordering::Relaxed) + length > MAX_TOTAL {
            self.left_out += 1;
            return;
        }
        while self.messages.len() >= MAX_MESSAGES || self.bytes + length > MAX_BYTES {
            let oldest = FIRST.min(self.messages.len().saturating_sub(1));
            let gone = self.messages.remove(oldest).raw.len();
            self.bytes -= gone;
            self.left_out += 1;
            total.fetch_sub(gone, Ordering::Relaxed);
        }
        total.fetch_add(length, Ordering::Relaxed);
        self.bytes += length;
        if self.messages.is_empty() {
            self.messages.reserve(OF_A_CALL);
        }
        self.messages.push(kept);
    }

    fn write(&mut self, records: &Records) {
        let Some(written) = &mut self.ended else { return };
        if written.messages == self.messages.len() || written.updates >= MAX_UPDATES {
            return;
        }
        written.messages = self.messages.len();
        written.updates += 1;
        written.end.write(&self.messages, self.bytes, self.left_out, records);
    }
}

impl End {
    /// Hands on what is kept of a call, with `bytes` in its messages.
    fn write(&self, messages: &[Kept], bytes: usize, left_out: u32, records: &Records) {
        let Self { conversation_id, organization_id, at, ref decision } = *self;
        let trace = TraceView {
            conversation_id,
            organization_id,
            at,
            messages: Shown(messages),
            left_out,
            decision: Some(decision),
        };
        records.trace(trace.pack(bytes + ROOM + ROOM_OF_MESSAGE * messages.len()));
    }
}

/// What a packed trace takes beside its messages, and a message beside its text, about.
const ROOM: usize = 768;
const ROOM_OF_MESSAGE: usize = 48;

/// Messages without their secrets, one after the other: of one alone there is a copy at a time.
struct Shown<'a>(&'a [Kept]);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|kept| TraceMessageView {
            at: kept.at,
            sent: kept.sent,
            transport: kept.hop.transport.as_via(),
            local: kept.local,
            remote: kept.hop.remote,
            raw: text(masked(&kept.raw)),
        }))
    }
}

fn shown(kept: &[Kept]) -> Vec<TraceMessage> {
    kept.iter().map(|kept| shown_one(kept.at, kept.sent, kept.hop, kept.local, &kept.raw)).collect()
}

fn shown_one(at: Timestamp, sent: bool, hop: Hop, local: SocketAddr, raw: &[u8]) -> TraceMessage {
    TraceMessage {
        at,
        sent,
        transport: hop.transport.as_via().to_owned(),
        local,
        remote: hop.remote,
        raw: text(masked(raw)),
    }
}

/// A message of an INVITE that was refused without a call; the end of one that is long is left out.
pub(crate) fn refused(sent: bool, hop: Hop, local: SocketAddr, raw: &[u8]) -> TraceMessage {
    let mut shown = shown_one(Timestamp::now(), sent, hop, local, raw);
    if shown.raw.len() > MAX_REFUSED {
        let cut = (0..=MAX_REFUSED).rev().find(|&at| shown.raw.is_char_boundary(at)).unwrap_or(0);
        shown.raw.truncate(cut);
    }
    shown
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
        traces.begin(1);
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
    #[test]
    fn every_dialog_of_a_call_is_in_its_trace() {
        let traces = Traces::new();
        let address: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let hop = Hop { transport: Transport::Udp, remote: address, flow: 0 };
        let add = |key, text: &'static str| traces.add(key, true, hop, address, Bytes::from(text));
        let read = |key| traces.read(key).0.into_iter().map(|m| m.raw).collect::<Vec<_>>();
        traces.begin(1);
        traces.join(2, 1);
        add(1, "INVITE 1");
        add(2, "INVITE 2");
        assert_eq!(read(1), ["INVITE 1", "INVITE 2"]);
        // The second dialog is the call from now on; the first one's end is still part of it.
        traces.carry_on(1, 2);
        add(1, "BYE 1");
        add(2, "BYE 2");
        assert_eq!(read(2), ["INVITE 1", "INVITE 2", "BYE 1", "BYE 2"]);
        traces.forget(2);
        // What comes after the call's end is kept nowhere.
        add(1, "200 1");
        traces.forget(1);
        assert!(read(1).is_empty() && read(2).is_empty());
        assert_eq!(traces.total.load(Ordering::Relaxed), 0);
        assert!(traces.shards.iter().all(|shard| shard.lock().is_empty()));
        // Two that name each other lead nowhere.
        traces.join(1, 2);
        traces.join(2, 1);
        add(1, "x");
    }
}
