//! Changes of a stream's source identifier (RFC 3550 8.2): a peer may begin anew, but not at any rate, and what bears
//! our own identifier is our own packet come back.

use std::time::{Duration, Instant};

/// Changes taken in a [`WINDOW`].
const CHANGES: u8 = 3;
/// The time they count for.
const WINDOW: Duration = Duration::from_secs(1);

/// Which streams of the locked source are taken. Remembers one of them, whatever comes.
#[derive(Debug, Default)]
pub(super) struct SsrcGate {
    current: Option<u32>,
    window: Option<Instant>,
    changes: u8,
}

impl SsrcGate {
    /// Whether a packet's stream is taken.
    pub(super) fn admits(&mut self, ssrc: u32, own: u32, now: Instant) -> bool {
        if ssrc == own {
            return false;
        }
        if self.current == Some(ssrc) {
            return true;
        }
        if self.current.is_some() {
            if self.window.is_none_or(|begun| now.duration_since(begun) >= WINDOW) {
                (self.window, self.changes) = (Some(now), 0);
            }
            if self.changes >= CHANGES {
                return false;
            }
            self.changes += 1;
        }
        self.current = Some(ssrc);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_begin_anew_three_times_a_second_and_never_with_our_own() {
        let (start, own) = (Instant::now(), 7);
        let mut gate = SsrcGate::default();
        let taken = |gate: &mut SsrcGate, from: u32, at| {
            (from..from + 1_000).filter(|s| gate.admits(*s, own, at)).count()
        };
        assert!(!gate.admits(own, own, start));
        assert_eq!(taken(&mut gate, 1_000, start), 4);
        assert!(gate.admits(1_003, own, start));
        assert_eq!(taken(&mut gate, 5_000, start + Duration::from_millis(999)), 0);
        assert_eq!(taken(&mut gate, 9_000, start + Duration::from_secs(1)), 3);
    }
}
