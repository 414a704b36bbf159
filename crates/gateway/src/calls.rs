//! The live calls: which task owns a SIP message, and which one a conversation.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use cluster::{CallError, Listening, Transfer};
use media::session::MediaEvent;
use model::{
    CallQuality, Conversation, ConversationId, OrganizationId, RecordStep, Secret, Sound, TraceMessage,
    TransferStep,
};
use parking_lot::Mutex;
use signaling::{Departed, Hop, Message, NameAddr, Peek, Request};
use tokio::sync::{mpsc, oneshot};

use crate::agent_link::AgentEvent;
use crate::call::attended::PartnerInput;
use crate::call::second_leg::SecondEvent;

/// Messages that may wait for one call; a storm beyond it is dropped and counted, and hurts no other call.
pub(crate) const MAILBOX: usize = 32;
/// Tables, so that calls on different cores rarely wait for each other.
const SHARDS: usize = 64;

/// What a call's task is told.
pub(crate) enum CallInput {
    /// A SIP message of the call.
    Sip(Box<(Message, Hop)>),
    /// Something happened on its RTP stream.
    Media(MediaEvent),
    /// Its agent has something to say.
    Agent(AgentEvent),
    /// The API wants it ended.
    End(oneshot::Sender<Result<Conversation, CallError>>),
    /// The API or the agent wants it handed to somebody else.
    Transfer(Box<Transfer>, oneshot::Sender<Result<Conversation, CallError>>),
    /// The API asks how it sounds.
    Quality(oneshot::Sender<Result<CallQuality, CallError>>),
    /// The API sends digits.
    Digits(String, oneshot::Sender<Result<Conversation, CallError>>),
    /// The API begins its recording, pauses it, or takes it up again.
    Record(RecordStep, oneshot::Sender<Result<Conversation, CallError>>),
    /// The API listens in.
    Listen(oneshot::Sender<Result<Listening, CallError>>),
    /// Another call says something to the one it is to be joined with.
    Partner(PartnerInput),
    /// The API says how a transfer goes on whose target speaks with the agent.
    TransferStep(TransferStep, oneshot::Sender<Result<Conversation, CallError>>),
    /// The API wants something played.
    Play(Sound, oneshot::Sender<Result<Conversation, CallError>>),
    /// Something happened on the second leg of this number.
    Second(u32, SecondEvent),
    /// An INVITE whose Replaces names a dialog with the call's tag.
    Replace(Box<(Request, Hop)>),
    /// Its agent wants it ended, and says so over the API with its runtime's secret, or a key that needs none.
    EndByAgent(OrganizationId, Option<Secret>, oneshot::Sender<Result<Conversation, CallError>>),
    /// Its agent wants it handed to somebody else, and says so in the same way.
    TransferByAgent(
        OrganizationId,
        Option<Secret>,
        Box<Transfer>,
        oneshot::Sender<Result<Conversation, CallError>>,
    ),
    /// The API wants its messages.
    Trace(oneshot::Sender<Result<(Vec<TraceMessage>, u32), CallError>>),
    /// Whether the call out of this number may be placed: a sentence when not.
    Admitted(u32, Result<(), String>),
    /// What its session sent to a hop could not be.
    Unsent(Hop),
    /// The connection its INVITE went out on is closed.
    Closed(Hop),
    /// The node is leaving.
    Drain,
}

impl CallInput {
    /// Answers a question that cannot be asked of a call; what is no question is given back.
    pub(crate) fn refuse(self, error: CallError) -> Option<Self> {
        match self {
            Self::End(reply)
            | Self::Transfer(_, reply)
            | Self::TransferStep(_, reply)
            | Self::Play(_, reply)
            | Self::Digits(_, reply)
            | Self::Record(_, reply)
            | Self::EndByAgent(.., reply)
            | Self::TransferByAgent(.., reply) => drop(reply.send(Err(error))),
            Self::Quality(reply) => drop(reply.send(Err(error))),
            Self::Listen(reply) => drop(reply.send(Err(error))),
            Self::Trace(reply) => drop(reply.send(Err(error))),
            other => return Some(other),
        }
        None
    }
}

/// A call's address.
pub(crate) type Mailbox = mpsc::Sender<CallInput>;

/// The key of a dialog side. A hash under keys nobody outside knows: 128 bits collide by accident never and on
/// purpose never.
pub(crate) type Key = u128;

/// Who takes the messages of a dialog side.
#[derive(Clone)]
pub(crate) enum Party {
    /// The task of a call.
    Live(Mailbox),
    /// The call is over: only repetitions come.
    Departed(Arc<Departed>),
}

impl Party {
    pub(crate) fn live(self) -> Option<Mailbox> {
        match self {
            Self::Live(mailbox) => Some(mailbox),
            Self::Departed(_) => None,
        }
    }
}

pub(crate) struct Calls {
    hashers: (RandomState, RandomState),
    by_dialog: Vec<Mutex<AHashMap<Key, Party>>>,
    by_conversation: Vec<Mutex<AHashMap<ConversationId, Mailbox>>>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            hashers: (RandomState::new(), RandomState::new()),
            by_dialog: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_conversation: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn key(&self, side: u8, call_id: &str, tag: &str) -> Key {
        let value = (side, call_id, tag);
        u128::from(self.hashers.0.hash_one(value)) << 64 | u128::from(self.hashers.1.hash_one(value))
    }

    /// The key of a message that carries our own tag: a response to us, a request inside a dialog.
    pub(crate) fn local_key(&self, call_id: &str, local_tag: &str) -> Key {
        self.key(0, call_id, local_tag)
    }

    /// The key of what carries only the caller's tag: an INVITE, its retransmissions and its CANCEL.
    pub(crate) fn remote_key(&self, call_id: &str, remote_tag: &str) -> Key {
        self.key(1, call_id, remote_tag)
    }

    /// The call a message belongs to.
    pub(crate) fn find(&self, message: &Message) -> Option<Party> {
        let key = match message {
            Message::Response(response) => self.local_key(response.call_id(), response.from_tag()?),
            Message::Request(request) => match request.to_tag() {
                Some(tag) => self.local_key(request.call_id(), tag),
                None => self.initial_key(request)?,
            },
        };
        self.dialogs(key).lock().get(&key).cloned()
    }

    /// Whether a message that was only looked at belongs to a call.
    pub(crate) fn knows(&self, peek: &Peek<'_>) -> bool {
        let Some(call_id) = peek.call_id() else { return false };
        let to = if peek.request.is_some() { peek.to() } else { None };
        let key = if let Some(tag) = to.as_ref().and_then(NameAddr::tag) {
            self.local_key(call_id, tag)
        } else {
            let from = peek.from();
            match (peek.request, from.as_ref().and_then(NameAddr::tag)) {
                (None, Some(tag)) => self.local_key(call_id, tag),
                (Some(_), Some(tag)) => self.remote_key(call_id, tag),
                (_, None) => return false,
            }
        };
        self.dialogs(key).lock().contains_key(&key)
    }

    /// The key of an INVITE that begins a call; `None` without a From tag.
    pub(crate) fn initial_key(&self, invite: &Request) -> Option<Key> {
        Some(self.remote_key(invite.call_id(), invite.from_tag()?))
    }

    /// The live call of a dialog side.
    pub(crate) fn dialog(&self, key: Key) -> Option<Mailbox> {
        self.dialogs(key).lock().get(&key).cloned().and_then(Party::live)
    }

    fn dialogs(&self, key: Key) -> &Mutex<AHashMap<Key, Party>> {
        &self.by_dialog[(key % SHARDS as u128) as usize]
    }

    fn conversations(&self, id: ConversationId) -> &Mutex<AHashMap<ConversationId, Mailbox>> {
        &self.by_conversation[(id.0.as_u128() % SHARDS as u128) as usize]
    }

    pub(crate) fn add_dialog(&self, key: Key, mailbox: Mailbox) {
        self.dialogs(key).lock().insert(key, Party::Live(mailbox));
    }

    /// The call of a dialog side is over, and its task takes nothing more; `false` when the side is another's by now.
    pub(crate) fn depart(&self, key: Key, departed: &Arc<Departed>) -> bool {
        let mut table = self.dialogs(key).lock();
        let own = table.get_mut(&key).filter(|party| matches!(party, Party::Live(task) if task.is_closed()));
        own.map(|party| *party = Party::Departed(Arc::clone(departed))).is_some()
    }

    /// Nothing of a departed call comes any more.
    pub(crate) fn forget(&self, key: Key, departed: &Arc<Departed>) {
        let mut table = self.dialogs(key).lock();
        let own = |party: &Party| matches!(party, Party::Departed(call) if Arc::ptr_eq(call, departed));
        if table.get(&key).is_some_and(own) {
            table.remove(&key);
            shrink(&mut table);
        }
    }

    pub(crate) fn remove_dialog(&self, key: Key) {
        let mut table = self.dialogs(key).lock();
        table.remove(&key);
        shrink(&mut table);
    }

    pub(crate) fn add_conversation(&self, id: ConversationId, mailbox: Mailbox) {
        self.conversations(id).lock().insert(id, mailbox);
    }

    pub(crate) fn remove_conversation(&self, id: ConversationId) {
        let mut table = self.conversations(id).lock();
        table.remove(&id);
        shrink(&mut table);
    }

    pub(crate) fn conversation(&self, id: ConversationId) -> Option<Mailbox> {
        self.conversations(id).lock().get(&id).cloned()
    }

    /// Every live call.
    pub(crate) fn all(&self) -> Vec<Mailbox> {
        self.by_conversation
            .iter()
            .flat_map(|table| table.lock().values().cloned().collect::<Vec<_>>())
            .collect()
    }
}

/// Gives memory back after a peak.
fn shrink<K: Eq + std::hash::Hash, V>(table: &mut AHashMap<K, V>) {
    if table.capacity() > 256 && table.len() * 8 < table.capacity() {
        let wanted = table.len() * 2;
        table.shrink_to(wanted);
    }
}
