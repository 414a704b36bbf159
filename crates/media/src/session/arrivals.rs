//! Which packets of a stream came, by their sequence numbers: what is still missing may come yet, and what came twice
//! came once.

/// The last sequence numbers that are still looked for; what is behind them is lost.
const WINDOW: u32 = u64::BITS;

/// See the module's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrivals {
    /// Bit n: the n-th number before the highest one is there. Nothing is missing before the first.
    there: u64,
    /// Of those behind the window.
    lost: u64,
    bursts: u64,
    /// The last one behind the window is lost.
    in_burst: bool,
}

impl Default for Arrivals {
    /// The first packet is there.
    fn default() -> Self {
        Self { there: u64::MAX, lost: 0, bursts: 0, in_burst: false }
    }
}

impl Arrivals {
    /// A packet came, so many numbers after the highest one.
    pub(super) fn ahead(&mut self, steps: u16) {
        let steps = u32::from(steps);
        let leave = steps.min(WINDOW);
        // The usual case: one leaves, and it is there.
        if leave == 1 && self.there >> (WINDOW - 1) == 1 {
            self.in_burst = false;
        } else {
            let (lost, bursts, in_burst) = self.count(WINDOW - leave);
            self.lost += lost;
            self.bursts += bursts;
            self.in_burst = in_burst;
        }
        // A longer step than the window leaves numbers behind that never were in it.
        let beyond = steps - leave;
        if beyond > 0 {
            self.lost += u64::from(beyond);
            self.bursts += u64::from(!self.in_burst);
            self.in_burst = true;
        }
        self.there = self.there.checked_shl(steps).unwrap_or(0) | 1;
    }

    /// A packet came, so many numbers before the highest one.
    pub(super) fn behind(&mut self, steps: u16) {
        if u32::from(steps) < WINDOW {
            self.there |= 1 << steps;
        }
    }

    /// Lost packets, and the bursts they were lost in, as far as is known.
    pub(super) fn lost(&self) -> (u64, u64) {
        let (lost, bursts, _) = self.count(0);
        (self.lost + lost, self.bursts + bursts)
    }

    /// Of the numbers from the oldest one down to bit `last`: how many are missing, in how many bursts that began
    /// there, and whether the last is.
    fn count(&self, last: u32) -> (u64, u64, bool) {
        let (mut lost, mut bursts, mut in_burst) = (0, 0, self.in_burst);
        for bit in (last..WINDOW).rev() {
            let missing = self.there >> bit & 1 == 0;
            lost += u64::from(missing);
            bursts += u64::from(missing && !in_burst);
            in_burst = missing;
        }
        (lost, bursts, in_burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a list of what came, whatever the order, the gaps and the repeats.
    #[test]
    fn losses_and_bursts_are_those_of_a_list() {
        let mut dice = 7_u32;
        let mut roll = |sides: u32| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 16) % sides
        };
        for _ in 0..50 {
            let (mut came, mut arrivals, mut highest) = (vec![true], Arrivals::default(), 0_usize);
            for _ in 0..400 {
                match roll(10) {
                    0 => {
                        let back = (roll(60) as usize).min(highest);
                        came[highest - back] = true;
                        arrivals.behind(back as u16);
                    }
                    kind => {
                        let steps = if kind == 1 { 1 + roll(200) as usize } else { 1 + roll(3) as usize };
                        highest += steps;
                        came.resize(highest + 1, false);
                        came[highest] = true;
                        arrivals.ahead(steps as u16);
                    }
                }
                let lost = came.iter().filter(|came| !**came).count() as u64;
                let bursts = came.windows(2).filter(|pair| pair[0] && !pair[1]).count() as u64;
                assert_eq!(arrivals.lost(), (lost, bursts));
            }
        }
    }
}
