//! A call of an Asterisk: no SIP and no RTP, and otherwise a call like any other, with a record of its own. Asterisk
//! has answered its caller already and keeps the call after we have hung up.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::CallError;
use media::line::Line;
use media::monitor::Monitor;
use media::resample::Rate;
use model::{AgentConfig, Conversation, ConversationStatus, EndedBy, RuleResult, Runtime, Step, Timestamp};
use signaling::Hop;
use tokio::sync::{mpsc, oneshot};

use super::frames::{Frames, frame, kind_of, rate_of};
use super::{DIGIT, ERROR, HANG_UP};
use crate::admission::CallPermit;
use crate::agent_link::{self, Action, AgentEvent, Ask, CallFacts, NotReady, Outcome, ReadyAgent, ToAgent};
use crate::call::inbound::new_inbound;
use crate::call::record;
use crate::calls::{CallInput, MAILBOX};
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
        config: chosen.version.config.clone(),
        conversation,
        recording: None,
        waiters: Vec::new(),
        faults: 0,
        _permit: permit,
    };
    call.record();
    let end = call.carry(mailbox, &mut inputs).await;
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
    async fn carry(
        &mut self,
        mailbox: mpsc::Sender<CallInput>,
        inputs: &mut mpsc::Receiver<CallInput>,
    ) -> End {
        let ready = match self.prepare(mailbox, inputs).await {
            Ok(ready) => ready,
            Err(end) => return end,
        };
        self.conversation.status = ConversationStatus::InProgress;
        self.conversation.answered_at = Some(Timestamp::now());
        let mut line = Line::new(Rate::Hz8000, ready.agent);
        self.conversation.notes.extend(ready.note);
        let link = ready.link;
        let asked = self.config.recording;
        if asked.enabled
            && let Some(monitor) = record::begin(&self.edge, &mut self.conversation, asked.format, false)
        {
            line.listen_in(Arc::clone(&monitor));
            self.recording = Some(monitor);
        }
        self.record();
        if let Some(link) = &link {
            link.tell(ToAgent::Started);
        }
        let tell = |what| {
            if let Some(link) = &link {
                link.tell(what);
            }
        };
        let deadline = Instant::now() + Duration::from_secs(self.config.max_duration_s.into());
        let mut next = Instant::now();
        let mut said = Vec::new();
        let end = loop {
            tokio::select! {
                biased;
                input = inputs.recv() => match self.input(input) {
                    Some(Asked::End(end)) => break end,
                    Some(Asked::Tell(what)) => tell(what),
                    None => {}
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
                    Ok(Some(bytes)) => match self.frame(&bytes, &mut line) {
                        Some(Asked::End(end)) => break end,
                        Some(Asked::Tell(what)) => tell(what),
                        None => {}
                    },
                    Ok(None) => break End::Caller,
                    Err(error) => break End::Broken(format!("the connection broke: {error}")),
                },
            }
        };
        record::settle(self.recording.take(), &mut self.conversation);
        if let Some(link) = &link {
            link.tell(ToAgent::Stop(ended(&end).1.as_str().to_owned()));
        }
        end
    }

    /// Writes what waits, and reads the next frame.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.frames.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        self.frames.poll_next(context)
    }

    /// The agent is made ready. What the caller says meanwhile nobody hears.
    async fn prepare(
        &mut self,
        mailbox: mpsc::Sender<CallInput>,
        inputs: &mut mpsc::Receiver<CallInput>,
    ) -> Result<ReadyAgent, End> {
        if matches!(self.config.runtime, Runtime::Dial(_)) {
            let why = "a dial agent calls somebody by SIP, and a call over AudioSocket is not bridged: dial from Asterisk itself";
            return Err(End::NotReady(NotReady::failed(why)));
        }
        let (edge, config) = (Arc::clone(&self.edge), self.config.clone());
        let facts = CallFacts::of(&self.conversation);
        let ready = async move { agent_link::prepare(&edge, &config, facts, mailbox).await };
        let limit = Duration::from_millis(self.config.answer_timeout_ms.into());
        let mut ready = std::pin::pin!(tokio::time::timeout(limit, ready));
        loop {
            tokio::select! {
                ready = &mut ready => return match ready {
                    Ok(ready) => ready.map_err(End::NotReady),
                    Err(_) => Err(End::NotReady(NotReady::failed(format!(
                        "the agent was not ready within its answer_timeout_ms of {}",
                        self.config.answer_timeout_ms
                    )))),
                },
                input = inputs.recv() => if let Some(Asked::End(end)) = self.input(input) {
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

    /// A frame of Asterisk's.
    fn frame(&mut self, bytes: &[u8], line: &mut Line) -> Option<Asked> {
        let [kind, _, _, payload @ ..] = bytes else { return None };
        match (*kind, payload) {
            (HANG_UP, _) => return Some(Asked::End(End::Caller)),
            (ERROR, _) => {
                let code = payload.first().map_or_else(String::new, |code| format!(" {code}"));
                return Some(Asked::End(End::Broken(format!("Asterisk reports the error{code}"))));
            }
            (DIGIT, [digit]) if b"0123456789*#ABCD".contains(digit) => {
                self.faults = 0;
                let digit = char::from(*digit);
                return Some(Asked::Tell(ToAgent::Digit { digit, duration_ms: DIGIT_MS }));
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
                        return Some(Asked::End(End::Broken(why)));
                    }
                }
            },
        }
        None
    }

    fn input(&mut self, input: Option<CallInput>) -> Option<Asked> {
        match input {
            Some(CallInput::End(waiter)) => {
                self.waiters.push(waiter);
                Some(Asked::End(End::Api))
            }
            Some(CallInput::EndByAgent(organization, None, waiter))
                if organization == self.conversation.organization_id =>
            {
                self.waiters.push(waiter);
                Some(Asked::End(End::Agent))
            }
            Some(CallInput::Play(sound, reply)) if self.conversation.answered_at.is_some() => {
                let _ = reply.send(Ok(self.conversation.clone()));
                Some(Asked::Tell(ToAgent::Play(sound)))
            }
            Some(CallInput::PauseRecording(paused, reply)) => {
                let paused = record::pause(self.recording.as_ref(), &mut self.conversation, paused);
                let _ = reply.send(paused.map(|_| self.conversation.clone()));
                self.record();
                None
            }
            Some(CallInput::Agent(event)) => match event {
                AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } => Some(Asked::End(End::Agent)),
                AgentEvent::Closed { why, .. } => Some(Asked::End(End::AgentGone(why))),
                AgentEvent::Said(turn) => {
                    if agent_link::keep_turn(&mut self.conversation.transcript, turn) {
                        self.record();
                    }
                    None
                }
                AgentEvent::Ask(Ask { id, action }) => {
                    let result = match action {
                        Action::Record(on) => {
                            record::pause(self.recording.as_ref(), &mut self.conversation, !on).map(|_| None)
                        }
                        _ => Err(CallError::NoSip),
                    };
                    let (action, result) = (action.name(), result.map_err(|error| error.to_string()));
                    Some(Asked::Tell(ToAgent::Outcome(Outcome { id, action, result })))
                }
            },
            Some(CallInput::Drain) | None => Some(Asked::End(End::Drain)),
            // Nothing of a SIP call comes here; what is asked of one is refused.
            Some(other) => {
                let _ = other.refuse(CallError::NoSip);
                None
            }
        }
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

/// What a frame or an input asks for.
enum Asked {
    End(End),
    Tell(ToAgent),
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
