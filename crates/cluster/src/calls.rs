//! Commands to calls, addressed to the call's owner.

use std::sync::Arc;

use model::{AgentConfig, Conversation, ConversationId, TrunkId};
use tokio::sync::{mpsc, oneshot};

use crate::Cluster;

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

/// What can be asked of calls.
#[derive(Debug)]
pub enum CallCommand {
    /// Place a call. Answered once the edge has taken it, before anything is known of its fate.
    Originate(Box<Originate>, oneshot::Sender<Result<(), CallError>>),
    /// Hang up (CANCEL before answer, BYE after). Answered with the final record.
    End(ConversationId, oneshot::Sender<Result<Conversation, CallError>>),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such call is live.
    #[error("the call is not in progress")]
    NotLive,
    /// The node is draining or at its limit, or too many commands wait.
    #[error("this node takes no calls right now")]
    Busy,
    /// The edge is not running.
    #[error("the SIP edge is not running")]
    Down,
}

pub(crate) struct Calls(mpsc::Sender<CallCommand>);

/// The edge's end of the commands.
pub struct CallInbox(mpsc::Receiver<CallCommand>);

impl Calls {
    pub(crate) fn new() -> (Self, CallInbox) {
        let (sender, receiver) = mpsc::channel(INBOX);
        (Self(sender), CallInbox(receiver))
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
