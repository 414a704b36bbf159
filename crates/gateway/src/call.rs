//! One call: the only place where signalling and media meet. A session says "an offer is needed" or "this answer
//! came", the call asks `media` and hands the bytes back; neither knows the other.

mod agent;
mod attempt;
pub(crate) mod attended;
mod calls_out;
mod consult;
mod digits;
mod finish;
pub(crate) mod inbound;
mod linger;
mod listen;
mod offer;
pub(crate) mod outbound;
mod peer;
mod quality;
pub(crate) mod record;
mod refer;
mod referred;
mod replace;
pub(crate) mod second_leg;
mod transfer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::CallError;
use media::denoise::Mode;
use media::monitor::Monitor;
use media::offer_answer::{Negotiated, OfferAnswer};
use media::session::{Agent, MediaEvent, Player};
use model::{AgentConfig, Conversation, ConversationStatus, Direction, E164, Step, Timestamp};
use signaling::{Ended, Event, Hop, Message, Reason, Refusal, Session, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::admission::CallPermit;
use crate::agent_link::{AgentLink, NotReady, ReadyAgent, ToAgent};
use crate::calls::{CallInput, Key, Mailbox, Party};
use crate::counters::Counter;
use crate::departed;
use crate::edge::Edge;
use crate::lane;
use crate::media_shard::Leg;
use crate::rtp_ports::RtpSocket;
use crate::sip_status::OurReason;
use crate::transport::connections::InUse;

use calls_out::Counted;
use linger::{Registered, linger};
use transfer::Transfer;

/// How long the record of an answered call may wait for what comes next: who hangs up at once is written down once.
const RECORD_SOON: Duration = Duration::from_millis(20);
/// How long the API waits for a call it ended; a carrier that does not answer a CANCEL takes longer (64·T1).
const END_WAIT: Duration = Duration::from_secs(2);

type Waiter = oneshot::Sender<Result<Conversation, CallError>>;
type Preparing = Pin<Box<dyn Future<Output = Result<ReadyAgent, NotReady>> + Send>>;

/// A call in progress.
struct Call {
    edge: Arc<Edge>,
    mailbox: Mailbox,
    session: Box<Session>,
    hop: Hop,
    config: Arc<AgentConfig>,
    conversation: Conversation,
    /// An agent version was asked to take the call: it is a conversation.
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
    /// The way to an agent elsewhere.
    link: Option<AgentLink>,
    /// The SIP status the agent refused the call with.
    refusal: Option<u16>,
    /// The transfer under way is the agent's wish, under the name it gave it.
    asked_transfer: Option<Option<String>>,
    /// The caller ID of the next second leg, when it is not the call's own.
    dial_as: Option<E164>,
    leg: Option<Leg>,
    /// The denoiser of what the caller says.
    noise_cancellation: Option<Mode>,
    /// Its trunk has digits as tones too.
    dtmf_tones: bool,
    presses: digits::Presses,
    /// Where the recording's audio goes.
    recording: Option<Arc<Monitor>>,
    listeners: listen::Listeners,
    /// The peer has put us on hold.
    on_hold: bool,
    /// The port that RTP comes to, whoever the other side is.
    rtp_port: u16,
    transfer: Option<Box<Transfer>>,
    /// How many second legs there have been.
    second_legs: u32,
    /// What a caller who waits hears; music of ours without.
    music: Option<Player>,
    /// The agent has said everything while a transfer was under way, or is gone, and why.
    agent_left: Option<Result<(), String>>,
    /// Keys of dialogs that took the place of the first.
    more_keys: Vec<Key>,
    ours: Option<OurReason>,
    deadline: Option<(Instant, OurReason)>,
    /// When a target that has said nothing is left for the next.
    try_until: Option<Instant>,
    waiters: Vec<Waiter>,
    waiters_until: Option<Instant>,
    /// When the call's present state is to be written down at the latest.
    unrecorded: Option<Instant>,
    /// What an operator should change, when we know better than the status tells.
    advice: Option<String>,
    /// Keeps the connection open that the call runs over.
    in_use: Option<InUse>,
    /// The node's place for this call.
    _permit: CallPermit,
}

/// What a session's messages are kept under.
fn trace_key(edge: &Edge, session: &Session) -> Key {
    edge.calls.local_key(session.call_id(), session.local_tag())
}

/// Hands a message to its session.
fn take(edge: &Edge, session: &mut Session, (message, hop): (Message, Hop), now: Instant) {
    edge.traces.add(trace_key(edge, session), false, hop, edge.local(hop), message.raw().concat().into());
    session.handle_message(message, hop, now);
}

fn flush(edge: &Arc<Edge>, session: &mut Session) {
    while let Some(transmit) = session.poll_transmit() {
        let hop = transmit.hop;
        let key = trace_key(edge, session);
        edge.traces.add(key, true, hop, edge.local(hop), transmit.bytes.clone());
        if lane::send(edge, transmit, key).is_err() {
            session.handle_transport_error(hop, Instant::now());
        }
    }
}

impl Call {
    fn answered(&mut self, status: StatusCode, now: Instant) {
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(Timestamp::now());
        self.conversation.sip_status = Some(status.0);
        let longest = Duration::from_secs(self.config.max_duration_s.into());
        self.deadline = Some((now + longest, OurReason::MaxDuration));
        // An agent that hears early media has been told with its first description.
        if self.leg.is_none() || !self.config.early_media {
            self.tell_agent(ToAgent::Started);
        }
    }

    fn ringing(&mut self) {
        if self.conversation.ringing_at.is_none() {
            self.conversation.ringing_at = Some(Timestamp::now());
            self.conversation.status = ConversationStatus::Ringing;
        }
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
            let due = self.due();
            tokio::select! {
                biased;
                input = inputs.recv() => self.on_input(input, Instant::now()),
                ready = prepared(&mut self.preparing) => self.on_prepared(ready, Instant::now()),
                () = until(due) => self.on_time(Instant::now()),
            }
        }
    }

    /// When [`Call::on_time`] is wanted.
    fn due(&self) -> Option<Instant> {
        let deadline = self.deadline.map(|(at, _)| at);
        let transfer = self.transfer.as_ref().and_then(|t| t.until());
        let session = self.session.poll_timeout();
        let due = [session, deadline, self.waiters_until, self.try_until, self.unrecorded, transfer];
        due.into_iter().flatten().min()
    }

    /// Hands a message on to the task of an earlier attempt, or of a dialog that another one took the place of. What
    /// finds its mailbox full is lost as on a network.
    fn hand_on(&self, message: Box<(Message, Hop)>) {
        match self.edge.calls.find(&message.0) {
            Some(Party::Live(earlier)) if !earlier.same_channel(&self.mailbox) => {
                let _ = earlier.try_send(CallInput::Sip(message));
            }
            Some(Party::Departed(call)) => departed::answer(&self.edge, &call, &message.0, message.1),
            _ => {}
        }
    }

    fn on_input(&mut self, input: Option<CallInput>, now: Instant) {
        match input {
            Some(CallInput::Sip(message)) if message.0.call_id() != self.session.call_id() => {
                self.hand_on(message);
            }
            Some(CallInput::Sip(message)) if !self.believes(&message) => {
                self.edge.counters.count(Counter::DroppedSource);
            }
            Some(CallInput::Sip(message)) => take(&self.edge, &mut self.session, *message, now),
            Some(CallInput::Unsent(hop)) => self.session.handle_transport_error(hop, now),
            // What has been answered goes on: the peer finds another way, or we do.
            Some(CallInput::Closed(hop)) if hop == self.hop && self.session.is_unheard() => {
                self.session.handle_transport_error(hop, now);
            }
            Some(CallInput::Closed(_)) => {}
            Some(CallInput::Media(event)) => self.on_media(event, now),
            Some(CallInput::Transfer(asked, reply)) => {
                // The API has counted it.
                let _ = reply.send(self.transfer(&asked, Counted::Already, now));
            }
            Some(CallInput::TransferStep(step, reply)) => {
                let _ = reply.send(self.transfer_step(step, now));
            }
            Some(CallInput::Play(sound, reply)) => {
                let _ = reply.send(self.play(sound));
            }
            Some(CallInput::Quality(reply)) => {
                let _ = reply.send(self.quality().ok_or(CallError::NotAnswered));
            }
            Some(CallInput::Digits(digits, reply)) => {
                let _ = reply.send(self.send_digits(digits));
            }
            Some(CallInput::Listen(reply)) => {
                let _ = reply.send(self.listen());
            }
            Some(CallInput::Record(step, reply)) => {
                let _ = reply.send(self.record_step(step).map(|()| self.conversation.clone()));
            }
            Some(CallInput::Partner(input)) => self.on_partner(input, now),
            Some(CallInput::Admitted(number, answer)) => self.on_admitted(number, answer, now),
            Some(CallInput::Second(number, event)) => self.on_second(number, event, now),
            Some(CallInput::Replace(invite)) => self.on_replace(*invite, now),
            Some(CallInput::Agent(event)) => self.on_agent(event, now),
            Some(CallInput::EndByAgent(organization, secret, waiter)) => {
                self.end_by_agent(organization, secret.as_ref(), waiter, now);
            }
            Some(CallInput::TransferByAgent(organization, secret, asked, reply)) => {
                let allowed = self.may_end(organization, secret.as_ref());
                let _ = reply.send(allowed.and_then(|()| self.transfer(&asked, Counted::NotYet, now)));
            }
            Some(CallInput::End(waiter)) => {
                self.waiters.push(waiter);
                self.waiters_until.get_or_insert(now + END_WAIT);
                self.end(OurReason::Api, now);
            }
            Some(CallInput::Trace(reply)) => {
                let _ = reply.send(Ok(self.edge.traces.read(trace_key(&self.edge, &self.session))));
            }
            // The tables hold a sender as long as the call is registered, so `None` comes only with the end of all.
            Some(CallInput::Drain) | None => self.end(OurReason::Drain, now),
        }
    }

    fn on_time(&mut self, now: Instant) {
        if let Some((_, reason)) = self.deadline.filter(|(at, _)| *at <= now) {
            self.deadline = None;
            if reason == OurReason::AgentNotReady {
                self.advice = Some(format!(
                    "The agent was not ready within its answer_timeout_ms of {}.",
                    self.config.answer_timeout_ms
                ));
            }
            self.end(reason, now);
        }
        self.time_transfer(now);
        if self.unrecorded.is_some_and(|at| at <= now) {
            self.record();
        }
        if self.waiters_until.is_some_and(|at| at <= now) {
            self.waiters_until = None;
            for waiter in self.waiters.drain(..) {
                let _ = waiter.send(Ok(self.conversation.clone()));
            }
        }
        if self.try_until.take_if(|at| *at <= now).is_some() {
            self.session.abandon(now);
        }
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
        }
    }

    fn on_media(&mut self, event: MediaEvent, now: Instant) {
        match event {
            MediaEvent::PlayFinished if self.transfer.is_some() => self.agent_left = Some(Ok(())),
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
            MediaEvent::Digit { digit, duration_ms, source } => {
                if self.presses.is_new(digit, source, now) {
                    self.on_digit(digit, duration_ms, source);
                }
            }
            MediaEvent::Beep(beep) => {
                self.conversation.voicemail_beep_at = Some(Timestamp::now());
                self.tell_agent(ToAgent::VoicemailBeep(beep));
                self.record();
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Progress { status, sdp } => {
                if let Some(sdp) = sdp {
                    self.take_early(&sdp, now);
                }
                if status.0 >= 180 && self.conversation.ringing_at.is_none() {
                    self.ringing();
                    self.record();
                }
            }
            Event::Answered { status, sdp } => {
                self.answered(status, now);
                match (sdp, &self.leg) {
                    // A reliable 183 brought the answer.
                    (None, Some(leg)) => {
                        self.offered = false;
                        leg.start();
                    }
                    (sdp, _) => self.take_answer(sdp.as_deref(), now),
                }
                self.record_audio();
                self.begin_dial(now);
                self.record();
            }
            Event::Modified { status, sdp } => self.take_modified(status, sdp.as_deref(), now),
            Event::Refer { target } => self.on_refer(&target, now),
            Event::Referral(referral) => self.on_referral(referral, now),
            Event::Confirmed { sdp } => {
                self.prove_source();
                if self.offered {
                    self.take_answer(sdp.as_deref(), now);
                }
            }
            Event::Offer { sdp } => self.on_offer(sdp.as_deref(), now),
            Event::Info { content_type, body } => {
                if let Some(digit) = Self::info_digit(&content_type, &body) {
                    self.on_media(digit, now);
                }
            }
            Event::Ended(_) => {}
        }
    }

    /// Ends the call for a reason of ours; the first reason stands.
    fn end(&mut self, reason: OurReason, now: Instant) {
        self.ours.get_or_insert(reason);
        self.deadline = None;
        self.preparing = None;
        let inbound = self.conversation.direction == Direction::Inbound;
        if inbound && self.conversation.answered_at.is_none() {
            let status = match reason {
                OurReason::Drain => 503,
                _ => self.refusal.unwrap_or(480),
            };
            self.session
                .refuse(Refusal { status: StatusCode(status), reason: None, headers: Vec::new() }, now);
        } else {
            let cause = match reason {
                OurReason::Drain => Reason { protocol: "SIP".to_owned(), cause: 503, text: None },
                OurReason::BadAnswer | OurReason::EncryptionRequired => {
                    Reason { protocol: "SIP".to_owned(), cause: 488, text: None }
                }
                OurReason::RingTimeout => Reason { protocol: "Q.850".to_owned(), cause: 19, text: None },
                _ => Reason { protocol: "Q.850".to_owned(), cause: 16, text: None },
            };
            self.session.hang_up(Some(cause), now);
        }
    }

    /// Writes the call's present state down within a moment. An agent elsewhere may ask for it at once.
    fn record_soon(&mut self, now: Instant) {
        if self.link.is_some() {
            self.record();
        } else {
            self.unrecorded.get_or_insert(now + RECORD_SOON);
        }
    }

    /// Writes the call's present state down.
    fn record(&mut self) {
        self.unrecorded = None;
        self.conversation.updated_at = Timestamp::now();
        self.edge.records.conversation(self.conversation.clone());
    }
}

async fn prepared(preparing: &mut Option<Preparing>) -> Result<ReadyAgent, NotReady> {
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
