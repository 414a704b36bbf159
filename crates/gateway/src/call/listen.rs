//! Who listens in on a live call, for the API.

use std::sync::{Arc, Weak};

use cluster::{CallError, Listening, LiveAudio};
use media::monitor::Monitor;

use super::Call;

/// Listeners of a call at once: each costs its media shard a copy of every frame.
const MAX_LISTENERS: usize = 8;

impl Call {
    /// Both sides of the call from now on.
    pub(super) fn listen(&mut self) -> Result<Listening, CallError> {
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let (Some(leg), Some(negotiated)) = (&self.leg, self.offer_answer.negotiated()) else {
            return Err(CallError::NotAnswered);
        };
        self.listeners.retain(|listener| listener.upgrade().is_some_and(|monitor| !monitor.is_closed()));
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(CallError::TooManyListeners);
        }
        let monitor = Arc::new(Monitor::new(negotiated.codec.rate()));
        leg.listen_in(Arc::clone(&monitor));
        self.listeners.push(Arc::downgrade(&monitor));
        Ok(Listening { sample_rate: monitor.rate().hz(), audio: Box::new(Ear { monitor, lost: 0 }) })
    }
}

/// Listeners of a call.
pub(super) type Listeners = Vec<Weak<Monitor>>;

/// One listener's end of its monitor.
struct Ear {
    monitor: Arc<Monitor>,
    /// Samples a side that are known to be lost.
    lost: u64,
}

impl LiveAudio for Ear {
    fn take(&mut self, into: &mut Vec<i16>) -> u64 {
        self.monitor.take(into);
        let lost = self.monitor.lost();
        lost - std::mem::replace(&mut self.lost, lost)
    }

    fn is_over(&self) -> bool {
        // Its session held the other reference.
        self.monitor.is_closed() || Arc::strong_count(&self.monitor) == 1
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.monitor.close();
    }
}
