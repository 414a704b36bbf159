//! Two legs joined: what one side says the other hears. Each leg's session speaks and hears by a link of its own, on
//! whatever media shard and with whatever codec; a frame is handed on by the thread that heard it.

use std::sync::{Arc, OnceLock, Weak};

use media::link::Link;
use media::playout::{Limits, Overrun};
use parking_lot::Mutex;

/// The links' sample rate, in hertz.
const RATE: u32 = 8_000;
/// Audio that may wait for the other leg's clock: beyond it the oldest is dropped, so that a bridge is never late.
const LIMITS: Limits = Limits { queued_ms: 200, overrun: Overrun::DropOld, marks: 0 };

/// What carries one link's frames to the other.
#[derive(Default)]
struct Carrier {
    from: OnceLock<Weak<Link>>,
    to: OnceLock<Weak<Link>>,
    frame: Mutex<Vec<i16>>,
}

impl Carrier {
    fn carry(&self) {
        let end = |link: &OnceLock<Weak<Link>>| link.get().and_then(Weak::upgrade);
        let (Some(from), Some(to)) = (end(&self.from), end(&self.to)) else { return };
        let mut frame = self.frame.lock();
        frame.clear();
        while from.listen(&mut frame) {
            to.say(&frame);
            frame.clear();
        }
    }
}

/// Two links connected crosswise.
pub(crate) fn pair() -> [Arc<Link>; 2] {
    let carriers = [Arc::<Carrier>::default(), Arc::<Carrier>::default()];
    let links = [&carriers[0], &carriers[1]].map(|carrier| {
        let carrier = Arc::clone(carrier);
        Arc::new(Link::new(RATE, LIMITS, move || carrier.carry()))
    });
    let [a, b] = &links;
    for (carrier, from, to) in [(&carriers[0], a, b), (&carriers[1], b, a)] {
        // Set here and nowhere else.
        let _ = carrier.from.set(Arc::downgrade(from));
        let _ = carrier.to.set(Arc::downgrade(to));
    }
    links
}

#[cfg(test)]
mod tests {
    use media::link::Port as _;

    use super::*;

    #[test]
    fn what_one_hears_the_other_says() {
        let [a, b] = pair();
        a.hear(&[1; 160]);
        a.hear(&[2; 160]);
        b.hear(&[3; 320]);
        let mut frame = [0; 160];
        let mut said = |link: &Link| {
            let mut all = Vec::new();
            for _ in 0..3 {
                link.take(&mut frame);
                all.extend_from_slice(&frame);
            }
            all
        };
        let from_a = said(&b);
        assert!(from_a.contains(&1) && from_a.contains(&2) && !from_a.contains(&3));
        assert!(said(&a).contains(&3));
    }

    #[test]
    fn a_bridge_that_nobody_plays_out_keeps_little() {
        let [a, b] = pair();
        for _ in 0..500 {
            a.hear(&[1; 160]);
        }
        assert!(b.progress().queued <= 1_600);
    }
}
