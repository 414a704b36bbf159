//! What the control plane asks of calls.

use std::sync::Arc;
use std::time::Instant;

use cluster::{CallCommand, CallError, CallInbox, Originate};
use tokio::sync::mpsc;

use crate::admission::TrunkLimit;
use crate::call;
use crate::calls::{CallInput, MAILBOX};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::{probe, simulate};

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
            Some(CallCommand::End(id, reply)) => {
                let Some(mailbox) = edge.calls.conversation(id) else {
                    let _ = reply.send(Err(CallError::NotLive));
                    continue;
                };
                if let Err(unsent) = mailbox.try_send(CallInput::End(reply))
                    && let CallInput::End(reply) = unsent.into_inner()
                {
                    let _ = reply.send(Err(CallError::Busy));
                }
            }
            Some(CallCommand::Transfer(id, asked, reply)) => {
                let Some(mailbox) = edge.calls.conversation(id) else {
                    let _ = reply.send(Err(CallError::NotLive));
                    continue;
                };
                if let Err(unsent) = mailbox.try_send(CallInput::Transfer(asked, reply))
                    && let CallInput::Transfer(_, reply) = unsent.into_inner()
                {
                    let _ = reply.send(Err(CallError::Busy));
                }
            }
            Some(CallCommand::EndByAgent(organization, id, secret, reply)) => {
                let Some(mailbox) = edge.calls.conversation(id) else {
                    let _ = reply.send(Err(CallError::NotLive));
                    continue;
                };
                if let Err(unsent) = mailbox.try_send(CallInput::EndByAgent(organization, secret, reply))
                    && let CallInput::EndByAgent(.., reply) = unsent.into_inner()
                {
                    let _ = reply.send(Err(CallError::Busy));
                }
            }
            Some(CallCommand::Trace(id, reply)) => {
                let Some(mailbox) = edge.calls.conversation(id) else {
                    let _ = reply.send(Err(CallError::NotLive));
                    continue;
                };
                if let Err(unsent) = mailbox.try_send(CallInput::Trace(reply))
                    && let CallInput::Trace(reply) = unsent.into_inner()
                {
                    let _ = reply.send(Err(CallError::Busy));
                }
            }
            Some(CallCommand::Quality(id, reply)) => match edge.calls.conversation(id) {
                None => {
                    let _ = reply.send(Err(CallError::NotLive));
                }
                Some(mailbox) => {
                    if let Err(unsent) = mailbox.try_send(CallInput::Quality(reply))
                        && let CallInput::Quality(reply) = unsent.into_inner()
                    {
                        let _ = reply.send(Err(CallError::Busy));
                    }
                }
            },
            Some(CallCommand::Digits(id, digits, reply)) => match edge.calls.conversation(id) {
                None => {
                    let _ = reply.send(Err(CallError::NotLive));
                }
                Some(mailbox) => {
                    if let Err(unsent) = mailbox.try_send(CallInput::Digits(digits, reply))
                        && let CallInput::Digits(_, reply) = unsent.into_inner()
                    {
                        let _ = reply.send(Err(CallError::Busy));
                    }
                }
            },
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

fn start(edge: &Arc<Edge>, originate: Box<Originate>) -> Result<(), CallError> {
    if edge.is_draining() {
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
