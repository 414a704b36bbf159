//! Transaction sequences: any messages, commands, waits and transport errors in any order. The driver and what must
//! hold are those of the session tests.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/signaling/tests/session/link.rs"]
mod link;
#[path = "../../crates/signaling/tests/session/sequence.rs"]
mod sequence;

/// Steps of one run.
const MAX_STEPS: usize = 80;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let Some(first) = bytes.next() else { return };
    let steps: Vec<_> = std::iter::from_fn(|| sequence::Step::read(&mut bytes)).take(MAX_STEPS).collect();
    sequence::run(first & 1 == 1, first & 2 == 2, &steps);
});
