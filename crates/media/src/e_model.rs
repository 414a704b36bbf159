//! The E-model (ITU-T G.107) with its default parameters, narrow-band: from codec, loss and delay to a mean opinion
//! score.

use crate::codec::Codec;

/// Rating of a connection with all parameters at their defaults: no loss and no delay.
const DEFAULT_RATING: f64 = 93.2;
/// Basic signal-to-noise ratio Ro, and the talker echo's Roe = −1.5·(No − RLR), with the defaults.
const RO: f64 = 94.77;
/// Talker echo loudness rating TELR, and weighted echo path loss WEPL, in decibels.
const TELR: f64 = 65.0;
const WEPL: f64 = 110.0;
/// What the model allows of the burst ratio (G.107 Table 2): below 1 losses are more regular than chance, which it does
/// not rate better.
const BURST_RATIO: std::ops::RangeInclusive<f64> = 1.0..=8.0;

/// Loss as somebody hears it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Lost packets, in percent.
    pub percent: f64,
    /// BurstR: the mean length of a burst of losses against that of as many losses by chance.
    pub burst_ratio: f64,
}

impl Loss {
    /// Losses by chance.
    #[must_use]
    pub fn random(percent: f64) -> Self {
        Self { percent, burst_ratio: 1.0 }
    }

    /// `lost` of `expected` packets, in so many bursts.
    #[must_use]
    pub fn counted(lost: u64, expected: u64, bursts: u64) -> Self {
        if lost == 0 || expected == 0 {
            return Self::random(0.0);
        }
        let part = (lost as f64 / expected as f64).min(1.0);
        let burst_ratio = lost as f64 / bursts.max(1) as f64 * (1.0 - part);
        Self { percent: 100.0 * part, burst_ratio }
    }
}

/// The mean opinion score, 1 to 4.5, of a codec under loss, and of the one-way delay from mouth to ear.
#[must_use]
pub fn mos(codec: Codec, loss: Loss, delay_ms: f64) -> f64 {
    let rating = (DEFAULT_RATING - equipment(codec, loss) - delay(delay_ms)).clamp(0.0, 100.0);
    // G.107 Annex B. Below 6.5 the polynomial falls under the worst score.
    if rating <= 6.5 {
        1.0
    } else {
        1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6
    }
}

/// Effective equipment impairment Ie,eff: of codecs that impair nothing by themselves, with their robustness Bpl and
/// concealment. G.113 has a figure for G.711 only; wideband codecs are rated on the narrow-band scale, G.722 as
/// robust as G.711, and Opus somewhat more.
fn equipment(codec: Codec, loss: Loss) -> f64 {
    let robustness = match codec {
        Codec::Pcmu | Codec::Pcma | Codec::G722 => 25.1,
        Codec::Opus => 30.0,
    };
    let percent = loss.percent.clamp(0.0, 100.0);
    95.0 * percent / (percent / loss.burst_ratio.clamp(*BURST_RATIO.start(), *BURST_RATIO.end()) + robustness)
}

/// Delay impairment Id: of talker echo, of listener echo, and of the delay itself (G.107 7.4).
fn delay(ms: f64) -> f64 {
    let ms = ms.max(0.0);
    let hypotenuse = |half: f64| half + half.hypot(10.0);
    let loudness =
        TELR - 40.0 * ((1.0 + ms / 10.0) / (1.0 + ms / 150.0)).log10() + 6.0 * (-0.3 * ms * ms).exp();
    let echo = 80.0 + 2.5 * (loudness - 14.0);
    let talker = (hypotenuse((RO - echo) / 2.0) - 1.0) * (1.0 - (-ms).exp());
    let listener =
        |round_trip: f64| hypotenuse((RO - 10.5 * (WEPL + 7.0) * (round_trip + 1.0).powf(-0.25)) / 2.0);
    let absolute = if ms <= 100.0 {
        0.0
    } else {
        let x = (ms / 100.0).log2();
        25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
    };
    // What the default rating holds of listener echo already is not taken twice.
    talker + listener(2.0 * ms) - listener(0.0) + absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) {
        assert!((value - wanted).abs() < 0.02, "{value} {wanted}");
    }

    #[test]
    fn scores_are_those_of_the_e_model() {
        let score = |loss: f64, delay: f64| mos(Codec::Pcmu, Loss::random(loss), delay);
        near(score(0.0, 0.0), 4.41);
        near(score(1.0, 0.0), 4.32);
        near(score(10.0, 0.0), 3.42);
        near(score(100.0, 0.0), 1.18);
        near(score(100.0, 400.0), 1.0);
        near(score(0.0, 150.0), 4.34);
        near(score(0.0, 300.0), 3.73);
        near(score(0.0, 400.0), 3.23);
    }

    /// Bursts count, more than chance only, and as far as the model goes.
    #[test]
    fn losses_in_bursts_are_worse_than_as_many_by_chance() {
        let score = |ratio: f64| mos(Codec::Pcmu, Loss { percent: 10.0, burst_ratio: ratio }, 0.0);
        near(score(1.0), 3.42);
        near(score(2.0), 3.17);
        near(score(0.9), score(1.0));
        near(score(100.0), score(8.0));
    }

    #[test]
    fn the_burst_ratio_is_the_mean_burst_against_chance() {
        // 100 of 1,000 lost: by chance bursts are 1/0.9 long.
        near(Loss::counted(100, 1_000, 90).burst_ratio, 1.0);
        near(Loss::counted(100, 1_000, 90).percent, 10.0);
        near(Loss::counted(100, 1_000, 30).burst_ratio, 3.0);
        assert_eq!(Loss::counted(0, 1_000, 0), Loss::random(0.0));
        assert_eq!(Loss::counted(0, 0, 0), Loss::random(0.0));
        assert_eq!(Loss::counted(9, 9, 0), Loss { percent: 100.0, burst_ratio: 0.0 });
    }
}
