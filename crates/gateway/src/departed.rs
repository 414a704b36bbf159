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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use signaling::{Identity, Refusal, Session, SessionTimer, StatusCode, Transport};

    use super::*;

    const HEAD: &str = "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nCall-ID: c\r\nContent-Length: 0\r\n";

    /// A refused call whose ACK came at a time: it absorbs until T4 later.
    fn departed(acknowledged: Instant) -> Arc<Departed> {
        let parsed = |method: &str, tag: &str| {
            let text =
                format!("{method} sip:b@h SIP/2.0\r\n{HEAD}To: <sip:b@h>{tag}\r\nCSeq: 1 {method}\r\n\r\n");
            Message::parse(Bytes::from(text)).unwrap()
        };
        let hop = Hop { transport: Transport::Udp, remote: "192.0.2.9:5060".parse().unwrap(), flow: 0 };
        let identity = Identity {
            contact: "sip:h".to_owned(),
            via: "h".to_owned(),
            user_agent: "t",
            session_timer: SessionTimer::default(),
            seed: [1; 16],
        };
        let Message::Request(invite) = parsed("INVITE", "") else { panic!("an INVITE is a request") };
        let mut session = Box::new(Session::accept(invite, hop, identity, acknowledged));
        assert!(session.refuse(Refusal::new(StatusCode(486)), acknowledged));
        let tag = format!(";tag={}", session.local_tag());
        session.handle_message(parsed("ACK", &tag), hop, acknowledged);
        while session.poll_transmit().is_some() || session.poll_event().is_some() {}
        Arc::new(session.depart().unwrap_or_else(|_| panic!("something is still to be done")))
    }

    #[test]
    fn entries_are_forgotten_in_the_order_of_their_times() {
        let (calls, now) = (DepartedCalls::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for (number, acknowledged) in [(1, 40), (2, 41), (3, 9), (4, 42)] {
            let departed = departed(after(acknowledged));
            calls.add(Entries { departed, keys: [number].into(), _place: None });
        }
        let expired = |at| -> Vec<Key> {
            calls.expired(after(at)).iter().flat_map(|entries| entries.keys.iter().copied()).collect()
        };
        assert_eq!(expired(44), []);
        assert_eq!(expired(45), [1]);
        // The third, done long before, waits for those that left before it.
        assert_eq!(expired(46), [2, 3]);
        assert_eq!(expired(90), [4]);
    }
}
