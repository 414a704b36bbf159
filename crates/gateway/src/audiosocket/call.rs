//! A call of an Asterisk: no SIP and no RTP, and otherwise a call like any other, with a record of its own. Asterisk
//! has answered its caller already and keeps the call after we have hung up.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::CallError;
use media::line::Line;
use media::monitor::Monitor;
use media::resample::Rate;
use media::session::Agent;
use model::{
    AgentConfig, Conversation, ConversationStatus, EndedBy, RecordStep, RecordingFormat, RuleResult, Runtime,
    Step, Timestamp,
};
use signaling::Hop;
use tokio::sync::{mpsc, oneshot};

use super::frames::{Frames, frame, kind_of, rate_of};
use super::{DIGIT, ERROR, HANG_UP};
use crate::admission::CallPermit;
use crate::agent_link::{
    self, Action, AgentEvent, AgentLink, Ask, CallFacts, NotReady, Outcome, ReadyAgent, ToAgent,
};
use crate::call::inbound::new_inbound;
use crate::call::record::{self, Wanted};
use crate::calls::{CallInput, MAILBOX, Mailbox};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::inbound::{self, Answer, Route, Verdict};

/// A frame.
const FRAME: Duration = Duration::from_millis(20);
/// Frames sent at once after the task was held up; older ones are skipped.
const MAX_CATCH_UP: u32 = 5;
/// How long a digit is said to have lasted: the protocol does not tell.
const DIGIT_MS: u32 = 250;
/// Frames in a row that say nothing sensible.
const MAX_FAULTS: u32 = 100;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where such a call comes from, in records.
pub(super) fn source(hop: Hop) -> String {
    format!("{}/AudioSocket", hop.remote)
}

type Preparing = Pin<Box<dyn Future<Output = Result<ReadyAgent, NotReady>> + Send>>;

/// Why the call is over.
enum End {
    /// Asterisk hung up, or closed the connection.
    Caller,
    /// The connection broke, or said nothing sensible.
    Broken(String),
    Agent,
    AgentGone(String),
    NotReady(NotReady),
    Api,
    Drain,
    MaxDuration,
}

struct AudioCall {
    edge: Arc<Edge>,
    frames: Frames,
    config: AgentConfig,
    conversation: Conversation,
    recording: Option<Arc<Monitor>>,
    /// The way to an agent elsewhere.
    link: Option<AgentLink>,
    mailbox: Mailbox,
    waiters: Vec<oneshot::Sender<Result<Conversation, CallError>>>,
    faults: u32,
    _permit: CallPermit,
}

/// Carries the call to its end.
pub(super) async fn run(
    edge: Arc<Edge>,
    frames: Frames,
    route: Route,
    verdict: Verdict,
    permit: CallPermit,
    hop: Hop,
) {
    // An agent that is asked for by its id is known.
    let Answer::Agent(chosen) = &route.answer else { return };
    let conversation = Conversation {
        user_id: hop.remote.ip().to_canonical().to_string(),
        ..new_inbound(&route, chosen, &verdict, None, None)
    };
    let (mailbox, mut inputs) = mpsc::channel(MAILBOX);
    edge.counters.count(Counter::CallsInbound);
    edge.calls.add_conversation(conversation.id, mailbox.clone());
    let mut call = AudioCall {
        edge: Arc::clone(&edge),
        frames,
        config: AgentConfig::clone(&chosen.version.config),
        conversation,
        recording: None,
        link: None,
        mailbox,
        waiters: Vec::new(),
        faults: 0,
        _permit: permit,
    };
    call.record();
    let end = call.carry(&mut inputs).await;
    let last = call.finish(&end);
    if let Some((status, reason, advice)) = last {
        let refused = inbound::refused(status, reason, "");
        let mut record = verdict.record(&refused, &edge.settings.node_name, hop, "");
        record.conversation_id = Some(call.conversation.id);
        record.source = source(hop);
        record.sip_call_id = None;
        record.steps.push(Step { rule: "outcome".into(), result: RuleResult::Fail, detail: advice.clone() });
        record.advice = advice;
        edge.records.decision(record);
    }
    call.record();
    edge.calls.remove_conversation(call.conversation.id);
    for waiter in call.waiters.drain(..) {
        let _ = waiter.send(Ok(call.conversation.clone()));
    }
    if !matches!(end, End::Broken(_)) && call.frames.push(&frame(HANG_UP, &[])).is_ok() {
        let _ = tokio::time::timeout(GOODBYE, poll_fn(|context| call.frames.poll_flush(context))).await;
    }
}

impl AudioCall {
    async fn carry(&mut self, inputs: &mut mpsc::Receiver<CallInput>) -> End {
        let ready = match self.prepare(inputs).await {
            Ok(ready) => ready,
            Err(end) => return end,
        };
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(Timestamp::now());
        let mut line = Line::new(Rate::Hz8000, ready.agent);
        self.conversation.notes.extend(ready.note);
        self.link = ready.link;
        if self.config.recording.enabled {
            // What keeps it from being begun stands in the notes.
            let _ = self.begin_recording(self.config.recording.format, &mut line);
        }
        self.record();
        self.tell(ToAgent::Started);
        let deadline = Instant::now() + Duration::from_secs(self.config.max_duration_s.into());
        let mut next = Instant::now();
        let mut said = Vec::new();
        let mut preparing: Option<Preparing> = None;
        let end = loop {
            tokio::select! {
                biased;
                input = inputs.recv() => if let Some(end) = self.input(input, Some(&mut line)) {
                    match self.fall_back(end, &mut line) {
                        Ok(ready) => preparing = Some(ready),
                        Err(end) => break end,
                    }
                },
                ready = prepared(&mut preparing) => match ready {
                    Ok(ready) => {
                        preparing = None;
                        self.speak(ready, &mut line);
                    }
                    Err(not_ready) => break End::AgentGone(not_ready.why),
                },
                () = tokio::time::sleep_until(next.into()) => {
                    let now = Instant::now();
                    if now >= deadline {
                        break End::MaxDuration;
                    }
                    if now.duration_since(next) > FRAME * MAX_CATCH_UP {
                        next = now;
                    }
                    next += FRAME;
                    if !line.say(&mut said) {
                        break End::Agent;
                    }
                    let bytes: Vec<u8> = said.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    if self.frames.push(&frame(kind_of(line.rate()), &bytes)).is_err() {
                        break End::Broken("Asterisk does not read what is sent to it".to_owned());
                    }
                }
                came = poll_fn(|context| self.poll(context)) => match came {
                    Ok(Some(bytes)) => if let Some(end) = self.frame(&bytes, &mut line) {
                        break end;
                    },
                    Ok(None) => break End::Caller,
                    Err(error) => break End::Broken(format!("the connection broke: {error}")),
                },
            }
        };
        record::settle(self.recording.take(), &mut self.conversation);
        self.tell(ToAgent::Stop(ended(&end).1.as_str().to_owned()));
        end
    }

    /// Tells the agent something, when it is one that listens.
    fn tell(&self, what: ToAgent) {
        if let Some(link) = &self.link {
            link.tell(what);
        }
    }

    /// An agent whose connection broke leaves the caller to its fallback, which is made ready while nobody speaks.
    /// Every other end is one.
    fn fall_back(&mut self, end: End, line: &mut Line) -> Result<Preparing, End> {
        let why = match end {
            End::AgentGone(why) => why,
            end => return Err(end),
        };
        // Who is called by SIP cannot be bridged here.
        let fallback = self.config.fallback.take().filter(|runtime| !matches!(runtime, Runtime::Dial(_)));
        let Some(fallback) = fallback else { return Err(End::AgentGone(why)) };
        self.conversation
            .notes
            .push(format!("agent_gone: {why}; the fallback ({}) goes on", fallback.name()));
        self.config.runtime = fallback;
        self.link = None;
        line.set_agent(Agent::Silent);
        self.record();
        Ok(self.ready())
    }

    /// The fallback goes on with the caller.
    fn speak(&mut self, ready: ReadyAgent, line: &mut Line) {
        line.set_agent(ready.agent);
        self.conversation.notes.extend(ready.note);
        self.link = ready.link;
        self.tell(ToAgent::Started);
    }

    /// Makes the config's agent ready, within its time.
    fn ready(&self) -> Preparing {
        let (edge, config) = (Arc::clone(&self.edge), self.config.clone());
        let (facts, mailbox) = (CallFacts::of(&self.conversation), self.mailbox.clone());
        let limit = config.answer_timeout_ms;
        Box::pin(async move {
            let ready = agent_link::prepare(&edge, &config, facts, mailbox);
            let ready = tokio::time::timeout(Duration::from_millis(limit.into()), ready).await;
            let late = || {
                NotReady::failed(format!("the agent was not ready within its answer_timeout_ms of {limit}"))
            };
            ready.unwrap_or_else(|_| Err(late()))
        })
    }

    fn begin_recording(&mut self, format: RecordingFormat, line: &mut Line) -> Result<(), CallError> {
        let wideband = line.rate() != Rate::Hz8000;
        let monitor = record::begin(&self.edge, &mut self.conversation, format, wideband)?;
        line.listen_in(Arc::clone(&monitor));
        self.recording = Some(monitor);
        Ok(())
    }

    /// What the agent or the API wants of the recording.
    fn record_step(&mut self, step: RecordStep, line: Option<&mut Line>) -> Result<(), CallError> {
        let Some(line) = line else { return Err(CallError::NotAnswered) };
        let changed = match record::wanted(&self.conversation, self.config.recording.format, step)? {
            Wanted::Begin(format) => self.begin_recording(format, line).map(|()| true)?,
            Wanted::Pause(paused) => record::pause(self.recording.as_ref(), &mut self.conversation, paused)?,
        };
        if changed {
            self.record();
        }
        Ok(())
    }

    /// Writes what waits, and reads the next frame.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.frames.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        self.frames.poll_next(context)
    }

    /// The agent is made ready. What the caller says meanwhile nobody hears.
    async fn prepare(&mut self, inputs: &mut mpsc::Receiver<CallInput>) -> Result<ReadyAgent, End> {
        if matches!(self.config.runtime, Runtime::Dial(_)) {
            let why = "a dial agent calls somebody by SIP, and a call over AudioSocket is not bridged: dial from Asterisk itself";
            return Err(End::NotReady(NotReady::failed(why)));
        }
        let mut ready = self.ready();
        loop {
            tokio::select! {
                ready = &mut ready => return ready.map_err(End::NotReady),
                input = inputs.recv() => if let Some(end) = self.input(input, None) {
                    return Err(end);
                },
                came = poll_fn(|context| self.poll(context)) => match came {
                    Ok(Some(bytes)) if bytes.first() != Some(&HANG_UP) => {}
                    Ok(_) => return Err(End::Caller),
                    Err(error) => return Err(End::Broken(format!("the connection broke: {error}"))),
                },
            }
        }
    }

    /// A frame of Asterisk's; the end when it is the last.
    fn frame(&mut self, bytes: &[u8], line: &mut Line) -> Option<End> {
        let [kind, _, _, payload @ ..] = bytes else { return None };
        match (*kind, payload) {
            (HANG_UP, _) => return Some(End::Caller),
            (ERROR, _) => {
                let code = payload.first().map_or_else(String::new, |code| format!(" {code}"));
                return Some(End::Broken(format!("Asterisk reports the error{code}")));
            }
            (DIGIT, [digit]) if b"0123456789*#ABCD".contains(digit) => {
                self.faults = 0;
                let digit = char::from(*digit);
                self.tell(ToAgent::Digit { digit, duration_ms: DIGIT_MS });
            }
            (kind, _) => match rate_of(kind) {
                Some(rate) => {
                    self.faults = 0;
                    if rate != line.rate() {
                        line.set_rate(rate);
                    }
                    let (pairs, _) = payload.as_chunks::<2>();
                    let samples: Vec<i16> = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
                    line.hear(&samples);
                }
                None => {
                    self.faults += 1;
                    if self.faults > MAX_FAULTS {
                        let why =
                            format!("{MAX_FAULTS} frames in a row were none of AudioSocket's that are known");
                        return Some(End::Broken(why));
                    }
                }
            },
        }
        None
    }

    /// Does what is asked of the call, whose line is there once it is answered; the end when it is one.
    fn input(&mut self, input: Option<CallInput>, line: Option<&mut Line>) -> Option<End> {
        match input {
            Some(CallInput::End(waiter)) => {
                self.waiters.push(waiter);
                return Some(End::Api);
            }
            Some(CallInput::EndByAgent(organization, secret, waiter)) => {
                let own = organization == self.conversation.organization_id;
                match own.then(|| agent_link::may_end(&self.config.runtime, secret.as_ref())) {
                    Some(true) => {
                        self.waiters.push(waiter);
                        return Some(End::Agent);
                    }
                    Some(false) => drop(waiter.send(Err(CallError::Denied))),
                    None => drop(waiter.send(Err(CallError::NotLive))),
                }
            }
            Some(CallInput::TransferByAgent(organization, secret, _, reply)) => {
                let own = organization == self.conversation.organization_id;
                let answer = match own.then(|| agent_link::may_end(&self.config.runtime, secret.as_ref())) {
                    Some(true) => CallError::NoSip,
                    Some(false) => CallError::Denied,
                    None => CallError::NotLive,
                };
                let _ = reply.send(Err(answer));
            }
            Some(CallInput::Play(sound, reply)) => {
                let answer = match (&self.link, line) {
                    (_, None) => Err(CallError::NotAnswered),
                    (None, _) => Err(CallError::NoBot),
                    (Some(link), _) => {
                        link.tell(ToAgent::Play(sound));
                        Ok(self.conversation.clone())
                    }
                };
                let _ = reply.send(answer);
            }
            Some(CallInput::Digits(digits, reply)) => {
                let sent = send_digits(&digits, line);
                let _ = reply.send(sent.map(|()| self.conversation.clone()));
            }
            Some(CallInput::Record(step, reply)) => {
                let done = self.record_step(step, line);
                let _ = reply.send(done.map(|()| self.conversation.clone()));
            }
            Some(CallInput::Agent(event)) => return self.on_agent(event, line),
            Some(CallInput::Drain) | None => return Some(End::Drain),
            // Nothing of a SIP call comes here; what is asked of one is refused.
            Some(other) => drop(other.refuse(CallError::NoSip)),
        }
        None
    }

    fn on_agent(&mut self, event: AgentEvent, line: Option<&mut Line>) -> Option<End> {
        match event {
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } => return Some(End::Agent),
            AgentEvent::Closed { why, .. } => return Some(End::AgentGone(why)),
            AgentEvent::Said(turn) => {
                if agent_link::keep_turn(&mut self.conversation.transcript, turn) {
                    self.record();
                }
            }
            AgentEvent::Ask(Ask { id, action }) => {
                let name = action.name();
                let result = match action {
                    Action::Record(step) => self.record_step(step, line).map_err(|error| error.to_string()),
                    Action::SendDtmf { digits } => agent_link::digits_asked(&digits)
                        .and_then(|()| send_digits(&digits, line).map_err(|error| error.to_string())),
                    Action::Transfer { .. } | Action::TransferStep(_) => Err(CallError::NoSip.to_string()),
                };
                let result = result.map(|()| None);
                self.tell(ToAgent::Outcome(Outcome { id, action: name, result }));
            }
        }
        None
    }

    /// Settles the final record. What an operator should know of goes into a decision record: status, reason, advice.
    fn finish(&mut self, end: &End) -> Option<(u16, &'static str, String)> {
        let answered = self.conversation.answered_at.is_some();
        let (reason, ended_by) = ended(end);
        let call = &mut self.conversation;
        call.status = match end {
            _ if answered => ConversationStatus::Completed,
            End::Caller | End::Api => ConversationStatus::Cancelled,
            _ => ConversationStatus::Failed,
        };
        call.ended_by = Some(ended_by);
        call.reason = reason.map(str::to_owned);
        call.ended_at = Some(Timestamp::now());
        let (status, why) = match end {
            End::NotReady(not_ready) => (not_ready.status.unwrap_or(480), not_ready.why.clone()),
            End::AgentGone(why) => {
                call.notes.push(format!("agent_gone: {why}"));
                (200, why.clone())
            }
            End::Broken(why) => (200, why.clone()),
            _ => return None,
        };
        Some((status, reason.unwrap_or("ended"), why))
    }

    fn record(&mut self) {
        self.conversation.updated_at = Timestamp::now();
        self.edge.records.conversation(self.conversation.clone());
    }
}

/// Digits go to Asterisk as tones in the audio: its own digit frame goes one way only, and Asterisk hangs up on one that
/// comes the other way.
fn send_digits(digits: &str, line: Option<&mut Line>) -> Result<(), CallError> {
    let line = line.ok_or(CallError::NotAnswered)?;
    if line.send_digits(digits) { Ok(()) } else { Err(CallError::NoDigits) }
}

async fn prepared(preparing: &mut Option<Preparing>) -> Result<ReadyAgent, NotReady> {
    match preparing {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// How an end stands in the record.
fn ended(end: &End) -> (Option<&'static str>, EndedBy) {
    match end {
        End::Caller => (None, EndedBy::Caller),
        End::Broken(_) => (Some("connection_broken"), EndedBy::System),
        End::Agent => (None, EndedBy::Agent),
        End::AgentGone(_) => (Some("agent_gone"), EndedBy::System),
        End::NotReady(not_ready) if not_ready.status.is_some() => (Some("agent_refused"), EndedBy::Agent),
        End::NotReady(_) => (Some("agent_not_ready"), EndedBy::System),
        End::Api => (None, EndedBy::Api),
        End::Drain => (Some("node_drain"), EndedBy::System),
        End::MaxDuration => (Some("max_duration"), EndedBy::System),
    }
}
