//! What the control plane asks of calls.

use std::sync::Arc;
use std::time::Instant;

use cluster::{CallCommand, CallError, CallInbox, Originate};
use model::ConversationId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::admission::TrunkLimit;
use crate::call;
use crate::calls::{CallInput, MAILBOX};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::{probe, simulate};

type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// Serves commands until the gateway stops.
pub(crate) async fn serve(edge: Arc<Edge>, mut inbox: CallInbox) {
    loop {
        let command = tokio::select! {
            () = edge.stop.cancelled() => return,
            command = inbox.recv() => command,
        };
        match command {
            Some(CallCommand::Originate(originate, reply)) => {
                let _ = reply.send(start(&edge, originate));
            }
            Some(CallCommand::End(id, reply)) => hand_on(&edge, id, reply, CallInput::End),
            Some(CallCommand::Transfer(id, asked, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::Transfer(asked, reply));
            }
            Some(CallCommand::TransferStep(id, step, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::TransferStep(step, reply));
            }
            Some(CallCommand::Play(id, sound, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::Play(sound, reply));
            }
            Some(CallCommand::EndByAgent(organization, id, secret, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::EndByAgent(organization, secret, reply));
            }
            Some(CallCommand::TransferByAgent(organization, id, secret, asked, reply)) => {
                hand_on(&edge, id, reply, |reply| {
                    CallInput::TransferByAgent(organization, secret, asked, reply)
                });
            }
            Some(CallCommand::Trace(id, reply)) => hand_on(&edge, id, reply, CallInput::Trace),
            Some(CallCommand::Quality(id, reply)) => hand_on(&edge, id, reply, CallInput::Quality),
            Some(CallCommand::Digits(id, digits, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::Digits(digits, reply));
            }
            Some(CallCommand::Record(id, step, reply)) => {
                hand_on(&edge, id, reply, |reply| CallInput::Record(step, reply));
            }
            Some(CallCommand::Listen(id, reply)) => hand_on(&edge, id, reply, CallInput::Listen),
            Some(CallCommand::Simulate(call, reply)) => {
                let edge = Arc::clone(&edge);
                tokio::spawn(async move {
                    let _ = reply.send(Ok(simulate::judge(&edge, *call).await));
                });
            }
            Some(CallCommand::Probe(trunk, reply)) => {
                let edge = Arc::clone(&edge);
                tokio::spawn(async move {
                    let _ = reply.send(Ok(probe::ask(&edge, trunk).await));
                });
            }
            None => return,
        }
    }
}

/// Hands a command to its call. When that is not there, or has too much to do, the command is answered here.
fn hand_on<T>(edge: &Edge, id: ConversationId, reply: Reply<T>, input: impl FnOnce(Reply<T>) -> CallInput) {
    let refused = match edge.calls.conversation(id).map(mpsc::Sender::try_reserve_owned) {
        Some(Ok(place)) => {
            place.send(input(reply));
            return;
        }
        Some(Err(TrySendError::Full(_))) => CallError::Busy,
        Some(Err(TrySendError::Closed(_))) | None => CallError::NotLive,
    };
    let _ = reply.send(Err(refused));
}

fn start(edge: &Arc<Edge>, originate: Box<Originate>) -> Result<(), CallError> {
    if edge.is_draining() || edge.load.is_over(None, Instant::now()) {
        return Err(CallError::Busy);
    }
    let permit = edge.call_limit.take(1).ok_or(CallError::Busy)?;
    let trunk = edge.directory.load().trunk(originate.trunk_id).cloned();
    let on_trunk = trunk.map(|trunk| edge.trunk_limits.take(&trunk, Instant::now())).transpose();
    let permit = permit.on_trunk(on_trunk.map_err(|limit| match limit {
        TrunkLimit::Concurrent(_) => CallError::TrunkFull,
        TrunkLimit::PerSecond(_) => CallError::TrunkRate,
    })?);
    edge.counters.count(Counter::CallsOutbound);
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    edge.calls.add_conversation(originate.conversation.id, mailbox.clone());
    tokio::spawn(call::outbound::run(Arc::clone(edge), originate, permit, mailbox, inputs));
    Ok(())
}
