//! Calls that are over and whose task is gone: what their repetitions are answered stays in the table of the calls until
//! the last transaction has timed out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use signaling::{Departed, Hop, Message};

use crate::admission::CallPermit;
use crate::calls::Key;
use crate::edge::Edge;

/// How often the table is looked through for what has timed out.
const TICK: Duration = Duration::from_millis(500);

/// A departed call's entries in the table.
struct Entries {
    departed: Arc<Departed>,
    keys: Box<[Key]>,
    /// Held by strangers' calls, of which only so many are kept.
    _place: Option<CallPermit>,
}

/// All departed calls, in the order they left. Nearly all stay equally long, so the first is the next to be forgotten;
/// one that would be done earlier waits for those before it.
#[derive(Default)]
pub(crate) struct DepartedCalls(Mutex<VecDeque<Entries>>);

impl DepartedCalls {
    fn add(&self, entries: Entries) {
        self.0.lock().push_back(entries);
    }

    /// Takes out what has timed out.
    fn expired(&self, now: Instant) -> Vec<Entries> {
        let mut waiting = self.0.lock();
        let count = waiting.iter().take_while(|entries| entries.departed.until() <= now).count();
        let expired = waiting.drain(..count).collect();
        if waiting.capacity() > 256 && waiting.len() * 8 < waiting.capacity() {
            let wanted = waiting.len() * 2;
            waiting.shrink_to(wanted);
        }
        expired
    }
}

/// Puts what is left of a call where its task was found, which takes nothing more.
pub(crate) fn keep(edge: &Edge, keys: &[Key], departed: &Arc<Departed>, place: Option<CallPermit>) {
    let keys: Box<[Key]> = keys.iter().copied().filter(|key| edge.calls.depart(*key, departed)).collect();
    for key in &keys {
        edge.traces.forget(*key);
    }
    edge.departed.add(Entries { departed: Arc::clone(departed), keys, _place: place });
}

/// A message of a call that is over.
pub(crate) fn answer(edge: &Edge, departed: &Departed, message: &Message, hop: Hop) {
    if let Message::Request(request) = message
        && let Some(answer) = departed.answer(request, hop)
    {
        let _ = edge.send(answer.hop, answer.bytes);
    }
}

/// Forgets what has timed out, until the gateway stops.
pub(crate) async fn serve(edge: Arc<Edge>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = edge.stop.cancelled() => return,
        }
        for Entries { departed, keys, .. } in edge.departed.expired(Instant::now()) {
            for key in keys {
                edge.calls.forget(key, &departed);
            }
        }
    }
}
