//! The four transaction machines (RFC 3261 17, RFC 6026). Each is fed messages of its own branch and told the time;
//! it puts what is to be sent into the outbox of its session.

mod client;
mod invite_client;
mod invite_server;
mod server;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::hop::Transmit;

pub(crate) use client::{Client, ClientOutcome};
pub(crate) use invite_client::{InviteClient, InviteOutcome};
pub(crate) use invite_server::InviteServer;
pub(crate) use server::Server;

/// Round-trip estimate (RFC 3261 17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval between retransmissions.
pub const T2: Duration = Duration::from_secs(4);
/// Longest time a message stays in the network.
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L and M.
pub const T1_64: Duration = Duration::from_secs(32);
/// Timer D over an unreliable transport.
pub const TIMER_D: Duration = Duration::from_secs(32);
/// After this a UAS says 100 Trying unless it has said something better (RFC 3261 17.2.1).
pub const TRYING: Duration = Duration::from_millis(200);

pub(crate) type Outbox = VecDeque<Transmit>;

/// A retransmission that doubles its interval up to a cap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retransmission {
    pub(crate) at: Instant,
    interval: Duration,
    cap: Duration,
}

impl Retransmission {
    pub(crate) fn start(now: Instant, cap: Duration) -> Self {
        Self { at: now + T1, interval: T1, cap }
    }

    /// Whether it is due; then the next one is set.
    pub(crate) fn fire(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.interval = (self.interval * 2).min(self.cap);
        self.at = now + self.interval;
        true
    }
}

/// The earliest of several timers.
pub(crate) fn earliest(timers: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    timers.into_iter().flatten().min()
}

pub(crate) fn due(timer: Option<Instant>, now: Instant) -> bool {
    timer.is_some_and(|at| at <= now)
}
