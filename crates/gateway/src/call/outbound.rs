//! A call that the API asked for: from the command to the INVITE on its way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Originate;
use model::MediaEncryption;
use signaling::{EndCause, Ended, Hop, Session};
use tokio::sync::mpsc;

use super::attempt::{self, Attempt, Next, OfferProfile, TRY, fitted, place};
use super::digits::Presses;
use super::{Call, Registered, Waiter, finish, flush, linger, until};
use crate::admission::CallPermit;
use crate::agent_link::{AgentLink, CallFacts};
use crate::calls::{CallInput, Mailbox};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::outbound;
use crate::rtp_ports::RtpSocket;
use crate::sip_status::OurReason;
use crate::targets::Targets;

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
    if let Some(session) = session {
        linger(session, inputs, registered, None).await;
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
    // The store's copy of a version has no secrets; the directory's has.
    let version = conversation.agent_version_id.and_then(|id| edge.directory.load().version(id).cloned());
    let config = version.map_or(config, |version| Arc::clone(&version.config));
    let facts = CallFacts::of(&conversation);
    let setup = outbound::prepare(edge, trunk.as_deref(), &config, facts, mailbox.clone());
    let ready = tokio::select! {
        ready = setup => ready,
        waiter = next_end(inputs) => {
            finish::given_up(edge, &mut conversation, waiter);
            return None;
        }
    };
    let outbound::Ready { agent, mut targets, carrier } = match ready {
        Ok(ready) => ready,
        Err(failure) => {
            finish::not_begun(edge, &mut conversation, Vec::new(), &failure);
            return None;
        }
    };
    let mut steps = Vec::new();
    let hop = tokio::select! {
        hop = targets.next(edge, &mut steps) => hop,
        waiter = next_end(inputs) => {
            finish::given_up(edge, &mut conversation, waiter);
            return None;
        }
    };
    let hop = match hop {
        Ok(hop) => hop,
        Err(failure) => {
            finish::not_begun(edge, &mut conversation, steps, &failure);
            return None;
        }
    };
    let now = Instant::now();
    let Some(socket) = edge.rtp_ports.open(hop.remote.ip()) else {
        edge.counters.count(Counter::NoRtpPort);
        finish::not_begun(edge, &mut conversation, steps, &outbound::Failure::no_rtp_port());
        return None;
    };
    let attempt = Attempt { hop, profile: OfferProfile::first(carrier.media_encryption) };
    let mut attempt = fitted(edge, &carrier, &conversation, attempt, &socket).await;
    let placed = place(edge, &carrier, &mut conversation, attempt, &socket, mailbox.clone());
    registered.keys.push(placed.key);
    let ring_timeout = Duration::from_secs(config.ring_timeout_s.into());
    let rtp_port = socket.port();
    let mut call = Call {
        edge: Arc::clone(edge),
        mailbox,
        session: placed.session,
        hop: attempt.hop,
        config,
        conversation,
        began: true,
        from: placed.from,
        to: placed.to,
        steps,
        offer_answer: placed.offer_answer,
        offered: true,
        description: None,
        negotiated: None,
        socket: Some(socket),
        agent: None,
        preparing: None,
        link: None,
        refusal: None,
        asked_transfer: None,
        dial_as: None,
        leg: None,
        noise_cancellation: None,
        dtmf_tones: carrier.dtmf_tones,
        presses: Presses::default(),
        recording: None,
        listeners: Vec::new(),
        on_hold: false,
        rtp_port,
        transfer: None,
        second_legs: 0,
        music: None,
        agent_left: None,
        more_keys: Vec::new(),
        ours: None,
        deadline: Some((now + ring_timeout, OurReason::RingTimeout)),
        in_use: placed.in_use,
        try_until: targets.has_more().then_some(now + TRY),
        waiters: Vec::new(),
        waiters_until: None,
        unrecorded: None,
        advice: None,
        _permit: permit,
    };
    call.agent = Some(call.take_agent(agent));
    call.record();
    if call.link.as_ref().is_some_and(AgentLink::is_gone) {
        // It left before there was a call that it could have told.
        call.end(OurReason::AgentGone, now);
    }
    loop {
        let mut ended = call.run(inputs).await;
        let encryption = carrier.media_encryption;
        let next = call.next_attempt(attempt, encryption, &mut ended, &mut targets, inputs).await;
        let Some(next) = next else {
            registered.keys.append(&mut call.more_keys);
            return Some(call.finish(&ended).await);
        };
        attempt = next;
        let Some(socket) = call.socket_towards(attempt.hop) else {
            registered.keys.append(&mut call.more_keys);
            return Some(call.finish(&ended).await);
        };
        attempt = fitted(edge, &carrier, &call.conversation, attempt, &socket).await;
        let mailbox = call.mailbox.clone();
        let placed = place(edge, &carrier, &mut call.conversation, attempt, &socket, mailbox);
        call.socket = Some(socket);
        call.begin_again(attempt.hop, placed, registered);
        call.try_until = targets.has_more().then(|| Instant::now() + TRY);
    }
}

impl Call {
    /// The attempt after one that has ended, when there is to be one. While its way is looked for the call can be
    /// given up, which `ended` then says.
    async fn next_attempt(
        &mut self,
        attempt: Attempt,
        encryption: MediaEncryption,
        ended: &mut Ended,
        targets: &mut Targets,
        inputs: &mut mpsc::Receiver<CallInput>,
    ) -> Option<Attempt> {
        if self.ours.is_some() {
            return None;
        }
        match attempt::after(attempt, encryption, ended) {
            Next::Nothing => None,
            Next::InClear => {
                self.note_refused_encryption(ended);
                Some(Attempt { profile: OfferProfile::Avp, ..attempt })
            }
            Next::OtherTarget if !targets.has_more() => None,
            Next::OtherTarget => {
                self.note_attempt(ended);
                let (edge, mut steps) = (Arc::clone(&self.edge), Vec::new());
                let found = self.meanwhile(targets.next(&edge, &mut steps), inputs).await;
                self.steps.append(&mut steps);
                match found {
                    Some(Ok(hop)) => Some(Attempt { hop, ..attempt }),
                    Some(Err(failure)) => {
                        self.steps.push(failure.step());
                        None
                    }
                    None => {
                        *ended = Ended { cause: EndCause::CancelledByUs, status: None, ..ended.clone() };
                        None
                    }
                }
            }
        }
    }

    /// Waits for something while the call goes on; `None` when the call is given up before.
    async fn meanwhile<T>(
        &mut self,
        wanted: impl Future<Output = T>,
        inputs: &mut mpsc::Receiver<CallInput>,
    ) -> Option<T> {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            flush(&self.edge, &mut self.session);
            while self.session.poll_event().is_some() {}
            if self.ours.is_some() {
                return None;
            }
            let due = self.due();
            tokio::select! {
                biased;
                input = inputs.recv() => self.on_input(input, Instant::now()),
                found = &mut wanted => return Some(found),
                () = until(due) => self.on_time(Instant::now()),
            }
        }
    }

    /// The call's RTP socket, or one of the other family when the next target is of it.
    fn socket_towards(&mut self, hop: Hop) -> Option<RtpSocket> {
        let of_family = self.hop.remote.is_ipv4() == hop.remote.is_ipv4();
        let socket = self.socket.take().filter(|_| of_family);
        let socket = socket.or_else(|| self.edge.rtp_ports.open(hop.remote.ip()));
        if socket.is_none() {
            self.edge.counters.count(Counter::NoRtpPort);
            self.steps.push(outbound::Failure::no_rtp_port().step());
        }
        socket
    }
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
