//! Thousands of calls over bad networks: whatever is lost, repeated or reordered, each side learns exactly once that
//! the call is over, and nothing stays behind.

use signaling::{EndCause, Event, Reason, Refusal, StatusCode, Transport};

use crate::link::{A, B, Link, Rng, Side, Weather, sdp};

const CALLS: u64 = 2_000;
/// By then the call is ended from outside, as a gateway does when no media comes.
const LIMIT: f64 = 100.0;

fn stormy(seed: u64, rng: &mut Rng) -> Link {
    let weather = Weather {
        loss: 5 + rng.below(26),
        repeat: rng.below(20),
        delay: 1 + rng.below(200),
        jitter: 1 + rng.below(800),
    };
    let transport = Transport::Udp;
    let mut link = Link::call_in(seed, weather, transport);
    let at = |rng: &mut Rng, limit: u64| rng.below(limit * 1_000) as f64 / 1_000.0;
    if rng.percent(70) {
        link.tell(at(rng, 3), B, |b, now| {
            b.ring(now);
        });
    }
    match rng.below(10) {
        0 => {}
        1 | 2 => link.tell(at(rng, 20), B, |b, now| {
            b.refuse(Refusal::new(StatusCode(486)), now);
        }),
        _ => {
            // More than once: the INVITE may come late.
            for _ in 0..3 {
                link.tell(at(rng, 10), B, |b, now| {
                    b.answer(sdp("v=0 answer"), now);
                });
            }
        }
    }
    for side in [A, B] {
        for _ in 0..rng.below(3) {
            link.tell(5.0 + at(rng, 30), side, |session, now| {
                session.offer(sdp("v=0 again"), now);
            });
        }
        // Offers are answered in time, or refused, or sometimes not at all.
        let answers = rng.percent(90);
        for step in 0..200 {
            let refuses = rng.percent(20);
            link.tell(f64::from(step) * 0.5 + 0.1, side, move |session, now| {
                if refuses && answers {
                    session.refuse_offer(Refusal::new(StatusCode(488)), now);
                } else if answers {
                    session.answer_offer(sdp("v=0 new"), now);
                }
            });
        }
        if rng.percent(60) {
            let reason = Reason { protocol: "Q.850".to_owned(), cause: 16, text: None };
            link.tell(at(rng, 60), side, move |session, now| {
                session.hang_up(Some(reason), now);
            });
        }
        for again in [LIMIT, LIMIT + 40.0] {
            link.tell(again, side, |session, now| {
                session.hang_up(None, now);
            });
        }
    }
    link
}

fn ends(link: &Link, side: Side) -> usize {
    link.of(side).into_iter().filter(|event| matches!(event, Event::Ended(_))).count()
}

#[test]
fn every_call_ends_once_on_both_sides_and_leaves_nothing() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..CALLS {
        let mut rng = Rng::new(seed ^ 0xCA11);
        let mut link = stormy(seed, &mut rng);
        let ladder = link.finish();
        let called = ladder.contains("B: ");
        assert_eq!(ends(&link, A), 1, "seed {seed}:\n{ladder}");
        assert_eq!(ends(&link, B), usize::from(called), "seed {seed}:\n{ladder}");
        // The end is the last that either hears.
        for side in [A, B] {
            let last = link.of(side).last().is_none_or(|event| matches!(event, Event::Ended(_)));
            assert!(last, "seed {seed}:\n{ladder}");
        }
        // B learns of the ACK only of a caller that was answered.
        let confirmed = link.of(B).iter().any(|e| matches!(e, Event::Confirmed { .. }));
        let answered = link.of(A).iter().any(|e| matches!(e, Event::Answered { .. }));
        let crossed = link.ended(A).cause == EndCause::CancelledByUs;
        assert!(!confirmed || answered || crossed, "seed {seed}:\n{ladder}");
        *seen.entry(format!("{:?}", link.ended(A).cause)).or_insert(0_u32) += 1;
    }
    // The sweep would prove little if all calls went the same way.
    for cause in ["ByeFromUs", "ByeFromPeer", "CancelledByUs", "RefusedByPeer"] {
        assert!(seen.get(cause).is_some_and(|n| *n > 50), "{seen:?}");
    }
}
