//! The OpenAI Realtime API over a WebSocket, as of general availability and as of the beta. We are the client, so
//! playout and interruption are ours: what the caller has not heard, the model is told it has not said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use media::codec::g711;
use media::link::LinkStatistics;
use media::playout::Mark;
use model::call::{Speaker, Turn};
use model::runtime::{RealtimeAudio, RealtimeDialect};
use model::{OpenaiRealtime, Timestamp};
use serde_json::{Map, Value, json};

use super::dialect::{Act, Dialect, Incoming, Io, ToolCall};
use super::media_stream::LENIENT;
use super::{Action, AgentEvent, Ask, CallFacts, NotReady, Outcome};

/// Items, responses and functions remembered at once.
const MAX_KNOWN: usize = 64;
/// Longest identifier or function name, in bytes.
const MAX_ID: usize = 256;
/// Longest function argument taken, in bytes.
const MAX_ARGUMENTS: usize = 65_536;
/// The caller has dialled all digits when none came for so long.
const DIGITS: Duration = Duration::from_secs(1);
/// How long a new response waits for the end of the one before.
const RESPONSE: Duration = Duration::from_secs(2);

/// Functions of ours that a session may declare as tools.
const HANG_UP: &str = "tandem_hang_up";
const TRANSFER: &str = "tandem_transfer";
const SEND_DTMF: &str = "tandem_send_dtmf";

/// An item of the model's that is being said.
#[derive(Debug)]
struct Said {
    id: String,
    response: String,
    content_index: u64,
    /// Position in playout at which it begins, and its length, in samples.
    begins: u64,
    length: u64,
    at: Timestamp,
}

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

    /// The session update: ours, with the config's own fields laid over it.
    fn session(&self) -> Value {
        let detection = json!({
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
            "create_response": true, "interrupt_response": true,
        });
        let mut session = match self.config.dialect {
            RealtimeDialect::Ga => {
                let format = match self.audio {
                    RealtimeAudio::Pcmu => json!({"type": "audio/pcmu"}),
                    RealtimeAudio::Pcma => json!({"type": "audio/pcma"}),
                    RealtimeAudio::Pcm24 => json!({"type": "audio/pcm", "rate": 24_000}),
                };
                json!({
                    "type": "realtime", "output_modalities": ["audio"],
                    "audio": {
                        "input": {
                            "format": format, "transcription": {"model": "gpt-4o-mini-transcribe"},
                            "turn_detection": detection,
                        },
                        "output": {"format": format},
                    },
                })
            }
            RealtimeDialect::Beta => {
                let format = match self.audio {
                    RealtimeAudio::Pcmu => "g711_ulaw",
                    RealtimeAudio::Pcma => "g711_alaw",
                    RealtimeAudio::Pcm24 => "pcm16",
                };
                json!({
                    "modalities": ["audio", "text"], "input_audio_format": format, "output_audio_format": format,
                    "input_audio_transcription": {"model": "whisper-1"}, "turn_detection": detection,
                })
            }
        };
        if let Some(instructions) = &self.config.instructions {
            session["instructions"] = json!(instructions);
        }
        if let Some(voice) = &self.config.voice {
            match self.config.dialect {
                RealtimeDialect::Ga => session["audio"]["output"]["voice"] = json!(voice),
                RealtimeDialect::Beta => session["voice"] = json!(voice),
            }
        }
        if let Some(own) = &self.config.session {
            lay_over(&mut session, own);
        }
        session
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

    fn delta(&mut self, event: &Value, io: &mut Io) {
        let response = text(event, "response_id");
        if self.dropped.iter().any(|id| id == response) {
            return;
        }
        let item = text(event, "item_id");
        let Some(delta) = event.get("delta").and_then(Value::as_str) else {
            io.fault("audio without a delta");
            return;
        };
        self.bytes.clear();
        if LENIENT.decode_vec(delta.as_bytes(), &mut self.bytes).is_err() {
            io.fault("a delta that is not Base64");
            return;
        }
        self.samples.clear();
        match self.audio {
            RealtimeAudio::Pcmu => {
                self.samples.extend(self.bytes.iter().map(|&byte| g711::decode_ulaw(byte)));
            }
            RealtimeAudio::Pcma => {
                self.samples.extend(self.bytes.iter().map(|&byte| g711::decode_alaw(byte)));
            }
            RealtimeAudio::Pcm24 => {
                let (pairs, _) = self.bytes.as_chunks::<2>();
                self.samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
            }
        }
        let progress = io.link.progress();
        let lost = io.link.say(&self.samples);
        let length = self.samples.len().saturating_sub(lost) as u64;
        match self.said.back_mut().filter(|said| said.id == item) {
            Some(said) => said.length += length,
            None => {
                // What has been heard whole is of no more interest.
                self.said.retain(|said| said.begins + said.length > progress.played);
                let said = Said {
                    id: item.to_owned(),
                    response: response.to_owned(),
                    content_index: event.get("content_index").and_then(Value::as_u64).unwrap_or(0),
                    begins: progress.played + progress.queued,
                    length,
                    at: Timestamp::now(),
                };
                remember(&mut self.said, said);
            }
        }
    }

    /// The caller speaks: silence at once, and the model learns how much of each item was heard.
    fn interrupt(&mut self, io: &mut Io) {
        if !self.interrupts {
            return;
        }
        let played = io.link.progress().played;
        io.link.clear();
        for said in std::mem::take(&mut self.said) {
            let heard = played.saturating_sub(said.begins).min(said.length);
            if heard == said.length {
                continue;
            }
            let ms = heard * 1_000 / u64::from(Self::rate(self.audio));
            io.json(&json!({
                "type": "conversation.item.truncate", "item_id": said.id, "content_index": said.content_index,
                "audio_end_ms": ms,
            }));
            if !self.dropped.contains(&said.response) {
                remember(&mut self.dropped, said.response);
            }
            remember(&mut self.interrupted, said.id);
        }
        // What the server is still saying is not wanted either.
        if let Some(active) = self.active.clone().filter(|active| !self.dropped.contains(active)) {
            remember(&mut self.dropped, active);
        }
    }

    fn turn(&mut self, speaker: Speaker, at: Timestamp, said: &str, interrupted: bool, io: &mut Io) {
        if !said.trim().is_empty() {
            io.event(AgentEvent::Said(Turn { speaker, text: said.trim().to_owned(), at, interrupted }));
        }
    }

    fn function(&mut self, id: &str, name: &str, arguments: &str, io: &mut Io) {
        if id.is_empty() || name.is_empty() || self.called.iter().any(|called| called == id) {
            return;
        }
        remember(&mut self.called, id.to_owned());
        if arguments.len() > MAX_ARGUMENTS {
            self.output(id, &format!("the arguments have more than {MAX_ARGUMENTS} bytes"), true, io);
            return;
        }
        let given = serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_default();
        let argument = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let action = match name {
            HANG_UP => {
                io.event(AgentEvent::HangUp);
                return;
            }
            TRANSFER => Action::Transfer { to: argument("to") },
            SEND_DTMF => Action::SendDtmf { digits: argument("digits") },
            _ => {
                io.acts.push(Act::Tool(ToolCall {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    arguments: arguments.to_owned(),
                }));
                return;
            }
        };
        io.event(AgentEvent::Ask(Ask { id: Some(id.to_owned()), action }));
    }

    fn output(&mut self, id: &str, output: &str, failed: bool, io: &mut Io) {
        let output = if failed { json!({"error": output}).to_string() } else { output.to_owned() };
        io.json(&json!({
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": id, "output": output},
        }));
        self.respond(Instant::now(), io);
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

/// Lays fields over others: objects within objects are laid over as well, everything else replaces.
fn lay_over(base: &mut Value, own: &Map<String, Value>) {
    let Some(base) = base.as_object_mut() else { return };
    for (name, value) in own {
        match (base.get_mut(name), value) {
            // A turn detection of another kind has other fields.
            (Some(slot @ Value::Object(_)), Value::Object(inner))
                if inner.get("type").is_none() || inner.get("type") == slot.get("type") =>
            {
                lay_over(slot, inner);
            }
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

impl Dialect for RealtimeClient {
    fn opened(&mut self, _again: bool, io: &mut Io) {
        io.json(&json!({"type": "session.update", "session": self.session()}));
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
        let Some(id) = outcome.id else { return };
        match outcome.result {
            Ok(detail) => self.output(&id, &json!({"ok": true, "detail": detail}).to_string(), false, io),
            Err(why) => self.output(&id, &why, true, io),
        }
    }

    fn tool(&mut self, id: String, output: Result<String, String>, io: &mut Io) {
        match output {
            Ok(output) => self.output(&id, &output, false, io),
            Err(why) => self.output(&id, &why, true, io),
        }
    }

    fn second(&mut self, _statistics: LinkStatistics, io: &mut Io) {
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
mod tests {
    use super::super::dialect::testing::{io, play, texts};
    use super::*;

    fn client(config: &Value) -> (RealtimeClient, Io) {
        let config: OpenaiRealtime = serde_json::from_value(config.clone()).unwrap();
        let rate = RealtimeClient::rate(config.audio().unwrap());
        let (mut client, mut io) = (RealtimeClient::new(&config, CallFacts::example()), io(rate));
        client.opened(false, &mut io);
        (client, io)
    }

    fn tell(client: &mut RealtimeClient, io: &mut Io, event: Value) {
        client.received(Incoming::Text(&event.to_string()), io);
    }

    fn delta(client: &mut RealtimeClient, io: &mut Io, response: &str, item: &str, ms: usize) {
        let audio = STANDARD.encode(vec![0x80; ms * 8]);
        tell(
            client,
            io,
            json!({"type": "response.output_audio.delta", "response_id": response, "item_id": item,
            "output_index": 0, "content_index": 0, "delta": audio}),
        );
    }

    #[test]
    fn the_session_update_word_for_word() {
        let (_, mut io) = client(&json!({"instructions": "Be kind.", "voice": "marin",
            "session": {"audio": {"input": {"turn_detection": {"silence_duration_ms": 200}}}, "tools": []}}));
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"session.update","session":{"type":"realtime","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcmu"},"transcription":{"model":"gpt-4o-mini-transcribe"},"turn_detection":{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300,"silence_duration_ms":200,"create_response":true,"interrupt_response":true}},"output":{"format":{"type":"audio/pcmu"},"voice":"marin"}},"instructions":"Be kind.","tools":[]}}"#
            ]
        );
        let (_, mut io) = client(&json!({"dialect": "beta", "voice": "alloy",
            "session": {"input_audio_format": "pcm16", "output_audio_format": "pcm16", "turn_detection": {"type": "semantic_vad"}}}));
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"session.update","session":{"modalities":["audio","text"],"input_audio_format":"pcm16","output_audio_format":"pcm16","input_audio_transcription":{"model":"whisper-1"},"turn_detection":{"type":"semantic_vad"},"voice":"alloy"}}"#
            ]
        );
    }

    #[test]
    fn ready_then_greeting_then_audio() {
        let (mut client, mut io) = client(&json!({}));
        texts(&mut io);
        tell(&mut client, &mut io, json!({"type": "session.created"}));
        assert!(io.acts.is_empty());
        tell(&mut client, &mut io, json!({"type": "session.updated"}));
        assert!(matches!(io.acts.pop(), Some(Act::Ready(Ok(())))));
        client.heard(&[0; 160], &mut io);
        assert!(io.out.is_empty());
        client.started(&mut io);
        client.heard(&[0; 160], &mut io);
        let sent = texts(&mut io);
        assert_eq!(sent[0], r#"{"type":"response.create"}"#);
        assert_eq!(
            sent[1],
            format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, STANDARD.encode([0xff; 160]))
        );
        client.digit('1', 80, &mut io);
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"The caller pressed 1 on the keypad."}]}}"#
            ]
        );
    }

    #[test]
    fn an_interruption_tells_what_was_heard() {
        let (mut client, mut io) = client(&json!({}));
        tell(&mut client, &mut io, json!({"type": "session.updated"}));
        client.started(&mut io);
        texts(&mut io);
        tell(&mut client, &mut io, json!({"type": "response.created", "response": {"id": "r1"}}));
        delta(&mut client, &mut io, "r1", "i1", 400);
        delta(&mut client, &mut io, "r1", "i1", 600);
        delta(&mut client, &mut io, "r1", "i2", 1_000);
        assert_eq!(play(&io, 10).last(), Some(&32_124));
        tell(
            &mut client,
            &mut io,
            json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1, "item_id": "u1"}),
        );
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"conversation.item.truncate","item_id":"i1","content_index":0,"audio_end_ms":200}"#,
                r#"{"type":"conversation.item.truncate","item_id":"i2","content_index":0,"audio_end_ms":0}"#,
            ]
        );
        // What still comes of that response is not heard; the next one is.
        delta(&mut client, &mut io, "r1", "i2", 200);
        assert_eq!(play(&io, 2), [0, 0]);
        tell(&mut client, &mut io, json!({"type": "response.done", "response": {"id": "r1"}}));
        delta(&mut client, &mut io, "r2", "i3", 100);
        assert_eq!(play(&io, 6)[..5], [32_124; 5]);
        // Everything was heard, so nothing is truncated.
        tell(&mut client, &mut io, json!({"type": "input_audio_buffer.speech_started", "item_id": "u2"}));
        assert!(texts(&mut io).is_empty());
        io.acts.clear();
        tell(
            &mut client,
            &mut io,
            json!({"type": "response.output_audio_transcript.done", "item_id": "i1", "transcript": "Good morning"}),
        );
        tell(
            &mut client,
            &mut io,
            json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "u1", "transcript": " Wait \n"}),
        );
        let said: Vec<_> = io
            .acts
            .drain(..)
            .map(|act| match act {
                Act::Event(AgentEvent::Said(turn)) => (turn.speaker, turn.text, turn.interrupted),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            said,
            [(Speaker::Agent, "Good morning".to_owned(), true), (Speaker::User, "Wait".to_owned(), false),]
        );
    }

    #[test]
    fn functions_are_called_once_and_answered() {
        let (mut client, mut io) = client(&json!({"dialect": "beta"}));
        tell(&mut client, &mut io, json!({"type": "session.updated"}));
        client.started(&mut io);
        texts(&mut io);
        io.acts.clear();
        tell(&mut client, &mut io, json!({"type": "response.created", "response": {"id": "r1"}}));
        tell(
            &mut client,
            &mut io,
            json!({"type": "response.output_item.added", "item": {"type": "function_call", "id": "f1", "name": "weather", "call_id": "c1"}}),
        );
        tell(
            &mut client,
            &mut io,
            json!({"type": "response.function_call_arguments.done", "item_id": "f1", "call_id": "c1", "arguments": "{\"city\":\"Rome\"}"}),
        );
        tell(
            &mut client,
            &mut io,
            json!({"type": "response.output_item.done", "item": {"type": "function_call", "id": "f1", "name": "weather", "call_id": "c1", "arguments": "{}"}}),
        );
        assert_eq!(io.acts.len(), 1);
        let Some(Act::Tool(call)) = io.acts.pop() else { panic!("no tool") };
        assert_eq!(
            (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
            ("c1", "weather", "{\"city\":\"Rome\"}")
        );
        client.tool("c1".to_owned(), Ok("{\"sun\":true}".to_owned()), &mut io);
        // A new response begins when the one that called is done.
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"c1","output":"{\"sun\":true}"}}"#
            ]
        );
        tell(&mut client, &mut io, json!({"type": "response.done", "response": {"id": "r1"}}));
        assert_eq!(texts(&mut io), [r#"{"type":"response.create"}"#]);
        tell(
            &mut client,
            &mut io,
            json!({"type": "response.function_call_arguments.done", "call_id": "c2", "name": "tandem_hang_up", "arguments": ""}),
        );
        assert!(matches!(io.acts.pop(), Some(Act::Event(AgentEvent::HangUp))));
    }

    #[test]
    fn a_refused_session_is_told_and_nonsense_is_counted() {
        let (mut client, mut io) = client(&json!({}));
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"type":"response.audio.delta"}"#,
            r#"{"type":"response.audio.delta","delta":"*"}"#,
        ] {
            client.received(Incoming::Text(bad), &mut io);
            assert!(matches!(io.acts.pop(), Some(Act::Fault(_))), "{bad}");
        }
        tell(&mut client, &mut io, json!({"type": "error", "error": {"message": "no such model"}}));
        let Some(Act::Ready(Err(refused))) = io.acts.pop() else { panic!("not refused") };
        assert!(refused.to_string().contains("no such model"));
    }
}
