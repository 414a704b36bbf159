//! Three who hear each other: the caller, a guest on a leg of its own, and the agent, which has no clock and speaks and
//! hears on the caller's. Whoever speaks has a short queue of its own towards each of the two others, so that legs on
//! different threads wait for nothing; each ear adds up what it takes.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::link::{Link, Port};
use crate::playout::{Limits, Overrun, Playout};

/// Audio that may wait for another leg's clock: beyond it the oldest is dropped, so that nobody is heard late.
const LIMITS: Limits = Limits { queued_ms: 200, overrun: Overrun::DropOld, marks: 0 };

/// See the module's text.
struct Conference {
    agent: Arc<Link>,
    ways: Mutex<Ways>,
}

/// What was said and not heard yet, by who said it and who is to hear it; all at the agent's rate.
struct Ways {
    caller_to_guest: Playout,
    agent_to_guest: Playout,
    guest_to_caller: Playout,
    guest_to_agent: Playout,
    scratch: Vec<i16>,
}

/// The caller's place.
struct Caller(Arc<Conference>);

/// The guest's place.
struct Guest(Arc<Conference>);

/// Joins `agent` with two others: the places of the caller and of the guest.
#[must_use]
pub fn places(agent: Arc<Link>) -> (Arc<dyn Port>, Arc<dyn Port>) {
    let way = || Playout::new(agent.rate(), LIMITS);
    let ways = Ways {
        caller_to_guest: way(),
        agent_to_guest: way(),
        guest_to_caller: way(),
        guest_to_agent: way(),
        scratch: Vec::new(),
    };
    let conference = Arc::new(Conference { agent, ways: Mutex::new(ways) });
    (Arc::new(Caller(Arc::clone(&conference))), Arc::new(Guest(conference)))
}

/// Adds a voice to what is heard already.
fn add(mix: &mut [i16], voice: &[i16]) {
    for (mixed, sample) in mix.iter_mut().zip(voice) {
        *mixed = mixed.saturating_add(*sample);
    }
}

/// Adds what waits on a way to what is heard already.
fn add_waiting(mix: &mut [i16], way: &mut Playout, scratch: &mut Vec<i16>) {
    scratch.clear();
    scratch.resize(mix.len(), 0);
    way.take(scratch);
    add(mix, scratch);
}

impl Port for Caller {
    fn rate(&self) -> u32 {
        self.0.agent.rate()
    }

    fn take(&self, frame: &mut [i16]) {
        self.0.agent.take(frame);
        let ways = &mut *self.0.ways.lock();
        ways.agent_to_guest.push(frame);
        add_waiting(frame, &mut ways.guest_to_caller, &mut ways.scratch);
    }

    fn hear(&self, samples: &[i16]) {
        let mut heard = samples.to_vec();
        {
            let ways = &mut *self.0.ways.lock();
            ways.caller_to_guest.push(samples);
            add_waiting(&mut heard, &mut ways.guest_to_agent, &mut ways.scratch);
        }
        self.0.agent.hear(&heard);
    }
}

impl Port for Guest {
    fn rate(&self) -> u32 {
        self.0.agent.rate()
    }

    fn take(&self, frame: &mut [i16]) {
        let ways = &mut *self.0.ways.lock();
        ways.caller_to_guest.take(frame);
        add_waiting(frame, &mut ways.agent_to_guest, &mut ways.scratch);
    }

    fn hear(&self, samples: &[i16]) {
        let mut ways = self.0.ways.lock();
        ways.guest_to_caller.push(samples);
        ways.guest_to_agent.push(samples);
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.0.agent).finish()
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.0.agent).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 160;

    #[test]
    fn everybody_hears_the_two_others_and_not_himself() {
        let limits = Limits { queued_ms: 10_000, overrun: Overrun::RefuseNew, marks: 0 };
        let agent = Arc::new(Link::new(8_000, limits, || ()));
        let (caller, guest) = places(Arc::clone(&agent));
        agent.say(&[100; 50 * FRAME]);
        let (mut to_caller, mut to_guest, mut to_agent) = ([0; FRAME], [0; FRAME], Vec::new());
        for _ in 0..20 {
            caller.hear(&[1; FRAME]);
            guest.hear(&[10; FRAME]);
            caller.take(&mut to_caller);
            guest.take(&mut to_guest);
            to_agent.clear();
            assert!(agent.listen(&mut to_agent));
        }
        assert_eq!((to_caller, to_guest), ([110; FRAME], [101; FRAME]));
        assert_eq!(to_agent, [11; FRAME]);
    }

    #[test]
    fn loud_voices_do_not_wrap_and_a_leg_that_stands_still_keeps_little() {
        let limits = Limits { queued_ms: 10_000, overrun: Overrun::RefuseNew, marks: 0 };
        let agent = Arc::new(Link::new(16_000, limits, || ()));
        let (caller, guest) = places(Arc::clone(&agent));
        agent.say(&[i16::MAX; 5 * 320]);
        for _ in 0..500 {
            guest.hear(&[100; 320]);
        }
        let frames: Vec<[i16; 320]> = (0..12)
            .map(|_| {
                let mut frame = [0; 320];
                caller.take(&mut frame);
                frame
            })
            .collect();
        assert_eq!(frames[4], [i16::MAX; 320]);
        // 200 ms of the guest were kept, and no more.
        assert_eq!((frames[8], frames[11]), ([100; 320], [0; 320]));
    }
}
