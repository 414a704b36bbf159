//! A call that the API asked for: from the command to the INVITE on its way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::Originate;
use media::offer_answer::OfferAnswer;
use signaling::Session;
use tokio::sync::mpsc;

use super::offer::local_media;
use super::{Call, Registered, Waiter, finish, linger};
use crate::admission::CallPermit;
use crate::calls::{CallInput, Mailbox};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::outbound;
use crate::sip_status::OurReason;

/// The task of a call that the API asked for.
pub(crate) async fn run(
    edge: Arc<Edge>,
    originate: Box<Originate>,
    permit: CallPermit,
    mailbox: Mailbox,
    mut inputs: mpsc::Receiver<CallInput>,
) {
    let mut registered = Registered { edge: Arc::clone(&edge), keys: Vec::new() };
    let session = Box::pin(carry(&edge, originate, permit, mailbox, &mut inputs, &mut registered)).await;
    if let Some(mut session) = session {
        linger(&edge, &mut session, &mut inputs).await;
    }
}

async fn carry(
    edge: &Arc<Edge>,
    originate: Box<Originate>,
    permit: CallPermit,
    mailbox: Mailbox,
    inputs: &mut mpsc::Receiver<CallInput>,
    registered: &mut Registered,
) -> Option<Box<Session>> {
    let Originate { mut conversation, trunk_id, config } = *originate;
    let trunk = edge.directory.load().trunk(trunk_id).cloned();
    let setup = outbound::prepare(edge, trunk.as_deref(), &config);
    let ready = tokio::select! {
        ready = setup => ready,
        waiter = next_end(inputs) => {
            finish::given_up(edge, &mut conversation, waiter);
            return None;
        }
    };
    let outbound::Ready { agent, hop, carrier } = match ready {
        Ok(ready) => ready,
        Err(failure) => {
            finish::not_begun(edge, &mut conversation, &failure);
            return None;
        }
    };
    let now = Instant::now();
    let Some(socket) = edge.rtp_ports.open(hop.remote.ip()) else {
        edge.counters.count(Counter::NoRtpPort);
        finish::not_begun(edge, &mut conversation, &outbound::Failure::no_rtp_port());
        return None;
    };
    let mut offer_answer = OfferAnswer::new(local_media(edge, hop, Some(&socket)));
    let offer = Bytes::from(offer_answer.offer());
    let invite = outbound::invite(edge, &carrier, &conversation, hop, offer);
    let (from, to) = (invite.from.clone(), invite.to.clone());
    let session = Box::new(Session::connect(invite, hop, edge.identity(hop), now));
    let key = edge.calls.local_key(session.call_id(), session.local_tag());
    edge.calls.add_dialog(key, mailbox.clone());
    registered.keys.push(key);
    conversation.sip_call_id = Some(session.call_id().to_owned());
    let ring_timeout = Duration::from_secs(config.ring_timeout_s.into());
    let mut call = Call {
        edge: Arc::clone(edge),
        mailbox,
        session,
        hop,
        config,
        conversation,
        began: true,
        from,
        to,
        steps: Vec::new(),
        offer_answer,
        offered: true,
        description: None,
        negotiated: None,
        socket: Some(socket),
        agent: Some(agent),
        preparing: None,
        leg: None,
        ours: None,
        deadline: Some((now + ring_timeout, OurReason::RingTimeout)),
        waiters: Vec::new(),
        waiters_until: None,
        advice: None,
        _permit: permit,
    };
    call.record();
    let ended = call.run(inputs).await;
    Some(call.finish(&ended))
}

/// Waits until the API or the drain gives up on a call that has sent nothing yet.
async fn next_end(inputs: &mut mpsc::Receiver<CallInput>) -> Option<Waiter> {
    loop {
        match inputs.recv().await {
            Some(CallInput::End(waiter)) => return Some(waiter),
            Some(CallInput::Drain) | None => return None,
            Some(_) => {}
        }
    }
}
