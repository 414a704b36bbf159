//! Agent links: what stands at the other end of a call's audio. `echo` and `play` live in the media session itself;
//! the others are bots elsewhere, reached by a [`dialect::Dialect`] over a [`connection::Connection`], carried by one
//! task a call.

mod audiosocket;
mod connection;
mod dialect;
mod media_stream;
mod openai_realtime;
mod play;
mod run;
mod tandem;
mod tools;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use media::beep::Beep;
use media::link::Link;
use media::playout::{Limits, Overrun};
use media::quality::QualityLog;
use media::session::{Agent, Player};
use model::call::Turn;
use model::runtime::RealtimeDialect;
use model::{
    AgentConfig, Conversation, ConversationId, Direction, OrganizationId, RecordStep, Runtime, Secret, Sound,
    TransferStep,
};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::calls::Mailbox;
use crate::edge::{Edge, random};
use connection::{Proof, Target};
use dialect::Dialect;

pub(crate) use play::AudioFiles;

/// What an agent may have said and the caller not heard yet: two minutes, beyond which new audio is dropped; and
/// marks.
const PLAYOUT: Limits = Limits { queued_ms: 120_000, overrun: Overrun::RefuseNew, marks: 4_096 };
/// What a caller hears while somebody is called, in hertz and milliseconds (ETSI TR 101 041).
const RINGBACK: [(f32, u32); 2] = [(425.0, 1_000), (0.0, 4_000)];
/// Turns of a transcript that are kept, and the longest, in bytes.
const MAX_TURNS: usize = 2_000;
const MAX_TURN: usize = 8_192;
/// Most digits and pauses an agent may send at once.
const MAX_DIGITS: usize = 64;
/// Things a call may tell an agent that does not listen; digits and the like beyond it are lost.
const COMMANDS: usize = 64;

/// The name of handing a call to somebody else, in outcomes.
pub(crate) const TRANSFER: &str = "transfer";

/// Why an agent cannot take a call, or will not: one sentence for the decision record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct NotReady {
    pub(crate) why: String,
    /// The SIP status the agent chose.
    pub(crate) status: Option<u16>,
}

impl NotReady {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None }
    }

    fn refused(status: u16, reason: Option<String>) -> Self {
        let words = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Self { why: format!("the agent refused the call with {status}{words}"), status: Some(status) }
    }
}

/// What an agent is told of its call.
#[derive(Debug, Clone)]
pub(crate) struct CallFacts {
    pub(crate) conversation_id: ConversationId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) direction: Direction,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) sip_call_id: Option<String>,
    pub(crate) initial_context: Option<Value>,
    pub(crate) custom_metadata: Option<Value>,
}

impl CallFacts {
    pub(crate) fn of(call: &Conversation) -> Self {
        let own = call.agent_number.as_ref().map(ToString::to_string);
        let own = own.or_else(|| call.agent_id.map(|id| id.to_string())).unwrap_or_default();
        let (from, to) = match call.direction {
            Direction::Inbound => (call.user_id.clone(), own),
            Direction::Outbound => (own, call.user_id.clone()),
        };
        Self {
            conversation_id: call.id,
            organization_id: call.organization_id,
            direction: call.direction,
            from,
            to,
            sip_call_id: call.sip_call_id.clone(),
            initial_context: call.initial_context.clone(),
            custom_metadata: call.custom_metadata.clone(),
        }
    }

    #[cfg(test)]
    fn example() -> Self {
        Self {
            conversation_id: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
            organization_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            direction: Direction::Inbound,
            from: "+14155550111".to_owned(),
            to: "+14155550100".to_owned(),
            sip_call_id: Some("abc".to_owned()),
            initial_context: Some(serde_json::json!({"name": "Ada"})),
            custom_metadata: None,
        }
    }
}

/// What a call tells its agent.
#[derive(Debug)]
pub(crate) enum ToAgent {
    /// The call is answered.
    Started,
    /// The caller pressed a digit.
    Digit { digit: char, duration_ms: u32 },
    /// A voicemail box beeped.
    VoicemailBeep(Beep),
    /// The caller put the call on hold, or took it back.
    Held(bool),
    /// What became of something the agent asked for.
    Outcome(Outcome),
    /// The target of a transfer is on the line and hears the agent. `id` is the agent's name for the transfer.
    Together { id: Option<String>, to: String, with: Together },
    /// Something is to be played.
    Play(Sound),
    /// Where it is written down how the call sounds.
    Audio(Arc<QualityLog>),
    /// The call is over, and why.
    Stop(String),
}

/// With whom the agent speaks while the target of a transfer is on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Together {
    /// With the target alone; the caller hears music.
    Briefing,
    /// With the target and the caller.
    Conference,
}

/// What became of something the agent asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The agent's own name for its request.
    pub(crate) id: Option<String>,
    pub(crate) action: &'static str,
    /// What there is to say, or why it failed.
    pub(crate) result: Result<Option<String>, String>,
}

/// What an agent tells its call.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    /// The agent ends the call.
    HangUp,
    /// The agent is gone, and why in one sentence without a final full stop.
    Closed { clean: bool, why: String },
    /// Somebody said something.
    Said(Turn),
    /// The agent wants something done.
    Ask(Ask),
}

/// Something an agent wants done.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) id: Option<String>,
    pub(crate) action: Action,
}

/// See [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Press digits.
    SendDtmf { digits: String },
    /// Hand the caller to somebody else; as the agent wrote it.
    Transfer { to: String, mode: Option<String>, timeout_s: Option<u32> },
    /// Begin the call's recording, pause it, or take it up again.
    Record(RecordStep),
    /// Go on with a transfer whose target speaks with the agent.
    TransferStep(TransferStep),
}

impl Action {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SendDtmf { .. } => "send_dtmf",
            Self::Transfer { .. } => TRANSFER,
            Self::Record(RecordStep::Start(_)) => "start_recording",
            Self::Record(RecordStep::Resume) => "resume_recording",
            Self::Record(RecordStep::Pause) => "pause_recording",
            Self::TransferStep(TransferStep::Complete) => "complete_transfer",
            Self::TransferStep(TransferStep::Cancel) => "cancel_transfer",
            Self::TransferStep(TransferStep::Conference) => "conference",
        }
    }
}

/// A call's end of the link to its agent. Dropping it ends the agent's connection.
#[derive(Debug)]
pub(crate) struct AgentLink {
    commands: mpsc::Sender<ToAgent>,
    /// What the agent says and hears.
    pub(crate) audio: Arc<Link>,
}

impl AgentLink {
    /// Tells the agent something. One that does not listen misses it.
    pub(crate) fn tell(&self, what: ToAgent) {
        let _ = self.commands.try_send(what);
    }

    /// Whether the agent's connection is over.
    pub(crate) fn is_gone(&self) -> bool {
        self.commands.is_closed()
    }
}

/// An agent that is ready to speak.
#[derive(Debug)]
pub(crate) struct ReadyAgent {
    pub(crate) agent: Agent,
    pub(crate) link: Option<AgentLink>,
    /// What a caller hears who waits, where the config says.
    pub(crate) music: Option<Player>,
    /// What an operator should know.
    pub(crate) note: Option<String>,
}

impl From<Agent> for ReadyAgent {
    fn from(agent: Agent) -> Self {
        Self { agent, link: None, music: None, note: None }
    }
}

/// Whether the agent is ready at once, without waiting for anything.
pub(crate) fn ready_now(config: &AgentConfig) -> Option<Agent> {
    match &config.runtime {
        Runtime::Echo {} => Some(Agent::Echo),
        Runtime::Play(play) => play::tones(&play.sound(), play.repeat).map(Agent::Play),
        Runtime::Dial(_) if config.hold_music.is_none() => Some(Agent::Play(Player::tones(&RINGBACK, true))),
        _ => None,
    }
}

/// Makes the agent ready to take a call: a bot is connected and, where its protocol allows, asked. Whoever drops the
/// future, or what it returns, ends the bot's connection.
pub(crate) async fn prepare(
    edge: &Arc<Edge>,
    config: &AgentConfig,
    facts: CallFacts,
    call: Mailbox,
) -> Result<ReadyAgent, NotReady> {
    if let Some(agent) = ready_now(config) {
        return Ok(agent.into());
    }
    let (music, note) = match &config.hold_music {
        None => (None, None),
        Some(sound) => match edge.audio_files.open(sound, true, &edge.settings.media.audio_dir).await {
            Ok(player) => (Some(player), None),
            // A caller who hears other music is better off than one who is refused.
            Err(not_ready) => (None, Some(format!("hold_music: {not_ready}"))),
        },
    };
    let (target, dialect, rate): (Target, Box<dyn Dialect>, u32) = match &config.runtime {
        // Ready at once, which was asked above.
        Runtime::Echo {} => return Ok(Agent::Echo.into()),
        Runtime::Dial(_) => {
            let agent = Agent::Play(music.unwrap_or_else(|| Player::tones(&RINGBACK, true)));
            return Ok(ReadyAgent { note, ..agent.into() });
        }
        Runtime::Play(play) => {
            let audio_dir = &edge.settings.media.audio_dir;
            let player = edge.audio_files.open(&play.sound(), play.repeat, audio_dir).await?;
            return Ok(Agent::Play(player).into());
        }
        Runtime::MediaStream(stream) => {
            let proof = stream.secret.clone().map_or(Proof::None, Proof::Twilio);
            let id: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
            let dialect = media_stream::MediaStreamDialect::new(stream, facts.clone(), &id);
            (Target::WebSocket { url: stream.url.clone(), proof }, Box::new(dialect), 8_000)
        }
        Runtime::OpenaiRealtime(openai) => {
            let joint = if openai.url.contains('?') { '&' } else { '?' };
            let url = if openai.url.contains("model=") {
                openai.url.clone()
            } else {
                format!("{}{joint}model={}", openai.url, escaped(&openai.model))
            };
            let proof =
                Proof::Bearer { key: openai.api_key.clone(), beta: openai.dialect == RealtimeDialect::Beta };
            let audio = openai.audio().map_err(|e| NotReady::failed(e.to_string()))?;
            let dialect = openai_realtime::RealtimeClient::new(openai, facts.clone());
            let rate = openai_realtime::RealtimeClient::rate(audio);
            (Target::WebSocket { url, proof }, Box::new(dialect), rate)
        }
        Runtime::Tandem(tandem) => {
            let proof = tandem.secret.clone().map_or(Proof::None, Proof::Tandem);
            let dialect = tandem::TandemDialect::new(tandem.sample_rate, facts.clone());
            (Target::WebSocket { url: tandem.url.clone(), proof }, Box::new(dialect), tandem.sample_rate)
        }
        Runtime::Audiosocket(socket) => {
            let dialect = audiosocket::AudioSocketDialect::new(socket.sample_rate, facts.clone());
            (Target::AudioSocket { address: socket.address.clone() }, Box::new(dialect), socket.sample_rate)
        }
    };
    let tools = match &config.runtime {
        Runtime::OpenaiRealtime(openai) => tools::Tools::of(openai, &facts),
        _ => None,
    };
    let connection = connection::connect(&target, &edge.settings.private_targets);
    let connection = connection.await.map_err(NotReady::failed)?;
    let wake = Arc::new(Notify::new());
    let waker = Arc::clone(&wake);
    let link = Arc::new(Link::new(rate, PLAYOUT, move || waker.notify_one()));
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (ready, outcome) = oneshot::channel();
    let worker = run::Worker {
        edge: Arc::clone(edge),
        target,
        connection,
        dialect,
        link: Arc::clone(&link),
        wake,
        commands,
        call,
        tools,
        ready: Some(ready),
    };
    tokio::spawn(worker.run());
    match outcome.await {
        Ok(Ok(())) => Ok(ReadyAgent {
            agent: Agent::Linked(Arc::clone(&link) as _),
            link: Some(AgentLink { commands: sender, audio: link }),
            music,
            note,
        }),
        Ok(Err(not_ready)) => Err(not_ready),
        Err(_) => Err(NotReady::failed("the agent's task ended")),
    }
}

/// Whether who shows this secret is the runtime's bot; `None` is somebody the API knows already.
pub(crate) fn may_end(runtime: &Runtime, secret: Option<&Secret>) -> bool {
    let own = runtime.secrets().into_iter().find(|(name, _)| *name == "secret");
    secret.is_none_or(|given| {
        own.is_some_and(|(_, own)| {
            verify_slices_are_equal(own.expose().as_bytes(), given.expose().as_bytes()).is_ok()
        })
    })
}

/// Whether an agent may send these digits; the error names the rule.
pub(crate) fn digits_asked(digits: &str) -> Result<(), String> {
    let known = |c: char| "0123456789*#ABCDw,".contains(c);
    if (1..=MAX_DIGITS).contains(&digits.len()) && digits.chars().all(known) {
        return Ok(());
    }
    Err(format!("digits must be 1 to {MAX_DIGITS} of 0-9 * # A-D and the pauses w and ,"))
}

/// Keeps a turn of the transcript in the order of its beginning. `false` when there is no place for it.
pub(crate) fn keep_turn(turns: &mut Vec<Turn>, mut turn: Turn) -> bool {
    if turns.len() >= MAX_TURNS {
        return false;
    }
    let cut = (0..=MAX_TURN.min(turn.text.len())).rev().find(|&at| turn.text.is_char_boundary(at));
    turn.text.truncate(cut.unwrap_or(0));
    let at = turns.partition_point(|other| other.at <= turn.at);
    turns.insert(at, turn);
    true
}

/// A value of a query (RFC 3986 2.3).
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
