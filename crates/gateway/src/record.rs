//! What the gateway tells about calls; the node writes it down.

use std::sync::atomic::{AtomicU64, Ordering};

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
