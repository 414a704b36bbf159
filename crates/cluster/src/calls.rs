//! Commands to calls, addressed to the call's owner.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{
    AgentConfig, AgentId, AgentVersionId, CallQuality, Conversation, ConversationId, OrganizationId,
    RecordStep, Secret, Sound, Step, Timestamp, TraceMessage, TransferMode, TransferStep, TransferTarget,
    TrunkId,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{Cluster, Listening};

/// Commands that may wait for the edge before a caller is told to come back.
const INBOX: usize = 1_024;

/// A call to place. The conversation is already on record as `triggered`.
#[derive(Debug)]
pub struct Originate {
    /// The record; `user_id` is the callee in E.164, `agent_number` the caller ID.
    pub conversation: Conversation,
    /// The trunk to leave by.
    pub trunk_id: TrunkId,
    /// What the agent does.
    pub config: Arc<AgentConfig>,
}

/// A call that might come, to be judged like a real one.
#[derive(Debug)]
pub struct Simulate {
    /// Who asks: nothing of another organization counts.
    pub organization: OrganizationId,
    /// The trunk asked about.
    pub trunk_id: TrunkId,
    /// Transport source.
    pub source: SocketAddr,
    /// Caller, as a From header's user.
    pub from: String,
    /// Callee, as a Request-URI's user.
    pub to: String,
}

/// What a simulated call would get.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// Whether an agent would be asked to take it.
    pub accepted: bool,
    /// SIP status; 0 when nothing would be sent.
    pub status: u16,
    /// Who would answer.
    pub agent_id: Option<AgentId>,
    /// Its version.
    pub agent_version_id: Option<AgentVersionId>,
    /// Short code of what decided.
    pub reason: String,
    /// Each rule tried, in order.
    pub steps: Vec<Step>,
    /// What to change.
    pub advice: String,
}

/// What a carrier answered to OPTIONS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probed {
    /// SIP status; `None` when it did not answer.
    pub status: Option<u16>,
    /// From the request to the answer.
    pub latency: Option<Duration>,
    /// The addresses tried, in order.
    pub resolved: Vec<String>,
    /// The TLS session, when there was one.
    pub tls: Option<TlsSession>,
    /// In words.
    pub detail: String,
}

/// A TLS session with a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The subject of the carrier's certificate.
    pub subject: String,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

/// Who is to have a call.
#[derive(Debug, Clone)]
pub enum TransferTo {
    /// Somebody who is to be called.
    Target(TransferTarget),
    /// The other side of another live call of the same organization.
    Call(ConversationId),
}

impl fmt::Display for TransferTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => target.fmt(f),
            Self::Call(other) => write!(f, "the other side of conversation {other}"),
        }
    }
}

/// Handing a call to somebody else.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Who.
    pub to: TransferTo,
    /// How.
    pub mode: TransferMode,
    /// How long the target may take to answer.
    pub timeout: Duration,
}

/// What can be asked of calls.
#[derive(Debug)]
pub enum CallCommand {
    /// Place a call. Answered once the edge has taken it, before anything is known of its fate.
    Originate(Box<Originate>, oneshot::Sender<Result<(), CallError>>),
    /// Hang up (CANCEL before answer, BYE after). Answered with the final record.
    End(ConversationId, oneshot::Sender<Result<Conversation, CallError>>),
    /// Hand a live call to somebody else. Answered once that has begun.
    Transfer(ConversationId, Box<Transfer>, oneshot::Sender<Result<Conversation, CallError>>),
    /// Say how a transfer goes on whose target speaks with the agent.
    TransferStep(ConversationId, TransferStep, oneshot::Sender<Result<Conversation, CallError>>),
    /// Have the agent's link play something. Answered once it is asked to.
    Play(ConversationId, Sound, oneshot::Sender<Result<Conversation, CallError>>),
    /// Hang up for the call's agent, which shows its runtime's secret; `None` when the API knows it by a key.
    EndByAgent(
        OrganizationId,
        ConversationId,
        Option<Secret>,
        oneshot::Sender<Result<Conversation, CallError>>,
    ),
    /// Hand the call to somebody else for its agent, which shows who it is in the same way.
    TransferByAgent(
        OrganizationId,
        ConversationId,
        Option<Secret>,
        Box<Transfer>,
        oneshot::Sender<Result<Conversation, CallError>>,
    ),
    /// How a live call sounds so far.
    Quality(ConversationId, oneshot::Sender<Result<CallQuality, CallError>>),
    /// Send digits (`0`–`9`, `A`–`D`, `*`, `#`) and pauses (`w` half a second, `,` two seconds).
    Digits(ConversationId, String, oneshot::Sender<Result<Conversation, CallError>>),
    /// Begin the recording, leave what is said from now on out of it, or record again.
    Record(ConversationId, RecordStep, oneshot::Sender<Result<Conversation, CallError>>),
    /// Hear both sides from now on.
    Listen(ConversationId, oneshot::Sender<Result<Listening, CallError>>),
    /// Judge a call that might come.
    Simulate(Box<Simulate>, oneshot::Sender<Result<Simulated, CallError>>),
    /// The messages of a live call so far, and how many are not among them.
    Trace(ConversationId, oneshot::Sender<Result<(Vec<TraceMessage>, u32), CallError>>),
    /// Send OPTIONS to a trunk's carrier.
    Probe(TrunkId, oneshot::Sender<Result<Probed, CallError>>),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such call is live.
    #[error("the call is not in progress")]
    NotLive,
    /// It has no answer yet.
    #[error("the call has not been answered yet")]
    NotAnswered,
    /// One transfer at a time.
    #[error("the call is being transferred already")]
    Transferring,
    /// No number or gateway of the organization.
    #[error("to names a host that is the address of none of the organization's trunks")]
    TargetRefused,
    /// The call to be joined with.
    #[error("the other call is not in progress")]
    OtherNotLive,
    /// The target cannot be called from here.
    #[error("the call's trunk has no outbound_config to place the second call by")]
    NoWayOut,
    /// The agent is none that has a link of its own.
    #[error("the call's agent is no bot")]
    NoBot,
    /// The call has come by no SIP.
    #[error(
        "the call came over AudioSocket, which has no word for it: hang up, and Asterisk's dialplan goes on"
    )]
    NoSip,
    /// No target speaks with the agent, or not any more.
    #[error("no target of a warm transfer or a conference is on the line")]
    NoTarget,
    /// The node is draining or at its limit, or too many commands wait.
    #[error("this node takes no calls right now")]
    Busy,
    /// The trunk carries `max_concurrent_calls` already.
    #[error("the trunk carries as many calls as its max_concurrent_calls allows")]
    TrunkFull,
    /// The trunk has begun `max_calls_per_second` calls in this second.
    #[error("the trunk begins as many calls a second as its max_calls_per_second allows")]
    TrunkRate,
    /// The secret is not the agent's.
    #[error("the secret is not that of the call's agent")]
    Denied,
    /// The other side takes no digits.
    #[error("the other side takes no telephone-events")]
    NoDigits,
    /// No recording was begun, or it could not be written.
    #[error("the call is not recorded")]
    NotRecorded,
    /// Its recording has another format; a call has one file.
    #[error("the call is recorded in another format already")]
    OtherFormat,
    /// The recorder has too much to do.
    #[error("too many recordings wait to be begun")]
    RecorderBusy,
    /// As many listen in as may.
    #[error("as many listen to the call as may at once")]
    TooManyListeners,
    /// The edge is not running.
    #[error("the SIP edge is not running")]
    Down,
}

/// Call states that a slow listener may be behind.
const CHANGES: usize = 4_096;

pub(crate) struct Calls(mpsc::Sender<CallCommand>, broadcast::Sender<Arc<Conversation>>);

/// The edge's end of the commands.
pub struct CallInbox(mpsc::Receiver<CallCommand>);

impl Calls {
    pub(crate) fn new() -> (Self, CallInbox) {
        let (sender, receiver) = mpsc::channel(INBOX);
        (Self(sender, broadcast::Sender::new(CHANGES)), CallInbox(receiver))
    }
}

impl CallInbox {
    /// The next command; `None` when the control plane is gone.
    pub async fn recv(&mut self) -> Option<CallCommand> {
        self.0.recv().await
    }
}

impl Cluster {
    /// Hands a call to the edge.
    pub async fn originate(&self, call: Originate) -> Result<(), CallError> {
        self.ask(|reply| CallCommand::Originate(Box::new(call), reply)).await
    }

    /// Ends a live call and returns its final record.
    pub async fn end_call(&self, id: ConversationId) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::End(id, reply)).await
    }

    /// Begins to hand a live call to somebody else, and returns its record as it stands.
    pub async fn transfer_call(&self, id: ConversationId, to: Transfer) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::Transfer(id, Box::new(to), reply)).await
    }

    /// Goes on with a transfer whose target speaks with the agent, and returns the call's record as it stands.
    pub async fn transfer_step(
        &self,
        id: ConversationId,
        step: TransferStep,
    ) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::TransferStep(id, step, reply)).await
    }

    /// Has the agent's link play something, and returns the call's record as it stands.
    pub async fn play(&self, id: ConversationId, sound: Sound) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::Play(id, sound, reply)).await
    }

    /// Ends a live call for its agent and returns its final record.
    pub async fn end_call_by_agent(
        &self,
        organization: OrganizationId,
        id: ConversationId,
        secret: Option<Secret>,
    ) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::EndByAgent(organization, id, secret, reply)).await
    }

    /// Begins to hand a live call to somebody else for its agent, and returns its record as it stands.
    pub async fn transfer_call_by_agent(
        &self,
        organization: OrganizationId,
        id: ConversationId,
        secret: Option<Secret>,
        to: Transfer,
    ) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::TransferByAgent(organization, id, secret, Box::new(to), reply)).await
    }

    /// How a live call sounds so far.
    pub async fn call_quality(&self, id: ConversationId) -> Result<CallQuality, CallError> {
        self.ask(|reply| CallCommand::Quality(id, reply)).await
    }

    /// Sends digits and pauses to the other side of a live call.
    pub async fn send_digits(&self, id: ConversationId, digits: String) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::Digits(id, digits, reply)).await
    }

    /// Begins a live call's recording, leaves what is said from now on out of it, or records again. Asking twice
    /// changes nothing.
    pub async fn record(&self, id: ConversationId, step: RecordStep) -> Result<Conversation, CallError> {
        self.ask(|reply| CallCommand::Record(id, step, reply)).await
    }

    /// Listens to a live call from now on.
    pub async fn listen(&self, id: ConversationId) -> Result<Listening, CallError> {
        self.ask(|reply| CallCommand::Listen(id, reply)).await
    }

    /// Tells what a call would get.
    pub async fn simulate(&self, call: Simulate) -> Result<Simulated, CallError> {
        self.ask(|reply| CallCommand::Simulate(Box::new(call), reply)).await
    }

    /// The messages of a live call so far, and how many are not among them.
    pub async fn trace(&self, id: ConversationId) -> Result<(Vec<TraceMessage>, u32), CallError> {
        self.ask(|reply| CallCommand::Trace(id, reply)).await
    }

    /// Asks a trunk's carrier whether it is there.
    pub async fn probe(&self, trunk: TrunkId) -> Result<Probed, CallError> {
        self.ask(|reply| CallCommand::Probe(trunk, reply)).await
    }

    /// Call states from now on, in the order they are written down.
    #[must_use]
    pub fn call_changes(&self) -> broadcast::Receiver<Arc<Conversation>> {
        self.inner.calls.1.subscribe()
    }

    /// Tells who listens that a call's state is on record.
    pub fn call_changed(&self, call: Arc<Conversation>) {
        // Nobody may be listening.
        let _ = self.inner.calls.1.send(call);
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, CallError>>) -> CallCommand,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        self.inner.calls.0.try_send(command(reply)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CallError::Busy,
            mpsc::error::TrySendError::Closed(_) => CallError::Down,
        })?;
        answer.await.unwrap_or(Err(CallError::Down))
    }
}
