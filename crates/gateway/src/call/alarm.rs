//! When a call is to get up for its next deadline.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// Where the alarm stands before there is a deadline.
const FAR: Duration = Duration::from_secs(3_600);

/// Goes off at a deadline, or before: one that comes to be later is waited for once the earlier one has gone off, as
/// setting the alarm anew each time costs more than getting up for nothing.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    is_set: bool,
}

impl Alarm {
    pub(super) fn new(now: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until((now + FAR).into())), is_set: false }
    }

    /// The next deadline, when there is one.
    pub(super) fn set(&mut self, due: Option<Instant>) {
        self.is_set = due.is_some();
        let due = due.map(tokio::time::Instant::from);
        if let Some(due) = due.filter(|due| *due < self.sleep.deadline() || self.sleep.is_elapsed()) {
            self.sleep.as_mut().reset(due);
        }
    }

    /// Waits until it goes off; for ever without a deadline.
    pub(super) async fn goes_off(&mut self) {
        if self.is_set {
            self.sleep.as_mut().await;
        } else {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how long it goes off for good, and how often before that, when a deadline is set each time.
    async fn rings(deadlines: &[Option<Duration>], last: Duration) -> (Duration, u32) {
        let begun = tokio::time::Instant::now();
        let mut alarm = Alarm::new(begun.into_std());
        for due in deadlines {
            alarm.set(due.map(|due| (begun + due).into_std()));
        }
        let mut early = 0;
        loop {
            alarm.set(Some((begun + last).into_std()));
            alarm.goes_off().await;
            if begun.elapsed() >= last {
                return (begun.elapsed(), early);
            }
            early += 1;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_deadline_is_missed_wherever_it_moves() {
        let half = SECOND / 2;
        // Later, earlier, gone and back, and beyond where it stood at first.
        for (before, last, early) in [
            (&[][..], SECOND, 0),
            (&[Some(SECOND)], 2 * SECOND, 1),
            (&[Some(SECOND)], half, 0),
            (&[Some(half), None], SECOND, 1),
            (&[None], FAR + SECOND, 1),
        ] {
            let (after, times) = rings(before, last).await;
            assert!(
                after >= last && after < last + Duration::from_millis(2),
                "{before:?} {last:?}: {after:?}"
            );
            assert_eq!(times, early, "{before:?} {last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_it_never_goes_off() {
        let mut alarm = Alarm::new(Instant::now());
        alarm.set(Some(Instant::now() + SECOND));
        alarm.set(None);
        assert!(tokio::time::timeout(2 * FAR, alarm.goes_off()).await.is_err());
    }
}
