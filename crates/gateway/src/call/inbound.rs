//! A call from outside: from the accepted INVITE to our 200 OK.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::CallError;
use media::denoise::Mode;
use media::offer_answer::OfferAnswer;
use model::{Conversation, ConversationId, ConversationStatus, Direction, RuleResult, Timestamp};
use serde_json::Value;
use signaling::{Ended, Event, Hop, Refusal, Request, Session, StatusCode, Transmit, stateless};
use tokio::sync::mpsc;

use super::digits::Presses;
use super::linger::refuse_replace;
use super::offer::{local_media, media_towards};
use super::{Call, Registered, flush, linger, take, trace_key, until};
use crate::admission::CallPermit;
use crate::agent_link::{self, CallFacts, ReadyAgent};
use crate::calls::{CallInput, Key, Mailbox};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::inbound::{self, Answer, Route, Verdict};
use crate::inbound_routing::{self, Chosen};
use crate::rtp_ports::RtpSocket;
use crate::sip_status::{self, OurReason};

/// An accepted INVITE.
pub(crate) struct Arrival {
    pub(crate) invite: Request,
    pub(crate) hop: Hop,
    pub(crate) route: Route,
    pub(crate) verdict: Verdict,
    pub(crate) permit: CallPermit,
    pub(crate) key: Key,
}

/// The task of a call from outside.
pub(crate) fn run(
    edge: Arc<Edge>,
    arrival: Arrival,
    mailbox: Mailbox,
    inputs: mpsc::Receiver<CallInput>,
) -> impl Future<Output = ()> + Send + 'static {
    // Boxed here and not inside, so that what lingers for 64·T1 after the call has no room for a call.
    let source = arrival.hop.remote.ip();
    let carried = Box::pin(carry(edge, arrival, mailbox, inputs));
    async move {
        let Carried { session, inputs, registered } = carried.await;
        let edge = &registered.edge;
        let place = edge.lingering.take(1);
        if place.is_some() || edge.directory.load().lists(source) {
            linger(session, inputs, registered, place).await;
        }
    }
}

/// What is left of a call once it is over.
struct Carried {
    session: Box<Session>,
    inputs: mpsc::Receiver<CallInput>,
    registered: Registered,
}

async fn carry(
    edge: Arc<Edge>,
    arrival: Arrival,
    mailbox: Mailbox,
    mut inputs: mpsc::Receiver<CallInput>,
) -> Carried {
    let mut registered = Registered { edge: Arc::clone(&edge), keys: vec![arrival.key] };
    let session = answered(&edge, arrival, mailbox, &mut inputs, &mut registered).await;
    Carried { session, inputs, registered }
}

/// Carries the call from its INVITE to its end.
async fn answered(
    edge: &Arc<Edge>,
    arrival: Arrival,
    mailbox: Mailbox,
    inputs: &mut mpsc::Receiver<CallInput>,
    registered: &mut Registered,
) -> Box<Session> {
    let Arrival { invite, hop, route, mut verdict, permit, .. } = arrival;
    let now = Instant::now();
    let offer = invite.sdp();
    let asked = invite.clone();
    let received = Bytes::from(invite.raw().concat());
    let mut session = Box::new(Session::accept(invite, hop, edge.identity(hop), now));
    let key = trace_key(edge, &session);
    edge.traces.begin(key);
    edge.traces.add(key, false, hop, edge.local(hop), received);
    edge.calls.add_dialog(key, mailbox.clone());
    registered.keys.push(key);

    let Some(chosen) = chosen(edge, &mut session, inputs, &route, &mut verdict, hop).await else {
        return session;
    };
    let noise_cancellation =
        route.trunk.as_deref().and_then(|trunk| inbound::noise_cancellation(&edge.settings, trunk));
    let config = route.trunk.as_deref().and_then(|trunk| trunk.inbound_config.as_ref());
    let conversation = new_inbound(&route, &chosen, &verdict, noise_cancellation, Some(session.call_id()));
    let near = media_towards(offer.as_deref(), hop);
    let socket = edge.rtp_ports.open(near);
    let local = local_media(edge, hop, near, socket.as_ref(), route.media_encryption());
    let rtp_port = socket.as_ref().map_or(0, RtpSocket::port);
    let mut call = Call {
        edge: Arc::clone(edge),
        mailbox,
        session,
        hop,
        config: Arc::clone(&chosen.version.config),
        conversation,
        began: false,
        from: verdict.from,
        to: verdict.to,
        steps: verdict.steps,
        offer_answer: OfferAnswer::new(local),
        offered: false,
        description: None,
        negotiated: None,
        socket,
        agent: None,
        preparing: None,
        link: None,
        refusal: None,
        asked_transfer: None,
        dial_as: None,
        leg: None,
        noise_cancellation,
        dtmf_tones: config.is_some_and(|config| config.dtmf_tones),
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
        deadline: None,
        try_until: None,
        in_use: edge.transports.hold(hop, None),
        waiters: Vec::new(),
        waiters_until: None,
        unrecorded: None,
        advice: None,
        _permit: permit,
    };
    if let Err(refused) = call.negotiate(offer.as_deref()) {
        let (session, answer) = call.turn_away(&asked, refused, now);
        // Before it is sent: who repeats the INVITE from then on is answered anew.
        registered.take_off();
        if let Some(answer) = answer {
            let _ = edge.send(answer.hop, answer.bytes);
        }
        return session;
    }
    drop(asked);
    call.begin();
    call.ask_agent(now);
    let ended = call.run(inputs).await;
    registered.keys.append(&mut call.more_keys);
    call.finish(&ended).await
}

/// Who answers. While a webhook decides, the caller may give up. `None` when the call is over: refused, or given up.
async fn chosen(
    edge: &Arc<Edge>,
    session: &mut Session,
    inputs: &mut mpsc::Receiver<CallInput>,
    route: &Route,
    verdict: &mut Verdict,
    hop: Hop,
) -> Option<Chosen> {
    let pending = match &route.answer {
        Answer::Agent(chosen) => return Some(Chosen::clone(chosen)),
        Answer::Webhook(pending) => pending,
    };
    let mut output = std::pin::pin!(inbound_routing::by_webhook(&edge.webhooks, pending));
    let refused = loop {
        flush(edge, session);
        let mut over = false;
        while let Some(event) = session.poll_event() {
            over |= matches!(event, Event::Ended(_));
        }
        if over {
            break inbound::refused(
                487,
                "cancelled",
                "The caller gave up while the routing webhook decided.",
            );
        }
        tokio::select! {
            output = &mut output => {
                let directory = edge.directory.load();
                let slot = pending.slot.clone();
                let steps = &mut verdict.steps;
                match inbound_routing::choose(&directory, &pending.routing, output, slot, steps) {
                    Ok(chosen) => return Some(chosen),
                    Err(refused) => {
                        session.refuse(Refusal::new(StatusCode(refused.status)), Instant::now());
                        edge.counters.count(Counter::RejectedUnavailable);
                        break refused;
                    }
                }
            }
            input = inputs.recv() => match input.and_then(|input| input.refuse(CallError::NotLive)) {
                Some(CallInput::Sip(message)) => take(edge, session, *message, Instant::now()),
                Some(CallInput::Drain) => {
                    session.refuse(Refusal::new(StatusCode(503)), Instant::now());
                }
                Some(CallInput::Unsent(hop)) => session.handle_transport_error(hop, Instant::now()),
                Some(CallInput::Replace(invite)) => refuse_replace(edge, &invite.0, invite.1),
                _ => {}
            },
            () = until(session.poll_timeout()) => session.handle_timeout(Instant::now()),
        }
    };
    flush(edge, session);
    let mut decision = verdict.record(&refused, &edge.settings.node_name, hop, session.call_id());
    decision.messages = edge.traces.read(trace_key(edge, session)).0;
    edge.records.decision(decision);
    None
}

/// The record of a call that begins. Without a Call-ID it has not come by SIP.
pub(crate) fn new_inbound(
    route: &Route,
    chosen: &Chosen,
    verdict: &Verdict,
    noise_cancellation: Option<Mode>,
    call_id: Option<&str>,
) -> Conversation {
    let now = Timestamp::now();
    Conversation {
        id: ConversationId::new(),
        organization_id: route.organization_id,
        direction: Direction::Inbound,
        status: ConversationStatus::Triggered,
        user_id: verdict.from_number.as_ref().map_or_else(|| verdict.from.clone(), ToString::to_string),
        agent_id: Some(chosen.version.agent_id),
        agent_version_id: Some(chosen.version.id),
        agent_number: route.number.clone(),
        trunk_id: route.trunk.as_ref().map(|t| t.id),
        initial_context: chosen.initial_context.clone().map(Value::Object),
        custom_metadata: chosen.custom_metadata.clone().map(Value::Object),
        created_at: now,
        updated_at: now,
        ringing_at: None,
        answered_at: None,
        ended_at: None,
        ended_by: None,
        sip_call_id: call_id.map(str::to_owned),
        sip_status: None,
        reason: None,
        codec: None,
        media_encryption: None,
        mos: None,
        recording: None,
        voicemail_beep_at: None,
        notes: noise_cancellation
            .map(|mode| format!("noise_cancellation: {}", mode.as_str()))
            .into_iter()
            .collect(),
        transcript: Vec::new(),
    }
}

/// A refusal for what an INVITE offers, and its short code.
type Refused = (Refusal, &'static str);

impl Call {
    /// Settles the media of an INVITE, or says why it is refused.
    fn negotiate(&mut self, offer: Option<&[u8]>) -> Result<(), Refused> {
        if self.socket.is_none() {
            self.edge.counters.count(Counter::NoRtpPort);
            self.advice = Some(
                "No RTP port is free: widen media.ports, or spread the calls over more nodes.".to_owned(),
            );
            let headers = vec![("Retry-After".to_owned(), "5".to_owned())];
            return Err((Refusal { headers, ..Refusal::new(StatusCode(503)) }, "no_rtp_port"));
        }
        let Some(offer) = offer else {
            self.offered = true;
            self.description = Some(Bytes::from(self.offer_answer.offer_in_response()));
            return Ok(());
        };
        match self.offer_answer.answer(offer) {
            Ok((answer, negotiated)) => {
                self.description = Some(Bytes::from(answer));
                self.negotiated = Some(negotiated);
                Ok(())
            }
            Err(error) => {
                self.edge.counters.count(Counter::RejectedMedia);
                let (host, _) = self.edge.reachable_at(self.hop);
                let (refusal, code, advice) = sip_status::offer_refusal(&error, &host);
                self.advice = Some(format!("{advice} ({error})"));
                Err((refusal, code))
            }
        }
    }

    /// Refuses before an agent was asked: a decision record, and no conversation. The answer keeps nothing, so that
    /// whoever sends one offer after the other that is of no use fills no memory; its repetition gets the same one.
    fn turn_away(
        mut self,
        request: &Request,
        (refusal, code): Refused,
        now: Instant,
    ) -> (Box<Session>, Option<Transmit>) {
        self.conversation.reason = Some(code.to_owned());
        self.session.discard();
        let (edge, hop) = (Arc::clone(&self.edge), self.hop);
        let key = trace_key(&edge, &self.session);
        let headers: Vec<(&str, &str)> =
            refusal.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Whoever may call is no stranger, and still may have a forged source.
        let listed = edge.directory.load().lists(hop.remote.ip());
        let answer = (listed || edge.stranger_refusals.take(now))
            .then(|| stateless::respond(request, refusal.status, None, &headers, hop, &edge.key));
        match &answer {
            Some(sent) => edge.traces.add(key, true, sent.hop, edge.local(sent.hop), sent.bytes.clone()),
            None => edge.counters.count(Counter::DroppedBusy),
        }
        if edge.may_write_down(request, hop, now) {
            let ended = Ended::refused(refusal.status);
            let mut decision = self.decision(&ended, RuleResult::Fail);
            decision.messages = edge.traces.read(key).0;
            edge.refusal_log.refused(&decision, now);
            edge.records.decision(decision);
        }
        (self.session, answer)
    }

    /// An agent version is asked to take the call: the conversation begins.
    fn begin(&mut self) {
        self.began = true;
        self.edge.calls.add_conversation(self.conversation.id, self.mailbox.clone());
    }

    fn ask_agent(&mut self, now: Instant) {
        match agent_link::ready_now(&self.config) {
            Some(agent) => self.answer(agent.into(), now),
            None => {
                let (edge, config) = (Arc::clone(&self.edge), Arc::clone(&self.config));
                let (facts, mailbox) = (CallFacts::of(&self.conversation), self.mailbox.clone());
                self.preparing =
                    Some(Box::pin(async move { agent_link::prepare(&edge, &config, facts, mailbox).await }));
                let limit = Duration::from_millis(self.config.answer_timeout_ms.into());
                self.deadline = Some((now + limit, OurReason::AgentNotReady));
                if self.session.ring(now) {
                    self.ringing();
                }
                self.record();
            }
        }
    }

    /// The agent is ready: 200 OK.
    pub(super) fn answer(&mut self, ready: ReadyAgent, now: Instant) {
        self.preparing = None;
        let Some(description) = self.description.clone() else { return };
        if !self.session.answer(description, now) {
            return;
        }
        self.agent = Some(self.take_agent(ready));
        self.answered(StatusCode(200), now);
        if let Some(negotiated) = self.negotiated.take() {
            self.open_leg(negotiated, now);
        }
        self.begin_dial(now);
        self.record_soon(now);
    }
}
