//! Answering challenges (RFC 3261 22): only in a call that we began, only to the peer it was sent to.

use super::{Session, derived, label};
use crate::digest::{self, Challenge, Credentials};
use crate::hop::Hop;
use crate::message::{HeaderName, Response};
use crate::stateless::hex;

/// Challenges answered for one request: one of a proxy and one of the server, or one more for a stale nonce.
const MAX_CHALLENGES: u8 = 2;

/// A challenge in force.
#[derive(Debug)]
struct Answered {
    challenge: Challenge,
    /// Whether a proxy asks (407).
    proxy: bool,
    /// Requests sent with the nonce.
    count: u32,
    /// Whether it was made to the request at hand.
    of_this_request: bool,
}

/// The account that a call uses, and how far it is known at the peer.
#[derive(Debug)]
pub(crate) struct Account {
    credentials: Credentials,
    /// Where the call was sent: nobody else learns a digest of ours.
    peer: Hop,
    answered: Vec<Answered>,
    challenges: u8,
    /// What the last INVITE carried.
    of_invite: Vec<(HeaderName, String)>,
}

impl Account {
    pub(crate) fn new(credentials: Credentials, peer: Hop) -> Self {
        Self { credentials, peer, answered: Vec::new(), challenges: 0, of_invite: Vec::new() }
    }

    /// A new request: its challenges count anew.
    pub(crate) fn begin(&mut self) {
        self.challenges = 0;
        self.answered.iter_mut().for_each(|known| known.of_this_request = false);
    }

    /// Takes the challenge of a 401 or 407 to a request that went to `asked`. `false` when it cannot or must not be
    /// answered.
    pub(crate) fn take(&mut self, response: &Response, asked: Hop, from: Hop, in_dialog: bool) -> bool {
        let Some((challenge, proxy)) = read(response) else { return false };
        if self.challenges >= MAX_CHALLENGES || !is_peer(self.peer, asked) || !came_back(asked, from) {
            return false;
        }
        // A realm that the peer did not name for the INVITE is somebody else's.
        let stranger = !self.answered.iter().any(|known| known.challenge.realm == challenge.realm);
        if in_dialog && stranger && !self.answered.is_empty() {
            return false;
        }
        let same = |known: &Answered| known.proxy == proxy && known.challenge.realm == challenge.realm;
        if let Some(known) = self.answered.iter().find(|known| same(known)) {
            // Refused with this very answer: another one would not fare better.
            let refused = known.of_this_request || known.challenge.nonce == challenge.nonce;
            if refused && !challenge.stale {
                return false;
            }
        }
        self.answered.retain(|known| !same(known));
        self.challenges += 1;
        self.answered.push(Answered { challenge, proxy, count: 0, of_this_request: true });
        true
    }

    /// The Authorization and Proxy-Authorization headers of a request to `hop`.
    pub(crate) fn headers(
        &mut self,
        method: &str,
        uri: &str,
        hop: Hop,
        mut cnonce: impl FnMut() -> String,
    ) -> Vec<(HeaderName, String)> {
        if !is_peer(self.peer, hop) {
            return Vec::new();
        }
        let mut headers = Vec::new();
        for known in &mut self.answered {
            known.count += 1;
            let name = if known.proxy { HeaderName::ProxyAuthorization } else { HeaderName::Authorization };
            let (challenge, count) = (&known.challenge, known.count);
            headers.push((name, digest::answer(challenge, &self.credentials, method, uri, count, &cnonce())));
        }
        if method == "INVITE" {
            self.of_invite.clone_from(&headers);
        }
        headers
    }

    /// What the last INVITE carried, for its ACK.
    pub(super) fn of_invite(&self, hop: Hop) -> &[(HeaderName, String)] {
        if is_peer(self.peer, hop) { &self.of_invite } else { &[] }
    }
}

impl Session {
    /// The headers that identify us in a request, where the peer of a call of ours has challenged us.
    pub(super) fn authorize(&mut self, method: &str, uri: &str, hop: Hop) -> Vec<(HeaderName, String)> {
        let Some(account) = self.calling.as_deref_mut().and_then(|c| c.account.as_mut()) else {
            return Vec::new();
        };
        let (identity, made) = (&self.identity, &mut self.made);
        account.headers(method, uri, hop, || {
            *made += 1;
            hex(&derived(identity, label::CNONCE, *made))
        })
    }

    /// Takes the challenge of a request inside the dialog.
    pub(super) fn take_challenge(&mut self, response: &Response, asked: Hop, from: Hop) -> bool {
        matches!(response.status().0, 401 | 407)
            && self
                .calling
                .as_deref_mut()
                .and_then(|c| c.account.as_mut())
                .is_some_and(|account| account.take(response, asked, from, true))
    }
}

/// The best challenge of a 401 or 407, and whether a proxy asks.
fn read(response: &Response) -> Option<(Challenge, bool)> {
    let proxy = response.status().0 == 407;
    let name = if proxy { HeaderName::ProxyAuthenticate } else { HeaderName::WwwAuthenticate };
    let challenge = Challenge::best(response.headers(name).flat_map(digest::split_challenges))?;
    Some((challenge, proxy))
}

/// Whether a request to `hop` goes to the peer the call was placed with: over a stream the same address and port,
/// whose connection may have been made anew, over UDP the same address, whatever port its Contact names.
fn is_peer(peer: Hop, hop: Hop) -> bool {
    peer.transport == hop.transport
        && if peer.transport.is_reliable() {
            peer.remote == hop.remote
        } else {
            peer.remote.ip().to_canonical() == hop.remote.ip().to_canonical()
        }
}

/// Whether a response came from where its request went. With `rport` in our Via it must come from that very port
/// (RFC 3581 4).
fn came_back(asked: Hop, from: Hop) -> bool {
    is_peer(asked, from) && asked.remote.port() == from.remote.port()
}
