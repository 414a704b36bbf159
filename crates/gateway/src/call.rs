//! One call: the only place where signalling and media meet. A session says "an offer is needed" or "this answer
//! came", the call asks `media` and hands the bytes back; neither knows the other.

mod finish;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{CallError, Originate};
use media::offer_answer::{LocalMedia, Negotiated, OfferAnswer};
use media::session::{Agent, MediaEvent, SessionConfig};
use model::{AgentConfig, Conversation, ConversationId, ConversationStatus, Direction, Step, Timestamp};
use serde_json::Value;
use signaling::{Ended, Event, Hop, Reason, Refusal, Request, Session, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::admission::CallPermit;
use crate::agent_link::{self, NotReady};
use crate::calls::{CallInput, Key, Mailbox};
use crate::counters::Counter;
use crate::edge::{Edge, random};
use crate::inbound::{self, Answer, Route, Verdict};
use crate::inbound_routing::{self, Chosen};
use crate::media_shard::Leg;
use crate::outbound;
use crate::rtp_ports::RtpSocket;
use crate::sip_status::{self, OurReason};

/// How long the API waits for a call it ended; a carrier that does not answer a CANCEL takes longer (64·T1).
const END_WAIT: Duration = Duration::from_secs(2);

/// An accepted INVITE.
pub(crate) struct Arrival {
    pub(crate) invite: Request,
    pub(crate) hop: Hop,
    pub(crate) route: Route,
    pub(crate) verdict: Verdict,
    pub(crate) permit: CallPermit,
    pub(crate) key: Key,
}

type Waiter = oneshot::Sender<Result<Conversation, CallError>>;
type Preparing = Pin<Box<dyn Future<Output = Result<Agent, NotReady>> + Send>>;

/// A call in progress.
struct Call {
    edge: Arc<Edge>,
    mailbox: Mailbox,
    session: Box<Session>,
    hop: Hop,
    config: Arc<AgentConfig>,
    conversation: Conversation,
    /// An agent version was asked to take the call.
    began: bool,
    /// Caller and callee as received, and the rules that let the call in, for its decision record.
    from: String,
    to: String,
    steps: Vec<Step>,
    offer_answer: OfferAnswer,
    /// Our offer is out and its answer has not come.
    offered: bool,
    /// The SDP our 200 will carry.
    description: Option<Bytes>,
    /// What was agreed before the leg is open.
    negotiated: Option<Negotiated>,
    socket: Option<RtpSocket>,
    agent: Option<Agent>,
    preparing: Option<Preparing>,
    leg: Option<Leg>,
    ours: Option<OurReason>,
    deadline: Option<(Instant, OurReason)>,
    waiters: Vec<Waiter>,
    waiters_until: Option<Instant>,
    /// What an operator should change, when we know better than the status tells.
    advice: Option<String>,
    /// The node's place for this call.
    _permit: CallPermit,
}

/// The keys a call is found under; taken off the tables when its last transaction is done.
struct Registered {
    edge: Arc<Edge>,
    keys: Vec<Key>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        for &key in &self.keys {
            self.edge.calls.remove_dialog(key);
        }
    }
}

/// The task of a call from outside.
pub(crate) async fn inbound(
    edge: Arc<Edge>,
    arrival: Arrival,
    mailbox: Mailbox,
    mut inputs: mpsc::Receiver<CallInput>,
) {
    let mut registered = Registered { edge: Arc::clone(&edge), keys: vec![arrival.key] };
    // Boxed, so that what lingers for 64·T1 after the call is small.
    let mut session = Box::pin(run_inbound(&edge, arrival, mailbox, &mut inputs, &mut registered)).await;
    linger(&edge, &mut session, &mut inputs).await;
}

/// The task of a call that the API asked for.
pub(crate) async fn outbound(
    edge: Arc<Edge>,
    originate: Box<Originate>,
    permit: CallPermit,
    mailbox: Mailbox,
    mut inputs: mpsc::Receiver<CallInput>,
) {
    let mut registered = Registered { edge: Arc::clone(&edge), keys: Vec::new() };
    let session =
        Box::pin(run_outbound(&edge, originate, permit, mailbox, &mut inputs, &mut registered)).await;
    if let Some(mut session) = session {
        linger(&edge, &mut session, &mut inputs).await;
    }
}

async fn run_inbound(
    edge: &Arc<Edge>,
    arrival: Arrival,
    mailbox: Mailbox,
    inputs: &mut mpsc::Receiver<CallInput>,
    registered: &mut Registered,
) -> Box<Session> {
    let Arrival { invite, hop, route, mut verdict, permit, .. } = arrival;
    let now = Instant::now();
    let offer = invite.sdp();
    let mut session = Box::new(Session::accept(invite, hop, edge.identity(hop), now));
    let key = edge.calls.local_key(session.call_id(), session.local_tag());
    edge.calls.add_dialog(key, mailbox.clone());
    registered.keys.push(key);

    let Some(chosen) = chosen(edge, &mut session, inputs, &route, &mut verdict, hop).await else {
        return session;
    };
    let conversation = new_inbound(&route, &chosen, &verdict, session.call_id());
    let socket = edge.rtp_ports.open(hop.remote.ip());
    let local = local_media(edge, hop, socket.as_ref());
    let mut call = Call {
        edge: Arc::clone(edge),
        mailbox,
        session,
        hop,
        config: Arc::new(chosen.version.config.clone()),
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
        leg: None,
        ours: None,
        deadline: None,
        waiters: Vec::new(),
        waiters_until: None,
        advice: None,
        _permit: permit,
    };
    if call.negotiate(offer.as_deref(), now) {
        call.begin();
        call.ask_agent(now);
    }
    let ended = call.run(inputs).await;
    call.finish(&ended)
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
            input = inputs.recv() => match input {
                Some(CallInput::Sip(message)) => session.handle_message(message.0, message.1, Instant::now()),
                Some(CallInput::Drain) => {
                    session.refuse(Refusal::new(StatusCode(503)), Instant::now());
                }
                Some(CallInput::End(waiter)) => {
                    let _ = waiter.send(Err(CallError::NotLive));
                }
                Some(CallInput::Media(_)) | None => {}
            },
            () = until(session.poll_timeout()) => session.handle_timeout(Instant::now()),
        }
    };
    edge.records.decision(verdict.record(&refused, &edge.settings.node_name, hop, session.call_id()));
    None
}

async fn run_outbound(
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

/// Absorbs retransmissions until the last transaction has timed out.
async fn linger(edge: &Arc<Edge>, session: &mut Session, inputs: &mut mpsc::Receiver<CallInput>) {
    loop {
        flush(edge, session);
        while session.poll_event().is_some() {}
        if session.is_terminated() {
            return;
        }
        let Some(due) = session.poll_timeout() else { return };
        tokio::select! {
            input = inputs.recv() => match input {
                Some(CallInput::Sip(message)) => session.handle_message(message.0, message.1, Instant::now()),
                Some(CallInput::End(waiter)) => {
                    let _ = waiter.send(Err(CallError::NotLive));
                }
                Some(_) => {}
                None => return,
            },
            () = tokio::time::sleep_until(due.into()) => session.handle_timeout(Instant::now()),
            () = edge.stop.cancelled() => return,
        }
    }
}

fn flush(edge: &Edge, session: &mut Session) {
    while let Some(transmit) = session.poll_transmit() {
        let hop = transmit.hop;
        // A full UDP socket is a lost packet, for which the transaction retransmits; a lost connection is an error.
        if edge.transports.send(hop, transmit.bytes).is_err() && hop.transport.is_reliable() {
            session.handle_transport_error(hop, Instant::now());
        }
    }
}

fn new_inbound(route: &Route, chosen: &Chosen, verdict: &Verdict, call_id: &str) -> Conversation {
    let now = Timestamp::now();
    let mut notes = Vec::new();
    let inbound = route.trunk.as_ref().and_then(|t| t.inbound_config.as_ref());
    if inbound.is_some_and(|c| c.enable_noise_cancellation) {
        notes.push("noise_cancellation_not_applied: this release carries the call without it".to_owned());
    }
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
        sip_call_id: Some(call_id.to_owned()),
        sip_status: None,
        reason: None,
        codec: None,
        media_encryption: None,
        notes,
    }
}

fn local_media(edge: &Edge, hop: Hop, socket: Option<&RtpSocket>) -> LocalMedia {
    let seed = random();
    let mut session_id = [0u8; 8];
    session_id.copy_from_slice(&seed[..8]);
    LocalMedia {
        address: edge.media_address(hop.remote.ip()),
        port: socket.map_or(0, RtpSocket::port),
        // 62 bits: some peers read it as a signed number (RFC 4566 5.2 asks for a numeric string only).
        session_id: u64::from_be_bytes(session_id) >> 2,
        ..LocalMedia::default()
    }
}

impl Call {
    /// Settles the media of an INVITE. `false` when the call was refused for it.
    fn negotiate(&mut self, offer: Option<&[u8]>, now: Instant) -> bool {
        if self.socket.is_none() {
            self.edge.counters.count(Counter::NoRtpPort);
            self.advice = Some(
                "No RTP port is free: widen media.ports, or spread the calls over more nodes.".to_owned(),
            );
            self.refuse(
                Refusal {
                    status: StatusCode(503),
                    reason: None,
                    headers: vec![("Retry-After".to_owned(), "5".to_owned())],
                },
                "no_rtp_port",
                now,
            );
            return false;
        }
        let Some(offer) = offer else {
            self.offered = true;
            self.description = Some(Bytes::from(self.offer_answer.offer()));
            return true;
        };
        match self.offer_answer.answer(offer) {
            Ok((answer, negotiated)) => {
                self.description = Some(Bytes::from(answer));
                self.negotiated = Some(negotiated);
                true
            }
            Err(error) => {
                self.edge.counters.count(Counter::RejectedMedia);
                let (host, _) = self.edge.reachable_at(self.hop);
                let (refusal, code, advice) = sip_status::offer_refusal(&error, &host);
                self.advice = Some(format!("{advice} ({error})"));
                self.refuse(refusal, code, now);
                false
            }
        }
    }

    /// Refuses before an agent was asked: a decision record, and no conversation.
    fn refuse(&mut self, refusal: Refusal, code: &'static str, now: Instant) {
        self.conversation.reason = Some(code.to_owned());
        self.session.refuse(refusal, now);
    }

    /// An agent version is asked to take the call: the conversation begins.
    fn begin(&mut self) {
        self.began = true;
        self.edge.calls.add_conversation(self.conversation.id, self.mailbox.clone());
    }

    fn ask_agent(&mut self, now: Instant) {
        match agent_link::ready_now(&self.config) {
            Some(agent) => self.answer(agent, now),
            None => {
                let (edge, config) = (Arc::clone(&self.edge), Arc::clone(&self.config));
                self.preparing = Some(Box::pin(async move {
                    agent_link::prepare(&config, &edge.audio_files, &edge.settings.media.audio_dir).await
                }));
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
    fn answer(&mut self, agent: Agent, now: Instant) {
        self.preparing = None;
        let Some(description) = self.description.clone() else { return };
        if !self.session.answer(description, now) {
            return;
        }
        self.agent = Some(agent);
        self.answered(StatusCode(200), now);
        if let Some(negotiated) = self.negotiated.take() {
            self.open_leg(negotiated, now);
        }
        self.record();
    }

    fn answered(&mut self, status: StatusCode, now: Instant) {
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(Timestamp::now());
        self.conversation.sip_status = Some(status.0);
        let longest = Duration::from_secs(self.config.max_duration_s.into());
        self.deadline = Some((now + longest, OurReason::MaxDuration));
    }

    fn ringing(&mut self) {
        if self.conversation.ringing_at.is_none() {
            self.conversation.ringing_at = Some(Timestamp::now());
            self.conversation.status = ConversationStatus::Ringing;
        }
    }

    /// Hands the RTP socket to a media shard, or tells the shard of the new agreement.
    fn open_leg(&mut self, negotiated: Negotiated, now: Instant) {
        self.conversation.codec = Some(negotiated.codec.name().to_owned());
        self.conversation.media_encryption = Some("none".to_owned());
        if let Some(leg) = &self.leg {
            leg.update(negotiated);
            return;
        }
        let (Some(socket), Some(agent)) = (self.socket.take(), self.agent.take()) else { return };
        let media = &self.edge.settings.media;
        let config = SessionConfig {
            negotiated,
            agent,
            seed: random(),
            signalling_source: self.hop.remote.ip(),
            initial_timeout: media.initial_timeout,
            timeout: media.timeout,
            tap: false,
        };
        let session = media::session::Session::new(config, now);
        let leg = self.edge.shards.open(socket, session, self.mailbox.clone());
        leg.start();
        self.leg = Some(leg);
    }

    /// Runs until the session says the call is over.
    async fn run(&mut self, inputs: &mut mpsc::Receiver<CallInput>) -> Ended {
        loop {
            flush(&self.edge, &mut self.session);
            while let Some(event) = self.session.poll_event() {
                if let Event::Ended(ended) = event {
                    flush(&self.edge, &mut self.session);
                    return ended;
                }
                self.on_event(event, Instant::now());
                flush(&self.edge, &mut self.session);
            }
            let due = [self.session.poll_timeout(), self.deadline.map(|(at, _)| at), self.waiters_until];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                biased;
                input = inputs.recv() => self.on_input(input, Instant::now()),
                ready = prepared(&mut self.preparing) => self.on_prepared(ready, Instant::now()),
                () = until(due) => self.on_time(Instant::now()),
            }
        }
    }

    fn on_input(&mut self, input: Option<CallInput>, now: Instant) {
        match input {
            Some(CallInput::Sip(message)) => self.session.handle_message(message.0, message.1, now),
            Some(CallInput::Media(event)) => self.on_media(event, now),
            Some(CallInput::End(waiter)) => {
                self.waiters.push(waiter);
                self.waiters_until.get_or_insert(now + END_WAIT);
                self.end(OurReason::Api, now);
            }
            // The tables hold a sender as long as the call is registered, so `None` comes only with the end of all.
            Some(CallInput::Drain) | None => self.end(OurReason::Drain, now),
        }
    }

    fn on_prepared(&mut self, ready: Result<Agent, NotReady>, now: Instant) {
        self.preparing = None;
        match ready {
            Ok(agent) => self.answer(agent, now),
            Err(not_ready) => {
                self.advice = Some(not_ready.to_string());
                self.end(OurReason::AgentNotReady, now);
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        if let Some((_, reason)) = self.deadline.filter(|(at, _)| *at <= now) {
            self.deadline = None;
            self.end(reason, now);
        }
        if self.waiters_until.is_some_and(|at| at <= now) {
            self.waiters_until = None;
            for waiter in self.waiters.drain(..) {
                let _ = waiter.send(Ok(self.conversation.clone()));
            }
        }
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    fn on_media(&mut self, event: MediaEvent, now: Instant) {
        match event {
            MediaEvent::PlayFinished => self.end(OurReason::Agent, now),
            MediaEvent::Timeout { ever_received } => {
                self.advice = Some(if ever_received {
                    "RTP stopped coming: the peer or the path to it is gone.".to_owned()
                } else {
                    "No RTP packet ever came (one-way audio): check for a private address in the peer's SDP, and that media.ports are open here.".to_owned()
                });
                self.end(OurReason::MediaTimeout, now);
            }
            MediaEvent::FirstPacket => {}
            MediaEvent::Digit { digit, duration_ms } => {
                tracing::debug!(conversation = %self.conversation.id, %digit, duration_ms, "digit received");
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Progress { status, sdp: _ } => {
                if status.0 >= 180 && self.conversation.ringing_at.is_none() {
                    self.ringing();
                    self.record();
                }
            }
            Event::Answered { status, sdp } => {
                self.answered(status, now);
                self.take_answer(sdp.as_deref(), now);
                self.record();
            }
            Event::Confirmed { sdp } => {
                if self.offered {
                    self.take_answer(sdp.as_deref(), now);
                }
            }
            Event::Offer { sdp } => self.on_offer(sdp.as_deref(), now),
            Event::Info { .. } | Event::Ended(_) => {}
        }
    }

    /// The answer to our offer.
    fn take_answer(&mut self, answer: Option<&[u8]>, now: Instant) {
        self.offered = false;
        let negotiated = match answer {
            Some(answer) => self.offer_answer.accept(answer).map_err(|e| e.to_string()),
            None => Err("the answer carries no SDP".to_owned()),
        };
        match negotiated {
            Ok(negotiated) => self.open_leg(negotiated, now),
            Err(problem) => {
                self.advice = Some(format!("The peer's SDP answer cannot be used: {problem}."));
                self.end(OurReason::BadAnswer, now);
            }
        }
    }

    /// A new offer inside the dialog: every one is applied, or refused and the call goes on as it was.
    fn on_offer(&mut self, offer: Option<&[u8]>, now: Instant) {
        let Some(offer) = offer else {
            self.offered = true;
            let offer = Bytes::from(self.offer_answer.offer());
            self.session.answer_offer(offer, now);
            return;
        };
        match self.offer_answer.answer(offer) {
            Ok((answer, negotiated)) => {
                if self.session.answer_offer(Bytes::from(answer), now) {
                    self.open_leg(negotiated, now);
                    self.record();
                }
            }
            Err(error) => {
                let (host, _) = self.edge.reachable_at(self.hop);
                let (refusal, _, _) = sip_status::offer_refusal(&error, &host);
                self.session.refuse_offer(refusal, now);
            }
        }
    }

    /// Ends the call for a reason of ours; the first reason stands.
    fn end(&mut self, reason: OurReason, now: Instant) {
        self.ours.get_or_insert(reason);
        self.deadline = None;
        self.preparing = None;
        let inbound = self.conversation.direction == Direction::Inbound;
        if inbound && self.conversation.answered_at.is_none() {
            let status = if reason == OurReason::Drain { 503 } else { 480 };
            self.session
                .refuse(Refusal { status: StatusCode(status), reason: None, headers: Vec::new() }, now);
        } else {
            let cause = match reason {
                OurReason::Drain => Reason { protocol: "SIP".to_owned(), cause: 503, text: None },
                OurReason::BadAnswer => Reason { protocol: "SIP".to_owned(), cause: 488, text: None },
                OurReason::RingTimeout => Reason { protocol: "Q.850".to_owned(), cause: 19, text: None },
                _ => Reason { protocol: "Q.850".to_owned(), cause: 16, text: None },
            };
            self.session.hang_up(Some(cause), now);
        }
    }

    /// Writes the call's present state down.
    fn record(&mut self) {
        self.conversation.updated_at = Timestamp::now();
        self.edge.records.conversation(self.conversation.clone());
    }
}

async fn prepared(preparing: &mut Option<Preparing>) -> Result<Agent, NotReady> {
    match preparing {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
