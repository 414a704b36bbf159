//! The timers of RFC 3261 table 4 and RFC 6026, by name.

use std::time::{Duration, Instant};

/// Round-trip estimate (RFC 3261 17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval between retransmissions of a non-INVITE request or a final response (RFC 3261 17.1.2.2).
pub const T2: Duration = Duration::from_secs(4);
/// Longest time a message stays in the network (RFC 3261 17.1.2.2).
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: the patience that most timers share.
pub const T1_64: Duration = Duration::from_secs(32);

/// First interval of timer A, the retransmission of an INVITE; it doubles without a cap (RFC 3261 17.1.1.2).
pub const TIMER_A: Duration = T1;
/// Timer B: no response to an INVITE at all (RFC 3261 17.1.1.2).
pub const TIMER_B: Duration = T1_64;
/// Timer D over an unreliable transport: how long repetitions of a non-2xx final response are acknowledged.
pub const TIMER_D: Duration = Duration::from_secs(32);
/// First interval of timer E, the retransmission of a non-INVITE request; it doubles up to T2 (RFC 3261 17.1.2.2).
pub const TIMER_E: Duration = T1;
/// Timer F: no final response to a non-INVITE request (RFC 3261 17.1.2.2).
pub const TIMER_F: Duration = T1_64;
/// First interval of timer G, the retransmission of a non-2xx final response; it doubles up to T2 (RFC 3261 17.2.1).
pub const TIMER_G: Duration = T1;
/// Timer H: no ACK of a non-2xx final response (RFC 3261 17.2.1).
pub const TIMER_H: Duration = T1_64;
/// Timer I over an unreliable transport: how long repeated ACKs are absorbed (RFC 3261 17.2.1).
pub const TIMER_I: Duration = T4;
/// Timer J over an unreliable transport: how long a repeated non-INVITE request is answered (RFC 3261 17.2.2).
pub const TIMER_J: Duration = T1_64;
/// Timer K over an unreliable transport: how long repeated final responses are absorbed (RFC 3261 17.1.2.2).
pub const TIMER_K: Duration = T4;
/// Timer L: how long repetitions of an accepted INVITE are absorbed (RFC 6026 8.7).
pub const TIMER_L: Duration = T1_64;
/// Timer M: how long further 2xx responses are taken (RFC 6026 8.4).
pub const TIMER_M: Duration = T1_64;
/// After this a UAS says 100 Trying unless it has said something better (RFC 3261 17.2.1).
pub const TRYING: Duration = Duration::from_millis(200);

/// A retransmission that doubles its interval up to a cap: timers A, E and G, and the 2xx of RFC 3261 13.3.1.4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retransmission {
    at: Instant,
    interval: Duration,
    cap: Duration,
}

impl Retransmission {
    pub(crate) fn start(first: Duration, cap: Duration, now: Instant) -> Self {
        Self { at: now + first, interval: first, cap }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
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

    /// Goes on at the longest interval (timer E in Proceeding, RFC 3261 17.1.2.2).
    pub(crate) fn slow_down(&mut self) {
        self.interval = self.cap;
    }
}

/// The earliest of several timers.
pub(crate) fn earliest(timers: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    timers.into_iter().flatten().min()
}

pub(crate) fn due(timer: Option<Instant>, now: Instant) -> bool {
    timer.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_their_cap() {
        let begin = Instant::now();
        let mut timer = Retransmission::start(TIMER_E, T2, begin);
        let mut seconds = Vec::new();
        for _ in 0..6 {
            let at = timer.at();
            assert!(!timer.fire(at - Duration::from_millis(1)));
            assert!(timer.fire(at));
            seconds.push((at - begin).as_millis());
        }
        assert_eq!(seconds, [500, 1_500, 3_500, 7_500, 11_500, 15_500]);
    }
}
