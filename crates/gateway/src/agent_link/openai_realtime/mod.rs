//! The OpenAI Realtime API over a WebSocket, as of general availability and as of the beta. We are the client, so
//! playout and interruption are ours: what the caller has not heard, the model is told it has not said.

mod functions;
mod session;
mod speech;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use media::codec::g711;
use media::link::LinkStatistics;
use media::playout::Mark;
use media::quality::Second;
use model::call::{Speaker, Turn};
use model::runtime::{RealtimeAudio, RealtimeDialect};
use model::{OpenaiRealtime, Timestamp};
use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Incoming, Io};
use super::{AgentEvent, CallFacts, NotReady, Outcome, Together};
use speech::Said;

/// Items, responses and functions remembered at once.
const MAX_KNOWN: usize = 64;
/// Longest identifier or function name, in bytes.
const MAX_ID: usize = 256;
/// The caller has dialled all digits when none came for so long.
const DIGITS: Duration = Duration::from_secs(1);
/// How long a new response waits for the end of the one before.
const RESPONSE: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct RealtimeClient {
    config: OpenaiRealtime,
    call: CallFacts,
    audio: RealtimeAudio,
    /// The caller's speech stops the model's.
    interrupts: bool,
    ready: bool,
    started: bool,
    said: VecDeque<Said>,
    /// Responses whose further audio is not said.
    dropped: VecDeque<String>,
    /// The caller's items, and when each began.
    callers: VecDeque<(String, Timestamp)>,
    /// Names of functions whose arguments are on their way, by their item; calls already handed on.
    functions: VecDeque<(String, String)>,
    called: VecDeque<String>,
    /// Calls of a function that were answered before its end was known.
    answered: VecDeque<String>,
    /// The response that the server is at.
    active: Option<String>,
    /// A response to ask for, and since when.
    wanted: Option<Instant>,
    last_digit: Option<Instant>,
    interrupted: VecDeque<String>,
    bytes: Vec<u8>,
    samples: Vec<i16>,
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= MAX_KNOWN {
        list.pop_front();
    }
    list.push_back(item);
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).filter(|text| text.len() <= MAX_ID).unwrap_or_default()
}

impl RealtimeClient {
    pub(super) fn new(config: &OpenaiRealtime, call: CallFacts) -> Self {
        // A config is checked when it is written; one that is not has the default.
        let audio = config.audio().unwrap_or(RealtimeAudio::Pcmu);
        let session = config.session.as_ref();
        let detection = match config.dialect {
            RealtimeDialect::Ga => session
                .and_then(|s| s.get("audio")?.get("input")?.get("turn_detection")?.get("interrupt_response")),
            RealtimeDialect::Beta => session.and_then(|s| s.get("turn_detection")?.get("interrupt_response")),
        };
        Self {
            interrupts: detection.and_then(Value::as_bool).unwrap_or(true),
            config: config.clone(),
            call,
            audio,
            ready: false,
            started: false,
            said: VecDeque::new(),
            dropped: VecDeque::new(),
            callers: VecDeque::new(),
            functions: VecDeque::new(),
            called: VecDeque::new(),
            answered: VecDeque::new(),
            active: None,
            wanted: None,
            last_digit: None,
            interrupted: VecDeque::new(),
            bytes: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Sample rate of both directions, in hertz.
    pub(super) fn rate(audio: RealtimeAudio) -> u32 {
        match audio {
            RealtimeAudio::Pcmu | RealtimeAudio::Pcma => 8_000,
            RealtimeAudio::Pcm24 => 24_000,
        }
    }

    fn respond(&mut self, now: Instant, io: &mut Io) {
        match self.active {
            Some(_) => self.wanted = Some(now),
            None => {
                self.wanted = None;
                io.json(&json!({"type": "response.create"}));
            }
        }
    }

    fn turn(&mut self, speaker: Speaker, at: Timestamp, said: &str, interrupted: bool, io: &mut Io) {
        if !said.trim().is_empty() {
            io.event(AgentEvent::Said(Turn { speaker, text: said.trim().to_owned(), at, interrupted }));
        }
    }

    fn event(&mut self, kind: &str, event: &Value, io: &mut Io) {
        let content = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        match kind {
            "session.updated" if !self.ready => {
                self.ready = true;
                io.acts.push(Act::Ready(Ok(())));
            }
            "error" => {
                let error = event.get("error").unwrap_or(&Value::Null);
                let message: String = error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(300)
                    .collect();
                if self.ready {
                    tracing::warn!(conversation = %self.call.conversation_id, %message, "the model reports an error");
                } else {
                    let why = format!("the model refuses the session: {message}");
                    io.acts.push(Act::Ready(Err(NotReady::failed(why))));
                }
            }
            "response.output_audio.delta" | "response.audio.delta" => self.delta(event, io),
            "input_audio_buffer.speech_started" => {
                let id = text(event, "item_id");
                if !id.is_empty() {
                    remember(&mut self.callers, (id.to_owned(), Timestamp::now()));
                }
                self.interrupt(io);
            }
            "conversation.item.input_audio_transcription.completed" => {
                let id = text(event, "item_id");
                let began = self.callers.iter().find(|(item, _)| item == id).map(|(_, at)| *at);
                self.turn(
                    Speaker::User,
                    began.unwrap_or_else(Timestamp::now),
                    content("transcript"),
                    false,
                    io,
                );
            }
            "response.output_audio_transcript.done" | "response.audio_transcript.done" => {
                let id = text(event, "item_id");
                let began = self.said.iter().find(|said| said.id == id).map(|said| said.at);
                let interrupted = self.interrupted.iter().any(|item| item == id);
                self.turn(
                    Speaker::Agent,
                    began.unwrap_or_else(Timestamp::now),
                    content("transcript"),
                    interrupted,
                    io,
                );
            }
            "response.output_item.added" | "response.output_item.done" => {
                let item = event.get("item").unwrap_or(&Value::Null);
                if text(item, "type") != "function_call" {
                    return;
                }
                let name = text(item, "name");
                if kind == "response.output_item.done" {
                    let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default();
                    self.function(text(item, "call_id"), name, arguments, io);
                } else {
                    remember(&mut self.functions, (text(item, "id").to_owned(), name.to_owned()));
                }
            }
            "response.function_call_arguments.done" => {
                let item = text(event, "item_id");
                let known = self.functions.iter().find(|(id, _)| id == item).map(|(_, name)| name.clone());
                let name = Some(text(event, "name").to_owned()).filter(|name| !name.is_empty()).or(known);
                self.function(text(event, "call_id"), &name.unwrap_or_default(), content("arguments"), io);
            }
            "response.created" => {
                let id = event.get("response").map(|response| text(response, "id")).unwrap_or_default();
                self.active = Some(id.to_owned());
            }
            "response.done" => {
                self.active = None;
                if self.wanted.is_some() {
                    self.respond(Instant::now(), io);
                }
            }
            // The rest concerns nobody here, or is the future's.
            _ => {}
        }
    }
}

impl Dialect for RealtimeClient {
    fn opened(&mut self, _again: bool, io: &mut Io) {
        io.json(&json!({"type": "session.update", "session": session::update(&self.config, self.audio)}));
    }

    fn started(&mut self, io: &mut Io) {
        self.started = true;
        if self.config.greeting {
            self.respond(Instant::now(), io);
        }
    }

    fn heard(&mut self, samples: &[i16], io: &mut Io) {
        if !self.started {
            return;
        }
        self.bytes.clear();
        match self.audio {
            RealtimeAudio::Pcmu => self.bytes.extend(samples.iter().map(|&s| g711::encode_ulaw(s))),
            RealtimeAudio::Pcma => self.bytes.extend(samples.iter().map(|&s| g711::encode_alaw(s))),
            RealtimeAudio::Pcm24 => self.bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes())),
        }
        let mut message = String::with_capacity(64 + self.bytes.len() * 4 / 3);
        message.push_str("{\"type\":\"input_audio_buffer.append\",\"audio\":\"");
        STANDARD.encode_string(&self.bytes, &mut message);
        message.push_str("\"}");
        io.text(message);
    }

    fn mark(&mut self, _mark: Mark, _io: &mut Io) {}

    /// Over a WebSocket the API has no event for digits, so the model reads them.
    fn digit(&mut self, digit: char, _duration_ms: u32, io: &mut Io) {
        if !self.started {
            return;
        }
        let text = format!("The caller pressed {digit} on the keypad.");
        io.json(&json!({
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        }));
        self.last_digit = Some(Instant::now());
    }

    fn received(&mut self, message: Incoming<'_>, io: &mut Io) {
        let Incoming::Text(text) = message else {
            io.fault("a binary message where text belongs");
            return;
        };
        let Ok(event) = serde_json::from_str::<Value>(text) else {
            io.fault("a message that is not JSON");
            return;
        };
        match event.get("type").and_then(Value::as_str) {
            Some(kind) => self.event(kind, &event, io),
            None => io.fault("an event without a type"),
        }
    }

    fn outcome(&mut self, outcome: Outcome, io: &mut Io) {
        self.became(outcome, io);
    }

    fn together(&mut self, id: Option<String>, to: &str, with: Together, io: &mut Io) {
        self.with_target(id, to, with, io);
    }

    fn tool(&mut self, id: String, output: Result<String, String>, io: &mut Io) {
        match output {
            Ok(output) => self.output(&id, &output, false, io),
            Err(why) => self.output(&id, &why, true, io),
        }
    }

    fn second(&mut self, _statistics: LinkStatistics, _heard: Option<Second>, io: &mut Io) {
        let now = Instant::now();
        if self.last_digit.is_some_and(|last| now.duration_since(last) >= DIGITS) {
            self.last_digit = None;
            self.respond(now, io);
        }
        if self.wanted.is_some_and(|since| now.duration_since(since) >= RESPONSE) {
            self.active = None;
            self.respond(now, io);
        }
    }

    fn stopped(&mut self, _reason: &str, _io: &mut Io) {}
}

#[cfg(test)]
mod tests;
