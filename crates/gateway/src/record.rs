//! What the gateway tells about calls; the node writes it down.

use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use model::{CallQuality, Conversation, ConversationId, DecisionRecord, PackedTrace};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// A fact to keep.
#[derive(Debug)]
pub enum Record {
    /// A call's state; later ones of the same id replace earlier ones.
    Conversation(Box<Conversation>),
    /// Why a call was refused or ended as it did.
    Decision(Box<DecisionRecord>),
    /// How a call sounded; written once, at its end.
    Quality(ConversationId, Box<CallQuality>),
    /// The messages of a call that has ended; a later one of the same call replaces an earlier one.
    Trace(PackedTrace, Waiting),
}

/// Bytes of traces that may wait to be written down.
const MAX_WAITING: usize = 16 << 20;

/// A trace's share of what may wait; given back when it is taken off the queue.
#[derive(Debug)]
pub struct Waiting(Arc<AtomicUsize>, usize);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The gateway's end: never waits. A full queue loses decisions before it loses calls, and counts both.
pub(crate) struct Records {
    sender: mpsc::Sender<Record>,
    lost: AtomicU64,
    /// Bytes of traces that wait.
    waiting: Arc<AtomicUsize>,
}

/// INVITEs refused a moment ago, so that the retransmissions of one leave one record. A slot is taken over by whoever
/// hashes there: memory never grows, and at worst a record is written twice.
pub(crate) struct RecentRefusals {
    hasher: RandomState,
    slots: Vec<AtomicU64>,
}

/// Refusals remembered at once.
const RECENT: usize = 4_096;

impl Default for RecentRefusals {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..RECENT).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl RecentRefusals {
    /// Whether this INVITE, told by its Call-ID, branch and source, is not the one its slot remembers.
    pub(crate) fn is_new(&self, call_id: &str, branch: &str, source: SocketAddr) -> bool {
        let hash = self.hasher.hash_one((call_id, branch, source)).max(1);
        let slot = usize::try_from(hash).ok().and_then(|hash| self.slots.get(hash % RECENT));
        slot.is_none_or(|slot| slot.swap(hash, Ordering::Relaxed) != hash)
    }
}

/// Decision records of refused INVITEs in a second, but for strangers'; further ones go unwritten.
pub(crate) const REFUSALS_PER_SECOND: u32 = 500;
/// Time between two lines on refusals for one reason.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Longest text from outside in a line.
const LOG_TEXT: usize = 64;

/// One line a second and reason on refusals.
#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<AHashMap<String, Logged>>);

struct Logged {
    at: Instant,
    /// Refusals since, that got no line.
    more: u64,
}

impl RefusalLog {
    pub(crate) fn refused(&self, record: &DecisionRecord, now: Instant) {
        // Reasons are ours and few, so the table stays small.
        let more = match self.0.lock().entry(record.reason.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Logged { at: now, more: 0 });
                0
            }
            Entry::Occupied(mut entry) => {
                let logged = entry.get_mut();
                if now.saturating_duration_since(logged.at) < LOG_EVERY {
                    logged.more += 1;
                    return;
                }
                logged.at = now;
                std::mem::take(&mut logged.more)
            }
        };
        let short = |text: &str| text.chars().take(LOG_TEXT).collect::<String>();
        tracing::info!(
            reason = %record.reason,
            status = record.status,
            source = %record.source,
            trunk = ?record.trunk_id.map(|id| id.to_string()),
            from = ?short(&record.from),
            to = ?short(&record.to),
            more,
            "call refused: {}", record.advice
        );
    }
}

/// Places in the queue that only conversations may take.
const RESERVED: usize = 256;

impl Records {
    pub(crate) fn new(sender: mpsc::Sender<Record>) -> Self {
        Self { sender, lost: AtomicU64::new(0), waiting: Arc::default() }
    }

    pub(crate) fn conversation(&self, conversation: Conversation) {
        self.send(Record::Conversation(Box::new(conversation)));
    }

    pub(crate) fn decision(&self, decision: DecisionRecord) {
        if self.sender.capacity() > RESERVED {
            self.send(Record::Decision(Box::new(decision)));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Traces are lost before anything else is. `None` is one that could not be packed.
    pub(crate) fn trace(&self, trace: Option<PackedTrace>) {
        let Some(trace) = trace else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let bytes = trace.packed.len();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let share = Waiting(Arc::clone(&self.waiting), bytes);
        if waiting <= MAX_WAITING && self.sender.capacity() > RESERVED {
            self.send(Record::Trace(trace, share));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn quality(&self, conversation: ConversationId, quality: CallQuality) {
        if self.sender.capacity() > RESERVED {
            self.send(Record::Quality(conversation, Box::new(quality)));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that found the queue full.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retransmission_is_not_new() {
        let recent = RecentRefusals::default();
        let source = SocketAddr::from(([192, 0, 2, 1], 5060));
        assert!(recent.is_new("call", "z9hG4bK1", source));
        assert!(!recent.is_new("call", "z9hG4bK1", source));
        assert!(recent.is_new("call", "z9hG4bK2", source));
    }
}
