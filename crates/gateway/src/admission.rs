//! What limits strangers: how many refusals a source gets, and how many calls the node carries.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use model::{Trunk, TrunkId};
use parking_lot::Mutex;

use crate::settings::RateLimit;

/// Sources remembered at once. A slot is taken over by whoever hashes there: memory never grows, and a forged
/// source can at most be forgotten or share a stranger's count.
const SLOTS: usize = 8_192;
/// How long a source that was refused too often gets no answer.
pub(crate) const MUTE: Duration = Duration::from_secs(60);

/// Counts what sources get: refusals to those that no trunk lists, guesses at passwords, TLS handshakes.
pub(crate) struct SourceLimit {
    limit: Option<RateLimit>,
    /// How long a source gets nothing more once it is over the limit.
    mute: Duration,
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

impl SourceLimit {
    pub(crate) fn new(limit: Option<RateLimit>, mute: Duration, now: Instant) -> Self {
        let empty = Slot { source: 0, window_start: now, count: 0, muted_until: None };
        let slots = if limit.is_some() { SLOTS } else { 0 };
        Self {
            limit,
            mute,
            hasher: RandomState::new(),
            slots: (0..slots).map(|_| Mutex::new(empty)).collect(),
        }
    }

    /// A source's hash and slot. An IPv6 source counts by its /64.
    fn slot(&self, source: IpAddr) -> Option<(u64, &Mutex<Slot>)> {
        let hash = match source.to_canonical() {
            IpAddr::V4(v4) => self.hasher.hash_one(v4),
            IpAddr::V6(v6) => self.hasher.hash_one(&v6.octets()[..8]),
        };
        usize::try_from(hash).ok().and_then(|h| self.slots.get(h % SLOTS)).map(|slot| (hash, slot))
    }

    /// Whether `source` has had all it gets: from the first that finds it so, nothing more is answered for a
    /// while. Counts nothing.
    pub(crate) fn exhausted(&self, source: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.limit else { return false };
        let Some((hash, slot)) = self.slot(source) else { return false };
        let mut slot = slot.lock();
        if slot.source != hash {
            return false;
        }
        match slot.muted_until {
            Some(until) => now < until,
            None => {
                let spent = slot.count >= limit.count && now.duration_since(slot.window_start) < limit.window;
                if spent {
                    slot.muted_until = Some(now + self.mute);
                }
                spent
            }
        }
    }

    /// Counts one for `source`; `false` when it gets none.
    pub(crate) fn take(&self, source: IpAddr, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        let Some((hash, slot)) = self.slot(source) else { return true };
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
            slot.muted_until = Some(now + self.mute);
            return false;
        }
        true
    }
}

/// So many a second, in bursts of as many, whoever asks.
pub(crate) struct Budget {
    per_second: u32,
    left: Mutex<(Instant, u32)>,
}

impl Budget {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: Mutex::new((now, per_second)) }
    }

    /// Takes one; `false` when none is left.
    pub(crate) fn take(&self, now: Instant) -> bool {
        self.filled(now, |left| left.checked_sub(1))
    }

    /// Whether one is left.
    pub(crate) fn has(&self, now: Instant) -> bool {
        self.filled(now, |left| (left > 0).then_some(left))
    }

    fn filled(&self, now: Instant, spend: impl Fn(u32) -> Option<u32>) -> bool {
        let mut left = self.left.lock();
        let (filled, count) = *left;
        let since = now.saturating_duration_since(filled).min(Duration::from_secs(1));
        // At most per_second, since the time is at most a second.
        let new = u32::try_from(since.as_micros() * u128::from(self.per_second) / 1_000_000).unwrap_or(0);
        let count = if new > 0 { count.saturating_add(new).min(self.per_second) } else { count };
        let filled = if new > 0 { now } else { filled };
        let spent = spend(count);
        *left = (filled, spent.unwrap_or(count));
        spent.is_some()
    }
}

/// What a denoised call takes of a node: a frame of 20 ms costs about 130 µs in either mode, on top of the 30 µs that a
/// plain call's takes.
pub(crate) const DENOISED_CALL: u32 = 5;

/// Counts live calls, and what they take: a plain call 1, a denoised one [`DENOISED_CALL`].
pub(crate) struct CallLimit {
    max: u32,
    live: AtomicU32,
    taken: AtomicU32,
}

/// A call's place on the node, and on its trunk; given back when the call ends.
pub(crate) struct CallPermit {
    node: Arc<CallLimit>,
    weight: u32,
    trunk: Option<TrunkPermit>,
}

impl CallPermit {
    /// The same place with one on a trunk.
    pub(crate) fn on_trunk(mut self, trunk: Option<TrunkPermit>) -> Self {
        self.trunk = trunk;
        self
    }
}

impl CallLimit {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, live: AtomicU32::new(0), taken: AtomicU32::new(0) })
    }

    /// A place for one more call that takes so much; `None` at the limit.
    pub(crate) fn take(self: &Arc<Self>, weight: u32) -> Option<CallPermit> {
        let taken =
            self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| self.with(taken, weight));
        taken.ok()?;
        self.live.fetch_add(1, Ordering::AcqRel);
        Some(CallPermit { node: Arc::clone(self), weight, trunk: None })
    }

    /// Whether [`CallLimit::take`] would give one.
    pub(crate) fn would_take(&self, weight: u32) -> bool {
        self.with(self.taken.load(Ordering::Acquire), weight).is_some()
    }

    /// What is taken with one more call; an idle node carries any one call.
    fn with(&self, taken: u32, weight: u32) -> Option<u32> {
        let sum = taken.checked_add(weight)?;
        (sum <= self.max || (taken == 0 && self.max > 0)).then_some(sum)
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.node.live.fetch_sub(1, Ordering::AcqRel);
        self.node.taken.fetch_sub(self.weight, Ordering::AcqRel);
    }
}

/// Which limit of a trunk stands against a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrunkLimit {
    /// `max_concurrent_calls`.
    Concurrent(u32),
    /// `max_calls_per_second`.
    PerSecond(u32),
}

/// Counts each trunk's calls. Every call is counted, so that a limit that is set while calls are live is exact.
#[derive(Default)]
pub(crate) struct TrunkLimits(Mutex<AHashMap<TrunkId, Gauge>>);

#[derive(Default)]
struct Gauge {
    live: u32,
    /// When the calls of the last second began, where a rate is limited.
    begun: VecDeque<Instant>,
}

impl Gauge {
    fn room(&mut self, trunk: &Trunk, now: Instant) -> Result<(), TrunkLimit> {
        if let Some(most) = trunk.max_concurrent_calls
            && self.live >= most
        {
            return Err(TrunkLimit::Concurrent(most));
        }
        if let Some(most) = trunk.max_calls_per_second {
            while self.begun.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
                self.begun.pop_front();
            }
            if self.begun.len() >= most as usize {
                return Err(TrunkLimit::PerSecond(most));
            }
        }
        Ok(())
    }
}

/// A call's place on its trunk.
pub(crate) struct TrunkPermit {
    limits: Arc<TrunkLimits>,
    id: TrunkId,
}

impl TrunkLimits {
    /// A place for one more call of the trunk.
    pub(crate) fn take(self: &Arc<Self>, trunk: &Trunk, now: Instant) -> Result<TrunkPermit, TrunkLimit> {
        let mut gauges = self.0.lock();
        let gauge = gauges.entry(trunk.id).or_default();
        gauge.room(trunk, now)?;
        gauge.live += 1;
        if trunk.max_calls_per_second.is_some() {
            gauge.begun.push_back(now);
        }
        Ok(TrunkPermit { limits: Arc::clone(self), id: trunk.id })
    }

    /// Whether a call of the trunk would get a place.
    pub(crate) fn would_take(&self, trunk: &Trunk, now: Instant) -> Result<(), TrunkLimit> {
        self.0.lock().get_mut(&trunk.id).map_or(Ok(()), |gauge| gauge.room(trunk, now))
    }
}

impl Drop for TrunkPermit {
    fn drop(&mut self) {
        let mut gauges = self.limits.0.lock();
        if let Some(gauge) = gauges.get_mut(&self.id) {
            gauge.live = gauge.live.saturating_sub(1);
            if gauge.live == 0 && gauge.begun.is_empty() {
                gauges.remove(&self.id);
            }
        }
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
        let refusals =
            SourceLimit::new(Some(RateLimit { count: 3, window: Duration::from_secs(10) }), MUTE, start);
        for _ in 0..3 {
            assert!(refusals.take(ip("203.0.113.66"), start));
        }
        assert!(!refusals.take(ip("203.0.113.66"), start));
        assert!(!refusals.take(ip("::ffff:203.0.113.66"), start + Duration::from_secs(59)));
        assert!(refusals.take(ip("203.0.113.66"), start + Duration::from_secs(61)));
    }

    #[test]
    fn slow_refusals_are_never_muted_and_no_limit_means_none() {
        let start = Instant::now();
        let refusals =
            SourceLimit::new(Some(RateLimit { count: 3, window: Duration::from_secs(10) }), MUTE, start);
        assert!((0..100).all(|n| refusals.take(ip("203.0.113.66"), start + Duration::from_secs(4) * n)));
        let off = SourceLimit::new(None, MUTE, start);
        assert!((0..1_000).all(|_| off.take(ip("203.0.113.66"), start)));
    }

    #[test]
    fn ten_wrong_guesses_are_answered_and_nothing_after_them() {
        let start = Instant::now();
        let limit = RateLimit { count: 10, window: Duration::from_secs(60) };
        let guesses = SourceLimit::new(Some(limit), MUTE, start);
        for _ in 0..10 {
            assert!(!guesses.exhausted(ip("203.0.113.66"), start));
            assert!(guesses.take(ip("203.0.113.66"), start));
        }
        let later = start + Duration::from_secs(50);
        assert!(guesses.exhausted(ip("203.0.113.66"), later));
        assert!(guesses.exhausted(ip("203.0.113.66"), later + Duration::from_secs(59)));
        assert!(!guesses.exhausted(ip("203.0.113.66"), later + Duration::from_secs(60)));
        assert!(!guesses.exhausted(ip("203.0.113.67"), start));
    }

    #[test]
    fn a_budget_fills_with_time_and_no_further_than_its_size() {
        let start = Instant::now();
        let budget = Budget::new(100, start);
        let taken = |at: Duration| (0..1_000).filter(|_| budget.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO), 100);
        assert!(!budget.has(start + Duration::from_millis(5)));
        assert_eq!(taken(Duration::from_millis(100)), 10);
        assert_eq!(taken(Duration::from_secs(3_600)), 100);
    }

    fn trunk(concurrent: Option<u32>, per_second: Option<u32>) -> Trunk {
        Trunk {
            id: TrunkId::new(),
            organization_id: model::OrganizationId::new(),
            name: "t".to_owned(),
            managed_account_id: None,
            inbound_config: None,
            outbound_config: None,
            max_concurrent_calls: concurrent,
            max_calls_per_second: per_second,
            created_at: model::Timestamp(0),
            updated_at: model::Timestamp(0),
        }
    }

    #[test]
    fn a_trunks_limits_are_exact() {
        let (limits, now) = (Arc::new(TrunkLimits::default()), Instant::now());
        let narrow = trunk(Some(2), None);
        let first = limits.take(&narrow, now).ok();
        let second = limits.take(&narrow, now).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(limits.take(&narrow, now).err(), Some(TrunkLimit::Concurrent(2)));
        assert_eq!(limits.would_take(&narrow, now), Err(TrunkLimit::Concurrent(2)));
        drop(first);
        assert!(limits.take(&narrow, now).is_ok());

        let slow = trunk(None, Some(3));
        let later = |ms| now + Duration::from_millis(ms);
        for ms in [0, 400, 800] {
            assert!(limits.take(&slow, later(ms)).is_ok());
        }
        assert_eq!(limits.take(&slow, later(999)).err(), Some(TrunkLimit::PerSecond(3)));
        assert!(limits.take(&slow, later(1_000)).is_ok());
        assert_eq!(limits.take(&slow, later(1_399)).err(), Some(TrunkLimit::PerSecond(3)));
        // Calls that began before the limit was set count, too.
        let mut wide = trunk(None, None);
        let _live = limits.take(&wide, now).ok();
        wide.max_concurrent_calls = Some(1);
        assert_eq!(limits.take(&wide, now).err(), Some(TrunkLimit::Concurrent(1)));
    }

    #[test]
    fn a_place_comes_back_when_the_call_ends() {
        let limit = CallLimit::new(1);
        let call = limit.take(1);
        assert!(call.is_some() && limit.take(1).is_none());
        drop(call);
        assert!(limit.take(1).is_some());
        assert_eq!(limit.live(), 0);
        assert!(CallLimit::new(0).take(1).is_none());
    }

    #[test]
    fn a_denoised_call_takes_the_place_of_several() {
        let limit = CallLimit::new(2 * DENOISED_CALL);
        let first = limit.take(DENOISED_CALL);
        let plain: Vec<_> = (0..DENOISED_CALL).map(|_| limit.take(1)).collect();
        assert!(first.is_some() && plain.iter().all(Option::is_some));
        assert_eq!(limit.live(), 1 + DENOISED_CALL);
        assert!(limit.take(1).is_none() && !limit.would_take(1));
        drop(plain);
        assert!(limit.would_take(DENOISED_CALL) && limit.take(DENOISED_CALL).is_some());
        // A node too small for one still carries it when it carries nothing else.
        let small = CallLimit::new(1);
        let only = small.take(DENOISED_CALL);
        assert!(only.is_some() && small.take(1).is_none());
    }
}
