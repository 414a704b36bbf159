//! What of a stranger is read: the source of a datagram that no trunk lists is looked up before anything is parsed, and
//! its first line and three headers before anything is kept. Scanners and floods cost that, and a counter. Who is in a
//! call is spared the second look until something comes from there that is none of a call's.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::RandomState;
use model::{AgentId, E164};
use signaling::{Hop, Method, NameAddr, Peek, Uri};

use crate::counters::Counter;
use crate::directory::Directory;
use crate::edge::Edge;
use crate::settings::UnknownSources;

/// Refusals to strangers that the node sends in a second while `sip.refusals` limits them; further ones go unsent.
pub(crate) const REFUSALS_PER_SECOND: u32 = 1_000;
/// Decision records of strangers' INVITEs in a second; further ones go unwritten.
pub(crate) const RECORDS_PER_SECOND: u32 = 50;

/// Calls of strangers that are over and absorb what is repeated, at once; those beyond it absorb nothing. Of a caller
/// who acknowledges nothing half a minute is kept, so a flood of them would have no other end.
pub(crate) const LINGERING: u32 = 16_384;

/// Strangers in dialogs that are remembered.
const IN_DIALOG: usize = 1_024;
/// How long, in seconds.
const IN_DIALOG_FOR: u64 = 2;
/// Bits of a slot that say when, in seconds; the others say who.
const WHEN: u64 = 0xffff;

/// Addresses of strangers from which something inside a dialog came a moment ago. To look at what comes from there before
/// it is read would only take longer: most of it is a call's. The address may be forged, so nothing but the look is
/// spared, and one message that is none of a call's ends it. A slot is taken over by whoever hashes there.
pub(crate) struct InDialog {
    hasher: RandomState,
    begun: Instant,
    slots: Vec<AtomicU64>,
}

impl InDialog {
    pub(crate) fn new(now: Instant) -> Self {
        let slots = (0..IN_DIALOG).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), begun: now, slots }
    }

    /// Who it is, and when.
    fn slot(&self, source: IpAddr, now: Instant) -> (Option<&AtomicU64>, u64, u64) {
        let hash = self.hasher.hash_one(source);
        let slot = usize::try_from(hash >> 32).ok().and_then(|hash| self.slots.get(hash % IN_DIALOG));
        // Of 0 nobody was seen yet.
        let seconds = now.saturating_duration_since(self.begun).as_secs() + 1;
        (slot, hash & !WHEN, seconds & WHEN)
    }

    fn saw(&self, source: IpAddr, now: Instant) {
        let (slot, who, when) = self.slot(source, now);
        if let Some(slot) = slot {
            slot.store(who | when, Ordering::Relaxed);
        }
    }

    fn has(&self, source: IpAddr, now: Instant) -> bool {
        let (slot, who, when) = self.slot(source, now);
        let seen = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
        seen != 0 && seen & !WHEN == who && when.wrapping_sub(seen) & WHEN < IN_DIALOG_FOR
    }

    /// Something came from there that is none of a call's.
    pub(crate) fn forget(&self, source: IpAddr) {
        let (slot, who, _) = self.slot(source, self.begun);
        if let Some(slot) = slot.filter(|slot| slot.load(Ordering::Relaxed) & !WHEN == who) {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

/// What an INVITE's address says of it.
enum Addressed {
    /// Nobody of ours.
    Nobody,
    /// A trunk or organization that does not take this source: a refusal, and a record of it.
    Closed,
    /// Somebody who may take it.
    Open,
}

/// Whether a datagram is worth parsing; else what to count.
pub(crate) fn admit(edge: &Edge, datagram: &[u8], hop: Hop) -> Result<(), Counter> {
    let directory = edge.directory.load();
    if directory.lists(hop.remote.ip()) {
        return Ok(());
    }
    let now = Instant::now();
    if edge.in_dialog.has(hop.remote.ip(), now) {
        return Ok(());
    }
    let Some(peek) = Peek::of(datagram) else {
        return may_be_refused(edge, hop, now, Counter::DroppedParse);
    };
    if edge.calls.knows(&peek) {
        if peek.request.is_some() && peek.to().as_ref().and_then(NameAddr::tag).is_some() {
            edge.in_dialog.saw(hop.remote.ip(), now);
        }
        return Ok(());
    }
    let Some((method, uri)) = peek.request.filter(|(method, _)| *method != Method::Ack) else {
        // A folded header may hide the tag of a call of ours.
        return if peek.folded { Ok(()) } else { Err(Counter::DroppedStray) };
    };
    if method == Method::Invite {
        match addressed(&directory, &peek, uri, hop) {
            Addressed::Open => return Ok(()),
            Addressed::Closed
                if edge.stranger_records.has(now) && !edge.refusals.exhausted(hop.remote.ip(), now) =>
            {
                return Ok(());
            }
            _ => {}
        }
    }
    may_be_refused(edge, hop, now, Counter::DroppedUnknownSource)
}

fn may_be_refused(edge: &Edge, hop: Hop, now: Instant, silent: Counter) -> Result<(), Counter> {
    if edge.settings.unknown_sources == UnknownSources::Drop {
        Err(silent)
    } else if edge.refusals.exhausted(hop.remote.ip(), now) {
        Err(Counter::DroppedMuted)
    } else if edge.stranger_refusals.has(now) {
        Ok(())
    } else {
        Err(Counter::DroppedBusy)
    }
}

fn user(uri: Option<Uri<'_>>) -> Option<Cow<'_, str>> {
    uri.and_then(|uri| uri.user_unescaped())
}

/// Whom an INVITE is for, by the same look-ups that decide on it later.
fn addressed(directory: &Directory, peek: &Peek<'_>, uri: &str, hop: Hop) -> Addressed {
    let dialled = user(Uri::parse(uri)).unwrap_or_default();
    let open = |is_open| if is_open { Addressed::Open } else { Addressed::Closed };
    let source = hop.remote.ip();
    if let Ok(agent) = dialled.parse::<AgentId>() {
        let Some(agent) = directory.agent(agent).filter(|agent| agent.sip_deployed) else {
            return Addressed::Nobody;
        };
        let organization = directory.organization(agent.organization_id);
        let ranges = organization.and_then(|o| o.sip_endpoint_allowed_addresses.as_ref());
        return open(ranges.is_none_or(|ranges| ranges.iter().any(|r| r.contains(source))));
    }
    let on_file = |user: &str| E164::normalise(user).and_then(|number| directory.number(&number));
    let number = on_file(&dialled).or_else(|| on_file(&user(peek.to().map(|to| to.uri))?));
    let Some(trunk) = number.and_then(|number| directory.trunk(number.trunk_id)) else {
        return Addressed::Nobody;
    };
    open(trunk.admits(source))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_in_a_dialog_is_known_for_a_moment_whatever_the_uptime() {
        let begun = Instant::now();
        let known = InDialog::new(begun);
        let source = |last: u8| IpAddr::from([192, 0, 2, last]);
        for hours in [0, 18, 36, 24 * 200] {
            let now = begun + Duration::from_secs(hours * 3_600);
            assert!(!known.has(source(1), now) && !known.has(source(2), now));
            known.saw(source(1), now);
            assert!(known.has(source(1), now) && known.has(source(1), now + Duration::from_secs(1)));
            assert!(!known.has(source(2), now));
            assert!(!known.has(source(1), now + Duration::from_secs(IN_DIALOG_FOR)));
            known.forget(source(2));
            assert!(known.has(source(1), now));
            known.forget(source(1));
            assert!(!known.has(source(1), now));
        }
    }
}
