//! How many requests of the peer one call works on: a storm inside a dialog hurts nobody else.

use std::time::{Duration, Instant};

/// Requests a second, and as many at once; beyond them 500 with Retry-After.
const PER_SECOND: u32 = 10;

/// A token bucket, full at first.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// When the bucket would be full.
    full_at: Option<Instant>,
}

impl Storm {
    /// Whether one more request is worked on.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / PER_SECOND;
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + each;
        let admitted = full_at <= now + each * PER_SECOND;
        if admitted {
            self.full_at = Some(full_at);
        }
        admitted
    }
}
