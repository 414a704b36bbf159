//! Digest on INVITEs from carriers, where a trunk asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{InboundAuth, Trunk};
use parking_lot::Mutex;
use signaling::digest::{Authenticator, Credentials, NonceCounts, Scope, Staleness, Verdict};
use signaling::{Hop, Request};

use crate::admission::{MUTE, SourceLimit};
use crate::counters::{Counter, Counters};
use crate::edge::random;
use crate::settings::RateLimit;

/// Wrong credentials a source may send; then nothing of it is judged, or answered, for a while.
const GUESSES: RateLimit = RateLimit { count: 10, window: Duration::from_secs(60) };

/// What an INVITE's credentials are worth, as routing sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authenticated {
    /// The trunk's own.
    Yes,
    /// A simulated call carries none.
    Assumed,
    /// None were sent.
    Absent,
    /// The nonce is not taken any more.
    Stale(Staleness),
    /// Wrong, with what is wrong.
    Wrong(&'static str),
    /// The source has been wrong too often.
    Muted,
}

/// Challenges and judges.
pub(crate) struct InboundDigest {
    authenticator: Authenticator,
    counts: Mutex<NonceCounts>,
    guesses: SourceLimit,
    /// Numbers the challenges.
    challenges: AtomicU64,
}

impl InboundDigest {
    pub(crate) fn new(realm: &str, now: Instant) -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&random());
        key[16..].copy_from_slice(&random());
        Self {
            authenticator: Authenticator::new(key, realm, now),
            counts: Mutex::default(),
            guesses: SourceLimit::new(Some(GUESSES), MUTE, now),
            challenges: AtomicU64::new(0),
        }
    }

    /// Judges an INVITE's credentials for a trunk.
    pub(crate) fn judge(
        &self,
        invite: &Request,
        hop: Hop,
        trunk: &Trunk,
        auth: &InboundAuth,
        counters: &Counters,
        now: Instant,
    ) -> Authenticated {
        let source = hop.remote.ip();
        if self.guesses.exhausted(source, now) {
            counters.count(Counter::DigestMuted);
            return Authenticated::Muted;
        }
        let account = Credentials::new(auth.username.clone(), auth.password.expose().to_owned());
        let verdict =
            self.authenticator.check(invite, scope(hop, trunk), &account, &mut self.counts.lock(), now);
        match verdict {
            Verdict::Accepted => Authenticated::Yes,
            Verdict::Absent => {
                counters.count(Counter::DigestChallenged);
                Authenticated::Absent
            }
            Verdict::Stale(staleness) => {
                counters.count(Counter::DigestStale);
                Authenticated::Stale(staleness)
            }
            Verdict::Wrong(what) => {
                counters.count(Counter::DigestWrong);
                self.guesses.take(source, now);
                Authenticated::Wrong(what)
            }
        }
    }

    /// The WWW-Authenticate values for the next try.
    pub(crate) fn challenge(&self, hop: Hop, trunk: &Trunk, stale: bool, now: Instant) -> [String; 2] {
        let number = self.challenges.fetch_add(1, Ordering::Relaxed);
        self.authenticator.challenge(scope(hop, trunk), stale, number, now)
    }
}

fn scope<'a>(hop: Hop, trunk: &'a Trunk) -> Scope<'a> {
    Scope { source: hop.remote.ip(), account: trunk.id.0.as_bytes() }
}
