//! What the gateway tells about calls; the node writes it down.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use model::{Conversation, DecisionRecord};
use tokio::sync::mpsc;

/// A fact to keep.
#[derive(Debug)]
pub enum Record {
    /// A call's state; later ones of the same id replace earlier ones.
    Conversation(Box<Conversation>),
    /// Why a call was refused or ended as it did.
    Decision(Box<DecisionRecord>),
}

/// The gateway's end: never waits. A full queue loses decisions before it loses calls, and counts both.
pub(crate) struct Records {
    sender: mpsc::Sender<Record>,
    lost: AtomicU64,
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

/// Places in the queue that only conversations may take.
const RESERVED: usize = 256;

impl Records {
    pub(crate) fn new(sender: mpsc::Sender<Record>) -> Self {
        Self { sender, lost: AtomicU64::new(0) }
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
