//! INVITE sessions (RFC 3261 13): one call's signalling with all its transactions, as UAS or as UAC.
//!
//! Feed it every message of its Call-ID and its timeouts; drain what it wants to send and what happened. The session
//! description is opaque bytes here.

mod accept;
mod ack;
mod ask;
mod authenticate;
mod cancel;
mod close;
mod connect;
mod depart;
mod event;
mod info;
mod modify;
mod receive;
mod refer;
mod refresh;
mod reliable;
mod storm;
mod update;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::dialog::Dialog;
use crate::hop::{Hop, Transmit};
use crate::message::{Message, StatusCode};
use crate::stateless::hex;
use crate::transaction::{InviteClient, InviteServer, Outbox, Server, earliest};

pub(crate) use authenticate::Account;

use accept::Ringing;
use ack::Answer;
use ask::Asked;
use connect::Calling;
use modify::Modify;
use refer::{Referred, Referring};
use refresh::Timer;
use reliable::Reliable;
use storm::Storm;

pub use depart::Departed;
pub use event::{EndCause, Ended, Event, Identity, Invite, Reason, Refusal};
pub use refer::Referral;
pub use refresh::{SessionTimer, is_too_short};

/// Non-INVITE requests of the peer that one call remembers at once, all that [`Storm`] admits within timer J; beyond
/// it a request gets 500 with Retry-After.
const MAX_SERVERS: usize = 340;
/// INVITEs of the peer that one call remembers at once, refused ones included.
const MAX_INVITES: usize = 8;
/// Events that wait to be read; a caller that drains after every input never has more than a few.
const MAX_EVENTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No final response yet.
    Inviting,
    /// UAS: our 2xx awaits its ACK.
    Accepted,
    /// The dialog stands.
    Confirmed,
    /// The call has ended; transactions linger.
    Over,
}

/// One call's signalling.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    call_id: Box<str>,
    local_tag: Box<str>,
    state: State,
    /// The dialog of the call. The UAC's early ones are in [`Calling`].
    dialog: Option<Box<Dialog>>,
    /// What only the side that began the call has.
    calling: Option<Box<Calling>>,
    /// UAS: the provisional response that is repeated.
    ringing: Option<Box<Ringing>>,
    /// A 2xx of ours that awaits its ACK.
    answer: Option<Box<Answer>>,
    /// UAS: BYE when the ACK has come (RFC 3261 15).
    farewell: Option<Box<Option<Reason>>>,
    /// An offer of ours inside the dialog.
    modify: Option<Box<Modify>>,
    /// UAS: provisional responses that are acknowledged.
    reliable: Option<Box<Reliable>>,
    /// The first offer has its answer though the INVITE has no final response: in a reliable response.
    settled: bool,
    /// Our description that stands.
    local_sdp: Option<Bytes>,
    timer: Timer,
    storm: Storm,
    /// A REFER of ours.
    referring: Option<Box<Referring>>,
    /// A REFER of the peer's that we work on, and how many we took.
    referred: Option<Box<Referred>>,
    refers: u8,
    invite_servers: Vec<InviteServer>,
    servers: Vec<Server>,
    invite_clients: Vec<InviteClient>,
    clients: Vec<Asked>,
    /// Identifiers made so far.
    made: u32,
    out: Outbox,
    events: VecDeque<Event>,
}

impl Session {
    fn new(identity: Identity, call_id: Box<str>, local_tag: Box<str>) -> Self {
        Self {
            identity,
            call_id,
            local_tag,
            state: State::Inviting,
            dialog: None,
            calling: None,
            ringing: None,
            answer: None,
            farewell: None,
            modify: None,
            reliable: None,
            settled: false,
            local_sdp: None,
            timer: Timer::default(),
            storm: Storm::default(),
            referring: None,
            referred: None,
            refers: 0,
            invite_servers: Vec::new(),
            servers: Vec::new(),
            invite_clients: Vec::new(),
            clients: Vec::new(),
            made: 0,
            out: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    #[must_use]
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The peer's tag; `None` before there is a dialog, and once everything of it is over.
    #[must_use]
    pub fn remote_tag(&self) -> Option<&str> {
        self.dialog.as_ref().map(|dialog| &*dialog.remote_tag)
    }

    /// The URI that the peer's Contact names; `None` as for [`Session::remote_tag`].
    #[must_use]
    pub fn remote_target(&self) -> Option<&str> {
        self.dialog.as_ref().map(|dialog| &*dialog.target)
    }

    /// Whether the dialog's route or target is at an address. A name may be anywhere.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> bool {
        self.dialog.as_ref().is_some_and(|dialog| dialog.names(address))
    }

    /// Whether the call is answered, and the answer acknowledged.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.state == State::Confirmed
    }

    /// Whether the call itself has ended; the session may still absorb retransmissions.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the call has ended, its last transaction with it, and everything has been read: the session can be
    /// dropped.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.is_over()
            && self.out.is_empty()
            && self.events.is_empty()
            && self.servers.is_empty()
            && self.clients.is_empty()
            && self.invite_servers.is_empty()
            && self.invite_clients.is_empty()
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let next = self.out.pop();
        if next.is_none() && self.is_over() {
            self.out.shrink();
        }
        next
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let next = self.events.pop_front();
        if next.is_none() && self.is_over() {
            self.events.shrink_to_fit();
        }
        next
    }

    /// When [`Session::handle_timeout`] is wanted; `None` when nothing is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(
            [
                self.ringing.as_ref().map(|r| r.again),
                self.answer.as_ref().map(|a| a.timeout()),
                self.modify.as_ref().and_then(|m| m.retry_at),
                self.reliable.as_ref().and_then(|r| r.timeout()),
                self.timer.timeout().filter(|_| self.state == State::Confirmed),
            ]
            .into_iter()
            .chain(self.invite_servers.iter().map(InviteServer::timeout))
            .chain(self.invite_clients.iter().map(InviteClient::timeout))
            .chain(self.servers.iter().map(Server::timeout))
            .chain(self.clients.iter().map(|asked| asked.client.timeout())),
        )
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for server in &mut self.invite_servers {
            server.handle_timeout(now, &mut self.out);
        }
        self.invite_servers.retain(|server| !server.is_terminated());
        self.servers.retain(|server| server.timeout().is_none_or(|at| at > now));
        self.time_requests(now);
        let mut unanswered = None;
        for client in &mut self.invite_clients {
            if client.handle_timeout(now, &mut self.out) {
                // At most one INVITE of ours awaits its final response at a time.
                unanswered = Some(client.cseq);
            }
        }
        self.invite_clients.retain(|client| !client.is_terminated());
        if let Some(cseq) = unanswered {
            if self.is_initial(cseq) {
                self.no_final_response(now);
            } else {
                self.modify_failed(cseq, StatusCode(408), None, now);
            }
        }
        self.repeat_answer(now);
        self.repeat_ringing(now);
        self.repeat_reliable(now);
        self.retry_modify(now);
        self.time_session(now);
        self.shrink();
    }

    /// What was sent to `hop` cannot get there. Over a stream nothing of it is repeated, so what waits there fails
    /// (RFC 3261 8.1.3.1, 17.2.4).
    pub fn handle_transport_error(&mut self, hop: Hop, now: Instant) {
        self.requests_lost(hop, now);
        let mut failed = None;
        for client in self.invite_clients.iter_mut().filter(|c| c.hop == hop && c.is_pending()) {
            client.end();
            failed = Some(client.cseq);
        }
        self.invite_clients.retain(|client| !client.is_terminated());
        if let Some(cseq) = failed {
            if self.is_initial(cseq) {
                let cancelled = self.calling.as_ref().is_some_and(|c| c.gives_up());
                let cause = if cancelled { EndCause::CancelledByUs } else { EndCause::TransportError };
                self.end_with(Ended::new(cause), now);
            } else {
                self.modify_failed(cseq, StatusCode(503), None, now);
            }
        }
        // The caller of an INVITE that has no final response yet is gone.
        let caller_gone = self.state == State::Inviting
            && self.invite_servers.iter().any(|s| s.hop == hop && s.pending().is_some());
        if caller_gone {
            self.invite_servers.retain(|server| server.hop != hop);
            self.end_with(Ended::new(EndCause::TransportError), now);
        }
        self.shrink();
    }

    /// Takes a message of this call.
    pub fn handle_message(&mut self, message: Message, from: Hop, now: Instant) {
        match message {
            Message::Request(request) => self.request(request, from, now),
            Message::Response(response) => self.response(&response, from, now),
        }
        self.shrink();
    }

    fn push(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    /// Whether a sequence number is that of the INVITE that began the call.
    fn is_initial(&self, cseq: u32) -> bool {
        self.calling.as_ref().is_some_and(|calling| calling.cseq == cseq)
    }

    fn branch(&mut self) -> Box<str> {
        self.made += 1;
        branch(&self.identity, self.made)
    }
}

/// The parts of an identifier's derivation that keep the kinds apart.
pub(crate) mod label {
    pub(crate) const TAG: u8 = b't';
    pub(crate) const CALL_ID: u8 = b'i';
    pub(crate) const BRANCH: u8 = b'b';
    pub(crate) const CNONCE: u8 = b'c';
    pub(crate) const DELAY: u8 = b'd';
    pub(crate) const RSEQ: u8 = b'r';
}

/// Bytes derived from the seed by kind and number: who sees some of them on the wire learns nothing of the others.
pub(crate) fn derived(identity: &Identity, label: u8, number: u32) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new()
        .chain_update(identity.seed)
        .chain_update([label])
        .chain_update(number.to_be_bytes())
        .finalize();
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    bytes
}

pub(crate) fn tag(identity: &Identity) -> Box<str> {
    hex(&derived(identity, label::TAG, 0)).into()
}

pub(crate) fn call_id(identity: &Identity) -> Box<str> {
    let halves: String = (0..2).map(|n| hex(&derived(identity, label::CALL_ID, n))).collect();
    halves.into()
}

pub(crate) fn branch(identity: &Identity, number: u32) -> Box<str> {
    format!("z9hG4bK{}", hex(&derived(identity, label::BRANCH, number))).into()
}
