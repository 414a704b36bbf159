//! Tandem's own protocol: control as JSON in text messages, audio as 16-bit little-endian samples in binary ones. The
//! agent is asked before the call is answered. `docs/agents.md` describes every message.

use media::beep::Beep;
use media::link::LinkStatistics;
use media::playout::Mark;
use media::quality::{Figures, Second};
use model::{RecordStep, RecordingFormat, Sound, Tone, TransferStep};
use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Incoming, Io, Outgoing};
use super::{Action, AgentEvent, Ask, CallFacts, NotReady, Outcome, Together};

/// Longest text an agent may give as a reason, in characters.
const MAX_REASON: usize = 200;

/// See the module's text.
pub(super) struct TandemDialect {
    call: CallFacts,
    sample_rate: u32,
    /// The agent has taken the call.
    accepted: bool,
    started: bool,
    reconnected: bool,
    samples: Vec<i16>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Message {
    Ringing {},
    Accept {},
    Reject {
        status: u16,
        #[serde(default)]
        reason: Option<String>,
    },
    Clear {},
    Mark {
        name: String,
    },
    HangUp {},
    SendDtmf {
        #[serde(default)]
        id: Option<String>,
        digits: String,
    },
    Transfer {
        #[serde(default)]
        id: Option<String>,
        to: String,
        #[serde(default)]
        mode: Option<String>,
        #[serde(default)]
        timeout_s: Option<u32>,
    },
    StartRecording {
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        format: Option<RecordingFormat>,
    },
    PauseRecording {
        #[serde(default)]
        id: Option<String>,
    },
    ResumeRecording {
        #[serde(default)]
        id: Option<String>,
    },
    CompleteTransfer {
        #[serde(default)]
        id: Option<String>,
    },
    CancelTransfer {
        #[serde(default)]
        id: Option<String>,
    },
    Conference {
        #[serde(default)]
        id: Option<String>,
    },
    Play {
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        file: Option<String>,
        #[serde(default)]
        tones: Option<Vec<Tone>>,
    },
}

impl TandemDialect {
    pub(super) fn new(sample_rate: u32, call: CallFacts) -> Self {
        Self { call, sample_rate, accepted: false, started: false, reconnected: false, samples: Vec::new() }
    }

    fn answer(&mut self, outcome: Result<(), NotReady>, io: &mut Io) {
        if std::mem::replace(&mut self.accepted, true) {
            io.json(&json!({"type": "error", "detail": "the call has been accepted or refused already"}));
        } else {
            io.acts.push(Act::Ready(outcome));
        }
    }

    fn control(&mut self, message: Message, io: &mut Io) {
        match message {
            // The caller hears ringing from the moment an agent is asked.
            Message::Ringing {} => {}
            Message::Accept {} => self.answer(Ok(()), io),
            Message::Reject { status, reason } if (400..=699).contains(&status) => {
                let reason = reason.map(|text| text.chars().take(MAX_REASON).collect());
                self.answer(Err(NotReady::refused(status, reason)), io);
            }
            Message::Reject { .. } => {
                io.fault("a reject without a status from 400 to 699");
                io.json(&json!({"type": "error", "detail": "reject: status must be from 400 to 699"}));
            }
            Message::Clear {} => io.link.clear(),
            Message::Mark { name } => io.mark(name),
            Message::HangUp {} => io.event(AgentEvent::HangUp),
            Message::SendDtmf { id, digits } => ask(id, Action::SendDtmf { digits }, io),
            Message::Transfer { id, to, mode, timeout_s } => {
                ask(id, Action::Transfer { to, mode, timeout_s }, io);
            }
            Message::StartRecording { id, format } => ask(id, Action::Record(RecordStep::Start(format)), io),
            Message::PauseRecording { id } => ask(id, Action::Record(RecordStep::Pause), io),
            Message::ResumeRecording { id } => ask(id, Action::Record(RecordStep::Resume), io),
            Message::CompleteTransfer { id } => ask(id, Action::TransferStep(TransferStep::Complete), io),
            Message::CancelTransfer { id } => ask(id, Action::TransferStep(TransferStep::Cancel), io),
            Message::Conference { id } => ask(id, Action::TransferStep(TransferStep::Conference), io),
            Message::Play { id, file, tones } => io.acts.push(Act::Play(id, Sound { file, tones })),
        }
    }
}

fn ask(id: Option<String>, action: Action, io: &mut Io) {
    io.event(AgentEvent::Ask(Ask { id, action }));
}

/// One direction of the line in `stats`.
fn figures(figures: &Figures) -> Value {
    let rounded = |value: f32| (f64::from(value) * 100.0).round() / 100.0;
    json!({
        "packets": figures.packets, "expected": figures.expected, "loss_percent": rounded(figures.loss_percent),
        "jitter_ms": rounded(figures.jitter_ms), "mos": rounded(figures.mos),
    })
}

impl Dialect for TandemDialect {
    fn opened(&mut self, again: bool, io: &mut Io) {
        self.reconnected = again;
        if again {
            return;
        }
        let call = &self.call;
        io.json(&json!({
            "type": "incoming", "version": 1,
            "call": {
                "id": call.conversation_id, "organization_id": call.organization_id, "direction": call.direction,
                "from": call.from, "to": call.to, "sip_call_id": call.sip_call_id,
                "initial_context": call.initial_context, "custom_metadata": call.custom_metadata,
            },
            "audio": {"encoding": "pcm16", "sample_rate": self.sample_rate, "frame_ms": 20},
        }));
    }

    fn started(&mut self, io: &mut Io) {
        self.started = true;
        io.json(
            &json!({"type": "start", "call_id": self.call.conversation_id, "reconnected": self.reconnected}),
        );
    }

    fn heard(&mut self, samples: &[i16], io: &mut Io) {
        if self.started {
            io.out.push(Outgoing::Binary(samples.iter().flat_map(|s| s.to_le_bytes()).collect()));
        }
    }

    fn mark(&mut self, mark: Mark, io: &mut Io) {
        io.json(&json!({"type": "mark", "name": mark.name, "cleared": mark.cleared}));
    }

    fn digit(&mut self, digit: char, duration_ms: u32, io: &mut Io) {
        io.json(&json!({"type": "dtmf", "digit": digit.to_string(), "duration_ms": duration_ms}));
    }

    fn voicemail_beep(&mut self, beep: Beep, io: &mut Io) {
        io.json(&json!({"type": "voicemail_beep", "hz": beep.hz, "duration_ms": beep.duration_ms}));
    }

    fn received(&mut self, message: Incoming<'_>, io: &mut Io) {
        match message {
            Incoming::Binary(bytes) => {
                let (pairs, odd) = bytes.as_chunks::<2>();
                self.samples.clear();
                self.samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
                if !odd.is_empty() {
                    io.fault("half a sample");
                }
                io.link.say(&self.samples);
            }
            Incoming::Text(text) => match serde_json::from_str(text) {
                Ok(message) => self.control(message, io),
                Err(error) => {
                    io.fault("a control message that is not of this protocol");
                    // The error tells of field names and kinds; what was sent comes back to its own sender only.
                    io.json(&json!({"type": "error", "detail": error.to_string()}));
                }
            },
        }
    }

    fn held(&mut self, held: bool, io: &mut Io) {
        io.json(&json!({"type": if held { "hold" } else { "resume" }}));
    }

    fn outcome(&mut self, outcome: Outcome, io: &mut Io) {
        let (ok, detail) = match outcome.result {
            Ok(detail) => (true, detail),
            Err(detail) => (false, Some(detail)),
        };
        io.json(&json!({
            "type": "outcome", "id": outcome.id, "action": outcome.action, "ok": ok, "detail": detail,
        }));
    }

    fn together(&mut self, id: Option<String>, to: &str, with: Together, io: &mut Io) {
        let state = match with {
            Together::Briefing => "answered",
            Together::Conference => "conference",
        };
        io.json(&json!({"type": "transfer", "id": id, "to": to, "state": state}));
    }

    fn second(&mut self, statistics: LinkStatistics, heard: Option<Second>, io: &mut Io) {
        if !self.started {
            return;
        }
        let ms = |samples: u64| samples * 1_000 / u64::from(self.sample_rate);
        let progress = io.link.progress();
        let playout = statistics.playout;
        let text: Value = json!({
            "type": "stats",
            "playout": {
                "played_ms": ms(progress.played), "queued_ms": ms(progress.queued),
                "cleared_ms": ms(playout.cleared_samples), "overrun_ms": ms(playout.overrun_samples),
                "underruns": playout.underruns,
            },
            "heard": {"dropped_frames": statistics.heard_overruns},
            "rtp": heard.map(|second| json!({
                "received": figures(&second.received), "sent": second.sent.as_ref().map(figures),
                "rtt_ms": second.rtt_ms.map(|ms| (f64::from(ms) * 100.0).round() / 100.0),
            })),
        });
        io.json(&text);
    }

    fn stopped(&mut self, reason: &str, io: &mut Io) {
        io.json(&json!({"type": "end", "reason": reason}));
    }

    fn reconnects(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::testing::{io, play, texts};
    use super::*;

    fn accepted() -> (TandemDialect, Io) {
        let (mut dialect, mut io) = (TandemDialect::new(16_000, CallFacts::example()), io(16_000));
        dialect.opened(false, &mut io);
        dialect.received(Incoming::Text(r#"{"type":"accept"}"#), &mut io);
        assert!(matches!(io.acts.pop(), Some(Act::Ready(Ok(())))));
        (dialect, io)
    }

    #[test]
    fn word_for_word() {
        let (mut dialect, mut io) = accepted();
        dialect.started(&mut io);
        dialect.heard(&[0x0102; 2], &mut io);
        dialect.digit('5', 120, &mut io);
        dialect.voicemail_beep(Beep { hz: 1_000, duration_ms: 400 }, &mut io);
        dialect.held(true, &mut io);
        dialect.held(false, &mut io);
        dialect.mark(Mark { name: "a".to_owned(), cleared: true, ours: false }, &mut io);
        dialect.outcome(
            Outcome { id: Some("7".to_owned()), action: "transfer", result: Err("486 Busy Here".to_owned()) },
            &mut io,
        );
        dialect.together(Some("7".to_owned()), "+14155550123", Together::Briefing, &mut io);
        dialect.second(LinkStatistics::default(), None, &mut io);
        let received = Figures { packets: 50, expected: 50, loss_percent: 0.0, jitter_ms: 1.234, mos: 4.4 };
        dialect.second(
            LinkStatistics::default(),
            Some(Second { received, rtt_ms: Some(12.0), ..Second::default() }),
            &mut io,
        );
        dialect.stopped("caller", &mut io);
        assert_eq!(
            texts(&mut io),
            [
                r#"{"type":"incoming","version":1,"call":{"id":"00000000-0000-0000-0000-000000000002","organization_id":"00000000-0000-0000-0000-000000000001","direction":"inbound","from":"+14155550111","to":"+14155550100","sip_call_id":"abc","initial_context":{"name":"Ada"},"custom_metadata":null},"audio":{"encoding":"pcm16","sample_rate":16000,"frame_ms":20}}"#,
                r#"{"type":"start","call_id":"00000000-0000-0000-0000-000000000002","reconnected":false}"#,
                "[02, 01, 02, 01]",
                r#"{"type":"dtmf","digit":"5","duration_ms":120}"#,
                r#"{"type":"voicemail_beep","hz":1000,"duration_ms":400}"#,
                r#"{"type":"hold"}"#,
                r#"{"type":"resume"}"#,
                r#"{"type":"mark","name":"a","cleared":true}"#,
                r#"{"type":"outcome","id":"7","action":"transfer","ok":false,"detail":"486 Busy Here"}"#,
                r#"{"type":"transfer","id":"7","to":"+14155550123","state":"answered"}"#,
                r#"{"type":"stats","playout":{"played_ms":0,"queued_ms":0,"cleared_ms":0,"overrun_ms":0,"underruns":0},"heard":{"dropped_frames":0},"rtp":null}"#,
                r#"{"type":"stats","playout":{"played_ms":0,"queued_ms":0,"cleared_ms":0,"overrun_ms":0,"underruns":0},"heard":{"dropped_frames":0},"rtp":{"received":{"packets":50,"expected":50,"loss_percent":0.0,"jitter_ms":1.23,"mos":4.4},"sent":null,"rtt_ms":12.0}}"#,
                r#"{"type":"end","reason":"caller"}"#,
            ]
        );
        // Over a new connection the call goes on where it was.
        dialect.opened(true, &mut io);
        dialect.started(&mut io);
        assert_eq!(
            texts(&mut io),
            [r#"{"type":"start","call_id":"00000000-0000-0000-0000-000000000002","reconnected":true}"#]
        );
    }

    #[test]
    fn what_an_agent_says() {
        let (mut dialect, mut io) = accepted();
        texts(&mut io);
        dialect.received(Incoming::Binary(&[7, 0].repeat(640)), &mut io);
        assert_eq!(play(&io, 1), [7]);
        for (text, expected) in [
            (r#"{"type":"hang_up"}"#, "HangUp"),
            (r#"{"type":"send_dtmf","digits":"1"}"#, "SendDtmf"),
            (r#"{"type":"transfer","to":"+14155550123","id":"x"}"#, "Transfer"),
            (r#"{"type":"transfer","to":"+14155550123","mode":"warm","timeout_s":20}"#, "Some(\"warm\")"),
            (r#"{"type":"complete_transfer"}"#, "TransferStep(Complete)"),
            (r#"{"type":"cancel_transfer","id":"x"}"#, "TransferStep(Cancel)"),
            (r#"{"type":"conference"}"#, "TransferStep(Conference)"),
            (r#"{"type":"start_recording"}"#, "Record(Start(None))"),
            (r#"{"type":"start_recording","format":"ogg"}"#, "Record(Start(Some(Ogg)))"),
            (r#"{"type":"pause_recording"}"#, "Record(Pause)"),
            (r#"{"type":"resume_recording","id":"r"}"#, "Record(Resume)"),
            (r#"{"type":"play","id":"p","tones":[{"hz":440,"ms":100}]}"#, "Play(Some(\"p\")"),
        ] {
            dialect.received(Incoming::Text(text), &mut io);
            assert!(format!("{:?}", io.acts.pop()).contains(expected), "{text}");
        }
        assert!(io.out.is_empty());
        for bad in
            ["{", r#"{"type":"sing"}"#, r#"{"type":"clear","x":1}"#, r#"{"type":"reject","status":200}"#]
        {
            dialect.received(Incoming::Text(bad), &mut io);
            assert!(matches!(io.acts.pop(), Some(Act::Fault(_))), "{bad}");
            assert!(texts(&mut io)[0].starts_with(r#"{"type":"error","#), "{bad}");
        }
    }

    #[test]
    fn a_refusal_carries_its_status() {
        let (mut dialect, mut io) = (TandemDialect::new(8_000, CallFacts::example()), io(8_000));
        dialect.opened(false, &mut io);
        dialect
            .received(Incoming::Text(r#"{"type":"reject","status":486,"reason":"in a meeting"}"#), &mut io);
        let Some(Act::Ready(Err(refused))) = io.acts.pop() else { panic!("not refused") };
        assert_eq!(refused.status, Some(486));
        dialect.received(Incoming::Text(r#"{"type":"accept"}"#), &mut io);
        assert!(io.acts.is_empty());
    }
}
