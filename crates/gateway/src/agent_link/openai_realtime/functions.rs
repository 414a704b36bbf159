//! The functions a model calls: ours, and the customer's.

use std::time::Instant;

use model::{RecordStep, Sound, TransferStep};
use serde_json::{Map, Value, json};

use super::super::dialect::{Act, Io, ToolCall};
use super::super::{Action, AgentEvent, Ask, Outcome, TRANSFER as TRANSFERRED, Together};
use super::{RealtimeClient, remember};

/// Longest function argument taken, in bytes.
const MAX_ARGUMENTS: usize = 65_536;

/// Functions of ours that a session may declare as tools.
const HANG_UP: &str = "tandem_hang_up";
const TRANSFER: &str = "tandem_transfer";
const COMPLETE_TRANSFER: &str = "tandem_complete_transfer";
const CANCEL_TRANSFER: &str = "tandem_cancel_transfer";
const CONFERENCE: &str = "tandem_conference";
const SEND_DTMF: &str = "tandem_send_dtmf";
const START_RECORDING: &str = "tandem_start_recording";
const PAUSE_RECORDING: &str = "tandem_pause_recording";
const RESUME_RECORDING: &str = "tandem_resume_recording";
const PLAY: &str = "tandem_play";

impl RealtimeClient {
    pub(super) fn function(&mut self, id: &str, name: &str, arguments: &str, io: &mut Io) {
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
            TRANSFER => Action::Transfer {
                to: argument("to"),
                mode: given.get("mode").and_then(Value::as_str).map(str::to_owned),
                timeout_s: given
                    .get("timeout_s")
                    .and_then(Value::as_u64)
                    .map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            },
            COMPLETE_TRANSFER => Action::TransferStep(TransferStep::Complete),
            CANCEL_TRANSFER => Action::TransferStep(TransferStep::Cancel),
            START_RECORDING => Action::Record(RecordStep::Start(None)),
            PAUSE_RECORDING => Action::Record(RecordStep::Pause),
            RESUME_RECORDING => Action::Record(RecordStep::Resume),
            CONFERENCE => Action::TransferStep(TransferStep::Conference),
            PLAY => {
                match serde_json::from_value::<Sound>(Value::Object(given)) {
                    Ok(sound) => io.acts.push(Act::Play(Some(id.to_owned()), sound)),
                    Err(error) => self.output(id, &error.to_string(), true, io),
                }
                return;
            }
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

    pub(super) fn output(&mut self, id: &str, output: &str, failed: bool, io: &mut Io) {
        let output = if failed { json!({"error": output}).to_string() } else { output.to_owned() };
        io.json(&json!({
            "type": "conversation.item.create",
            "item": {"type": "function_call_output", "call_id": id, "output": output},
        }));
        self.respond(Instant::now(), io);
    }

    /// The target of a transfer is there: the function that began it has its answer, and the model may call the ones
    /// that end it.
    pub(super) fn with_target(&mut self, id: Option<String>, to: &str, with: Together, io: &mut Io) {
        let text = match with {
            Together::Briefing => format!(
                "{to} has answered and hears you now; the caller hears music and does not hear you. Say what the call is about, then hand the caller over with {COMPLETE_TRANSFER}, take the caller back with {CANCEL_TRANSFER}, or let all three speak with {CONFERENCE}."
            ),
            Together::Conference => format!(
                "{to}, the caller and you hear each other now. {COMPLETE_TRANSFER} leaves the two alone, {CANCEL_TRANSFER} ends the call of {to}."
            ),
        };
        match id.filter(|id| !self.answered.contains(id)) {
            Some(id) => {
                remember(&mut self.answered, id.clone());
                self.output(&id, &json!({"ok": true, "detail": text}).to_string(), false, io);
            }
            None => self.remark(&text, io),
        }
    }

    /// What became of something the model asked for. A call of a function is answered once.
    pub(super) fn became(&mut self, outcome: Outcome, io: &mut Io) {
        let Outcome { id, action, result } = outcome;
        match id.filter(|id| !self.answered.contains(id)) {
            Some(id) => match result {
                Ok(detail) => self.output(&id, &json!({"ok": true, "detail": detail}).to_string(), false, io),
                Err(why) => self.output(&id, &why, true, io),
            },
            None if action == TRANSFERRED => {
                let text = match result {
                    Ok(detail) => detail.unwrap_or_else(|| "the caller has been handed over".to_owned()),
                    Err(why) => format!("the transfer came to nothing: {why}"),
                };
                self.remark(&format!("{text}. You speak with the caller."), io);
            }
            None => {}
        }
    }

    /// Tells the model something that nobody said, and has it go on.
    fn remark(&mut self, text: &str, io: &mut Io) {
        io.json(&json!({
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]},
        }));
        self.respond(Instant::now(), io);
    }
}
