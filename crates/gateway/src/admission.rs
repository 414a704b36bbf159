//! What limits strangers: how many refusals a source gets, and how many calls the node carries.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;

use crate::settings::RateLimit;

/// Sources remembered at once. A slot is taken over by whoever hashes there: memory never grows, and a forged
/// source can at most be forgotten or share a stranger's count.
const SLOTS: usize = 8_192;
/// How long a source that was refused too often gets no answer.
const MUTE: Duration = Duration::from_secs(60);

/// Counts refusals to sources that no trunk lists.
pub(crate) struct Refusals {
    limit: Option<RateLimit>,
    hasher: RandomState,
    slots: Vec<Mutex<Slot>>,
}

#[derive(Clone, Copy)]
struct Slot {
    source: u64,
    window_start: Instant,
    count: u32,
    muted_until: Option<Instant>,
}

impl Refusals {
    pub(crate) fn new(limit: Option<RateLimit>, now: Instant) -> Self {
        let empty = Slot { source: 0, window_start: now, count: 0, muted_until: None };
        let slots = if limit.is_some() { SLOTS } else { 0 };
        Self { limit, hasher: RandomState::new(), slots: (0..slots).map(|_| Mutex::new(empty)).collect() }
    }

    /// Counts one refusal to `source`; `false` when it is to go unanswered. An IPv6 source counts by its /64.
    pub(crate) fn may_refuse(&self, source: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        let hash = match source.to_canonical() {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            IpAddr::V6(v6) => self.hasher.hash_one(&v6.octets()[..8]),
        };
        let Some(slot) = usize::try_from(hash).ok().and_then(|h| self.slots.get(h % SLOTS)) else {
            return true;
        };
        let mut slot = slot.lock();
        if slot.source != hash {
            *slot = Slot { source: hash, window_start: now, count: 0, muted_until: None };
        }
        if let Some(until) = slot.muted_until {
            if now < until {
                return false;
            }
            slot.muted_until = None;
            slot.count = 0;
            slot.window_start = now;
        }
        if now.duration_since(slot.window_start) >= limit.window {
            slot.window_start = now;
            slot.count = 0;
        }
        slot.count += 1;
        if slot.count > limit.count {
            slot.muted_until = Some(now + MUTE);
            return false;
        }
        true
    }
}

/// Counts live calls.
pub(crate) struct CallLimit {
    max: u32,
    live: AtomicU32,
}

/// A call's place; given back when the call ends.
pub(crate) struct CallPermit(Arc<CallLimit>);

impl CallLimit {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, live: AtomicU32::new(0) })
    }

    /// A place for one more call; `None` at the limit.
    pub(crate) fn take(self: &Arc<Self>) -> Option<CallPermit> {
        let taken = self
            .live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| (live < self.max).then_some(live + 1));
        taken.is_ok().then(|| CallPermit(Arc::clone(self)))
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_muted_after_its_refusals_and_heard_again_later() {
        let start = Instant::now();
        let refusals = Refusals::new(Some(RateLimit { count: 3, window: Duration::from_secs(10) }), start);
        for _ in 0..3 {
            assert!(refusals.may_refuse(ip("203.0.113.66"), start));
        }
        assert!(!refusals.may_refuse(ip("203.0.113.66"), start));
        assert!(!refusals.may_refuse(ip("::ffff:203.0.113.66"), start + Duration::from_secs(59)));
        assert!(refusals.may_refuse(ip("203.0.113.66"), start + Duration::from_secs(61)));
    }

    #[test]
    fn slow_refusals_are_never_muted_and_no_limit_means_none() {
        let start = Instant::now();
        let refusals = Refusals::new(Some(RateLimit { count: 3, window: Duration::from_secs(10) }), start);
        assert!(
            (0..100).all(|n| refusals.may_refuse(ip("203.0.113.66"), start + Duration::from_secs(4) * n))
        );
        let off = Refusals::new(None, start);
        assert!((0..1_000).all(|_| off.may_refuse(ip("203.0.113.66"), start)));
    }

    #[test]
    fn a_place_comes_back_when_the_call_ends() {
        let limit = CallLimit::new(1);
        let call = limit.take();
        assert!(call.is_some() && limit.take().is_none());
        drop(call);
        assert!(limit.take().is_some());
        assert_eq!(limit.live(), 0);
    }
}
