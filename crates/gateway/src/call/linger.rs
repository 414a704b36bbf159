//! What is left of a call once it is over: the keys it is found under, and a task until only repetitions can come.

use std::sync::Arc;
use std::time::Instant;

use cluster::CallError;
use signaling::{Departed, Hop, Request, Session, StatusCode};
use tokio::sync::mpsc;

use super::{flush, second_leg, take, trace_key};
use crate::admission::CallPermit;
use crate::calls::{CallInput, Key};
use crate::departed;
use crate::edge::Edge;

/// The keys a call is found under; taken off the tables when its last transaction is done.
pub(super) struct Registered {
    pub(super) edge: Arc<Edge>,
    pub(super) keys: Vec<Key>,
}

impl Registered {
    pub(super) fn take_off(&mut self) {
        for key in self.keys.drain(..) {
            self.edge.calls.remove_dialog(key);
            self.edge.traces.forget(key);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.take_off();
    }
}

/// Absorbs retransmissions until the last transaction has timed out; without a task as soon as nothing else can come.
pub(super) async fn linger(
    mut session: Box<Session>,
    mut inputs: mpsc::Receiver<CallInput>,
    registered: Registered,
    place: Option<CallPermit>,
) {
    let edge = Arc::clone(&registered.edge);
    let key = trace_key(&edge, &session);
    loop {
        flush(&edge, &mut session);
        edge.traces.update(key, &edge.records);
        while session.poll_event().is_some() {}
        if session.is_terminated() {
            return;
        }
        if edge.traces.is_closed(key) {
            session = match session.depart() {
                Ok(departed) => return stand_in(&edge, departed, inputs, registered, place).await,
                Err(session) => session,
            };
        }
        let Some(due) = session.poll_timeout() else { return };
        tokio::select! {
            input = inputs.recv() => {
                let Some(input) = input else { return };
                match too_late(&edge, input) {
                    Some(CallInput::Sip(message)) => take(&edge, &mut session, *message, Instant::now()),
                    Some(CallInput::Unsent(hop)) => session.handle_transport_error(hop, Instant::now()),
                    _ => {}
                }
            }
            () = tokio::time::sleep_until(due.into()) => session.handle_timeout(Instant::now()),
            () = edge.stop.cancelled() => return,
        }
    }
}

/// Leaves the answers to repetitions where the call was found, and answers what has come meanwhile.
async fn stand_in(
    edge: &Arc<Edge>,
    departed: Departed,
    mut inputs: mpsc::Receiver<CallInput>,
    mut registered: Registered,
    place: Option<CallPermit>,
) {
    let departed = Arc::new(departed);
    inputs.close();
    if departed.until() > Instant::now() {
        // What is another's by now is not taken off its table with the rest.
        departed::keep(edge, &std::mem::take(&mut registered.keys), &departed, place);
    }
    while let Some(input) = inputs.recv().await {
        if let Some(CallInput::Sip(message)) = too_late(edge, input) {
            departed::answer(edge, &departed, &message.0, message.1);
        }
    }
}

/// Refuses what comes to a call that is over. What concerns its session is given back.
fn too_late(edge: &Arc<Edge>, input: CallInput) -> Option<CallInput> {
    match input.refuse(CallError::NotLive)? {
        CallInput::Second(_, event) => second_leg::discard(edge, event),
        CallInput::Replace(invite) => refuse_replace(edge, &invite.0, invite.1),
        other => return Some(other),
    }
    None
}

/// There is no such dialog any more that an INVITE could take the place of (RFC 3891 3); its repetition is asked anew.
pub(super) fn refuse_replace(edge: &Edge, invite: &Request, hop: Hop) {
    if let Some(key) = edge.calls.initial_key(invite) {
        edge.calls.remove_dialog(key);
    }
    let answer = signaling::stateless::respond(invite, StatusCode(481), None, &[], hop, &edge.key);
    let _ = edge.send(answer.hop, answer.bytes);
}
