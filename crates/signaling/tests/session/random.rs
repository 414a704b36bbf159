//! Any messages, in any order, at any time.

use proptest::prelude::*;

use crate::sequence::{self, Step};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..14_u8, 0..6_u32, 0..5_u8, any::<bool>(), 0..3_u8, 0..9_u8)
            .prop_map(|(m, c, b, o, f, r)| Step::Request(m, c, b, o, f, r)),
        4 => (any::<u8>(), 100..700_u16, 0..4_u8, 0..9_u8).prop_map(|(n, s, t, r)| Step::Response(n, s, t, r)),
        2 => (0..14_u8).prop_map(Step::Command),
        2 => prop_oneof![0..300_u32, 0..40_000_u32].prop_map(Step::Wait),
        1 => Just(Step::TransportError),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_hurts(
        calls in any::<bool>(),
        stream in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        sequence::run(calls, stream, &steps);
    }
}

/// Found by the fuzz target: one INVITE in an early dialog, then another, and neither was ever answered.
#[test]
fn invites_before_the_answer_are_all_answered() {
    let early = Step::Response(0, 183, 0, 5);
    let reinvite = |cseq, branch| Step::Request(0, cseq, branch, true, 0, 0);
    sequence::run(true, true, &[early, reinvite(0, 0), reinvite(1, 1)]);
}
