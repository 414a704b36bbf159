//! Twilio's Media Streams over a WebSocket, and Telnyx's spelling of the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use media::codec::g711;
use media::playout::Mark;
use model::runtime::StreamDialect;
use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Incoming, Io};
use super::{AgentEvent, CallFacts};

/// Base64 as bots write it: with padding or without.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The identifiers Twilio's clients know a call by.
pub(crate) struct Sids {
    pub(crate) account: String,
    pub(crate) call: String,
}

impl Sids {
    pub(crate) fn of(call: &CallFacts) -> Self {
        Self {
            account: format!("AC{}", call.organization_id.0.simple()),
            call: format!("CA{}", call.conversation_id.0.simple()),
        }
    }
}

/// See the module's text.
pub(super) struct MediaStreamDialect {
    spelling: StreamDialect,
    call: CallFacts,
    sids: Sids,
    stream: String,
    parameters: BTreeMap<String, String>,
    started: bool,
    /// Of the last message that carried one.
    sequence: u64,
    /// Frames of the caller so far.
    chunk: u64,
    payload: Vec<u8>,
    samples: Vec<i16>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    media: Option<Media<'a>>,
    #[serde(default)]
    mark: Option<MarkIn>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MarkIn {
    name: String,
}

impl MediaStreamDialect {
    /// `stream` is 32 hexadecimal digits nobody can guess. What the caller of the API gave as `initial_context` goes
    /// to the bot with the parameters; a parameter of the same name stands.
    pub(super) fn new(config: &model::MediaStream, call: CallFacts, stream: &str) -> Self {
        let mut parameters = config.parameters.clone();
        if let Some(Value::Object(context)) = &call.initial_context {
            for (name, value) in context {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                parameters.entry(name.clone()).or_insert(text);
            }
        }
        Self {
            spelling: config.dialect,
            sids: Sids::of(&call),
            call,
            stream: format!("MZ{stream}"),
            parameters,
            started: false,
            sequence: 0,
            chunk: 0,
            payload: Vec::new(),
            samples: Vec::new(),
        }
    }

    fn telnyx(&self) -> bool {
        self.spelling == StreamDialect::Telnyx
    }

    /// An event with the next sequence number; `detail` stands under the event's own name.
    fn send(&mut self, event: &str, detail: &Value, io: &mut Io) {
        self.sequence += 1;
        let (sequence, stream) =
            if self.telnyx() { ("sequence_number", "stream_id") } else { ("sequenceNumber", "streamSid") };
        io.json(&json!({
            "event": event, sequence: self.sequence.to_string(), stream: self.stream, event: detail,
        }));
    }
}

impl Dialect for MediaStreamDialect {
    fn opened(&mut self, _again: bool, io: &mut Io) {
        io.acts.push(Act::Ready(Ok(())));
    }

    fn started(&mut self, io: &mut Io) {
        self.started = true;
        if self.telnyx() {
            io.json(&json!({"event": "connected", "version": "1.0.0"}));
            let start = json!({
                "user_id": self.sids.account, "call_control_id": self.sids.call,
                "call_session_id": self.call.conversation_id.to_string(), "from": self.call.from,
                "to": self.call.to, "tags": [], "client_state": null, "custom_parameters": self.parameters,
                "media_format": {"encoding": "PCMU", "sample_rate": 8_000, "channels": 1},
            });
            self.send("start", &start, io);
        } else {
            io.json(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
            let start = json!({
                "streamSid": self.stream, "accountSid": self.sids.account, "callSid": self.sids.call,
                "tracks": ["inbound"], "customParameters": self.parameters,
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1},
            });
            self.send("start", &start, io);
        }
    }

    fn heard(&mut self, samples: &[i16], io: &mut Io) {
        if !self.started {
            return;
        }
        self.sequence += 1;
        self.chunk += 1;
        self.payload.clear();
        self.payload.extend(samples.iter().map(|&sample| g711::encode_ulaw(sample)));
        // Written by hand: it is sent fifty times a second on every call, and nothing in it needs escaping.
        let (sequence, stream) =
            if self.telnyx() { ("sequence_number", "stream_id") } else { ("sequenceNumber", "streamSid") };
        let mut text = String::with_capacity(192 + self.payload.len() * 4 / 3);
        let _ = write!(
            text,
            "{{\"event\":\"media\",\"{sequence}\":\"{}\",\"{stream}\":\"{}\",\"media\":{{\"track\":\"inbound\",\"chunk\":\"{}\",\"timestamp\":\"{}\",\"payload\":\"",
            self.sequence,
            self.stream,
            self.chunk,
            self.chunk * 20,
        );
        STANDARD.encode_string(&self.payload, &mut text);
        text.push_str("\"}}");
        io.text(text);
    }

    fn mark(&mut self, mark: Mark, io: &mut Io) {
        self.send("mark", &json!({"name": mark.name}), io);
    }

    fn digit(&mut self, digit: char, _duration_ms: u32, io: &mut Io) {
        if !self.started {
            return;
        }
        let digit = digit.to_string();
        if self.telnyx() {
            self.send("dtmf", &json!({"digit": digit}), io);
        } else {
            self.send("dtmf", &json!({"track": "inbound_track", "digit": digit}), io);
        }
    }

    fn received(&mut self, message: Incoming<'_>, io: &mut Io) {
        let Incoming::Text(text) = message else {
            io.fault("a binary message where text belongs");
            return;
        };
        let Ok(message) = serde_json::from_str::<Message<'_>>(text) else {
            io.fault("a message that is not JSON of this protocol");
            return;
        };
        match (message.event.as_ref(), message.media, message.mark) {
            ("media", Some(media), _) => {
                self.payload.clear();
                if LENIENT.decode_vec(media.payload.as_bytes(), &mut self.payload).is_err() {
                    io.fault("a payload that is not Base64");
                    return;
                }
                self.samples.clear();
                self.samples.extend(self.payload.iter().map(|&byte| g711::decode_ulaw(byte)));
                io.link.say(&self.samples);
            }
            ("mark", _, Some(mark)) => io.mark(mark.name),
            ("clear", _, _) => io.link.clear(),
            ("media" | "mark", _, _) => io.fault("a message without its payload or name"),
            ("stop", _, _) if self.telnyx() => io.event(AgentEvent::HangUp),
            // Events that are not ours are the future's.
            _ => {}
        }
    }

    fn stopped(&mut self, _reason: &str, io: &mut Io) {
        if !self.started {
            return;
        }
        let stop = if self.telnyx() {
            json!({"user_id": self.sids.account, "call_control_id": self.sids.call})
        } else {
            json!({"accountSid": self.sids.account, "callSid": self.sids.call})
        };
        self.send("stop", &stop, io);
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::testing::{io, play, texts};
    use super::*;

    fn dialect(config: &str) -> MediaStreamDialect {
        let config = serde_json::from_str(config).unwrap();
        MediaStreamDialect::new(&config, CallFacts::example(), "0123456789abcdef0123456789abcdef")
    }

    #[test]
    fn twilio_word_for_word() {
        let mut io = io(8_000);
        let mut dialect = dialect(r#"{"url":"ws://x","parameters":{"any":"string"}}"#);
        dialect.opened(false, &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Ready(Ok(())))));
        dialect.heard(&[0; 160], &mut io);
        assert!(io.out.is_empty());
        dialect.started(&mut io);
        dialect.heard(&[0; 160], &mut io);
        dialect.digit('1', 100, &mut io);
        dialect.mark(Mark { name: "my label".to_owned(), cleared: false, ours: false }, &mut io);
        dialect.stopped("caller", &mut io);
        let silence = STANDARD.encode([0xff; 160]);
        assert_eq!(texts(&mut io), [
            r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned(),
            r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ0123456789abcdef0123456789abcdef","start":{"streamSid":"MZ0123456789abcdef0123456789abcdef","accountSid":"AC00000000000000000000000000000001","callSid":"CA00000000000000000000000000000002","tracks":["inbound"],"customParameters":{"any":"string","name":"Ada"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}"#.to_owned(),
            format!(r#"{{"event":"media","sequenceNumber":"2","streamSid":"MZ0123456789abcdef0123456789abcdef","media":{{"track":"inbound","chunk":"1","timestamp":"20","payload":"{silence}"}}}}"#),
            r#"{"event":"dtmf","sequenceNumber":"3","streamSid":"MZ0123456789abcdef0123456789abcdef","dtmf":{"track":"inbound_track","digit":"1"}}"#.to_owned(),
            r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ0123456789abcdef0123456789abcdef","mark":{"name":"my label"}}"#.to_owned(),
            r#"{"event":"stop","sequenceNumber":"5","streamSid":"MZ0123456789abcdef0123456789abcdef","stop":{"accountSid":"AC00000000000000000000000000000001","callSid":"CA00000000000000000000000000000002"}}"#.to_owned(),
        ]);
    }

    #[test]
    fn telnyx_word_for_word() {
        let mut io = io(8_000);
        let mut dialect = dialect(r#"{"url":"ws://x","dialect":"telnyx"}"#);
        dialect.started(&mut io);
        dialect.heard(&[0; 160], &mut io);
        dialect.digit('#', 100, &mut io);
        dialect.stopped("caller", &mut io);
        let silence = STANDARD.encode([0xff; 160]);
        assert_eq!(texts(&mut io), [
            r#"{"event":"connected","version":"1.0.0"}"#.to_owned(),
            r#"{"event":"start","sequence_number":"1","stream_id":"MZ0123456789abcdef0123456789abcdef","start":{"user_id":"AC00000000000000000000000000000001","call_control_id":"CA00000000000000000000000000000002","call_session_id":"00000000-0000-0000-0000-000000000002","from":"+14155550111","to":"+14155550100","tags":[],"client_state":null,"custom_parameters":{"name":"Ada"},"media_format":{"encoding":"PCMU","sample_rate":8000,"channels":1}}}"#.to_owned(),
            format!(r#"{{"event":"media","sequence_number":"2","stream_id":"MZ0123456789abcdef0123456789abcdef","media":{{"track":"inbound","chunk":"1","timestamp":"20","payload":"{silence}"}}}}"#),
            r##"{"event":"dtmf","sequence_number":"3","stream_id":"MZ0123456789abcdef0123456789abcdef","dtmf":{"digit":"#"}}"##.to_owned(),
            r#"{"event":"stop","sequence_number":"4","stream_id":"MZ0123456789abcdef0123456789abcdef","stop":{"user_id":"AC00000000000000000000000000000001","call_control_id":"CA00000000000000000000000000000002"}}"#.to_owned(),
        ]);
    }

    #[test]
    fn audio_marks_and_clear_from_the_bot() {
        let mut io = io(8_000);
        let mut dialect = dialect(r#"{"url":"ws://x"}"#);
        let mut say = |text: &str, io: &mut Io| dialect.received(Incoming::Text(text), io);
        let payload = STANDARD.encode([0x80; 480]);
        say(&format!(r#"{{"event":"media","streamSid":"MZ","media":{{"payload":"{payload}"}}}}"#), &mut io);
        say(r#"{"event":"mark","streamSid":"MZ","mark":{"name":"a"}}"#, &mut io);
        assert_eq!(play(&io, 1), [32_124]);
        assert_eq!(io.link.next_mark(), None);
        say(r#"{"event":"clear","streamSid":"MZ"}"#, &mut io);
        assert_eq!(play(&io, 1), [0]);
        assert!(io.link.next_mark().is_some_and(|m| m.name == "a" && m.cleared));
        say(r#"{"event":"mark","mark":{"name":"b"}}"#, &mut io);
        assert!(io.link.next_mark().is_some_and(|m| m.name == "b" && !m.cleared));
        say(r#"{"event":"later","anything":[1]}"#, &mut io);
        assert!(io.acts.is_empty());
        for bad in [
            "",
            "[]",
            "{",
            r#"{"event":5}"#,
            r#"{"event":"media"}"#,
            r#"{"event":"media","media":{"payload":"*"}}"#,
            r#"{"event":"mark"}"#,
        ] {
            say(bad, &mut io);
            assert!(matches!(io.acts.pop(), Some(Act::Fault(_))), "{bad}");
        }
        dialect.received(Incoming::Binary(&[1]), &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Fault(_))));
    }
}
